"""Pictures of a stream for the commands: a method by name with its parameters, and shades to look at."""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from data.spike.reconstruct import METHODS, reconstruct_frames
from data.spike.reconstruct_methods import RateMethod
from data.spike.simulate import linear_to_srgb, to_uint8
from scripts.spikes.sources import Source

PARAMETERS = {"length": int, "reach": int, "order": int, "sigma": float}
HELP = {
    "length": "window: frames (default 41)",
    "reach": "interval, k_interval: frames looked at on either side (default 256, 64)",
    "order": "k_interval: k (default 2)",
    "sigma": "gaussian: frames (default 6)",
}


def add_method_arguments(
    parser: argparse.ArgumentParser, more: Sequence[str] = (), default: str = "k_interval"
) -> None:
    """--method, its parameters, and --light."""
    choices = (*METHODS, *more)
    parser.add_argument("--method", choices=choices, default=default, help=f"(default {default})")
    for name, kind in PARAMETERS.items():
        parser.add_argument(f"--{name}", type=kind, help=HELP[name])
    add_light_argument(parser)


def add_light_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--light",
        choices=("srgb", "linear"),
        default="srgb",
        help="what the pixels added up: stored values, shown as they are (default), or linear light, which gets the "
        "sRGB curve",
    )


def build_method(args: argparse.Namespace) -> RateMethod:
    """The method of --method.

    Raises:
        ValueError: a parameter that it does not have, or out of range.
    """
    method = METHODS[args.method]
    known = [field.name for field in dataclasses.fields(method) if field.init]  # type: ignore[arg-type]
    given = given_parameters(args)
    for name in given:
        if name not in known:
            fitting = ", ".join(f"--{name}" for name in known if name in PARAMETERS)
            raise ValueError(f"--{name} has no effect with --method {args.method}, which has: {fitting or 'none'}")
    return method(**given)


def given_parameters(args: argparse.Namespace) -> dict[str, int | float]:
    """Parameters of methods that were given."""
    return {name: getattr(args, name) for name in PARAMETERS if getattr(args, name) is not None}


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
