"""Least squares for all that an alignment knows at once: clock, homography, gain.

A frame k shows, at its pixel p, what the spikes saw while it was exposed:

    B_k(p) = gain * (M + blur * Laplacian of M)(G p) + plane_k(p)
    M      = mean of the rate over [c_k - E/2, c_k + E/2),      c_k = center + (k - middle) period

`blur` takes up that one lens is sharper than the other, which would pass for a longer or shorter exposure. The plane
of each frame (three numbers: brightness and its slope) takes up dark current, flicker and a lens's shading; it is
projected out. Gauss-Newton steps with Levenberg's damping, Huber's weights against what only one camera sees
(hot pixels, parallax). The parameters' covariance comes from the normal equations: by the residual's variance, and by
leaving out each frame in turn (jackknife), which does not believe that residuals are independent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from data.spike.alignment.charge import Charge
from data.spike.alignment.frames_view import View
from data.spike.alignment.geometry import from_pixels, grid, in_pixels, project

CENTER, PERIOD, EXPOSURE, GAIN = range(4)
SPACE = slice(4, 12)  # the homography's first eight entries, row by row
BLUR = 12
PARAMETERS = 13
SMOOTHING = 0.8  # pixels; both pictures are smoothed so, which makes different lenses alike and derivatives quiet
HUBER = 2.5  # of the residuals' robust standard deviation
BORDER = 1.5  # pixels from the spike picture's edge that are not compared
LEAST_SHARE = 0.08  # of a frame's pixels that have to be seen by both cameras
MOST_BLUR = 0.4  # beyond, the expansion to the Laplacian no longer holds
SHORTEST, LEAST_EXPOSED = 2.0, 0.05  # spike frames and share of a period that an exposure lasts, at least


@dataclass(frozen=True)
class Model:
    """An alignment as numbers.

    Attributes:
        center: spike frame of the middle of the exposure of frame `middle`.
        period, exposure: spike frames.
        gain: frame gray per firing rate.
        blur: half the variance by which the frames' lens is softer than the spikes', in square pixels of the spikes.
        homography: (3,3), see `geometry.py`.
        middle: frame number that the center belongs to; need not be whole.
    """

    center: float
    period: float
    exposure: float
    gain: float
    homography: np.ndarray
    middle: float
    blur: float = 0.0

    def begin(self, frame: float) -> float:
        """Spike frame at which a frame's exposure begins."""
        return self.center + (frame - self.middle) * self.period - self.exposure / 2

    def around(self, middle: float) -> "Model":
        """The same, with the center of another frame."""
        return replace(self, center=self.center + (middle - self.middle) * self.period, middle=middle)

    def moved(self, step: np.ndarray) -> "Model":
        """With a step (PARAMETERS,) added."""
        homography = self.homography.copy()
        homography.flat[:8] += step[SPACE]
        exposure = float(
            np.clip(self.exposure + step[EXPOSURE], max(SHORTEST, LEAST_EXPOSED * self.period), self.period)
        )
        return replace(
            self,
            center=self.center + step[CENTER],
            period=self.period + step[PERIOD],
            exposure=exposure,
            gain=self.gain + step[GAIN],
            homography=homography,
            blur=float(np.clip(self.blur + step[BLUR], -MOST_BLUR, MOST_BLUR)),
        )


@dataclass(frozen=True)
class Equations:
    """The normal equations at a model.

    Attributes:
        model: where.
        cost: sum of the residuals' weighted squares, as a share of the frames' own.
        matrices, vectors: (K,P,P) and (K,P), one for each frame.
        pixels: (K,) that were compared; 0 where the stream does not cover the frame.
        residual, energy: (K,) weighted sums of squares, of residuals and of the frames' own values.
    """

    model: Model
    cost: float
    matrices: np.ndarray
    vectors: np.ndarray
    pixels: np.ndarray
    residual: np.ndarray
    energy: np.ndarray

    @property
    def correlation(self) -> float:
        """Of frames and what the model makes of the spikes."""
        return math.sqrt(max(0.0, 1 - self.cost))


