"""Sources of pairs of a run of spike frames and the picture at its middle: files, or simulation on demand.

    npz        a folder of spikling's .npz pairs
    base       Spike-Zoo's layout, {train,test}/{spike,gt}: spike/<name>.dat and gt/<name>.png, one picture per stream
    videos     video files or folders of frames, interpolated to the spike clock by optical flow
    pictures   photographs, or single frames of videos, with a moving camera and a moving object in the foreground

Each source has `names`, `size(index)` and `read(index, box, rng)`. Simulation makes all draws from `rng`, so that a
sample depends on its seed only. Test: `python -m pytest tests/data/test_dataset_spikling.py`.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from data.array_cache import ArrayCache
from data.frame_io import Box
from data.spike.simulation.interpolate import to_spike_clock
from data.spike.simulation.motion import SUPERSAMPLING, CameraScene
from data.spike.simulation.noise import PixelNoise, SensorNoise
from data.spike.simulation.simulate import IntegrateAndFire, sensor_light, to_uint8
from data.spike.spikling_npz import load_spike_numpy, spike_numpy_shape
from data.spike.sync import GOPRO_SPIKES_PER_FRAME
from data.spike.video_source import PICTURE_SUFFIXES, FrameSize, FrameSource
from data.spike_cache import code_version
from utils.spike_loader import SpikeStream
from utils.user_error import UserError
from utils.utils_file import find_files, list_folder
from utils.utils_image import imread_rgb

PATH_LENGTH = 100  # sharp frames; longer than the periods of a camera's path, which are up to 60
VIDEO_STEP = 8  # stride of the frames of a video that are used, as neighbouring ones are nearly equal
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpikePair:
    """(W,h,w) uint8 0/1 `spikes`, the (h,w) uint8 gray `sharp` picture at frame W // 2, and the camera's threshold."""

    spikes: np.ndarray
    sharp: np.ndarray
    threshold: float


