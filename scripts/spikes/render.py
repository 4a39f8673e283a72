"""`render`: a stream as a video, by any method."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scripts.spikes.pictures import add_method_arguments, build_method, given_parameters, method_pictures, raw_pictures
from scripts.spikes.sources import Source, add_source_arguments, frame_range, open_source, with_progress
from scripts.spikes.video import check_video_path, write_video


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument("out", type=Path, help="video: .avi, .mp4 or .gif")
    add_method_arguments(parser, more=("raw",))
    parser.add_argument("--begin", type=int, default=0, help="first spike frame (default 0)")
    parser.add_argument("--end", type=int, help="spike frame after the last one (default: all)")
    parser.add_argument("--stride", type=int, default=1, help="spike frames per picture (default 1)")
    parser.add_argument("--fps", type=float, default=30.0, help="pictures per second (default 30)")


def run(args: argparse.Namespace) -> None:
    check_video_path(args.out)
    source = open_source(args)
    times = frame_range(source, args.begin, args.end, args.stride)
    pictures = with_progress(moments(source, times, args), len(times), args.method)
    count = write_video(args.out, pictures, args.fps)
    print(
        f"{args.out}: {count} pictures of {source.shape[1]}x{source.shape[2]} by {args.method}, {args.fps:g} per second"
    )


def moments(source: Source, times: range, args: argparse.Namespace) -> Iterator[np.ndarray]:
    """Pictures (h, w) uint8 of spike frames `times` by --method."""
    if args.method == "raw":
        if given_parameters(args):
            raise ValueError(f"--{next(iter(given_parameters(args)))} has no effect with --method raw")
        return raw_pictures(source, times)
    return method_pictures(source, build_method(args), times, args.light)
