"""Scores reconstructions from spikes against sharp pictures: training-free methods and trained networks, in one table.

    python -m scripts.evaluate_reconstruction --data testsets/REDS_BASE/test --threshold 1.6667
    python -m scripts.evaluate_reconstruction --data 000226.dat --spike_h 360 --spike_w 640 --threshold 2 --center 40 \\
        --network options/spikling/train_spike_refine.json experiments/train_spike_refine

A stream's picture has its name and lies beside it, or in gt/ where the stream is in spike/ (Spike-Zoo's layout); a
colour picture is made gray, one several times as large averaged to the spikes' size. PSNR (dB) and SSIM are of 8-bit
pictures, at the spike frame of the sharp picture.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import data.select_dataset  # noqa: F401  registers data sets and representations, which options name
from data.spike.simulate import sensor_light, to_uint8
from data.spike.sync import ExposureWindow
from data.spike.video_source import PICTURE_SUFFIXES
from models.network_spikling import generate
from models.select_network import define_G, load_weights
from utils.spike_loader import SpikeStream
from utils.utils_cli import run_command
from utils.utils_file import atomic_write
from utils.utils_image import imread_rgb, imwrite_rgb, panel
from utils.utils_metric import psnr, ssim
from utils.utils_option import load_options
from utils.utils_registry import REPRESENTATIONS

WINDOWS = (9, 21, 31, 41)
ORDERS = (1, 2, 3, 4)
SIGMAS = (3, 4, 5, 6, 7, 8, 10)


@dataclass(frozen=True)
class Case:
    """A stream with its sharp picture, (H,W) uint8 gray, at spike frame `center`."""

    stream: SpikeStream
    sharp: np.ndarray
    center: int
    threshold: float

    @property
    def name(self) -> str:
        """The file's name."""
        return self.stream.filepath.stem


Method = Callable[[Case], np.ndarray]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 a mistake in flags, options or data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, nargs="+", required=True, help=".dat files, or folders of them")
    add("--threshold", type=float, required=True, help="of the camera: intensity = rate x threshold")
    add("--center", type=int, help="spike frame of the sharp picture (default: the stream's middle)")
    add("--spike_h", type=int, help="height of the spike picture (default: config.yaml's, or by the file's size)")
    add("--spike_w", type=int, help="its width")
    add("--top_down", action="store_true", help="rows are stored from top to bottom")
    add("--network", nargs=2, action="append", default=[], metavar=("OPT", "CHECKPOINT"), help="may be repeated")
    add("--save", type=Path, help="folder for pictures: best training-free | networks | sharp")
    add("--json", type=Path, help="file for all numbers")
    arguments = parser.parse_args(argv)
    return run_command(lambda: evaluate(arguments))


def evaluate(arguments: argparse.Namespace) -> None:
    """Reconstructs every stream by every method and prints the table."""
    cases = [case_of(path, arguments) for path in find_streams(arguments.data)]
    networks = {Path(opt).stem: network_method(opt, checkpoint) for opt, checkpoint in arguments.network}
    methods = training_free()
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for case in cases:
        pictures = {name: method(case) for name, method in {**methods, **networks}.items()}
        for name, picture in pictures.items():
            row = {"psnr": psnr(picture, case.sharp), "ssim": ssim(picture, case.sharp)}
            scores.setdefault(name, {})[case.name] = row
        if arguments.save is not None:
            best = max(methods, key=lambda name: scores[name][case.name]["psnr"])
            views = [(name, pictures[name]) for name in (best, *networks)] + [("sharp", case.sharp)]
            imwrite_rgb(arguments.save / f"{case.name}.png", panel(views))
    print(table(scores, list(methods), [case.name for case in cases]))
    if arguments.json is not None:
        with atomic_write(arguments.json) as file:
            json.dump(scores, file, indent=1)


def find_streams(paths: Sequence[Path]) -> list[Path]:
    """The .dat files that the paths mean."""
    files: list[Path] = []
    for path in paths:
        found = [path] if path.is_file() else sorted(path.rglob("*.dat"))
        if not found:
            raise ValueError(f"--data {path}: no such file, or a folder without .dat files")
        files += found
    return files


