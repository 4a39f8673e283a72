"""Pictures of a stream for the commands: a method by name with its parameters, and shades to look at."""

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from data.spike.reconstruction.automatic import automatic_sigma, charge_sigma, window_length
from data.spike.reconstruction.methods import (
    ChargeRate,
    GaussianRate,
    IntervalRate,
    KIntervalRate,
    PlasticityRate,
    RateMethod,
    WindowRate,
)
from data.spike.reconstruction.reconstruct import METHODS, reconstruct_frames
from data.spike.simulation.simulate import linear_to_srgb, to_uint8
from scripts.spikes.picture_arguments import NETWORK, PARAMETERS, WIDTHS
from scripts.spikes.sources import Source, frame_range
from utils.user_error import UserError
from utils.utils_image import panel


@dataclasses.dataclass(frozen=True)
class Moments:
    """Spike frames and, one after another, their pictures (h, w) uint8."""

    times: Sequence[int]
    pictures: Iterator[np.ndarray]


def moments(source: Source, args: argparse.Namespace, frames: Sequence[int] | None = None) -> Moments:
    """The moments and pictures that the arguments ask for; `frames` in place of --begin, --end and --stride.

    Raises:
        UserError: frames that are not there, or an argument that has no effect or is out of range.
    """
    given = {name: getattr(args, name) for name in PARAMETERS if getattr(args, name) is not None}
    known = [] if args.method in ("raw", *NETWORK) else _parameters(args.method)
    for name in given:
        if name not in known:
            fitting = ", ".join(f"--{name}" for name in known)
            raise UserError(f"--{name} has no effect with --method {args.method}, which has: {fitting or 'none'}")
    if args.method in NETWORK:
        return _generated(source, args, frames)
    if args.opt or args.checkpoint:
        raise UserError("--opt and --checkpoint are for --method network")
    times = frame_range(source, args.begin, args.end, args.stride) if frames is None else frames
    if args.method == "raw":
        return Moments(times, raw_pictures(source, times))
    method = METHODS[args.method](**_width(source, args.method, given), **given)
    return Moments(times, method_pictures(source, method, times, args.light))


def automatic_widths(source: Source) -> dict[str, Any]:
    """Averaging times chosen from the stream, told to the user: by method (`WIDTHS`), in frames."""
    sigma = automatic_sigma(source.block, len(source))
    widths = {"charge": charge_sigma(sigma), "gaussian": sigma, "window": window_length(sigma)}
    print(
        f"Chosen from the stream's noise and motion: charge of {widths['charge']:g} frames, Gaussian of {sigma:g}, "
        f"window of {widths['window']}"
    )
    return widths


def _width(source: Source, method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The averaging time of a method that has one, chosen unless it is given."""
    name = WIDTHS.get(method)
    return {} if name is None or name in given else {name: automatic_widths(source)[method]}


def _parameters(method: str) -> list[str]:
    """Parameters of a method that are arguments."""
    fields = dataclasses.fields(METHODS[method])  # type: ignore[arg-type]
    return [field.name for field in fields if field.init and field.name in PARAMETERS]


def _generated(source: Source, args: argparse.Namespace, frames: Sequence[int] | None) -> Moments:
    """By a network; moments are those whose window it takes, by default all of them."""
    # Here, since importing networks takes longer than most pictures.
    from models.network_spikling import generate_stream, windows_of
    from scripts.spikes.networks import load_generator

    network = load_generator(args.opt, args.checkpoint)
    before = int(network.in_chans) // 2  # type: ignore[arg-type]
    if frames is None:
        moments = windows_of(network, source.stream, source.threshold).moments
        end = moments.stop if args.end is None else args.end
        frames = frame_range(source, max(args.begin, moments.start), end, args.stride)
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


def make_sheet(
    source: Source, frame: int, light: str, widths: Mapping[str, Any], picture: np.ndarray | None = None
) -> np.ndarray:
    """One moment by all methods.

    Args:
        source: the stream.
        frame: spike frame.
        light: "srgb" or "linear", what the pixels added up.
        widths: averaging times by method, as of `automatic_widths`.
        picture: (H,W,3) uint8 RGB, shown at the stream's size after the first row; None: none.

    Returns:
        (H',W',3) uint8 RGB.
    """
    sheet: list[list[tuple[str, RateMethod | None]]] = [
        [("spikes", None), (f"window {widths['window']}", WindowRate(widths["window"])), ("interval", IntervalRate())],
        [
            ("short-term plasticity", PlasticityRate()),
            ("2-interval", KIntervalRate()),
            (f"Gaussian {widths['gaussian']:g}", GaussianRate(widths["gaussian"])),
            (f"charge {widths['charge']:g}", ChargeRate(widths["charge"])),
        ],
    ]
    rows = []
    for row in sheet:
        pictures = []
        for title, method in row:
            shown = method_pictures(source, method, [frame], light) if method else raw_pictures(source, [frame])
            pictures.append((title, next(iter(shown))))
        rows.append(pictures)
    if picture is not None:
        size = source.shape[2], source.shape[1]
        rows[0].append(("picture", cv2.resize(picture, size, interpolation=cv2.INTER_AREA)))
    strips = [panel(pictures) for pictures in rows]
    width = max(strip.shape[1] for strip in strips)
    return np.concatenate([np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0))) for strip in strips])
