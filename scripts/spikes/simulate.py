"""`simulate`: spikes of a video, and on demand its blurred and sharp frames on the same clock.

    simulate clip.mp4 out/clip.dat                                        8 spike frames per frame by optical flow
    simulate frames/ out/clip.dat --interpolate 1 --preset spikling       each frame of a high-speed video is one
    simulate clip.mp4 out/clip.dat --spike_ratio 2 --exposure 57 --gap 7 --pictures out/pictures
    simulate photographs out/demo.dat --size 240 320 --frames 88          moving photographs of scikit-image

Beside the stream comes config.yaml with its size and spike_threshold, and with --exposure sync.json; pictures of an
earlier run in the same place are replaced as a whole.
"""

import argparse
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data.spike.simulation.interpolate import to_spike_clock
from data.spike.simulation.motion import CameraScene, load_photograph
from data.spike.simulation.noise import SensorNoise
from data.spike.simulation.presets import PRESETS, SensorModel
from data.spike.simulation.simulate import ExposedFrame, IntegrateAndFire, Shutter, expose
from data.spike.simulation.video import spike_frames, write_frames
from data.spike.sync import GOPRO_SPIKES_PER_FRAME, ExposureWindow, SyncTable, write_sync
from data.spike.video_source import FrameSize, FrameSource
from utils.options.flags import positive_int
from utils.spike_writer import check_config, write_config
from utils.user_error import UserError
from utils.utils_file import list_folder
from utils.utils_image import PICTURE_SUFFIXES, imwrite_rgb
from utils.utils_progress import track

SIDES = ("blur", "sharp")  # folders of the pictures
PHOTOGRAPHS = ("chelsea.png", "coffee.png")  # background and moving object
PHOTOGRAPH_SIZE = (240, 320)
PHOTOGRAPH_SPEED = 6.0  # pixels per 8 spike frames
PHOTOGRAPH_FRAMES = 88


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("video", type=Path, help='video, folder of its frames, or "photographs"')
    add("out", type=Path, help="the stream, a .dat")
    add("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the frames, covered and cut (default: own)")
    add("--scale", type=float, default=1.0, help="resize frames by this factor (default 1)")
    add("--frames", type=positive_int, help='read so many frames (default: all; of "photographs" 88 spike frames)')
    add("--interpolate", type=positive_int, help="spike frames per frame (default 8; 1: every frame is a spike frame)")
    add("--spike_ratio", type=int, default=1, help="frame pixels per spike pixel and axis (default 1)")
    add("--light", choices=("srgb", "linear"), default="srgb", help="integrate stored values (default) or linear light")
    add("--seed", type=int, default=0, help="of start and noise (default 0)")
    add("--no_config", action="store_true", help="write no config.yaml")
    add = parser.add_argument_group("sensor").add_argument
    add("--preset", choices=tuple(PRESETS), default="v2s", help="(default v2s: fires at 2, rate = light / 2)")
    add("--threshold", type=float, help="charge at which a pixel fires, in the preset's unit")
    add("--gain", type=float, help="charge per light")
    add("--reset", choices=("subtract", "zero"), help="what firing takes away: the threshold or all charge")
    add("--start", choices=("random", "zero"), help="charge before the first frame")
    add = parser.add_argument_group("noise").add_argument
    add("--photons", type=float, help="a white pixel's photons per spike frame (default: no shot noise)")
    for field in dataclasses.fields(SensorNoise)[1:]:
        add(f"--{field.name}", type=float, default=0.0, help=NOISE_HELP[field.name])
    add = parser.add_argument_group("blurred frames").add_argument
    add("--exposure", type=int, help="spike frames of an exposure")
    add("--gap", type=int, default=0, help="spike frames between exposures (default 0)")
    add("--pictures", type=Path, help="folder for blur/ and sharp/ (default: beside the stream)")


NOISE_HELP = {
    "dark_current": "light seen in the dark, share of white",
    "gain_spread": "standard deviation between pixels, share",
    "threshold_spread": "the same",
    "hot_pixels": "share of pixels with a large dark current",
    "dead_pixels": "share of pixels that never fire",
    "spurious": "probability of a false spike per pixel and frame",
}


def run(args: argparse.Namespace) -> None:
    check(args)
    model, noise = sensor_model(args), sensor_noise(args)
    rng = np.random.default_rng(args.seed)
    frames, count = clock_frames(args, rng)
    sizes: list[tuple[int, int]] = []
    folder = args.pictures or args.out.parent

    def make_sensor(size: tuple[int, int]) -> IntegrateAndFire:
        sizes.append(size)
        if not args.no_config:
            check_config(args.out.parent / "config.yaml", *size, model.spike_threshold)
        if args.exposure is not None:
            remove_earlier(args.out, folder)
        return model.sensor(size, rng, noise)

    bar = track(frames, count, "simulating", "picture")
    seen: dict[str, Any] = {"spike_ratio": args.spike_ratio, "light": args.light}
    if args.exposure is None:
        written = write_frames(args.out, spike_frames(bar, make_sensor, **seen))
        what_else = ""
    else:
        shutter = Shutter(args.exposure, args.gap)
        if count < shutter.period:
            raise UserError(f"{args.video}: {count} spike frames are fewer than an exposure and gap, {shutter.period}")
        if args.video.resolve() in [(folder / side).resolve() for side in SIDES]:
            raise UserError(f"{args.video}: pictures are written there; choose another folder for them by --pictures")
        pictures = write_exposed(expose(bar, shutter, make_sensor=make_sensor, **seen), shutter, args.out, folder)
        written = pictures * shutter.period
        what_else = f"; {pictures} pictures in {folder / 'blur'} and {folder / 'sharp'}"
    if not args.no_config:
        write_config(args.out.parent / "config.yaml", *sizes[0], model.spike_threshold)
    print(f"{args.out}: {written} spike frames, spike_threshold {model.spike_threshold:g}{what_else}")


