"""Training samples generated without end, for networks that compute the picture at the middle of some spike frames.

    "dataset_type": "SpikeSyntheticDataset", "window": 241, "num_frame": 2, "gt_size": 96

Each sample is another scene (`data/spike/simulation/`), without files or downloads; all of it may be redistributed. A
sample's `num_frame` pictures are instants of one stream. The stream may have fewer than `window` frames: those outside
it have the value MISSING (`utils/spike_windows.py`).
Test: `python -m pytest tests/data/test_dataset_spike_synthetic.py`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from data.sampler import SampleIndex, sample_rng
from data.spike.simulation.canvas import Canvases
from data.spike.simulation.draws import drawn_noise, log_uniform
from data.spike.simulation.exposures import LUMA, STEP, fire, interpolation
from data.spike.simulation.layered_scene import LayeredScene
from data.spike.simulation.noise import SensorNoise
from data.spike.sync import GOPRO_SPIKES_PER_FRAME
from utils.spike_windows import light_window
from utils.utils_registry import DATASETS, Faults, least_faults, raise_faults, range_faults

CANVAS_SIDE = 288  # pixels; three times the default gt_size, for the largest of SCALES
SCALES, BLURS = (1.3, 2.8), (0.05, 0.4)
"""As sharp as the pictures of data sets, which are downsampled to the sensor's size."""
SHORTEST = 48  # spike frames of a stream: the GoPro set's shortest exposures
MEMORY = 90  # useful spike frames at threshold 1; they increase with the square root of threshold over light
LEAST_CHARGE = 1 / 16  # of the threshold: least spread of initial charges; keeping every k-th spike is a spread of 1/k
TINY = 1e-3  # pixels: for OpenCV, a sigma of 0 means another
LINEAR_GAMMA = 2.2  # exponent from stored values to light, close to sRGB's curve


