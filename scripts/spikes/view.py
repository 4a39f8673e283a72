"""`view`: one moment of a stream by all methods, side by side in a PNG."""

import argparse
from pathlib import Path

from scripts.spikes.picture_arguments import HELP, PARAMETERS, WIDTHS, add_light_argument
from scripts.spikes.sources import add_source_arguments, frame_range, open_source
from utils.utils_image import imread_rgb, imwrite_rgb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument("--frame", type=int, help="spike frame (default: the middle one)")
    parser.add_argument("--picture", type=Path, help="the sharp picture, to show beside them")
    parser.add_argument("--out", type=Path, help="PNG (default: in the current folder)")
    for name in ("length", "sigma"):
        parser.add_argument(f"--{name}", type=PARAMETERS[name], help=HELP[name])
    add_light_argument(parser)


def run(args: argparse.Namespace) -> None:
    # Here, so that --help does not wait for torch.
    from scripts.spikes.pictures import automatic_widths, make_sheet

    source = open_source(args)
    frame = len(source) // 2 if args.frame is None else args.frame
    frame_range(source, frame, frame + 1)
    out = args.out or Path(f"{source.path.stem}_{frame:06d}.png")
    picture = None if args.picture is None else imread_rgb(args.picture)
    widths = {method: value for method, name in WIDTHS.items() if (value := getattr(args, name)) is not None}
    if len(widths) < len(WIDTHS):
        widths = automatic_widths(source) | widths
    imwrite_rgb(out, make_sheet(source, frame, args.light, widths, picture))
    print(f"{out}: spike frame {frame} of {len(source)}, {source.brightness}")
