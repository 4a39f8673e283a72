"""How fast pictures are made of spikes, against a loop over pixels in Python of the kind in use elsewhere.

    python scripts/benchmark/bench_reconstruct.py                          # a stream it simulates itself
    python scripts/benchmark/bench_reconstruct.py --dat FILE --spike_h 250 --spike_w 400 --json

Every method makes all frames of the stream; "single" makes one picture by interval, for which there is nothing to carry
over from frame to frame; the loop makes a few frames by interval, and both pictures by interval are checked to be equal
first. Timed in turn within one run, medians of milliseconds per frame; the ratio is the loop's by
interval to each method's, and the target concerns the interval alone.
"""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmark.flags import bench_reconstruct_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(bench_reconstruct_parser(__doc__ or ""))

import numpy as np

from data.spike.reconstruction.compat import interval_method
from data.spike.reconstruction.reconstruct import METHODS, reconstruct_frames
from data.spike.simulation.simulate import integrate_and_fire
from scripts.benchmark.stream_benchmark import run_benchmark
from utils.spike_loader import SpikeStream, write_spikes

TARGET = 50.0  # times faster per frame, by interval
LOOPED = 2  # frames that the loop makes per repeat


def interval_by_loop(spikes: np.ndarray, t: int) -> np.ndarray:
    """255 / (next spike at or after t - last spike before t) of each pixel by itself, (h, w) uint8, as spikling."""
    length, height, width = spikes.shape
    picture = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            after = t
            while after < length - 1 and spikes[after, row, column] == 0:
                after += 1
            before = t - 1
            while before > 0 and spikes[before, row, column] == 0:
                before -= 1
            picture[row, column] = 255 / (after - before)
    return picture.astype(np.uint8)


def synthetic_stream(path: Path) -> tuple[int, int]:
    """301 spike frames of 250x400 of a scene at rest with firing rates from 0.05 to 0.5."""
    rng = np.random.default_rng(0)
    light = np.broadcast_to(rng.uniform(0.1, 1.0, (250, 400)), (301, 250, 400))
    write_spikes(path, integrate_and_fire(light, 2.0, rng))
    return 250, 400


def measure(stream: SpikeStream, repeats: int) -> list[dict[str, Any]]:
    """One row per method: median milliseconds per frame, frames per second and the ratio to the loop."""
    spikes = stream.get_spike_matrix()
    middle = len(spikes) // 2
    looped = list(range(middle, min(middle + LOOPED, len(spikes))))
    check_equal(spikes, middle)
    milliseconds: dict[str, list[float]] = {name: [] for name in (*METHODS, "single", "loop")}
    for _ in range(repeats):
        for name, method in METHODS.items():
            start = time.perf_counter()
            for _picture in reconstruct_frames(spikes, method()):
                pass
            milliseconds[name].append(1e3 * (time.perf_counter() - start) / len(spikes))
        start = time.perf_counter()
        interval_method(spikes, middle)
        milliseconds["single"].append(1e3 * (time.perf_counter() - start))
        start = time.perf_counter()
        for t in looped:
            interval_by_loop(spikes, t)
        milliseconds["loop"].append(1e3 * (time.perf_counter() - start) / len(looped))
    loop = statistics.median(milliseconds["loop"])
    rows = []
    for name, values in milliseconds.items():
        median = statistics.median(values)
        rows.append({"method": name, "ms": median, "frames_per_second": 1e3 / median, "ratio": loop / median})
    return rows


def check_equal(spikes: np.ndarray, t: int) -> None:
    """The two pictures by interval are equal, but for pixels that lack a spike on one side, which are defined apart."""
    (rate,) = reconstruct_frames(spikes, METHODS["interval"](), [t])
    both = spikes[:t].any(axis=0) & spikes[t:].any(axis=0)
    ours = (1 / np.rint(1 / np.maximum(rate, 1e-9)) * 255).astype(np.uint8)
    if not np.array_equal(ours[both], interval_by_loop(spikes, t)[both]):
        raise AssertionError("the interval and the loop disagree")


def main() -> None:
    measured = run_benchmark(bench_reconstruct_parser(__doc__ or ""), measure, synthetic_stream)
    if measured is None:
        return
    length, height, width = measured.shape
    print(f"{measured.name}: {length} frames of {height}x{width}; medians of {measured.repeats} interleaved repeats")
    print(f"{'method':12}{'ms/frame':>10}{'frames/s':>11}{'ratio':>9}   target")
    for row in measured.rows:
        met = "met" if row["ratio"] >= TARGET else "MISSED"
        target = f">= {TARGET:.0f} x: {met}" if row["method"] == "interval" else ""
        print(f"{row['method']:12}{row['ms']:10.3f}{row['frames_per_second']:11.1f}{row['ratio']:8.1f}x   {target}")


if __name__ == "__main__":
    main()
