"""`reconstruct`: moments of a stream as PNG files."""

import argparse
from pathlib import Path

from scripts.spikes.pictures import add_method_arguments, build_method, method_pictures
from scripts.spikes.sources import add_source_arguments, frame_range, open_source, with_progress
from utils.utils_image import imwrite_rgb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument("out", type=Path, help="folder of the pictures, named by spike frame")
    add_method_arguments(parser)
    parser.add_argument("--frame", type=int, nargs="+", help="spike frames (default: --begin to --end by --stride)")
    parser.add_argument("--begin", type=int, default=0, help="first spike frame (default 0)")
    parser.add_argument("--end", type=int, help="spike frame after the last one (default: all)")
    parser.add_argument("--stride", type=int, default=1, help="spike frames per picture (default 1)")


def run(args: argparse.Namespace) -> None:
    source = open_source(args)
    times = args.frame or frame_range(source, args.begin, args.end, args.stride)
    pictures = method_pictures(source, build_method(args), times, args.light)
    for time, picture in zip(times, with_progress(pictures, len(times), args.method), strict=True):
        imwrite_rgb(args.out / f"{time:06d}.png", picture)
    print(f"{args.out}: {len(times)} pictures by {args.method}, intensity = rate x {source.threshold:g}")
