"""One network for all thresholds and little light: PSNR against the best training-free method, stream by stream.

    python -m scripts.benchmark.threshold_table --data ../shared/data
    python -m scripts.benchmark.threshold_table --low_light
    python -m scripts.benchmark.threshold_table --data ../shared/data --network RECIPE CHECKPOINT

With --data: the streams of `reconstruction_table.py`, of which every k-th spike is kept, as a camera of k times the
threshold has them. With --low_light: scenes of scikit-image's photographs that nothing is trained on, seen at mean
rates of 0.01 to 0.1 by a sensor with dark current, hot and dead pixels, and shot noise. The best training-free method
is chosen for each stream, with the sharp picture at hand; the network is the shipped one.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmark.flags import threshold_table_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(threshold_table_parser(__doc__ or ""))

import numpy as np

from data.spike.reconstruction.methods import ChargeRate, GaussianRate, RateMethod
from data.spike.simulation.exposures import LUMA, fire
from data.spike.simulation.motion import TEST_PHOTOGRAPHS, CameraScene, load_photograph
from data.spike.simulation.noise import SensorNoise
from data.spike.simulation.simulate import to_uint8
from scripts.benchmark.reconstruction_table import METHODS, Reconstruct, Sample, by_method, by_network, load_samples
from utils.evaluation.metrics import psnr
from utils.spike_loader import SpikeStream
from utils.utils_cli import run_command

KEPT = (1, 2, 4, 8)
SIGMAS = (3, 5, 7, 10, 12, 16, 20, 24, 32, 48)
CHARGE_SIGMAS = (2, 3, 4, 6, 8, 12, 16, 24, 32)
FREE: dict[str, RateMethod] = {
    **METHODS,
    **{f"Gaussian {sigma}": GaussianRate(float(sigma)) for sigma in SIGMAS},
    **{f"charge {sigma}": ChargeRate(float(sigma)) for sigma in CHARGE_SIGMAS},
}

RATES = (0.01, 0.03, 0.1)
SIZE, LENGTH, THRESHOLD = (192, 256), 401, 2.0
SPEED = 0.5  # pixels per 8 spike frames: a hand that tries to hold still
NOISE = SensorNoise(
    photons=500, dark_current=0.001, gain_spread=0.02, threshold_spread=0.02, hot_pixels=2e-4, dead_pixels=2e-4
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 a mistake in flags, options or data."""
    parser = threshold_table_parser(__doc__ or "")
    arguments = parser.parse_args(argv)
    if arguments.data is None and not arguments.low_light:
        parser.error("give --data, --low_light or both")
    return run_command(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    """Prints the tables asked for."""
    network = by_network(*arguments.network)
    if arguments.data is not None:
        samples = load_samples(arguments.data)
        rows = {f"every {k}" if k > 1 else "all": [thinned(sample, k) for sample in samples] for k in KEPT}
        print(table("spikes kept", rows, network))
    if arguments.low_light:
        print(table("mean rate", {f"{rate}": list(low_light(rate)) for rate in RATES}, network))


def thinned(sample: Sample, k: int) -> Sample:
    """Every k-th spike of each pixel, worth k times as much."""
    assert isinstance(sample.stream, SpikeStream), sample.name
    spikes = sample.stream.get_spike_matrix()
    kept = spikes & (np.cumsum(spikes, axis=0, dtype=np.int32) % k == 0)
    return sample._replace(stream=kept.astype(np.uint8), threshold=k * sample.threshold)


def low_light(rate: float) -> Iterator[Sample]:
    """A scene of each held-out photograph before another, at a mean firing rate."""
    for index, name in enumerate(TEST_PHOTOGRAPHS):
        rng = np.random.default_rng(index)
        before = load_photograph(TEST_PHOTOGRAPHS[index - 1])
        scene = CameraScene(load_photograph(name), before, SIZE, SPEED, rng)
        gray = np.stack([frame @ LUMA for frame in scene.frames(LENGTH)]) / np.float32(255)  # (T,h,w)
        light = rate * THRESHOLD / float(gray.mean())
        spikes = fire(gray * np.float32(light), THRESHOLD, NOISE, rng)
        center = LENGTH // 2
        yield Sample(Path(name).stem, spikes, center, THRESHOLD / light, to_uint8(gray[center]))


def table(title: str, rows: dict[str, list[Sample]], network: Reconstruct) -> str:
    """Markdown: for each row of samples the best training-free PSNR with its method, and the network's, in dB."""
    free = {name: by_method(method) for name, method in FREE.items()}
    names = [sample.name for sample in next(iter(rows.values()))]
    lines = [f"| {title} | | {' | '.join(names)} | mean |", "|---" * (len(names) + 3) + "|"]
    for row, samples in rows.items():
        scores = [{name: psnr(way(sample), sample.sharp) for name, way in free.items()} for sample in samples]
        best = [max(of, key=lambda name: of[name]) for of in scores]
        cells = [f"{of[name]:.2f} ({name})" for of, name in zip(scores, best, strict=True)]
        mean = np.mean([of[name] for of, name in zip(scores, best, strict=True)])
        lines.append(f"| {row} | best training-free | {' | '.join(cells)} | {mean:.2f} |")
        by = [psnr(network(sample), sample.sharp) for sample in samples]
        lines.append(f"| | network | {' | '.join(f'{score:.2f}' for score in by)} | {np.mean(by):.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
