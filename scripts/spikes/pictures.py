"""Pictures of a stream for the commands: a method by name with its parameters, and shades to look at."""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data.spike.reconstruction.methods import RateMethod
from data.spike.reconstruction.reconstruct import METHODS, reconstruct_frames
from data.spike.simulation.simulate import linear_to_srgb, to_uint8
from scripts.spikes.sources import Source, frame_range
from utils.user_error import UserError


@dataclasses.dataclass(frozen=True)
class Moments:
    """Spike frames and, one after another, their pictures (h, w) uint8."""

    times: Sequence[int]
    pictures: Iterator[np.ndarray]


DEFAULT_RECIPE = Path("options/spikling/train_spikling.json")
PARAMETERS = {"length": int, "reach": int, "order": int, "sigma": float}
HELP = {
    "length": "window: frames (default 41)",
    "reach": "interval, k_interval: frames looked at on either side (default 256, 64)",
    "order": "k_interval: k (default 2)",
    "sigma": "gaussian: frames (default 6)",
}


def add_picture_arguments(parser: argparse.ArgumentParser) -> None:
    """Which moments, by which method, in what light."""
    add = parser.add_argument
    add("--method", choices=(*METHODS, "raw", "gen"), default="k_interval", help="(default k_interval)")
    for name, kind in PARAMETERS.items():
        add(f"--{name}", type=kind, help=HELP[name])
    add("--opt", type=Path, help=f"gen: recipe of the network (default {DEFAULT_RECIPE})")
    add("--checkpoint", type=Path, help="gen: weights")
    add_light_argument(parser)
    add("--begin", type=int, default=0, help="first spike frame (default 0)")
    add("--end", type=int, help="spike frame after the last one (default: all)")
    add("--stride", type=int, default=1, help="spike frames per picture (default 1)")


def add_light_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--light",
        choices=("srgb", "linear"),
        default="srgb",
        help="what the pixels added up: stored values, shown as they are (default), or linear light, which gets the "
        "sRGB curve",
    )


def moments(source: Source, args: argparse.Namespace, frames: Sequence[int] | None = None) -> Moments:
    """The moments and pictures that the arguments ask for; `frames` in place of --begin, --end and --stride.

    Raises:
        UserError: frames that are not there, or an argument that has no effect or is out of range.
    """
    given = {name: getattr(args, name) for name in PARAMETERS if getattr(args, name) is not None}
    known = [] if args.method in ("raw", "gen") else _parameters(args.method)
    for name in given:
        if name not in known:
            fitting = ", ".join(f"--{name}" for name in known)
            raise UserError(f"--{name} has no effect with --method {args.method}, which has: {fitting or 'none'}")
    if args.method != "gen" and (args.opt or args.checkpoint):
        raise UserError("--opt and --checkpoint are for --method gen")
    if args.method == "gen":
        return _generated(source, args, frames)
    times = frame_range(source, args.begin, args.end, args.stride) if frames is None else frames
    if args.method == "raw":
        return Moments(times, raw_pictures(source, times))
    return Moments(times, method_pictures(source, METHODS[args.method](**given), times, args.light))


def _parameters(method: str) -> list[str]:
    """Parameters of a method that are arguments."""
    fields = dataclasses.fields(METHODS[method])  # type: ignore[arg-type]
    return [field.name for field in fields if field.init and field.name in PARAMETERS]


def _generated(source: Source, args: argparse.Namespace, frames: Sequence[int] | None) -> Moments:
    """By a network, whose window lies around each moment; without --end up to the last one with a whole window."""
    if args.checkpoint is None:
        raise UserError("--method gen needs --checkpoint, the network's weights")
    # Here, since importing networks takes longer than most pictures.
    from models.network_spikling import generate_stream
    from scripts.spikes.networks import load_generator

    network = load_generator(args.opt or DEFAULT_RECIPE, args.checkpoint)
    window = int(network.in_chans)  # type: ignore[arg-type]
    before, after = window // 2, window - window // 2
    if frames is None:
        begin = max(args.begin, before)
        end = len(source) - after + 1 if args.end is None else args.end
        frames = frame_range(source, begin, end, args.stride)
    pictures = generate_stream(network, source.stream, [time - before for time in frames], source.threshold)
    return Moments(frames, (shades(picture / np.float32(255), args.light) for picture in pictures))


def shades(intensity: np.ndarray, light: str) -> np.ndarray:
    """Intensity in [0, 1] as uint8."""
    return to_uint8(linear_to_srgb(intensity) if light == "linear" else intensity)


def method_pictures(source: Source, method: RateMethod, times: Sequence[int], light: str) -> Iterator[np.ndarray]:
    """Pictures (h, w) uint8 of spike frames `times`."""
    for picture in reconstruct_frames(source.stream, method, times, source.threshold):
        yield shades(picture, light)


def raw_pictures(source: Source, times: Sequence[int]) -> Iterator[np.ndarray]:
    """The spikes of frames `times` themselves, white where a pixel fired."""
    for time in times:
        yield source.block(time, time + 1)[0] * np.uint8(255)
