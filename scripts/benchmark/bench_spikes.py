"""How fast spikes are read, against a plain per-pixel numpy decoder of the kind in use elsewhere.

    python scripts/benchmark/bench_spikes.py                               # a stream it writes itself
    python scripts/benchmark/bench_spikes.py --dat FILE --spike_h 360 --spike_w 640 --json

Three jobs, each timed with both decoders in turn within one run, medians printed: the whole file; a block of 41 frames
from its middle; a 192x192 training crop, that is 96x96 spike pixels of all frames, as voxels with K = 32. The plain
decoder follows the published ones: 64-bit pixel and byte numbers and a comparison for every pixel; for a block it reads
the whole file and decodes the block; for a crop it decodes the whole file. The whole file and the crop include opening
the stream, as in a data loader; the block is one of many from an open stream. Results are checked to be equal first.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmark.flags import bench_spikes_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(bench_spikes_parser(__doc__ or ""))

import numpy as np

from data.spike.encoding import build_encoding
from data.spike.sync import ExposureWindow
from scripts.benchmark.stream_benchmark import run_benchmark
from utils.spike_loader import SpikeStream, write_spikes
from utils.user_error import UserError

BLOCK = 41
CROP = 96
VOXELS = 32
TARGETS = {"whole file": 100.0, "block": 100.0, "crop": 1.5}  # times faster; the crop: milliseconds


def plain_decode(path: Path, height: int, width: int, begin: int = 0, length: int | None = None) -> np.ndarray:
    """Frames [begin, begin + length) as (T, H, W) bool, by arithmetic on every pixel's number."""
    packed = np.frombuffer(path.read_bytes(), np.uint8)
    frame_bytes = height * width // 8
    count = len(packed) // frame_bytes if length is None else length
    pixel = np.arange(count * height * width).reshape(count, height, width)
    byte, mask = pixel // 8, np.left_shift(1, pixel % 8)
    block = packed[begin * frame_bytes : (begin + count) * frame_bytes]
    return (np.bitwise_and(block[byte], mask) == mask)[:, ::-1]


def plain_voxels(spikes: np.ndarray, bins: int) -> np.ndarray:
    """log(1 + spikes) in bins of equal duration, (bins, h, w) float32, as a product with the overlap matrix."""
    edges = np.arange(len(spikes) + 1)
    borders = np.linspace(0, len(spikes), bins + 1)
    overlap = np.minimum(borders[1:, None], edges[None, 1:]) - np.maximum(borders[:-1, None], edges[None, :-1])
    counts = np.tensordot(np.maximum(overlap, 0), spikes.astype(np.float64), axes=1)
    return np.log1p(counts).astype(np.float32)


def synthetic_stream(path: Path) -> tuple[int, int]:
    """A seeded stream with the GoPro sample's size and firing rate (0.2): 88 frames of 360x640."""
    write_spikes(path, np.random.default_rng(0).random((88, 360, 640), np.float32) < 0.2)
    return 360, 640


def jobs(path: Path, height: int, width: int) -> dict[str, tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]]:
    """name -> (ours, plain)."""
    stream = SpikeStream(path, height, width)
    length = len(stream)
    if length < BLOCK or min(height, width) < CROP or height * width % 8:
        raise UserError(f"{path}: {BLOCK} frames of {CROP}x{CROP} or more, with H*W a multiple of 8, are needed.")
    begin, top, left = (length - BLOCK) // 2, (height - CROP) // 2 + 1, (width - CROP) // 2 + 3
    encoding = build_encoding({"representation": "voxel", "bins": VOXELS}, spike_threshold=2.0)
    window = ExposureWindow(0, length, length // 2)

    def plain_crop() -> np.ndarray:
        spikes = plain_decode(path, height, width)
        return plain_voxels(spikes[:, top : top + CROP, left : left + CROP], VOXELS)

    return {
        "whole file": (
            lambda: SpikeStream(path, height, width).get_spike_matrix(),
            lambda: plain_decode(path, height, width),
        ),
        "block": (
            lambda: stream.get_block_spikes(begin, BLOCK),
            lambda: plain_decode(path, height, width, begin, BLOCK),
        ),
        "crop": (
            lambda: encoding.encode_crop(SpikeStream(path, height, width), window, top, left, CROP, CROP),
            plain_crop,
        ),
    }


def measure(path: Path, height: int, width: int, repeats: int) -> list[dict[str, Any]]:
    """One row per job: median milliseconds of both, frames per second, ratio, target and whether it is met."""
    timed = jobs(path, height, width)
    length = len(SpikeStream(path, height, width))
    for name, (ours, plain) in timed.items():
        if not np.allclose(ours(), plain(), rtol=0, atol=1e-6):
            raise AssertionError(f"{path}: the two decoders disagree on: {name}")
    milliseconds: dict[tuple[str, int], list[float]] = {}
    for _ in range(repeats):
        for name, pair in timed.items():
            for which, job in enumerate(pair):
                start = time.perf_counter()
                job()
                milliseconds.setdefault((name, which), []).append(1e3 * (time.perf_counter() - start))
    rows = []
    for name in timed:
        ours_ms, plain_ms = (statistics.median(milliseconds[name, which]) for which in (0, 1))
        frames = BLOCK if name == "block" else length
        ratio = plain_ms / ours_ms
        rows.append(
            {
                "job": name,
                "ours_ms": ours_ms,
                "plain_ms": plain_ms,
                "frames_per_second": 1e3 * frames / ours_ms,
                "ratio": ratio,
                "target": TARGETS[name],
                "met": ours_ms < TARGETS[name] if name == "crop" else ratio >= TARGETS[name],
            }
        )
    return rows


def main() -> None:
    measured = run_benchmark(
        bench_spikes_parser(__doc__ or ""),
        lambda stream, repeats: measure(stream.filepath, *stream.shape[1:], repeats),
        synthetic_stream,
    )
    if measured is None:
        return
    length, height, width = measured.shape
    print(f"{measured.name}: {length} frames of {height}x{width}; medians of {measured.repeats} interleaved repeats")
    print(f"{'job':12}{'ours ms':>10}{'plain ms':>11}{'frames/s':>12}{'ratio':>9}   target")
    for row in measured.rows:
        target = f"< {row['target']} ms" if row["job"] == "crop" else f">= {row['target']:.0f} x"
        print(
            f"{row['job']:12}{row['ours_ms']:10.3f}{row['plain_ms']:11.1f}{row['frames_per_second']:12.0f}"
            f"{row['ratio']:8.0f}x   {target}: {'met' if row['met'] else 'MISSED'}"
        )


if __name__ == "__main__":
    main()
