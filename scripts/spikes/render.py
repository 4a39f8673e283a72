"""`render`: a stream as a video, by any method."""

import argparse
from pathlib import Path

from scripts.spikes.pictures import add_picture_arguments, moments
from scripts.spikes.sources import add_source_arguments, open_source
from scripts.spikes.video import check_video_path, write_video
from utils.utils_progress import track


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument("out", type=Path, help="video: .mp4, .gif or .avi")
    add_picture_arguments(parser)
    parser.add_argument("--fps", type=float, default=30.0, help="pictures per second (default 30)")


def run(args: argparse.Namespace) -> None:
    check_video_path(args.out)
    source = open_source(args)
    asked = moments(source, args)
    count = write_video(args.out, track(asked.pictures, len(asked.times), args.method, "picture"), args.fps)
    print(
        f"{args.out}: {count} pictures of {source.shape[1]}x{source.shape[2]} by {args.method}, {args.fps:g} per second"
    )