def case_of(path: Path, arguments: argparse.Namespace) -> Case:
    """A stream with its picture."""
    stream = SpikeStream(path, arguments.spike_h, arguments.spike_w, flipud=not arguments.top_down)
    folders = [path.parent, *([path.parent.parent / "gt"] if path.parent.name == "spike" else [])]
    places = [folder / f"{path.stem}{suffix}" for folder in folders for suffix in PICTURE_SUFFIXES]
    picture = next((place for place in places if place.is_file()), None)
    if picture is None:
        raise ValueError(f"{path}: there is no sharp picture {path.stem}.png in {' or '.join(map(str, folders))}")
    rgb = imread_rgb(picture)
    ratio = max(1, rgb.shape[0] // stream.spike_h)
    if rgb.shape[:2] != (stream.spike_h * ratio, stream.spike_w * ratio):
        raise ValueError(
            f"{picture}: {rgb.shape[0]}x{rgb.shape[1]} pixels are no whole multiple of the spikes' "
            f"{stream.spike_h}x{stream.spike_w}; give --spike_h and --spike_w"
        )
    center = len(stream) // 2 if arguments.center is None else arguments.center
    if not 0 <= center < len(stream):
        raise ValueError(f"--center {center}: {path} has spike frames [0, {len(stream)})")
    return Case(stream, to_uint8(sensor_light(rgb, ratio)), center, arguments.threshold)


def training_free() -> dict[str, Method]:
    """The methods that need no training, by the names of the table's rows."""
    methods: dict[str, Method] = {}
    for length in WINDOWS:
        methods[f"window {length}"] = represented(REPRESENTATIONS.get("tfp")(bins=1), length)
    for order in ORDERS:
        methods[f"interval {order}"] = represented(REPRESENTATIONS.get("interval")(orders=[order]))
    for sigma in SIGMAS:
        methods[f"gaussian {sigma}"] = represented(REPRESENTATIONS.get("gaussian")(sigma=float(sigma)))
    return methods


def represented(representation: Callable[..., np.ndarray], length: int = 1) -> Method:
    """A brightness-true representation as a method; `length` frames around the centre are its exposure."""

    def reconstruct(case: Case) -> np.ndarray:
        begin, end = case.center - length // 2, case.center - length // 2 + length
        window = ExposureWindow(max(begin, 0), min(end, len(case.stream)), case.center)
        rates = representation(case.stream.get_spike_matrix(), window, case.threshold)
        return to_uint8(rates[0])

    return reconstruct


def network_method(opt_path: str, checkpoint: str) -> Method:
    """A trained network as a method."""
    opt = load_options(opt_path)
    network: nn.Module = define_G(opt.netG)
    load_weights(network, checkpoint, prefer_ema=True)
    network.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    def reconstruct(case: Case) -> np.ndarray:
        return generate(network, case.stream, case.center - opt.netG.in_chans // 2, case.threshold)

    return reconstruct


def table(scores: dict[str, dict[str, dict[str, float]]], free: Sequence[str], files: Sequence[str]) -> str:
    """PSNR / SSIM of every method (rows) on every stream (columns); the best of the training-free ones too."""
    width = max(18, *(len(name) for name in scores))
    cells = [f"{name[:16]:>16s}" for name in [*files, "mean"]]
    lines = ["".join([f"{'PSNR / SSIM':{width}s}", *cells])]
    best = {file: max((scores[name][file] for name in free), key=lambda row: row["psnr"]) for file in files}
    rows = {name: scores[name] for name in free} | {"best training-free": best}
    rows |= {name: row for name, row in scores.items() if name not in free}
    for name, row in rows.items():
        values = [*row.values(), {key: float(np.mean([v[key] for v in row.values()])) for key in ("psnr", "ssim")}]
        lines.append("".join([f"{name:{width}s}", *(f"{v['psnr']:8.2f} / {v['ssim']:.3f}" for v in values)]))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
