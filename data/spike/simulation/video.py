"""Spike streams from whole videos, frame by frame, with a few frames in memory.

simulate_stream(frames, "out.dat", make_sensor)                       # one .dat
video_to_spike("clip.mp4", (256, 256), 32, "data/sp{:04d}.npz")       # spikling's training pairs

python -m scripts.spikes simulate clip.mp4 out.dat --preset v2s
"""

import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from data.spike.simulation.presets import PRESETS
from data.spike.simulation.simulate import IntegrateAndFire, Light, sensor_light
from data.spike.spikling_npz import dump_spike_numpy
from data.spike.video_source import FrameSize, FrameSource
from utils.spike_writer import writing_spikes
from utils.user_error import UserError

MakeSensor = Callable[[tuple[int, int]], IntegrateAndFire]
"""Makes a sensor for spike frames of a given (h, w)."""


def spike_frames(
    frames: Iterable[np.ndarray], make_sensor: MakeSensor, spike_ratio: int = 1, light: Light = "srgb"
) -> Iterator[np.ndarray]:
    """One spike frame (h, w) uint8 for each frame (H, W, 3) uint8 RGB; see `sensor_light`."""
    sensor: IntegrateAndFire | None = None
    for frame in frames:
        if sensor is None:
            sensor = make_sensor((frame.shape[0] // spike_ratio, frame.shape[1] // spike_ratio))
        yield sensor.step(sensor_light(frame, spike_ratio, light, sensor.full_scale)[None])[0]


def write_frames(path: str | Path, spikes: Iterable[np.ndarray]) -> int:
    """Writes spike frames (h, w) one by one as a `.dat`, completely or not at all; returns their number."""
    with writing_spikes(path) as writer:
        for frame in spikes:
            writer.write(frame[None])
        return writer.frames


def video_to_spike(path: str | Path, size: tuple[int, int], window: int, out: str | Path, seed: int = 0) -> int:
    """spikling's training pairs from a video: `window` spike frames, and the gray picture at their middle.

    Each frame of the video is a spike frame, cropped at the centre to the aspect ratio of `size` and resized. The
    sensor is spikling's (255, random start) and keeps its charge from pair to pair; the frames after
    the last pair are not used.

    Args:
        path: video, or folder of pictures.
        size: (width, height), in spikling's order.
        window: spike frames of a pair.
        out: name of the pairs with a placeholder for their number, "data/sp{:04d}.npz". Numbers that exist are skipped,
            so that several videos can be written to one folder.
        seed: of the charge at the start, together with the video's name.

    Returns:
        Number of pairs.

    Raises:
        UserError: no such video, fewer frames than `window`, or `out` without a placeholder for the number.
    """
    out = str(out)
    if window < 1 or out.format(0) == out.format(1) or not out.endswith(".npz"):
        raise UserError(
            f"window {window}, out {out!r}: at least 1 frame and a name like 'data/sp{{:04d}}.npz' are needed"
        )
    source = FrameSource(Path(path), FrameSize(target=(size[1], size[0]), multiple=1))
    if source.length < window:
        raise UserError(f"{path}: {source.length} frames are fewer than the window of {window}")
    rng = np.random.default_rng([seed, zlib.crc32(Path(path).name.encode())])
    sensor = PRESETS["spikling"].sensor((size[1], size[0]), rng)
    names = (name for number in itertools.count(1) if not Path(name := out.format(number)).exists())
    pairs = source.length // window
    frames = source.frames(0, pairs * window)
    for _ in range(pairs):
        gray = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in itertools.islice(frames, window)])
        dump_spike_numpy(next(names), sensor.step(gray), gray[window // 2])
    return pairs
