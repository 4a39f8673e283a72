"""`reconstruct`: moments of a stream as PNG files."""

import argparse
from pathlib import Path

from scripts.spikes.picture_arguments import add_picture_arguments
from scripts.spikes.sources import add_source_arguments, open_source
from utils.user_error import UserError
from utils.utils_image import imwrite_rgb
from utils.utils_progress import track


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument("out", type=Path, help="folder of the pictures, named by spike frame")
    add_picture_arguments(parser)
    parser.add_argument("--frame", type=int, nargs="+", help="spike frames, in place of --begin, --end and --stride")


def run(args: argparse.Namespace) -> None:
    # Here, so that --help does not wait for torch.
    from scripts.spikes.pictures import moments

    source = open_source(args)
    if args.frame and (args.begin, args.end, args.stride) != (0, None, 1):
        raise UserError("--begin, --end and --stride have no effect with --frame: give one or the other")
    asked = moments(source, args, args.frame)
    pictures = track(asked.pictures, len(asked.times), args.method, "picture")
    for time, picture in zip(asked.times, pictures, strict=True):
        imwrite_rgb(args.out / f"{time:06d}.png", picture)
    print(f"{args.out}: {len(asked.times)} pictures by {args.method}, {source.brightness}")
