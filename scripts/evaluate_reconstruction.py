"""Scores reconstructions from spikes against sharp pictures: training-free methods and trained networks, in one table.

    python -m scripts.evaluate_reconstruction --data testsets/REDS_BASE/test --threshold 1.6667
    python -m scripts.evaluate_reconstruction --data 000226.dat --spike_h 360 --spike_w 640 --threshold 2 --center 40 \\
        --network refine options/spikling/train_spike_refine.json experiments/train_spike_refine

A stream's picture has its name and lies beside it, or in gt/ where the stream is in spike/ (Spike-Zoo's layout); it is
made gray and brought to the stream's size. For the samples that the project measures itself by, all at once:
scripts/benchmark/reconstruction_table.py.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.flags import evaluate_reconstruction_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(evaluate_reconstruction_parser(__doc__ or ""))

from data.spike.reconstruction.methods import GaussianRate
from data.spike.registration import gray_of_stream
from data.spike.simulation.simulate import to_uint8
from scripts.benchmark.reconstruction_table import METHODS, Sample, by_method, by_network, measure, table
from utils.spike_loader import SpikeStream
from utils.user_error import UserError
from utils.utils_cli import run_command
from utils.utils_file import atomic_write, find_files
from utils.utils_image import PICTURE_SUFFIXES, imread_rgb, imwrite_rgb, panel

FREE = {**METHODS, **{f"Gaussian {sigma}": GaussianRate(float(sigma)) for sigma in (5, 7)}}
"""Methods without training; the Gaussians by the frame, as the best of them is what a network has to beat."""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 a mistake in flags, options or data."""
    arguments = evaluate_reconstruction_parser(__doc__ or "").parse_args(argv)
    return run_command(lambda: evaluate(arguments))


def evaluate(arguments: argparse.Namespace) -> None:
    """Reconstructs every stream by every method and prints the table."""
    if not arguments.threshold > 0:
        raise UserError(f"--threshold {arguments.threshold}: more than 0 is needed")
    samples = [sample_of(path, arguments) for path in find_streams(arguments.data)]
    free = {name: by_method(method) for name, method in FREE.items()}
    networks = {name: by_network(Path(recipe), Path(weights)) for name, recipe, weights in arguments.network}
    free_rows, network_rows = measure(samples, free), measure(samples, networks)
    best = {sample.name: max(free_rows, key=lambda row: row["psnr"][sample.name]) for sample in samples}
    best_row: dict[str, Any] = {"method": "best training-free"}
    for score in ("psnr", "ssim"):
        best_row[score] = {name: row[score][name] for name, row in best.items()}
    rows = [*free_rows, best_row, *network_rows]
    print(table(rows, samples))
    if arguments.json is not None:
        with atomic_write(arguments.json) as file:
            json.dump(rows, file, indent=1)
    for sample in samples if arguments.save is not None else ():
        shown = best[sample.name]["method"]
        views = [(name, way(sample)) for name, way in {shown: free[shown], **networks}.items()]
        imwrite_rgb(arguments.save / f"{sample.name}.png", panel([*views, ("sharp", sample.sharp)]))


def find_streams(paths: Sequence[Path]) -> list[Path]:
    """The .dat files that the paths mean."""
    files: list[Path] = []
    for path in paths:
        found = [path] if path.is_file() else find_files(path, (".dat",))
        if not found:
            raise UserError(f"--data {path}: no such file, or a folder without .dat files")
        files += found
    return files


def sample_of(path: Path, arguments: argparse.Namespace) -> Sample:
    """A stream with its sharp picture."""
    stream = SpikeStream(path, arguments.spike_h, arguments.spike_w, flipud=not arguments.top_down)
    folders = [path.parent, *([path.parent.parent / "gt"] if path.parent.name == "spike" else [])]
    places = [folder / f"{path.stem}{suffix}" for folder in folders for suffix in PICTURE_SUFFIXES]
    picture = next((place for place in places if place.is_file()), None)
    if picture is None:
        raise UserError(f"{path}: there is no sharp picture {path.stem}.png in {' or '.join(map(str, folders))}")
    rgb = imread_rgb(picture)
    sharp = to_uint8(gray_of_stream(picture, rgb, stream))
    center = len(stream) // 2 if arguments.center is None else arguments.center
    if not 0 <= center < len(stream):
        raise UserError(f"--center {center}: {path} has spike frames [0, {len(stream)})")
    return Sample(path.stem, stream, center, arguments.threshold, sharp)


if __name__ == "__main__":
    sys.exit(main())
