"""Endless generated training samples for networks that restore a blurred frame at an instant of its exposure.

    "dataset_type": "GuidedSyntheticDataset", "spike": {"representation": "guided"}, "num_frame": 2, "gt_size": 96

Every sample is a new scene (`data/spike/simulation/`), generated without files or downloads, and redistributable. Its
`num_frame` frames are instants of one exposure: `L` repeats the blurred frame, `H` has the sharp picture of each
instant, `L_spike` the spikes encoded for it.
Test: `python -m pytest tests/data/test_dataset_guided_synthetic.py`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from data.augment import RATIO, chance
from data.sampler import SampleIndex, sample_rng
from data.spike.encoding import build_encoding
from data.spike.simulation.canvas import Canvases
from data.spike.simulation.draws import drawn_noise, log_uniform
from data.spike.simulation.exposures import Camera, shoot
from data.spike.simulation.layered_scene import LayeredScene
from data.spike.simulation.noise import SensorNoise
from data.spike.sync import GOPRO_SPIKES_PER_FRAME, ExposureWindow
from utils.utils_registry import DATASETS, Faults, check_rules, least_faults, raise_faults, range_faults

CANVAS_SIDE = 256  # pixels; larger than the default gt_size, so that the camera has room to move


@DATASETS.register("GuidedSyntheticDataset")
@dataclass(kw_only=True, eq=False, repr=False)
class GuidedSyntheticDataset(Dataset[dict[str, Any]]):
    """{"L": (T,3,S,S), "H": (T,3,S,S), "L_spike": (T,K,s,s), "key": name}, float32; RGB in [0,1].

    Indexed with a `SampleIndex(epoch, index)`, or with an int (epoch 0). A sample depends on this index and the seed
    only.

    Raises:
        UserError: an option out of range, or scikit-image's photographs are missing.
    """

    packs_spikes: ClassVar[str | None] = "dual"
    tested_by: ClassVar[str] = "VideoRecurrentTestDatasetRGBSpike"

    spike: dict[str, Any]
    """{"representation": name, **its parameters}."""
    num_frame: int = 2
    """Instants per sample, T."""
    gt_size: int = 96
    """Side of the pictures, a multiple of every ratio."""
    length: int = 100000
    """Samples per epoch; every epoch draws new ones."""
    sim_photographs: float = 0.6
    """Share of the canvases that show photographs; the others show dead leaves."""
    sim_speed: Sequence[float] = (0.15, 6.0)
    """Range of the camera's speed in pixels per 8 spike frames, drawn log-uniformly."""
    sim_exposure: Sequence[int] = (8, 104)
    """Range of the exposure in spike frames."""
    sim_ratios: Sequence[int] = (2, 2, 1, 4)
    """Picture pixels per spike pixel and axis; one is drawn per run of samples."""
    sim_run: int = 1
    """Neighbouring samples with the same ratio: the batch size, with `dataloader_shuffle` false, as sizes differ."""
    sim_threshold: Sequence[float] = (0.7, 8.0)
    """Range of the sensor's threshold, drawn log-uniformly."""
    sim_low_light: float = 0.15
    """Share of samples whose threshold is multiplied by up to 4, for low firing rates."""
    sim_linear: float = 0.35
    """Share of samples blurred in linear light."""
    sim_noise: float = 0.4
    """Share of samples with noise of the sensor, and, drawn separately, with noise of the frame."""
    sim_threshold_error: float = 0.05
    """Relative standard deviation of the threshold given to the network from the true one."""
    seed: int = 0
    """train.manual_seed."""

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of the options, as (option, sentence); absent options are not checked."""
        yield from range_faults(arguments, "sim_speed", "sim_exposure", "sim_threshold", positive=True)
        yield from least_faults(arguments, 1, "num_frame", "gt_size", "length", "sim_run")
        yield from check_rules((_ratios, _run), arguments)

    def __post_init__(self) -> None:
        raise_faults("", self.faults(vars(self)))
        build_encoding(self.spike, 1.0)  # raises UserError for an invalid `spike`
        self.canvases = Canvases(CANVAS_SIDE, self.sim_photographs)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: SampleIndex | int) -> dict[str, Any]:
        sample = index if isinstance(index, SampleIndex) else SampleIndex(0, index)
        rng = sample_rng(self.seed, sample)
        camera = self._camera(rng, self._ratio(sample))
        speed = log_uniform(rng, self.sim_speed) / GOPRO_SPIKES_PER_FRAME
        scene = LayeredScene(self.canvases, self.gt_size, camera.frames, speed, rng)
        instants = self._instants(camera, rng)
        blurred, sharp, spikes = shoot(scene.render, scene.travel, instants, camera, rng)
        told = camera.threshold * math.exp(rng.normal(0, self.sim_threshold_error))
        encoding = build_encoding(self.spike, told)
        windows = [ExposureWindow(camera.begin, camera.end, int(instant)) for instant in instants]
        channels = np.stack([encoding(spikes, window) for window in windows])
        frames = np.broadcast_to(blurred, sharp.shape)
        return {
            "L": _tensor(frames),
            "H": _tensor(sharp),
            "L_spike": torch.from_numpy(channels),
            "key": f"generated/{sample.epoch}-{sample.index}",
        }

    def _ratio(self, sample: SampleIndex) -> int:
        """The ratio drawn for the sample's run."""
        run = chance((self.seed, sample.epoch, sample.index // self.sim_run), RATIO)
        return int(run.choice(list(self.sim_ratios)))

    def _camera(self, rng: np.random.Generator, ratio: int) -> Camera:
        exposure = int(rng.integers(self.sim_exposure[0], self.sim_exposure[1] + 1))
        # Half of the streams end shortly after the exposure, like files with one block per frame; the others later.
        margins = rng.integers(0, 9, 2) if rng.random() < 0.5 else rng.integers(0, 49, 2)
        threshold = log_uniform(rng, self.sim_threshold)
        if rng.random() < self.sim_low_light:
            threshold *= rng.uniform(1, 4)
        noise, frame_noise = SensorNoise(), 0.0
        if rng.random() < self.sim_noise:
            noise = drawn_noise(rng)
        if rng.random() < self.sim_noise:
            frame_noise = rng.uniform(0, 0.02)
        return Camera(
            frames=int(exposure + margins.sum()),
            begin=int(margins[0]),
            end=int(margins[0]) + exposure,
            ratio=ratio,
            threshold=threshold,
            linear=bool(rng.random() < self.sim_linear),
            noise=noise,
            frame_noise=frame_noise,
        )

    def _instants(self, camera: Camera, rng: np.random.Generator) -> np.ndarray:
        """Spike frames (T,) int of the instants: half of them near the middle of the exposure, where tests restore."""
        exposure = camera.end - camera.begin
        middle = np.clip(0.5 + 0.05 * rng.standard_normal(self.num_frame), 0, 1)
        shares = np.where(rng.random(self.num_frame) < 0.5, middle, rng.random(self.num_frame))
        return camera.begin + np.minimum((shares * exposure).astype(int), exposure - 1)


def _ratios(gt_size: int, sim_ratios: Sequence[int]) -> Faults:
    if not sim_ratios or any(ratio < 1 or gt_size % ratio for ratio in sim_ratios):
        yield "sim_ratios", f"divisors of gt_size {gt_size}; got {list(sim_ratios)}"


def _run(length: int, sim_run: int) -> Faults:
    if sim_run > 0 and length % sim_run:
        yield "sim_run", f"must divide length {length}; got {sim_run}"


def _tensor(frames: np.ndarray) -> torch.Tensor:
    """(T,H,W,3) uint8 to (T,3,H,W) float32 in [0,1]."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).float().div_(255)
