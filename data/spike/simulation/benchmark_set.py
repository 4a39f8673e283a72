"""The clips of the restoration benchmark: the same generated scenes under several exposures, thresholds and lights.

    protocol = Protocol.read(path)
    for condition in protocol.conditions():
        GeneratedScenes(protocol).write(root / condition.name, condition)

A scene (`data/spike/simulation/layered_scene.py`) has the same camera path in all conditions, so that two conditions
differ only in the properties named. It shows dead leaves and photographs that are in no training
(`HELD_OUT_PHOTOGRAPHS`). The sensor integrates light * level, with the shot noise of this light; the threshold given to
methods is threshold / level, so that rate x threshold is the frame's intensity.
"""

import functools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data.spike.simulation.canvas import FREE_PHOTOGRAPHS, HELD_OUT_PHOTOGRAPHS, Canvases
from data.spike.simulation.demo_set import seeded, set_parameters
from data.spike.simulation.gopro_layout import SimulatedClip, is_complete, write_dataset
from data.spike.simulation.layered_scene import LayeredScene
from data.spike.simulation.noise import PixelNoise, SensorNoise
from data.spike.simulation.simulate import ExposedFrame, Exposure, IntegrateAndFire, expose
from data.spike.sync import GOPRO_SPIKES_PER_FRAME
from utils.user_error import UserError

CANVAS_SIDE = 512  # pixels; the largest that the canvases' noise covers, with room for the motion of 192 pixels
LARGEST_SIDE = 192  # pixels of a picture, for the same reason
KINDS = {"test": "benchmark", "train": "scenes"}  # in the set's manifest
LIGHTS = {"stored": "srgb", "linear": "linear"}  # the protocol's names of `expose`'s light


