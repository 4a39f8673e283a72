"""From the frames of a clip and its spike stream to how they go together, with the uncertainty of everything.

    found = align(read_frame, count, stream)
    found.time.told, found.model.begin(0), found.space.told, found.homography, found.brightness.threshold

Coarse to fine: thumbnails at all likely scales, angles and clocks (`search.py`), then least squares of everything at
once (`refine.py`) on the first frames, then on frames farther and farther apart, which pins the clock down.
What the recordings do not determine is not told: `Verdict.why` says what to record instead.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from data.spike.alignment.brightness import Brightness, measure_brightness
from data.spike.alignment.charge import Charge, Stream
from data.spike.alignment.frames_view import View
from data.spike.alignment.geometry import farthest, from_pixels, plain_scale
from data.spike.alignment.refine import (
    BLUR,
    CENTER,
    EXPOSURE,
    PARAMETERS,
    PERIOD,
    SPACE,
    Equations,
    Model,
    Refinement,
    deviations,
)
from data.spike.alignment.search import FRAMES_BEFORE, THUMB, Search
from utils.user_error import UserError

SIDE = 160  # pixels at which everything is measured, at most
FINE = 64  # pixels above which half the size is enough
FIRST_FRAMES = 12  # that the search looks at
STEPS_PER_FRAME = 64  # times per RGB frame at which the charge is kept, at least
SHORTEST_STREAM = 8  # spike frames
GUESSES = 6  # of the search that are refined
CURVE_POINTS = 41
CLEARLY = 1.15  # times the best guess's residual that another clock's has to have
MOVING = 1.2  # times the residual that a clock off by a quarter of a period has to have, or nothing moves
LIKENESS = 0.7  # least correlation of frames and predicted frames
LEAST_VALID = 0.15  # of the frames' pixels that are neither black nor white
TIME_TOLD = 0.1  # of a period: a clock that is less certain is not told
SPACE_TOLD = 2.0  # spike pixels
NEAR = 3.0  # spike pixels between a homography and the plain scale of cameras that share a lens, which then is tried
FEW = 3  # frames below which leaving one out tells no uncertainty
ENOUGH_FOR_FEW = 2.0
ENOUGH = 1.15  # times a free homography's residual that the plain scale may leave: it has 8 parameters fewer
SAFETY = 5.0  # times the standard errors: the spikes' time is smeared by their intervals, which these do not know
LEAST_CENTER_ERROR, LEAST_EXPOSURE_ERROR = 0.25, 0.2  # spike frames; share of a period
LEAST_PLACE_ERROR = 0.25  # spike pixels
# Times the errors of place: corners move more than sides, and the entries' errors are correlated. Without it 4 of 40
# simulated rigs were 2 to 8 pixels off at a corner and said to be within 2.
PLACE_SAFETY = 2.0
UNLIKE = "frames and spikes are not alike: is it the same scene at the same time?"
LIVELY = "a scene that changes all the time, such as a hand that is waved"

ReadFrame = Callable[[int], np.ndarray]
"""A frame by its number, (H,W,3) uint8 RGB."""


@dataclass(frozen=True)
class Verdict:
    """Whether something can be told; `why` says what is missing, and what to record instead."""

    told: bool
    why: str = ""


@dataclass(frozen=True)
class Found:
    """An alignment.

    Attributes:
        model: the clock; its homography is of the size at which it was found.
        errors: uncertainty of center, period, exposure in spike frames, and of the homography in spike pixels.
        time, space: verdicts.
        brightness: threshold and gains; None where neither time nor space can be told.
        inverted: the frames are bright where the stream fires least.
        shared_lens: the homography is the plain scale of the pictures' sizes.
        homography: (3,3) in pixels.
        correlation: of the frames with what the spikes predict.
        curve: offsets in spike frames and the correlation there.
        frames: numbers of the frames that were compared, and the correlation of each.
    """

    model: Model
    errors: dict[str, float]
    time: Verdict
    space: Verdict
    brightness: Brightness | None
    inverted: bool
    shared_lens: bool
    homography: np.ndarray
    correlation: float
    curve: tuple[np.ndarray, np.ndarray]
    frames: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Clip:
    """Frames and stream at the size at which they are compared."""

    read_frame: ReadFrame
    count: int
    stream: Stream
    frame_size: tuple[int, int]

    @property
    def spike_size(self) -> tuple[int, int]:
        return self.stream.spike_h, self.stream.spike_w

    def view(self, indices: np.ndarray, charge: Charge, linear: bool = False) -> View:
        """Frames at a size at which their pixels are about as wide as the charge's at scale 1."""
        factor = max(1.0, self.frame_size[1] / charge.size[1])
        size = round(self.frame_size[0] / factor), round(self.frame_size[1] / factor)
        return View.of(np.stack([self.read_frame(int(k)) for k in indices]), [*map(int, indices)], size, linear)


