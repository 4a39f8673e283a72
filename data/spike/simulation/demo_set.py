"""The demo data set: blurred frames and simulated spikes of photographs along a seeded camera path.

    DemoSet(n=7, stride=7, threshold=2.0, spike_ratio=2, light="srgb").write(Path("trainsets/demo"))
    python -m scripts.data_preparation.simulate_dataset

The same parameters give the same files; training and test clips show different photographs.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.spike.simulation.gopro_layout import SPLITS, SimulatedClip, is_complete, write_dataset
from data.spike.simulation.motion import TEST_PHOTOGRAPHS, TRAIN_PHOTOGRAPHS, CameraScene, load_photograph
from data.spike.simulation.simulate import ExposedFrame, Exposure, expose
from data.spike.sync import GOPRO_SPIKES_PER_FRAME
from utils.user_error import UserError

DEMO_SIZE = (128, 160)  # height and width, small enough to train on a CPU
DEMO_SPEED = (1.1, 2.2)
"""Range of the camera's top speed in pixels per sharp frame at DEMO_SIZE: 7 to 13 pixels of blur in 7 sharp frames."""

MAKER = 1
"""Version of the simulation, increased when the same parameters give other data, so that older sets are recognised."""


def seeded(*key: int) -> np.random.Generator:
    """A generator that depends only on `key`."""
    return np.random.default_rng(np.random.SeedSequence(key))


def set_parameters(kind: dict[str, Any], exposure: Exposure, seed: int, sensor: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a simulated set for its manifest: `kind`, timing, seed and the sensor's options."""
    return {
        "maker": MAKER,
        **kind,
        "n": exposure.sharp_frames,
        "stride": exposure.stride,
        "seed": seed,
        "spike_frames_per_sharp": GOPRO_SPIKES_PER_FRAME,
        **sensor,
    }


@dataclass(frozen=True, kw_only=True)
class DemoSet:
    """Parameters of a demo set.

    Attributes:
        n, stride: sharp frames per exposure, and from one exposure to the next.
        size: (H, W) of the pictures, cropped to multiples of `spike_ratio`.
        threshold, spike_ratio, light: the spike camera's, see `expose`.
        instants: number of sharp pictures of each exposure stored beside the one at its centre.

    Raises:
        UserError: a threshold below 1: white light would reach it more than once per spike frame.
    """

    n: int
    stride: int
    threshold: float
    spike_ratio: int
    light: str
    seed: int = 0
    size: tuple[int, int] = DEMO_SIZE
    train_clips: int = 12
    train_frames: int = 12
    test_clips: int = 3
    test_frames: int = 8
    instants: int = 0

    def __post_init__(self) -> None:
        if not self.threshold >= 1:
            raise UserError(f"a demo set's threshold must be at least 1, got {self.threshold:g}")

    def parameters(self) -> dict[str, Any]:
        """The parameters as stored in the set's manifest."""
        kind = {
            "kind": "photographs",
            "photographs": [TRAIN_PHOTOGRAPHS, TEST_PHOTOGRAPHS],
            "speed": DEMO_SPEED,
            "size": self.size,
            "train_clips": self.train_clips,
            "test_clips": self.test_clips,
            "train_frames": self.train_frames,
            "test_frames": self.test_frames,
        }
        kind |= {"instants": self.instants} if self.instants else {}
        return set_parameters(kind, Exposure(self.n, self.stride), self.seed, self._sensor())

    def write(self, root: Path, force: bool = False) -> list[SimulatedClip]:
        """Writes the set and returns its clips; without `force`, keeps one with the same parameters and returns []."""
        if not force and is_complete(root, self.parameters()):
            return []
        clips = self.clips()
        write_dataset(root, clips, Exposure(self.n, self.stride), self.parameters())
        return clips

    def clips(self) -> list[SimulatedClip]:
        """All clips; each is simulated while it is written."""
        counts = {"train": (self.train_clips, self.train_frames), "test": (self.test_clips, self.test_frames)}
        first = {"train": 0, "test": self.train_clips}
        return [
            SimulatedClip(
                split,
                f"demo{first[split] + index:02d}_{self.n:02d}_00",
                length,
                functools.partial(self._exposed, split, index, length),
            )
            for split, (clips, length) in counts.items()
            for index in range(clips)
        ]

    def _sensor(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "spike_ratio": self.spike_ratio, "light": self.light}

    def _exposed(self, split: str, index: int, length: int) -> Iterator[ExposedFrame]:
        height, width = (side - side % self.spike_ratio for side in self.size)
        speed_unit = min(height / DEMO_SIZE[0], width / DEMO_SIZE[1])
        rng = seeded(self.seed, SPLITS.index(split), index)
        photographs = TRAIN_PHOTOGRAPHS if split == "train" else TEST_PHOTOGRAPHS
        background, foreground = (load_photograph(photographs[(index + k) % len(photographs)]) for k in (0, 1))
        scene = CameraScene(background, foreground, (height, width), speed_unit * rng.uniform(*DEMO_SPEED), rng)
        exposure = Exposure(self.n, self.stride)
        return expose(
            scene.frames(exposure.ticks(length)), exposure, start=rng, instants=self.instants, **self._sensor()
        )