class Refinement:
    """Least squares between one stream and some frames at one size.

    Args:
        charges: parts of the stream, at a size at which their pixels are about as large in the scene as the view's.
        view: the frames.
        free: (PARAMETERS,) bool; the parameters that are fitted.
    """

    def __init__(self, charges: Sequence[Charge], view: View, free: np.ndarray) -> None:
        self.charges, self.view, self.free = charges, view, free
        self.gray = np.stack([cv2.GaussianBlur(gray, (0, 0), SMOOTHING) for gray in view.gray])
        self.u, self.v = (part.astype(np.float32) for part in grid(view.size))
        self.size = height, width = charges[0].size
        self.half = width / 2
        self.offset = (width - 1) / 2, (height - 1) / 2

    def in_pixels(self, model: Model) -> np.ndarray:
        """The model's homography (3,3) from frame pixels to spike pixels."""
        return in_pixels(model.homography, self.view.covered, self.charges[0].covered)

    def adopt(self, model: Model, source: "Refinement") -> Model:
        """A model of another size, whose pictures may cover a pixel more or less of the scene."""
        homography = from_pixels(source.in_pixels(model), self.view.covered, self.charges[0].covered)
        area = (self.size[0] * self.size[1]) / (source.size[0] * source.size[1])
        return replace(model, homography=homography, blur=min(model.blur * area, MOST_BLUR))

    def solve(self, model: Model, steps: int) -> Equations:
        """Fits from a model on, in at most `steps` steps."""
        current = self.equations(model)
        damping = 1e-3
        for _ in range(steps):
            matrix, vector = current.matrices.sum(0), current.vectors.sum(0)
            diagonal = np.diag(matrix).copy()
            free = self.free & (diagonal > 0)
            if not free.any():
                break
            reduced = matrix[np.ix_(free, free)] + damping * np.diag(diagonal[free])
            step = np.zeros(PARAMETERS)
            step[free] = np.linalg.solve(reduced, vector[free])
            # The expansion holds for about a pixel and for a part of an exposure.
            limit = max(
                abs(step[CENTER]) / (0.25 * model.period),
                abs(step[EXPOSURE]) / (0.25 * model.period),
                abs(step[PERIOD]) / (0.05 * model.period),
                float(np.abs(step[SPACE]).max()) * self.half / 3,
                1.0,
            )
            trial = self.equations(current.model.moved(step / limit))
            if trial.cost < current.cost:
                finished = current.cost - trial.cost < 1e-5 * abs(current.cost) and damping <= 1e-3
                current, damping = trial, max(damping / 10, 1e-6)
                if finished:
                    break
            else:
                damping *= 10
                if damping > 1e3:
                    break
        return current

    def scaled(self, model: Model) -> Model:
        """With the gain that fits best."""
        equations = self.equations(model)
        power = equations.matrices[:, GAIN, GAIN].sum()
        return replace(model, gain=model.gain + equations.vectors[:, GAIN].sum() / power) if power > 0 else model

    def equations(self, model: Model) -> Equations:
        """Residuals and derivatives at a model."""
        frames = [self._frame(model, number) for number in range(len(self.view.gray))]
        count = len(frames)
        matrices, vectors = np.zeros((count, PARAMETERS, PARAMETERS)), np.zeros((count, PARAMETERS))
        pixels, squares, energy = np.zeros((3, count))
        compared = [frame.residual for frame in frames if frame is not None]
        if not compared:
            return Equations(model, 1.0, matrices, vectors, pixels, squares, energy)
        deviation = 1.4826 * float(np.median(np.abs(np.concatenate(compared)))) + 1e-6
        for number, frame in enumerate(frames):
            if frame is None:
                continue
            weight = np.minimum(1, HUBER * deviation / np.maximum(np.abs(frame.residual), 1e-9))
            weighted = frame.derivatives * weight
            matrices[number] = weighted @ frame.derivatives.T
            vectors[number] = weighted @ frame.residual
            pixels[number] = len(weight)
            squares[number] = (weight * frame.residual) @ frame.residual
            energy[number] = (weight * frame.shown) @ frame.shown
        cost = squares.sum() / max(energy.sum(), 1e-12)
        return Equations(model, float(cost), matrices, vectors, pixels, squares, energy)

    def _frame(self, model: Model, number: int) -> "_Frame | None":
        """One frame's part; None where the stream does not cover the exposure, or the cameras hardly share a view."""
        frame = float(self.view.indices[number])
        begin = model.begin(frame)
        end = begin + model.exposure
        charge = next((part for part in self.charges if part.begin <= begin and end <= part.end), None)
        if charge is None:
            return None
        x, y, weight = project(model.homography, self.u, self.v)
        column = (x * self.half + self.offset[0]).astype(np.float32)
        row = (y * self.half + self.offset[1]).astype(np.float32)
        height, width = self.size
        inside = (column > BORDER) & (column < width - 1 - BORDER) & (row > BORDER) & (row < height - 1 - BORDER)
        inside &= self.view.valid[number] & (weight > 0)
        if inside.sum() < LEAST_SHARE * inside.size:
            return None

        reach = max(1.0, model.exposure / 8)
        at_begin, at_end = (
            charge.mean(max(charge.begin, time - reach), min(charge.end, time + reach)) for time in (begin, end)
        )
        # How the mean changes with the exposure's middle, and with its length.
        rates = [charge.mean(begin, end), at_end - at_begin, (at_end + at_begin) / 2]
        u, v = self.u[inside], self.v[inside]
        basis = np.linalg.qr(np.stack([np.ones_like(u), u, v], 1).astype(np.float64))[0]
        shown = self.gray[number][inside].astype(np.float64)
        shown -= basis @ (basis.T @ shown)
        planes = self._planes(rates, model)
        warped = np.stack([cv2.remap(plane, column, row, cv2.INTER_LINEAR)[inside] for plane in planes])  # (6,n)
        scale = np.float32(model.gain * self.half) / weight[inside]
        along, across = warped[1] * scale, warped[2] * scale
        tilt = -(along * x[inside] + across * y[inside])
        rows = np.empty((PARAMETERS, len(u)), np.float32)
        rows[CENTER] = warped[3] * np.float32(model.gain / model.exposure)
        rows[PERIOD] = rows[CENTER] * np.float32(frame - model.middle)
        rows[EXPOSURE] = (warped[4] - warped[0]) * np.float32(model.gain / model.exposure)
        rows[GAIN] = warped[0] + np.float32(model.blur) * warped[5]
        rows[SPACE] = along * u, along * v, along, across * u, across * v, across, tilt * u, tilt * v
        rows[BLUR] = np.float32(model.gain) * warped[5]
        derivatives = rows.astype(np.float64)
        derivatives -= (derivatives @ basis) @ basis.T
        return _Frame(shown - model.gain * derivatives[GAIN], derivatives, shown)

    def _planes(self, rates: Sequence[np.ndarray], model: Model) -> list[np.ndarray]:
        """Smoothed spike pictures (h,w): mean, its slopes right and down, change and mean at the ends, Laplacian."""
        a, b, c, d = model.homography[:2, :2].ravel()
        per_frame_pixel = math.sqrt(abs(a * d - b * c)) * self.size[1] / self.view.size[1]
        sigma = SMOOTHING * per_frame_pixel  # the same width in the scene as the frames'
        mean, change, ends = (cv2.GaussianBlur(rate, (0, 0), sigma) for rate in rates)
        right, down = (cv2.Sobel(mean, cv2.CV_32F, dx, 1 - dx, scale=1 / 8) for dx in (1, 0))
        return [mean, right, down, change, ends, cv2.Laplacian(mean, cv2.CV_32F)]


