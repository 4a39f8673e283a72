"""`page`: a stream as one HTML file to look at: any instant, method and width, zoom, saved pictures.

    page 000226.dat                                    writes 000226.html in the working folder
    page long.dat --begin 4000 --end 6000 --out a.html

The file holds the spikes themselves, packed and compressed; the browser makes the pictures. Nothing else is loaded.
"""

import argparse
import base64
import html
import json
import re
import zlib
from pathlib import Path

import numpy as np

from scripts.spikes.sources import BLOCK, Source, add_source_arguments, frame_range, open_source
from utils.utils_file import atomic_write

TEMPLATE = Path(__file__).with_name("page.html")
MOST_FRAMES = 2000  # about 15 MB for pictures of 250x400, which browsers open at once
assert BLOCK % 8 == 0  # so that a block's frames are whole bytes of `packed`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    add = parser.add_argument
    add("--out", type=Path, help="HTML file (default: the stream's name, in the working folder)")
    add("--begin", type=int, default=0, help="first spike frame (default 0)")
    add("--end", type=int, help=f"spike frame after the last one (default: {MOST_FRAMES} after the first, or all)")


def run(args: argparse.Namespace) -> None:
    source = open_source(args)
    end = min(len(source), args.begin + MOST_FRAMES) if args.end is None else args.end
    frames = frame_range(source, args.begin, end)
    out = args.out or Path(f"{source.path.stem}.html")
    with atomic_write(out) as file:
        file.write(make_page(source, frames))
    left_out = "" if len(frames) == len(source) else f" of {len(source)}; --begin and --end choose others"
    print(f"{out}: spike frames {frames.start} to {frames.stop - 1}{left_out}; {source.brightness}")


def make_page(source: Source, frames: range) -> str:
    """The page's text with spike frames `frames` of a stream."""
    # Here, so that --help does not wait for OpenCV.
    from data.spike.reconstruction.automatic import automatic_sigma, charge_sigma

    _, height, width = source.shape
    meta = {
        "name": source.path.stem,
        "frames": len(frames),
        "height": height,
        "width": width,
        "first": frames.start,
        "threshold": source.threshold,
        "sigma": charge_sigma(automatic_sigma(source.block, len(source))),
    }
    content = {
        "title": html.escape(source.path.name),
        "subtitle": html.escape(f"{len(frames)} spike frames of {height}x{width}; {source.brightness}"),
        "stream": base64.b64encode(zlib.compress(packed(source, frames), 6)).decode(),
        "meta": json.dumps(meta, allow_nan=False).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: content[match[1]], TEMPLATE.read_text(encoding="utf-8"))


def packed(source: Source, frames: range) -> bytes:
    """Spikes as (h, w, ceil(T/8)) bytes, bit k of byte b being frame 8 b + k: a pixel's spikes in one run, whose
    regular intervals compress to half of what whole frames do."""
    blocks = [
        np.packbits(block, axis=0, bitorder="little") for block in source.blocks(frames.start, frames.stop, "packing")
    ]
    return np.ascontiguousarray(np.concatenate(blocks).transpose(1, 2, 0)).tobytes()