def check(args: argparse.Namespace) -> None:
    """Raises UserError for numbers out of range and options that would have no effect."""
    if args.out.suffix.lower() != ".dat":
        raise UserError(f"{args.out}: streams are simulated into .dat files; `convert` makes others of them")
    least = {"frames": 1, "interpolate": 1, "spike_ratio": 1, "seed": 0}
    for name, limit in least.items():
        if getattr(args, name) is not None and getattr(args, name) < limit:
            raise UserError(f"--{name} must be at least {limit}, got {getattr(args, name)}")
    if not args.scale > 0 or (args.size and min(args.size) < args.spike_ratio):
        raise UserError(f"--scale {args.scale}, --size {args.size}: frames of at least one spike pixel are needed")
    if args.size and args.scale != 1.0:
        raise UserError("--size and --scale both resize: give one of them")
    if args.exposure is None and (args.gap or args.pictures):
        raise UserError("--gap and --pictures need --exposure: the spike frames that a picture is exposed for")


def sensor_model(args: argparse.Namespace) -> SensorModel:
    """The preset with what the arguments change."""
    changes = {name: getattr(args, name) for name in ("threshold", "gain", "reset", "start")}
    return dataclasses.replace(
        PRESETS[args.preset], **{name: value for name, value in changes.items() if value is not None}
    )


def sensor_noise(args: argparse.Namespace) -> SensorNoise | None:
    """The noise of the arguments; None for none."""
    noise = SensorNoise(**{field.name: getattr(args, field.name) for field in dataclasses.fields(SensorNoise)})
    return None if noise == SensorNoise() else noise


def clock_frames(args: argparse.Namespace, rng: np.random.Generator) -> tuple[Iterable[np.ndarray], int]:
    """Frames (H,W,3) uint8 RGB on the spike clock, and how many."""
    if args.video.name == "photographs" and not args.video.exists():
        if args.interpolate is not None or args.scale != 1.0:
            raise UserError("--interpolate and --scale have no effect on photographs, which move on the spike clock")
        height, width = args.size or PHOTOGRAPH_SIZE
        size = height - height % args.spike_ratio, width - width % args.spike_ratio
        background, moving = (load_photograph(name) for name in PHOTOGRAPHS)
        count = args.frames or PHOTOGRAPH_FRAMES
        return CameraScene(background, moving, size, PHOTOGRAPH_SPEED, rng).frames(count), count
    factor = args.interpolate or GOPRO_SPIKES_PER_FRAME
    frame_size = FrameSize(args.scale, args.size and tuple(args.size), args.spike_ratio)
    source = FrameSource(args.video, frame_size, args.frames)
    frames = source.frames(0, source.length)
    if factor == 1:
        return frames, source.length
    return to_spike_clock(frames, factor), factor * (source.length - 1) + 1


def write_exposed(exposed: Iterable[ExposedFrame], shutter: Shutter, out: Path, folder: Path) -> int:
    """Writes the blocks' spikes as one stream, their pictures and sync.json; returns the number of pictures.

    What breaks in the middle, Ctrl-C too, leaves no pictures, which would be taken for frames of the clip.
    """
    windows: dict[str, ExposureWindow] = {}
    begun: list[Path] = []

    def spikes() -> Iterator[np.ndarray]:
        for index, frame in enumerate(exposed):
            name = f"{index:06d}"
            blurred, sharp = paths = picture_paths(folder, name)
            begun.extend(paths)
            imwrite_rgb(blurred, frame.blurred)
            imwrite_rgb(sharp, frame.sharp)
            windows[name] = ExposureWindow(0, shutter.end, shutter.center).shifted(index * shutter.period)
            yield from frame.spikes

    try:
        write_frames(out, spikes())
        write_sync(out.parent / "sync.json", out.parent.resolve().name, windows)
    except BaseException:
        remove(begun)
        raise
    return len(windows)


def picture_paths(folder: Path, name: str) -> list[Path]:
    """Files of a blurred and of a sharp picture."""
    return [folder / side / f"{name}.png" for side in SIDES]


def remove_earlier(out: Path, folder: Path) -> None:
    """Removes the stream, its sync.json and the pictures that this lists, of an earlier run in the same place.

    Raises:
        UserError: other pictures are among them, which would be taken for frames of the clip.
    """
    sync = out.parent / "sync.json"
    earlier = [
        path for name in (SyncTable.load(sync).windows if sync.exists() else ()) for path in picture_paths(folder, name)
    ]
    for side in SIDES:
        for path in list_folder(folder / side, PICTURE_SUFFIXES) if (folder / side).is_dir() else []:
            if path not in earlier:
                raise UserError(f"{path}: not a picture of {out}, but beside its pictures; choose another folder")
    remove([*earlier, sync, out])


def remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