def align(
    read_frame: ReadFrame,
    count: int,
    stream: Stream,
    *,
    period: float | None = None,
    reach: float = FRAMES_BEFORE,
) -> Found:
    """Aligns a clip of `count` frames with a stream.

    Args:
        period: spike frames per RGB frame where it is known; None: about the stream's length over `count`.
        reach: RGB frames by which either recording may begin before the other.

    Raises:
        UserError: too short to compare.
    """
    frame = read_frame(0)
    clip = _Clip(read_frame, count, stream, (frame.shape[0], frame.shape[1]))
    if len(stream) < SHORTEST_STREAM:
        raise UserError(f"{len(stream)} spike frames are too few to be aligned; {SHORTEST_STREAM} or more are needed")
    periods = _likely_periods(count, len(stream), period)
    first = np.arange(min(count, FIRST_FRAMES))
    last = min(len(stream), math.ceil((len(first) + reach) * periods[1]))
    step = max(1, int(math.sqrt(periods[0] * periods[1]) / STEPS_PER_FRAME))
    charge = Charge.read(stream, SIDE, 0, last, step)
    view = clip.view(first, charge)
    if view.valid.mean() < LEAST_VALID:
        lost = 100 * (1 - view.valid.mean())
        return _untold(clip, f"{lost:.0f}% of the frames is black or white: record with other light or exposure")
    free = np.ones(PARAMETERS, bool)
    free[PERIOD] = count > 1
    guesses = _refined_guesses(charge, view, periods, reach, free)
    if not guesses:
        return _untold(clip, UNLIKE)
    fit = _fine(clip, charge, view, guesses[0], free)
    doubt = ""
    if _is_ambiguous([equations for equations, _ in guesses]):
        doubt = "two clocks explain the frames"
    elif not _moves(fit):
        doubt = "hardly anything moves"
    else:
        fit = _extended(clip, fit, step)
    return _judged(clip, _parsimonious(clip, fit), doubt)


@dataclass(frozen=True)
class _Fit:
    """A solution, what it was found with, the kind of light, and whether its homography is the plain scale."""

    equations: Equations
    refinement: Refinement
    linear: bool
    shared_lens: bool = False


def _likely_periods(count: int, length: int, period: float | None) -> tuple[float, float]:
    """The shortest and the longest period that the search tries."""
    if period is not None:
        return 0.99 * period, 1.01 * period  # cameras' clocks differ
    if count == 1:
        return float(length), float(length)
    # Both recordings lasted about as long, within two frames.
    return length / (count + 2), length / max(1, count - 2)


def _refined_guesses(
    charge: Charge, view: View, periods: tuple[float, float], reach: float, free: np.ndarray
) -> list[tuple[Equations, Refinement]]:
    """Similarities refined on thumbnails from the search's guesses, the best first."""
    factor = max(1, round(max(charge.size) / THUMB))
    small, thumbs = charge.shrunk(factor), view.shrunk(factor)
    similar = free.copy()
    similar[SPACE.start + 6 : SPACE.stop] = False  # perspective
    similar[BLUR] = False
    refinement = Refinement([small], thumbs, similar)
    middle = float(view.indices.mean())
    found = []
    for guess in Search(small, thumbs, periods, reach).best(GUESSES):
        center = guess.begin + guess.exposure / 2
        model = Model(center, guess.period, guess.exposure, 1.0, guess.homography, 0.0).around(middle)
        equations = refinement.solve(refinement.scaled(model), 12)
        if equations.pixels.any():
            found.append((equations, refinement))
    # A few frames are explained more easily than many.
    found.sort(key=lambda part: part[0].cost / (part[0].pixels > 0).sum() ** 0.2)
    return found


