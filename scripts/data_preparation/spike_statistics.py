"""Mean, standard deviation and quantiles of every channel of a spike representation over a training set.

    python -m scripts.data_preparation.spike_statistics --opt FILE [--frames 200] [--set datasets.train.spike.bins=8]

Prints a table and the option block to paste. The frames are spread evenly over all clips; --frames 0 takes all.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.data_preparation.flags import spike_statistics_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(spike_statistics_parser(__doc__ or ""))

import numpy as np

import models.select_network  # noqa: F401  registers the networks, whose options the file has
from data.select_dataset import define_Dataset
from utils.user_error import UserError
from utils.utils_cli import run_command
from utils.utils_option import load_options

QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)
KEPT = 4096  # pixels of each frame that the quantiles are taken from
DIGITS = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 a mistake in options or data."""
    arguments = spike_statistics_parser(__doc__ or "").parse_args(argv)
    return run_command(lambda: report(arguments))


def report(arguments: argparse.Namespace) -> None:
    """Prints the table and the option block."""
    opt = load_options(arguments.opt, [*arguments.set, "datasets.train.spike_normalize=null"])
    section = opt.datasets.train
    if section is None:
        raise UserError("datasets.train: missing; the statistics are those of a training set")
    dataset: Any = define_Dataset(section, seed=opt.train.manual_seed, scale=opt.scale, n_channels=opt.n_channels)
    keys = [(clip.name, frame) for clip in dataset.clips for frame in clip.frames]
    step = max(1, len(keys) // arguments.frames) if arguments.frames else 1
    chosen = keys[step // 2 :: step]
    mean, std, quantiles = statistics(dataset.spikes.read(clip, [frame])[0] for clip, frame in chosen)
    print(f"{len(chosen)} of {len(keys)} frames, {json.dumps(section.arguments()['spike'])}")
    print("channel      mean       std  " + "  ".join(f"{'q' + format(q, 'g'):>8s}" for q in QUANTILES))
    for channel, (m, s, row) in enumerate(zip(mean, std, quantiles.T, strict=True)):
        print(f"{channel:7d}  {m:8.4f}  {s:8.4f}  " + "  ".join(f"{value:8.4f}" for value in row))
    flat = [str(channel) for channel, value in enumerate(std) if round(float(value), DIGITS) == 0]
    if flat:
        raise UserError(f"channels {', '.join(flat)} have the same value everywhere; they can't be normalised")
    block = {key: [round(float(v), DIGITS) for v in values] for key, values in (("mean", mean), ("std", std))}
    print(f'"spike_normalize": {json.dumps(block)}')


def statistics(frames: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of frames (C, h, w): mean (C,), standard deviation (C,) over all pixels, and quantiles (Q, C) over some."""
    rng = np.random.default_rng(0)
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    kept: list[np.ndarray] = []
    for channels in frames:
        pixels = channels.reshape(len(channels), -1)
        count += pixels.shape[1]
        total = total + pixels.sum(axis=1, dtype=np.float64)
        squares = squares + np.square(pixels, dtype=np.float64).sum(axis=1)
        kept.append(pixels[:, rng.integers(pixels.shape[1], size=min(KEPT, pixels.shape[1]))])
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 0)
    return mean, np.sqrt(variance), np.quantile(np.concatenate(kept, axis=1), QUANTILES, axis=1)


if __name__ == "__main__":
    sys.exit(main())