@dataclass(frozen=True)
class _Frame:
    """A frame's residual (n,), derivatives (PARAMETERS,n) and own values (n,); planes are projected out."""

    residual: np.ndarray
    derivatives: np.ndarray
    shown: np.ndarray


def deviations(equations: Equations, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors (PARAMETERS,) of the parameters: by the residual's variance, and by the jackknife over frames.

    Parameters that are not free, or that nothing depends on, have the error 0 and infinity.
    """
    used = equations.pixels > 0
    matrix = equations.matrices.sum(0)
    known = free & (np.diag(matrix) > 0)
    by_variance, by_frames = np.zeros(PARAMETERS), np.zeros(PARAMETERS)
    by_variance[free & ~known] = by_frames[free & ~known] = np.inf
    index = np.ix_(known, known)
    inverse = np.linalg.pinv(matrix[index])
    freedom = max(1.0, equations.pixels.sum() - known.sum() - 3 * used.sum())
    by_variance[known] = np.sqrt(np.maximum(np.diag(inverse), 0) * equations.residual.sum() / freedom)
    count = int(used.sum())
    if count < 3:
        by_frames[known] = np.inf
        return by_variance, by_frames
    steps = []
    for number in np.flatnonzero(used):
        rest = (matrix - equations.matrices[number])[index]
        steps.append(
            np.linalg.lstsq(rest, (equations.vectors.sum(0) - equations.vectors[number])[known], rcond=None)[0]
        )
    spread = np.array(steps) - np.mean(steps, axis=0)
    by_frames[known] = np.sqrt((count - 1) / count * (spread**2).sum(0))
    return by_variance, by_frames
