"""`convert`: a stream in another form: .dat, .npy, spikling's .npz, turned, cut, with SpikeCV's config.yaml.

convert a.npy a.dat                                an array as a .dat, with its size in config.yaml beside it
convert a.dat b.dat --head_columns 16              without the columns after the picture
convert a.dat b.dat --spike_h 1000 --spike_w 1024 --drop_columns 500:512 1012:1024     raw lines of a 1000x1000 camera
convert a.dat b.dat --upside_down                  the picture turned over
convert a.dat pair.npz --end 32 --picture p.png    spikling's pair of 32 frames and the picture at their middle
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from data.spike.spikling_npz import dump_spike_numpy
from data.spike.stream_report import reversed_bits
from scripts.spikes.sources import Source, add_source_arguments, frame_range, open_source
from utils.spike_loader import SpikeStream
from utils.spike_writer import check_config, write_config, writing_spikes
from utils.user_error import UserError
from utils.utils_file import atomic_write
from utils.utils_image import imread_rgb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    add = parser.add_argument
    add("out", type=Path, help="what to write: .dat, .npy or .npz")
    add("--begin", type=int, default=0, help="first frame (default 0)")
    add("--end", type=int, help="frame after the last one (default: all)")
    add("--drop_columns", nargs="+", default=[], metavar="BEGIN:END", help="leave out columns [BEGIN, END)")
    add("--upside_down", action="store_true", help="turn the picture over")
    add("--mirror", action="store_true", help="exchange left and right")
    add("--reverse_bits", action="store_true", help="the .dat has the most significant bit first")
    add("--out_top_down", action="store_true", help="store the rows of the new .dat top-down (default: bottom-up)")
    add("--picture", type=Path, help="for .npz: the picture at the middle of the frames")
    add("--invert", action="store_true", help="exchange zeros and ones")
    add("--config", action="store_true", help="the default since a .dat cannot be opened without its size; kept")
    add("--no_config", action="store_true", help="write no config.yaml (SpikeCV's, with the size) beside a .dat")


def run(args: argparse.Namespace) -> None:
    source = open_source(args)
    frames = frame_range(source, args.begin, args.end)
    suffix = args.out.suffix.lower()
    if suffix not in (".dat", ".npy", ".npz"):
        raise UserError(f"{args.out}: streams are written as .dat, .npy or .npz")
    if args.out.exists() and args.out.resolve() == source.path.resolve():
        raise UserError(f"{args.out}: the stream cannot be written over itself; choose another name")
    if suffix != ".dat" and (args.out_top_down or args.config or args.no_config):
        raise UserError("--out_top_down, --config and --no_config are for .dat files")
    if args.config and args.no_config:
        raise UserError("--config and --no_config exclude each other: give one of them")
    if (suffix == ".npz") != (args.picture is not None):
        raise UserError("spikling's .npz needs --picture, the one at the middle of the frames; others have none")
    _, height, recorded = source.shape
    columns = kept_columns(recorded, args.drop_columns)
    width = len(columns)
    blocks = (turned(block[:, :, columns], args) for block in as_displayed(source, frames, args.reverse_bits))
    if suffix == ".dat":
        config = args.out.parent / "config.yaml"
        if not args.no_config:
            check_config(config, height, width, source.stated_threshold)
        with writing_spikes(args.out, not args.out_top_down) as writer:
            for block in blocks:
                writer.write(block)
        if not args.no_config and not config.exists():
            write_config(config, height, width, source.stated_threshold)
    elif suffix == ".npy":
        with atomic_write(args.out, "wb") as file:
            description = {"descr": "|u1", "fortran_order": False, "shape": (len(frames), height, width)}
            np.lib.format.write_array_header_1_0(file, description)
            for block in blocks:
                file.write(np.ascontiguousarray(block).tobytes())
    else:
        gray = cv2.cvtColor(imread_rgb(args.picture), cv2.COLOR_RGB2GRAY)
        dump_spike_numpy(args.out, np.concatenate(list(blocks)), gray)
    print(f"{args.out}: {len(frames)} frames of {height}x{width}")


def as_displayed(source: Source, frames: range, reverse_bits: bool) -> Iterator[np.ndarray]:
    """Blocks (t, h, w) with row 0 on top."""
    if not reverse_bits:
        yield from source.blocks(frames.start, frames.stop, "converting")
        return
    stream = source.stream
    if not isinstance(stream, SpikeStream) or stream.head_columns:
        raise UserError("--reverse_bits is for .dat files without head columns")
    for block in source.blocks(frames.start, frames.stop, "converting", as_stored=True):
        block = reversed_bits(block)
        yield block[:, ::-1] if stream.flipud else block


def kept_columns(width: int, dropped: Sequence[str]) -> np.ndarray:
    """Columns of `width` that are in none of the ranges BEGIN:END.

    Raises:
        UserError: not a range of these columns, or none is left.
    """
    kept = np.ones(width, bool)
    for text in dropped:
        begin, colon, end = text.partition(":")
        if not (colon and begin.isdecimal() and end.isdecimal() and int(begin) < int(end) <= width):
            raise UserError(f"--drop_columns {text}: BEGIN:END within the stream's columns 0:{width} is needed")
        kept[int(begin) : int(end)] = False
    if not kept.any():
        raise UserError(f"--drop_columns {' '.join(dropped)}: none of {width} columns is left")
    return np.flatnonzero(kept)


def turned(block: np.ndarray, args: argparse.Namespace) -> np.ndarray:
    block = 1 - block if args.invert else block
    block = block[:, ::-1] if args.upside_down else block
    return block[:, :, ::-1] if args.mirror else block
