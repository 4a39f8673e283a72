"""`render`: a stream as a video, by any method."""

import argparse
from pathlib import Path

from scripts.spikes.picture_arguments import add_picture_arguments
from scripts.spikes.sources import add_source_arguments, open_source
from utils.utils_progress import track


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument("out", type=Path, help="video: .mp4, .gif or .avi")
    add_picture_arguments(parser)
    parser.add_argument("--fps", type=float, default=30.0, help="pictures per second (default 30)")


def run(args: argparse.Namespace) -> None:
    # Here, so that --help does not wait for torch and video encoders.
    from scripts.spikes.pictures import moments
    from scripts.spikes.video import check_video_path, write_video

    check_video_path(args.out)
    source = open_source(args)
    asked = moments(source, args)
    count, height, width = write_video(
        args.out, track(asked.pictures, len(asked.times), args.method, "picture"), args.fps
    )
    print(
        f"{args.out}: {count} pictures of {height}x{width} by {args.method}, {args.fps:g} per second, "
        f"{source.brightness}"
    )