def _is_ambiguous(guesses: list[Equations]) -> bool:
    """Whether another clock explains the frames about as well as the best one."""
    best = guesses[0].model
    return any(
        other.cost < CLEARLY * guesses[0].cost
        and abs(other.model.around(best.middle).center - best.center) > best.period / 4
        for other in guesses[1:]
    )


def _fine(clip: _Clip, charge: Charge, view: View, guess: tuple[Equations, Refinement], free: np.ndarray) -> _Fit:
    """The homography, in the kind of light in which the frames fit the spikes better."""
    factor = 2 if max(charge.size) > FINE else 1
    small, middle = charge.shrunk(factor), view.shrunk(factor)
    refinement = Refinement([small], middle, free)
    stored = refinement.solve(refinement.adopt(guess[0].model, guess[1]), 10)
    light = clip.view(view.indices, charge, linear=True).shrunk(factor)
    other = Refinement([small], light, free)
    linear = other.solve(other.scaled(stored.model), 6)
    return _Fit(linear, other, True) if linear.cost < stored.cost else _Fit(stored, refinement, False)


def _moves(fit: _Fit) -> bool:
    """Whether a clock that is off by a quarter of a period fits clearly worse, either way."""
    refinement, model = fit.refinement, fit.equations.model
    for share in (-0.25, 0.25):
        step = np.zeros(PARAMETERS)
        step[CENTER] = share * model.period
        moved = refinement.equations(refinement.scaled(model.moved(step)))
        if moved.pixels.any() and moved.cost < MOVING * fit.equations.cost:
            return False
    return True


def _extended(clip: _Clip, fit: _Fit, step: int) -> _Fit:
    """The same with frames from all over a long clip: each time from twice as far, as the clock is known so far."""
    reached = FIRST_FRAMES
    while reached < clip.count:
        reached = min(2 * reached, clip.count)
        model = fit.equations.model
        indices = np.unique(np.linspace(0, reached - 1, FIRST_FRAMES).round().astype(int))
        charges, inside = [], []
        for index in indices:
            begin = math.floor(model.begin(float(index)) - model.period / 2)
            end = math.ceil(model.begin(float(index)) + 1.5 * model.period)
            begin, end = max(begin, 0), min(end, len(clip.stream))
            if end - begin > model.period:
                charges.append(Charge.read(clip.stream, max(fit.refinement.size), begin, end, step))
                inside.append(index)
        view = clip.view(np.array(inside), charges[0], fit.linear)
        refinement = Refinement(charges, view, fit.refinement.free)
        model = refinement.adopt(model.around(float(np.mean(inside))), fit.refinement)
        fit = _Fit(refinement.solve(model, 8), refinement, fit.linear)
    return fit


def _parsimonious(clip: _Clip, fit: _Fit) -> _Fit:
    """With the plain scale of cameras that share a lens, if that explains the frames about as well.

    A free homography could shift the picture where the clock should be shifted: under a steady pan both look the same.
    """
    (height, width), (spike_h, spike_w) = clip.frame_size, clip.spike_size
    source, model = fit.refinement, fit.equations.model
    plain = plain_scale(clip.frame_size, clip.spike_size)
    if height * spike_w != width * spike_h or farthest(source.in_pixels(model), plain, clip.frame_size) > NEAR:
        return fit
    free = source.free.copy()
    free[SPACE] = False
    refinement = Refinement(source.charges, source.view, free)
    homography = from_pixels(plain, source.view.covered, source.charges[0].covered)
    equations = refinement.solve(replace(model, homography=homography), 10)
    # Of a frame or two, a free homography explains too much: a shift passes for a later exposure.
    enough = ENOUGH_FOR_FEW if (fit.equations.pixels > 0).sum() < FEW else ENOUGH
    return _Fit(equations, refinement, fit.linear, True) if equations.cost < enough * fit.equations.cost else fit


