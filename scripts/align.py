"""How the frames of your camera and your spike camera go together: time, space, brightness, each with its uncertainty.

    ./svrt align clip.mp4 clip.dat      writes sync.json, align.json, config.yaml and align.html beside clip.dat
    ./svrt align frames/ clip.dat --spike_h 250 --spike_w 400 --spikes_per_frame 333.3
    ./svrt align clip.mp4 clip.dat --spike_fps 20000        with the video's own frame rate

No ground truth is needed: a blurred frame is the mean of what the spikes saw while it was exposed. Data sets, the
tester and `svrt restore` read the files that it writes where they lie beside the spikes. What the recordings do not
determine is not guessed; the message says what to record instead.
Exit code: 0 all is told, 1 time, space or brightness cannot be told, 2 something is missing or was asked for wrongly.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.flags import align_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(align_parser(__doc__ or ""))

import cv2
import numpy as np

from data.frame_io import open_frames
from data.frames import Frames
from data.spike.alignment.align import Found, align
from data.spike.alignment.charge import Stream
from data.spike.alignment.result import FILE_NAME, Alignment
from data.spike.stream_report import stream_report
from data.spike.sync import ExposureWindow, write_sync
from scripts.align_page import make_page
from utils.spike_config import nearest_config
from utils.spike_loader import SpikeStream
from utils.spike_writer import check_config, write_config
from utils.user_error import UserError
from utils.utils_cli import run_command
from utils.utils_file import atomic_write
from utils.utils_image import to_8_bits

LOOKED_AT = 200  # spike frames in which the order of bits shows
DIGITS = 4  # of a measured number in the files


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = align_parser(__doc__ or "").parse_args(argv)
    told: list[bool] = []
    return run_command(lambda: told.append(run(arguments))) or (0 if told[0] else 1)


def run(arguments: argparse.Namespace) -> bool:
    """Aligns, prints and writes; returns whether everything can be told."""
    frames, clip = _frames(arguments.frames)
    names = frames.clips[clip]
    stream = SpikeStream(
        arguments.spikes, arguments.spike_h, arguments.spike_w, not arguments.top_down, arguments.head_columns
    )
    guessed = arguments.spike_h is None and nearest_config(arguments.spikes.resolve().parent) is None
    folder: Path = arguments.out or arguments.spikes.resolve().parent
    _check_free(folder, arguments.force)
    _check_bits(stream)
    period = arguments.spikes_per_frame
    if arguments.spike_fps is not None and period is None:
        if frames.fps is None:
            raise UserError(f"{arguments.frames}: says no frame rate; give --spikes_per_frame instead of --spike_fps")
        period = arguments.spike_fps / frames.fps

    def read_frame(number: int) -> np.ndarray:
        return to_8_bits(frames.read(clip, names[number]))

    found = align(read_frame, len(names), stream, period=period, reach=arguments.reach)
    if found.inverted or not (found.time.told or found.space.told):
        _check_inverted(read_frame, len(names), stream, period, arguments)
    windows = exposures(found, names, len(stream))
    alignment = as_alignment(found, frames.size(clip), (stream.spike_h, stream.spike_w), guessed)
    for line in report(found, alignment, windows, names, guessed):
        print(line)
    write(folder, found, alignment, windows, arguments.spike_fps)
    if windows and len(windows) < len(names):
        inside = folder / "frames"
        for name in windows:
            encoded = cv2.imencode(".png", cv2.cvtColor(frames.read(clip, name), cv2.COLOR_RGB2BGR))[1]
            with atomic_write(inside / f"{name}.png", "wb") as file:
                file.write(encoded.tobytes())
        print(f"{inside}: the {len(windows)} frames that the stream covers; use them instead of {arguments.frames}")
    page = folder / "align.html"
    with atomic_write(page) as file:
        file.write(make_page(found, alignment, windows, names, stream, read_frame))
    print(f"{page}: look at it")
    return found.time.told and found.space.told and alignment.threshold is not None


def exposures(found: Found, names: Sequence[str], length: int) -> dict[str, ExposureWindow]:
    """The exposures of the frames that the stream covers, by name; none where the time cannot be told."""
    windows = {}
    for number, name in enumerate(names if found.time.told else []):
        begin = round(found.model.begin(number))
        end = max(begin + 1, round(found.model.begin(number) + found.model.exposure))
        if begin >= 0 and end <= length:
            center = math.floor(found.model.begin(number) + found.model.exposure / 2)
            windows[name] = ExposureWindow(begin, end, min(max(center, begin), end - 1))
    return windows


def as_alignment(found: Found, size: tuple[int, int], spike_size: tuple[int, int], guessed: bool) -> Alignment:
    """What align.json says."""
    brightness = found.brightness
    model, errors = found.model, {name: _number(value) for name, value in found.errors.items()}
    measured: dict[str, Any] = {
        "correlation": _number(found.correlation),
        "time": {
            "told": found.time.told,
            "why": found.time.why,
            "begin_of_first_frame": _number(model.begin(0)),
            "spike_frames_per_frame": _number(model.period),
            "exposure": _number(model.exposure),
            "errors": {name: errors[name] for name in ("center", "period", "exposure")},
        },
        "space": {
            "told": found.space.told,
            "why": found.space.why,
            "shared_lens": found.shared_lens,
            "error_in_spike_pixels": errors["homography"],
        },
        "spike_size_guessed": guessed,
    }
    if brightness is not None:
        measured["brightness"] = {
            "threshold_error": _number(brightness.threshold_error),
            "gains": [_number(gain) for gain in brightness.gains],
            "light": "linear" if brightness.linear else "stored",
            "dark_rate": _number(brightness.dark),
        }
    threshold = None if brightness is None else _number(brightness.threshold)
    return Alignment(size, spike_size, tuple(map(float, found.homography.ravel())), threshold, measured)


def report(
    found: Found, alignment: Alignment, windows: dict[str, ExposureWindow], names: Sequence[str], guessed: bool
) -> list[str]:
    """The lines that are printed."""
    model, errors, brightness = found.model, found.errors, found.brightness
    middle = min(max(round(model.middle), 0), len(names) - 1)
    height, width = alignment.spike_size
    lines = [
        f"size        {height}x{width} spike pixels"
        + ("; only guessed from the file's length: --spike_h and --spike_w say it" if guessed else "")
    ]
    if found.time.told:
        lines += [
            f"time        frame {names[middle]}: middle of the exposure at spike frame "
            f"{model.around(middle).center:.1f} (± {errors['center']:.1f})",
            f"            {model.period:.2f} spike frames per frame (± {errors['period']:.2f}), exposed for "
            f"{model.exposure:.1f} (± {errors['exposure']:.1f})",
            f"            {len(windows)} of {len(names)} frames lie in the stream",
        ]
    else:
        lines.append(f"time        cannot be told: {found.time.why}")
    if found.space.told:
        how = "a pure scale: the cameras share a lens" if found.shared_lens else _described(found.homography)
        lines.append(f"space       {how} (± {errors['homography']:.2f} spike pixels)")
    else:
        lines.append(f"space       cannot be told: {found.space.why}")
    if brightness is not None:
        gains = ", ".join(f"{gain:.2f}" for gain in brightness.gains)
        lines += [
            f"brightness  intensity = firing rate x {brightness.threshold:.3f} (± {brightness.threshold_error:.3f}), "
            f"{'linear light' if brightness.linear else 'stored values'}; red, green, blue x {gains}",
        ]
    else:
        lines.append("brightness  cannot be told without time and space")
    return lines


def write(
    folder: Path,
    found: Found,
    alignment: Alignment,
    windows: dict[str, ExposureWindow],
    spike_fps: float | None,
) -> None:
    """Writes what can be told."""
    if windows:
        write_sync(folder / "sync.json", folder.resolve().name, windows, spike_fps)
        print(f"{folder / 'sync.json'}: exposures of {len(windows)} frames")
    if found.space.told:
        alignment.save(folder / FILE_NAME)
        print(f"{folder / FILE_NAME}: homography and threshold")
    config = folder / "config.yaml"
    if not config.exists():
        write_config(config, *alignment.spike_size, alignment.threshold)
        print(f"{config}: size and threshold")
    else:
        check_config(config, *alignment.spike_size, None)


def _described(homography: np.ndarray) -> str:
    """A homography in words."""
    a, b, c, d = homography[:2, :2].ravel()
    scale, angle = math.sqrt(abs(a * d - b * c)), math.degrees(math.atan2(c - b, a + d))
    if a * d - b * c < 0:
        return f"mirrored, {scale:.3f} spike pixels per frame pixel"
    return f"{scale:.3f} spike pixels per frame pixel, turned by {angle:+.2f} degrees"


def _frames(path: Path) -> tuple[Frames, str]:
    """The frames of one clip."""
    if not path.exists():
        raise UserError(f"{path}: no such video or folder of frames")
    frames = open_frames("FRAMES", str(path))
    if len(frames.clips) != 1:
        raise UserError(f"{path}: holds {len(frames.clips)} clips; name one of them")
    return frames, next(iter(frames.clips))


def _check_free(folder: Path, force: bool) -> None:
    """
    Raises:
        UserError: files of an earlier alignment, which only --force replaces.
    """
    for name in ("sync.json", FILE_NAME):
        if (folder / name).exists() and not force:
            raise UserError(f"{folder / name}: is there already; --force replaces it, --out FOLDER writes elsewhere")


def _check_bits(stream: SpikeStream) -> None:
    """
    Raises:
        UserError: the file has the most significant bit of each byte first.
    """
    count = min(LOOKED_AT, len(stream))
    result = stream_report([stream.get_block_spikes(0, count, flipud=False)])
    if result.bit_order == "big" and result.width_in_doubt is False and _surely_big(result.roughness):
        raise UserError(
            f"{stream.filepath}: has the most significant bit first; python -m scripts.spikes convert IN OUT "
            "--reverse_bits makes a stream that is read right"
        )


def _surely_big(roughness: tuple[float, float, float]) -> bool:
    """Whether the other order of bits is clearly smoother: noise alone makes no such difference."""
    along, _, reordered = roughness
    return along > 1.2 * reordered


class _Inverted:
    """A stream with zeros and ones exchanged."""

    def __init__(self, stream: SpikeStream) -> None:
        self._stream, self.spike_h, self.spike_w = stream, stream.spike_h, stream.spike_w

    def __len__(self) -> int:
        return len(self._stream)

    def crop(self, begin: int, length: int, top: int, left: int, h: int, w: int) -> np.ndarray:
        """(length, h, w) uint8."""
        return 1 - self._stream.crop(begin, length, top, left, h, w)


def _check_inverted(
    read_frame: Any, count: int, stream: SpikeStream, period: float | None, arguments: argparse.Namespace
) -> None:
    """
    Raises:
        UserError: with zeros and ones exchanged, the stream shows what the frames show.
    """
    inverted: Stream = _Inverted(stream)
    if align(read_frame, count, inverted, period=period, reach=arguments.reach).space.told:
        raise UserError(
            f"{stream.filepath}: zeros and ones are exchanged; python -m scripts.spikes convert IN OUT --invert makes "
            "a stream that is read right"
        )


def _number(value: float) -> float | None:
    """A number of DIGITS significant digits, as JSON has it: none where it is not finite."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


if __name__ == "__main__":
    sys.exit(main())