class PairSource(Protocol):
    """The interface of a source of pairs."""

    names: list[str]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of a picture."""
        ...

    def read(self, index: int, box: Box, rng: np.random.Generator) -> SpikePair:
        """A box of a pair."""
        ...


class NpzPairs:
    """Spikling's pairs; the middle W frames of longer streams.

    Args:
        root: folder of .npz files, searched with its subfolders.
        window: W, spike frames per pair.
        threshold: threshold of their simulator.

    Raises:
        UserError: no pairs, or one that is damaged or too short.
    """

    def __init__(self, root: Path, window: int, threshold: float) -> None:
        self.window, self.threshold = window, threshold
        self.files = _find(root, (".npz",), "spikling's .npz pairs")
        self.names = [file.relative_to(root).with_suffix("").as_posix() for file in self.files]
        self.shapes = [spike_numpy_shape(file) for file in self.files]
        for file, (length, _, _) in zip(self.files, self.shapes, strict=True):
            if length < window:
                raise UserError(f"{file}: {length} spike frames, but window is {window}; lower datasets.*.window")

    def size(self, index: int) -> tuple[int, int]:
        return self.shapes[index][1:]

    def read(self, index: int, box: Box, rng: np.random.Generator) -> SpikePair:
        spikes, sharp = load_spike_numpy(self.files[index])
        begin = len(spikes) // 2 - self.window // 2
        return SpikePair(_cut(spikes[begin : begin + self.window], box), _cut(sharp, box), self.threshold)


class BasePairs:
    """Streams with one sharp picture each, in Spike-Zoo's layout.

    Args:
        root: `train` or `test` of the data set, with spike/ and gt/.
        window: W, spike frames per pair, around the centre.
        threshold: intensity = rate x threshold; 1/0.6 for REDS_BASE.
        center: spike frame of the sharp picture; None: the stream's middle, T // 2.
        size: height and width of the streams, or None for config.yaml's or the file's.
        flipud: rows are stored bottom-up.

    Raises:
        UserError: no streams, a stream without its picture or of another size, or W frames that exceed the stream.
    """

    def __init__(
        self,
        root: Path,
        window: int,
        threshold: float,
        center: int | None = None,
        size: tuple[int, int] | None = None,
        flipud: bool = True,
    ) -> None:
        self.window, self.threshold = window, threshold
        height, width = size or (None, None)
        self.streams = [
            SpikeStream(file, height, width, flipud=flipud)
            for file in _find(root / "spike", (".dat",), "spike streams (.dat)")
        ]
        self.names = [stream.filepath.stem for stream in self.streams]
        self.begins = [(len(s) // 2 if center is None else center) - window // 2 for s in self.streams]
        self.pictures = []
        for stream, begin in zip(self.streams, self.begins, strict=True):
            if begin < 0 or begin + window > len(stream):
                raise UserError(
                    f"{stream.filepath}: frames [{begin}, {begin + window}) exceed its {len(stream)} "
                    f"frames; lower datasets.*.window or set spike_center"
                )
            found = [root / "gt" / f"{stream.filepath.stem}{suffix}" for suffix in PICTURE_SUFFIXES]
            picture = next((path for path in found if path.is_file()), found[0])
            sharp = cv2.cvtColor(imread_rgb(picture), cv2.COLOR_RGB2GRAY)
            if sharp.shape != stream.shape[1:]:
                raise UserError(f"{picture}: {sharp.shape} pixels, but its spikes have {stream.shape[1:]}")
            self.pictures.append(sharp)

    def size(self, index: int) -> tuple[int, int]:
        return self.streams[index].shape[1:]

    def read(self, index: int, box: Box, rng: np.random.Generator) -> SpikePair:
        place = (box.top, box.left, box.height, box.width)
        spikes = self.streams[index].crop(self.begins[index], self.window, *place)
        return SpikePair(spikes, _cut(self.pictures[index], box), self.threshold)


@dataclass(frozen=True)
class Sensor:
    """Ranges [least, greatest] of the random parameters of each simulated pair.

    Attributes:
        threshold: the camera's threshold, drawn log-uniformly.
        gain: factor of the light and of the sharp picture (exposure), drawn uniformly.
        gain_spread, spurious: largest standard deviation of the pixels' gain, and largest probability of a spurious
            spike (`data/spike/simulation/noise.py`); drawn uniformly from 0.
    """

    threshold: tuple[float, float] = (1.0, 4.0)
    gain: tuple[float, float] = (1.0, 1.0)
    gain_spread: float = 0.0
    spurious: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.threshold
        if not (0 < low <= high and 0 <= self.gain[0] <= self.gain[1] <= 1):
            raise UserError(f"sim_threshold {list(self.threshold)} must be positive and sim_gain in [0, 1], ascending")
        SensorNoise(gain_spread=self.gain_spread, spurious=self.spurious)  # raises UserError for invalid values

    def fire(self, light: np.ndarray, rng: np.random.Generator) -> SpikePair:
        """Spikes of a scene (W,h,w) uint8 gray, one picture per spike frame, with random charges at the start."""
        threshold = float(np.exp(rng.uniform(*np.log(self.threshold))))
        gain = rng.uniform(*self.gain)
        model = SensorNoise(gain_spread=self.gain_spread * rng.random(), spurious=self.spurious * rng.random())
        noise = None if model == SensorNoise() else PixelNoise(model, light.shape[1:], rng)
        sensor = IntegrateAndFire(light.shape[1:], threshold, start=rng, noise=noise)
        exposed = light * (gain / 255)
        return SpikePair(sensor.step(exposed), to_uint8(exposed[len(light) // 2]), threshold)


class VideoPairs:
    """Pairs simulated from videos; one item per video frame with enough frames before and after it.

    Args:
        root: a video, or a folder of videos and folders of frames.
        window: W.
        sensor: ranges of the sensor's parameters.
        ratio: video pixels per spike pixel and axis; 2 removes the softness of compression and interpolation.
        ticks: pictures per video frame, interpolated by optical flow.
        strides: strides in ticks between spike frames, which set the speed of motion; one is drawn per sample.
        cache: folder for the interpolated pictures, computed once and read by all processes; None: in memory.

    Raises:
        UserError: no videos, or videos that are too short.
    """

    def __init__(
        self,
        root: Path,
        window: int,
        sensor: Sensor,
        ratio: int = 2,
        ticks: int = 16,
        strides: Sequence[int] = (1, 2),
        cache: Path | None = None,
    ) -> None:
        self.window, self.sensor, self.strides = window, sensor, list(strides)
        if ticks < 1 or not self.strides or min(self.strides) < 1:
            raise UserError(f"sim_ticks {ticks} and each of sim_strides {self.strides} must be 1 or more")
        sources = [FrameSource(path, FrameSize(multiple=ratio)) for path in _video_paths(root)]
        self.frames = [_light_clock(source, ratio, ticks, cache) for source in sources]
        before = window // 2 * max(self.strides)
        after = (window - 1 - window // 2) * max(self.strides)
        self.items = [
            (video, tick)
            for video, frames in enumerate(self.frames)
            for tick in range(0, len(frames), ticks)
            if before <= tick < len(frames) - after
        ]
        if not self.items:
            raise UserError(
                f"{root}: no video is long enough; {window} spike frames, {max(self.strides)} of the {ticks} ticks of "
                f"a video frame apart, need {-(-(before + after) // ticks) + 1} video frames"
            )
        self.names = [f"{sources[video].path.stem}/{tick // ticks:06d}" for video, tick in self.items]

    def size(self, index: int) -> tuple[int, int]:
        return self.frames[self.items[index][0]].shape[1:]

    def read(self, index: int, box: Box, rng: np.random.Generator) -> SpikePair:
        video, tick = self.items[index]
        stride = int(rng.choice(self.strides))
        # Draw the direction of time; the other one is used if there are too few pictures on that side.
        step = stride if rng.random() < 0.5 else -stride
        ticks = tick + step * (np.arange(self.window) - self.window // 2)
        if not 0 <= ticks.min() <= ticks.max() < len(self.frames[video]):
            ticks = tick - step * (np.arange(self.window) - self.window // 2)
        return self.sensor.fire(_cut(self.frames[video], box)[ticks], rng)


class PicturePairs:
    """Pairs simulated from photographs, with a moving camera and a moving object before them; one per photograph.

    Args:
        root: folder of pictures, searched with its subfolders; or a video or a folder of videos, of which every
            `VIDEO_STEP`-th frame is used.
        window: W.
        sensor: ranges of the sensor's parameters.
        ratio: picture pixels per spike pixel and axis.
        speed: range of the camera's top speed, in pixels per spike frame.

    Raises:
        UserError: no pictures.
    """

    def __init__(
        self, root: Path, window: int, sensor: Sensor, ratio: int = 2, speed: tuple[float, float] = (0.0, 0.4)
    ) -> None:
        self.window, self.sensor, self.speed = window, sensor, speed
        # Scenes are rendered from pictures with `SUPERSAMPLING` pixels per spike pixel.
        size = FrameSize(SUPERSAMPLING / ratio)
        self.names, self.pictures = [], []
        for name, picture in _photographs(root, size):
            self.names.append(name)
            self.pictures.append(picture)

    def size(self, index: int) -> tuple[int, int]:
        height, width = self.pictures[index].shape[:2]
        return height // SUPERSAMPLING, width // SUPERSAMPLING

    def read(self, index: int, box: Box, rng: np.random.Generator) -> SpikePair:
        background, foreground = self.pictures[index], self.pictures[int(rng.integers(len(self.pictures)))]
        speed = GOPRO_SPIKES_PER_FRAME * rng.uniform(*self.speed)
        scene = CameraScene(background, foreground, (box.height, box.width), speed, rng)
        begin = rng.uniform(0, PATH_LENGTH)
        times = begin + np.arange(self.window) / GOPRO_SPIKES_PER_FRAME
        light = np.stack([cv2.cvtColor(scene.render(time), cv2.COLOR_RGB2GRAY) for time in times])
        return self.sensor.fire(light, rng)


def _cut(array: np.ndarray, box: Box) -> np.ndarray:
    return array[..., box.top : box.top + box.height, box.left : box.left + box.width]


def _find(root: Path, suffixes: Sequence[str], what: str) -> list[Path]:
    """The files below a folder with one of these suffixes, in natural order."""
    files = find_files(root, suffixes)
    if not files:
        state = "contains no" if root.is_dir() else "no such folder; it should contain"
        raise UserError(f"datasets.*.dataroot: {root}: {state} {what}")
    return files


def _photographs(root: Path, size: FrameSize) -> Iterator[tuple[str, np.ndarray]]:
    """Names and pictures (h,w,3) uint8 RGB of a folder, or of every `VIDEO_STEP`-th frame of its videos."""
    if find_files(root, PICTURE_SUFFIXES):
        for file in _find(root, PICTURE_SUFFIXES, "pictures"):
            yield file.relative_to(root).with_suffix("").as_posix(), size.apply(imread_rgb(file))
        return
    for path in _video_paths(root):
        source = FrameSource(path, size)
        for index, frame in enumerate(source.frames(0, source.length)):
            if index % VIDEO_STEP == 0:
                yield f"{path.stem}/{index:06d}", frame


def _video_paths(root: Path) -> list[Path]:
    """The videos of a root: the videos and folders in it, or the root itself."""
    entries = list_folder(root) if root.is_dir() else []
    inside = [path for path in entries if path.is_dir() or path.suffix.lower() not in PICTURE_SUFFIXES]
    return inside or [root]


def _light_clock(source: FrameSource, ratio: int, ticks: int, cache: Path | None) -> np.ndarray:
    """Light on the sensor at every tick of a video, (T,h,w) uint8; read from `cache`, or computed and written to it."""
    if cache is None:
        return _interpolate(source, ratio, ticks)
    key = json.dumps({"files": source.state(), "ratio": ratio, "ticks": ticks, "code": code_version()})
    return ArrayCache(cache).read(source.path.stem, key, lambda: _interpolate(source, ratio, ticks))


def _interpolate(source: FrameSource, ratio: int, ticks: int) -> np.ndarray:
    logger.info("%s: interpolating %d frames to %d ticks each", source.path, source.length, ticks)
    clock = to_spike_clock(source.frames(0, source.length), ticks)
    return np.stack([to_uint8(sensor_light(frame, ratio)) for frame in clock])