def _judged(clip: _Clip, fit: _Fit, doubt: str) -> Found:
    """Uncertainties, verdicts, brightness.

    Args:
        doubt: why the clock cannot be told; "" where it can.
    """
    found, refinement = fit.equations, fit.refinement
    model = found.model
    by_variance, by_frames = deviations(found, refinement.free)
    has_few_frames = (found.pixels > 0).sum() < FEW
    error = SAFETY * (by_variance if has_few_frames else np.maximum(by_variance, by_frames))
    errors = {
        "center": float(error[CENTER]) + LEAST_CENTER_ERROR,
        "period": float(error[PERIOD]),
        "exposure": float(error[EXPOSURE]) + LEAST_EXPOSURE_ERROR * model.period,
        # What the entries' errors move at the picture's side, added as if they were independent.
        "homography": PLACE_SAFETY * float(np.sqrt((error[SPACE] ** 2).sum()) * clip.spike_size[1] / 2)
        + LEAST_PLACE_ERROR,
    }
    alike = found.correlation >= LIKENESS
    told = alike and model.gain > 0
    space = time = Verdict(False, f"{UNLIKE} (correlation {found.correlation:.2f})")
    if told:
        space = time = Verdict(True)
        if errors["homography"] > SPACE_TOLD:
            space = Verdict(False, "too little texture: record a scene with detail all over the picture")
        if has_few_frames and not fit.shared_lens:
            doubt = "a clip of a frame or two does not tell time from place"
        if doubt or errors["center"] > TIME_TOLD * model.period:
            time = Verdict(False, f"{doubt or 'hardly anything moves'}: record {LIVELY}")
    used = found.pixels > 0
    correlations = np.sqrt(np.maximum(0, 1 - found.residual / np.maximum(found.energy, 1e-12)))
    return Found(
        model=model,
        errors=errors,
        time=time,
        space=space,
        brightness=measure_brightness(clip.read_frame, refinement, model, fit.linear) if told else None,
        inverted=alike and model.gain < 0,
        shared_lens=fit.shared_lens,
        homography=refinement.in_pixels(model),
        correlation=found.correlation,
        curve=_curve(fit),
        frames=(refinement.view.indices[used], correlations[used]),
    )


def _curve(fit: _Fit) -> tuple[np.ndarray, np.ndarray]:
    """Correlation under shifted clocks, half a period either way, of the frames that the stream always covers."""
    model, source = fit.equations.model, fit.refinement
    charges = source.charges
    reach = model.period / 2
    kept = [
        number
        for number, index in enumerate(source.view.indices)
        if any(
            part.begin <= model.begin(index) - reach and model.begin(index) + model.exposure + reach <= part.end
            for part in charges
        )
    ]
    if not kept:
        return np.zeros(0), np.zeros(0)
    refinement = Refinement(charges, source.view.chosen(kept), source.free)
    offsets = np.linspace(-0.5, 0.5, CURVE_POINTS) * model.period * (1 - 1e-6)
    values = []
    for offset in offsets:
        step = np.zeros(PARAMETERS)
        step[CENTER] = offset
        values.append(refinement.equations(refinement.scaled(model.moved(step))).correlation)
    return offsets, np.array(values)


def _untold(clip: _Clip, why: str) -> Found:
    """Nothing can be told."""
    period = len(clip.stream) / clip.count
    model = Model(period / 2, period, period, 1.0, np.eye(3), 0.0)
    infinite = dict.fromkeys(("center", "period", "exposure", "homography"), math.inf)
    empty, no = (np.zeros(0), np.zeros(0)), Verdict(False, why)
    plain = plain_scale(clip.frame_size, clip.spike_size)
    return Found(model, infinite, no, no, None, False, False, plain, 0.0, empty, empty)
