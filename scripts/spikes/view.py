"""`view`: one moment of a stream by all methods, side by side in a PNG."""

import argparse
from pathlib import Path

import cv2
import numpy as np

from data.spike.reconstruction.methods import (
    GaussianRate,
    IntervalRate,
    KIntervalRate,
    PlasticityRate,
    RateMethod,
    WindowRate,
)
from scripts.spikes.pictures import add_light_argument, method_pictures, raw_pictures
from scripts.spikes.sources import Source, add_source_arguments, frame_range, open_source
from utils.utils_image import imread_rgb, imwrite_rgb, panel

SHEET: list[list[tuple[str, RateMethod | None]]] = [
    [("spikes", None), ("window 41", WindowRate()), ("interval", IntervalRate())],
    [("short-term plasticity", PlasticityRate()), ("2-interval", KIntervalRate()), ("Gaussian 6", GaussianRate())],
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument("--frame", type=int, help="spike frame (default: the middle one)")
    parser.add_argument("--picture", type=Path, help="the sharp picture, to show beside them")
    parser.add_argument("--out", type=Path, help="PNG (default: beside the stream)")
    add_light_argument(parser)


def run(args: argparse.Namespace) -> None:
    source = open_source(args)
    frame = len(source) // 2 if args.frame is None else args.frame
    frame_range(source, frame, frame + 1)
    out = args.out or source.path.with_name(f"{source.path.stem}_{frame:06d}.png")
    picture = None if args.picture is None else imread_rgb(args.picture)
    imwrite_rgb(out, make_sheet(source, frame, args.light, picture))
    print(f"{out}: spike frame {frame} of {len(source)}, intensity = rate x {source.threshold:g}")


def make_sheet(source: Source, frame: int, light: str, picture: np.ndarray | None = None) -> np.ndarray:
    """uint8 RGB: a picture per method, and `picture` (uint8 RGB) at the stream's size after those of the first row."""
    rows = []
    for row in SHEET:
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