@DATASETS.register("SpikeSyntheticDataset")
@dataclass(kw_only=True, eq=False, repr=False)
class SpikeSyntheticDataset(Dataset[dict[str, Any]]):
    """{"L": (T,W,S,S), "H": (T,1,S,S), "key": name}, float32: spikes times the threshold, intensity in [0,1].

    Indexed with a `SampleIndex(epoch, index)`, or with an int (epoch 0); a sample depends only on this and the seed.

    Raises:
        UserError: an option out of range, or scikit-image's photographs are missing.
    """

    packs_spikes: ClassVar[str | None] = "window"
    tested_by: ClassVar[str] = "SpikeStreamTestDataset"
    """The data set for testing networks trained on this one on clips named on the command line."""

    window: int = 241
    """Spike frames around an instant, W."""
    num_frame: int = 2
    """Instants per stream, T."""
    gt_size: int = 96
    """Side of the pictures."""
    length: int = 100000
    """Samples per epoch; every epoch draws new ones."""
    sim_photographs: float = 0.6
    """Share of the canvases with photographs; the others have dead leaves."""
    sim_speed: Sequence[float] = (0.15, 4.0)
    """Range of the camera's speed in pixels per 8 spike frames, drawn log-uniformly."""
    sim_knots: Sequence[float] = (8, 128)
    """Range of the spike frames between changes of velocity, drawn log-uniformly: at 20,000 frames a second, motion is
    steady for many frames."""
    sim_threshold: Sequence[float] = (0.7, 16.0)
    """Range of the sensor's threshold, drawn log-uniformly."""
    sim_low_light: float = 0.2
    """Share of samples with 0.1 to 1 of the light: rates down to 0.01. In half of them the spikes are multiplied by a
    threshold increased by the same factor, which gives full brightness, as an automatic threshold does."""
    sim_linear: float = 0.2
    """Share of samples in linear light."""
    sim_noise: float = 0.4
    """Share of samples with sensor noise."""
    sim_softness: Sequence[float] = (0.2, 0.9)
    """Range of the blur between scene and sensor, sigma of a Gaussian in pixels: by optics, or by the frame
    interpolation from which data sets are simulated. The network learns to undo it."""
    sim_reset: float = 0.5
    """Share of samples whose pixels have similar initial charges, as after a reset, and at first fire together."""
    seed: int = 0
    """train.manual_seed."""

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of the options, as (option, sentence); absent options are not checked."""
        yield from least_faults(arguments, 1, "window", "num_frame", "gt_size", "length")
        yield from range_faults(arguments, "sim_softness", positive=False)
        yield from range_faults(arguments, "sim_speed", "sim_knots", "sim_threshold", positive=True)

    def __post_init__(self) -> None:
        raise_faults("", self.faults(vars(self)))
        self.canvases = Canvases(CANVAS_SIDE, self.sim_photographs)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: SampleIndex | int) -> dict[str, Any]:
        sample = index if isinstance(index, SampleIndex) else SampleIndex(0, index)
        rng = sample_rng(self.seed, sample)
        threshold = log_uniform(rng, self.sim_threshold)
        light, told = 1.0, 1.0
        if rng.random() < self.sim_low_light:
            light = rng.uniform(0.1, 1)
            told = 1 / light if rng.random() < 0.5 else 1.0
        frames = round(MEMORY * math.sqrt(threshold / light) * log_uniform(rng, (0.2, 1.4)))
        frames = min(max(frames, SHORTEST), self.window + 40)
        speed = log_uniform(rng, self.sim_speed) / GOPRO_SPIKES_PER_FRAME
        knot = round(log_uniform(rng, self.sim_knots))
        scene = LayeredScene(self.canvases, self.gt_size, frames, speed, rng, knot, SCALES, BLURS)
        instants = self._instants(frames, rng)
        seen, sharp = self._light(scene, frames, instants, light, rng)
        charged = log_uniform(rng, (LEAST_CHARGE, 1.0)) if rng.random() < self.sim_reset else 1.0
        spikes = fire(seen, threshold, self._noise(rng), rng, charged)
        begins = instants - self.window // 2
        windows = [light_window(spikes, int(begin), self.window, threshold * told) for begin in begins]
        return {
            "L": torch.from_numpy(np.stack(windows)),
            "H": torch.from_numpy(sharp * np.float32(told))[:, None],
            "key": f"generated/{sample.epoch}-{sample.index}",
        }

    def _instants(self, frames: int, rng: np.random.Generator) -> np.ndarray:
        """Spike frames (T,) int, most near the middle, some near the stream's ends."""
        middle = np.clip(0.5 + 0.15 * rng.standard_normal(self.num_frame), 0, 1)
        shares = np.where(rng.random(self.num_frame) < 0.8, middle, rng.random(self.num_frame))
        return np.minimum((shares * frames).astype(int), frames - 1)

    def _light(
        self, scene: LayeredScene, frames: int, instants: np.ndarray, light: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Light (frames,S,S) at every spike frame and (T,S,S) at the instants, float32 in [0,1]."""
        number = int(np.clip(np.ceil(scene.travel / STEP), 4, frames))
        times = np.unique(np.concatenate([np.linspace(0, frames - 1, number), instants]))
        gray = (scene.render(times) @ LUMA) / np.float32(255)  # (N,S,S)
        if rng.random() < self.sim_linear:
            gray **= np.float32(LINEAR_GAMMA)
        gray *= np.float32(light)
        softness = rng.uniform(self.sim_softness[0], self.sim_softness[1])
        soft = np.stack([cv2.GaussianBlur(picture, (0, 0), softness + TINY) for picture in gray])  # (N,S,S)
        seen = interpolation(times, frames) @ soft.reshape(len(times), -1)  # (frames,S*S)
        return seen.reshape(frames, self.gt_size, self.gt_size), gray[np.searchsorted(times, instants)]

    def _noise(self, rng: np.random.Generator) -> SensorNoise:
        if rng.random() >= self.sim_noise:
            return SensorNoise()
        return drawn_noise(rng)
