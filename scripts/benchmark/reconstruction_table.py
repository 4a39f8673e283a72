"""PSNR and SSIM of pictures made of spikes, without training and by networks, on the streams that have a sharp picture.

    python scripts/benchmark/reconstruction_table.py --data ../shared/data
    python scripts/benchmark/reconstruction_table.py --data ../shared/data \\
        --network refine options/spikling/train_spike_refine.json experiments/train_spike_refine

Streams, below --data: gopro_spike_sample/000226.dat of Spk-GoPro (360x640; its sharp picture lies at spike frame 40;
intensity = rate x 2), and all of reds_base/ (Spike-Zoo, 250x400; frame 150; intensity = rate / 0.6). The picture is
made gray and brought to the stream's size by averaging. Measures are those of `utils/evaluation/metrics.py`, on 8 bits.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmark.flags import reconstruction_table_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(reconstruction_table_parser(__doc__ or ""))

import numpy as np

from data.spike.reconstruction.methods import (
    ChargeRate,
    GaussianRate,
    IntervalRate,
    KIntervalRate,
    PlasticityRate,
    RateMethod,
    WindowRate,
)
from data.spike.reconstruction.reconstruct import reconstruct
from data.spike.registration import gray_at_size
from data.spike.simulation.simulate import to_uint8
from data.spike.sync import default_window
from utils.evaluation.metrics import psnr, ssim
from utils.spike_loader import SpikeStream
from utils.user_error import UserError
from utils.utils_image import imread_rgb

METHODS: dict[str, RateMethod] = {
    "window 21": WindowRate(21),
    "window 31": WindowRate(31),
    "window 41": WindowRate(41),
    "interval": IntervalRate(),
    "2-interval": KIntervalRate(2),
    "3-interval": KIntervalRate(3),
    "short-term plasticity": PlasticityRate(),
    "Gaussian 4": GaussianRate(4.0),
    "Gaussian 6": GaussianRate(6.0),
    "Gaussian 8": GaussianRate(8.0),
    "charge 3": ChargeRate(3.0),
    "charge 4": ChargeRate(4.0),
    "charge 6": ChargeRate(6.0),
}


class Sample(NamedTuple):
    """A stream, the spike frame of its sharp picture, its threshold, and that picture (h, w) uint8."""

    name: str
    stream: SpikeStream | np.ndarray
    center: int
    threshold: float
    sharp: np.ndarray


Reconstruct = Callable[[Sample], np.ndarray]
"""From a sample to the picture (h, w) uint8 at its centre."""


def load_samples(data: Path) -> list[Sample]:
    """
    Raises:
        UserError: the folder has none of the samples.
    """
    found = []
    gopro = data / "gopro_spike_sample" / "000226.dat"
    if gopro.is_file():
        stream = SpikeStream(gopro, 360, 640)
        found.append((stream, default_window("GOPR0884_11_00", len(stream)).center, 2.0))
    for path in sorted((data / "reds_base").glob("*.dat")):
        stream = SpikeStream(path, 250, 400)
        found.append((stream, default_window(path.stem, len(stream)).center, 1 / 0.6))
    if not found:
        raise UserError(f"{data}: neither gopro_spike_sample/000226.dat nor reds_base/*.dat is there")
    samples = []
    for stream, center, threshold in found:
        picture = imread_rgb(stream.filepath.with_suffix(".png"))
        sharp = to_uint8(gray_at_size(picture, (stream.spike_h, stream.spike_w)))
        samples.append(Sample(stream.filepath.stem, stream, center, threshold, sharp))
    return samples


def by_method(method: RateMethod) -> Reconstruct:
    return lambda sample: to_uint8(reconstruct(sample.stream, method, sample.center, sample.threshold))


def by_network(recipe: Path | None = None, checkpoint: Path | None = None) -> Reconstruct:
    """By the network of a recipe with a checkpoint's weights; without both, the one that comes with weights."""
    # Here, since importing networks takes longer than the methods do.
    from models.network_spikling import generate
    from scripts.spikes.networks import load_generator

    network = load_generator(recipe, checkpoint)
    before = int(network.in_chans) // 2  # type: ignore[arg-type]
    return lambda sample: generate(network, sample.stream, sample.center - before, sample.threshold)


def measure(samples: list[Sample], ways: dict[str, Reconstruct]) -> list[dict[str, Any]]:
    """One row per way: PSNR and SSIM by sample."""
    rows = []
    for name, way in ways.items():
        row: dict[str, Any] = {"method": name, "psnr": {}, "ssim": {}}
        for sample in samples:
            picture = way(sample)
            row["psnr"][sample.name] = psnr(picture, sample.sharp)
            row["ssim"][sample.name] = ssim(picture, sample.sharp)
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]], samples: list[Sample]) -> str:
    """Markdown: PSNR in dB / SSIM."""
    names = [sample.name for sample in samples]
    lines = ["| method | " + " | ".join(names) + " | mean |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        cells = [f"{row['psnr'][name]:.2f} / {row['ssim'][name]:.3f}" for name in names]
        means = (float(np.mean([row[measure][name] for name in names])) for measure in ("psnr", "ssim"))
        lines.append(f"| {row['method']} | " + " | ".join([*cells, "{:.2f} / {:.3f}".format(*means)]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = reconstruction_table_parser(__doc__ or "")
    arguments = parser.parse_args()
    ways = {name: by_method(method) for name, method in METHODS.items()}
    try:
        samples = load_samples(arguments.data)
        for name, recipe, checkpoint in arguments.network:
            ways[name] = by_network(Path(recipe), Path(checkpoint))
        rows = measure(samples, ways)
    except UserError as fault:
        parser.error(str(fault))
    print(json.dumps(rows, indent=1) if arguments.json else table(rows, samples))


if __name__ == "__main__":
    main()