@dataclass(frozen=True)
class Condition:
    """The settings of a recording.

    Attributes:
        sharp_frames: n, sharp frames per exposure, of 8 spike frames each: open from the first to the last, with the
            sharp picture at number n // 2.
        threshold: the sensor's.
        light, level: the light's name, and its share of full light.
    """

    sharp_frames: int
    threshold: float
    light: str
    level: float

    @property
    def name(self) -> str:
        """The name of the condition's folder."""
        return f"exposure{self.sharp_frames:02d}_threshold{self.threshold:g}_{self.light}"

    @property
    def told(self) -> float:
        """The threshold that makes rate x threshold the frame's intensity: `spike_threshold`."""
        return self.threshold / self.level


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the clips are recorded and scored.

    Attributes:
        blur: "stored" averages and integrates stored values, as in Spk-GoPro; "linear" linear light.
        exposures: sharp frames per exposure.
        thresholds: the sensor's.
        lights: shares of full light by name.
        photons: a white pixel's photons per spike frame in full light.
        spike_ratio: frame pixels per spike pixel and axis.
        side: height and width of the pictures in pixels.
        scenes, frames: number of scenes, and of blurred frames of each clip.
        speed: the slowest and the fastest scene's speed of the camera, in pixels per sharp frame.
        seed: of all random choices.
        border: number of pixels at each edge that are not scored.
        first_frames, last_frames: number of frames at each end of a clip that are not scored.

    Raises:
        UserError: values out of range.
    """

    blur: str
    exposures: tuple[int, ...]
    thresholds: tuple[float, ...]
    lights: dict[str, float]
    photons: float
    spike_ratio: int
    side: int
    scenes: int
    frames: int
    speed: tuple[float, float]
    seed: int
    border: int
    first_frames: int
    last_frames: int

    def __post_init__(self) -> None:
        if self.blur not in LIGHTS:
            raise UserError(f"protocol: blur is {self.blur!r}. Choices: {', '.join(LIGHTS)}")
        if min(self.scenes, self.frames, self.spike_ratio) < 1 or self.side % self.spike_ratio:
            raise UserError(
                "protocol: scenes, frames and spike_ratio must be 1 or more, and side a multiple of spike_ratio"
            )
        if not all(0 < level <= 1 for level in self.lights.values()):
            raise UserError(f"protocol: lights must be shares of full light above 0 up to 1; got {self.lights}")
        if min(self.border, self.first_frames, self.last_frames) < 0 or 2 * self.border >= self.side:
            raise UserError(
                "protocol: border, first_frames and last_frames must be 0 or more, and border below side / 2"
            )
        if self.first_frames + self.last_frames >= self.frames:
            raise UserError(f"protocol: none of {self.frames} frames would be scored")

    @classmethod
    def of(cls, tree: dict[str, Any]) -> "Protocol":
        """The protocol of a JSON object.

        Raises:
            UserError: keys are missing or unknown, or values out of range.
        """
        known = list(cls.__dataclass_fields__)
        wrong = sorted(set(tree) ^ set(known))
        if wrong:
            raise UserError(f"protocol: {', '.join(wrong)} missing or unknown. Keys: {', '.join(known)}")
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in tree.items()}
        return cls(**values)

    def conditions(self) -> list[Condition]:
        """All combinations of exposure, threshold and light."""
        return [
            Condition(exposure, threshold, light, level)
            for exposure in self.exposures
            for threshold in self.thresholds
            for light, level in self.lights.items()
        ]

    def scored(self, frames: int) -> range:
        """Numbers of the scored frames of a clip."""
        return range(self.first_frames, frames - self.last_frames)


class GeneratedScenes:
    """The scenes.

    Args:
        protocol: how they are recorded.
        split: "test": of held-out photographs, rendered once and reused for all conditions; "train": of the photographs
            of trainings, each rendered when its clip is written.
    """

    def __init__(self, protocol: Protocol, split: Literal["train", "test"] = "test") -> None:
        self.protocol, self.split = protocol, split
        tests = split == "test"
        names = HELD_OUT_PHOTOGRAPHS if tests else FREE_PHOTOGRAPHS
        self.canvases = Canvases(CANVAS_SIDE, photographs=0.6, names=names)
        self.rendered = functools.lru_cache(maxsize=None if tests else 1)(self._render)

    def write(self, root: Path, condition: Condition) -> None:
        """Writes the clips of a condition in GoPro's layout, unless they exist."""
        exposure = Exposure(condition.sharp_frames, condition.sharp_frames)
        kind = {"kind": KINDS[self.split], "protocol": asdict(self.protocol), "level": condition.level}
        sensor = {"threshold": condition.told, "light": LIGHTS[self.protocol.blur]}
        parameters = set_parameters(kind, exposure, self.protocol.seed, sensor)
        if not is_complete(root, parameters):
            write_dataset(root, self.clips(condition), exposure, parameters)

    def clips(self, condition: Condition) -> list[SimulatedClip]:
        """One clip per scene; each is simulated while it is written."""
        return [
            SimulatedClip(
                self.split,
                f"scene{number:02d}_{condition.sharp_frames:02d}_00",
                self.protocol.frames,
                functools.partial(self._exposed, number, condition),
            )
            for number in range(self.protocol.scenes)
        ]

    def _render(self, number: int) -> np.ndarray:
        """A scene's picture at each spike frame, long enough for the longest exposure: (S,side,side,3) uint8."""
        protocol, rng = self.protocol, seeded(self.protocol.seed, number)
        longest = max(protocol.exposures)
        duration = Exposure(longest, longest).ticks(protocol.frames)
        slow, fast = protocol.speed
        # Speeds are spaced evenly on a logarithmic scale, so that few scenes cover the range.
        speed = slow * (fast / slow) ** (number / max(1, protocol.scenes - 1)) / GOPRO_SPIKES_PER_FRAME
        scene = LayeredScene(self.canvases, protocol.side, duration, speed, rng)
        return scene.render(np.arange(duration, dtype=np.float64))

    def _exposed(self, number: int, condition: Condition) -> Iterator[ExposedFrame]:
        protocol = self.protocol
        exposure = Exposure(condition.sharp_frames, condition.sharp_frames)
        # Initial charge and photons are drawn separately for each condition.
        place = protocol.conditions().index(condition)
        rng = seeded(protocol.seed, number, place)

        def sensor(size: tuple[int, int]) -> IntegrateAndFire:
            noise = PixelNoise(SensorNoise(photons=protocol.photons * condition.level), size, rng)
            return IntegrateAndFire(size, condition.threshold, rng, gain=condition.level, noise=noise)

        frames = self.rendered(number)[: exposure.ticks(protocol.frames)]
        light: Any = LIGHTS[protocol.blur]
        return expose(frames, exposure, spike_ratio=protocol.spike_ratio, light=light, make_sensor=sensor)
