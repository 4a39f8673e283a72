"""A sheet of the light network's generated training samples, beside real videos where some are given.

    python -m scripts.benchmark.generator_sheet results/generator.png [VIDEO ...]

A row is a sample: blurred, sharp, spikes, and how much blurred and sharp differ, twice as bright. Generated samples
come first, then two exposures of every video, cut to the same size.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmark.flags import generator_sheet_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(generator_sheet_parser(__doc__ or ""))

import numpy as np

from data.sampler import SampleIndex
from data.select_dataset import define_Dataset
from data.spike.simulation.simulate import Exposure, expose
from data.spike.video_source import FrameSize, FrameSource
from scripts.benchmark.guided_table import BLURS, MULTIPLE, spike_clock
from utils.utils_cli import run_command
from utils.utils_image import imwrite_rgb, panel, tensor2uint
from utils.utils_option import load_options

RECIPE = Path(__file__).resolve().parents[2] / "options" / "svrt" / "train_guided_s.json"
OF_VIDEO = 2  # exposures of each
SCALE = 0.5  # of the videos, as in `guided_table`
RATIO = 2  # frame pixels per spike pixel of the videos
Views = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Blurred and sharp (H,W,3) and spikes (h,w), uint8."""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code: 0 done, 2 a mistake in what was asked for."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    arguments = generator_sheet_parser(__doc__ or "").parse_args(argv)
    return run_command(lambda: draw(arguments))


def draw(arguments: argparse.Namespace) -> None:
    """Writes the sheet."""
    side = f"datasets.train.gt_size={arguments.side}"
    opt = load_options(RECIPE, [side, "datasets.train.num_frame=1", *arguments.set])
    assert opt.datasets.train is not None
    dataset = define_Dataset(opt.datasets.train, seed=opt.train.manual_seed, scale=1, n_channels=3)
    rows = [row(generated(dataset[SampleIndex(0, index)]), "generated") for index in range(arguments.samples)]
    for path in arguments.videos:
        rows += [row(views, path.stem) for views in islice(real(path, arguments.side), OF_VIDEO)]
    width = max(picture.shape[1] for picture in rows)  # a video may be smaller than the samples
    rows = [np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0))) for picture in rows]
    imwrite_rgb(arguments.out, np.concatenate(rows))
    print(f"{arguments.out}: {arguments.samples} generated samples, {len(rows) - arguments.samples} of videos")


def row(views: Views, title: str) -> np.ndarray:
    """The sample's pictures side by side, (H,W,3)."""
    blurred, sharp, spikes = views
    difference = np.minimum(2 * np.abs(blurred.astype(int) - sharp), 255).astype(np.uint8)
    return panel([(title, blurred), ("sharp", sharp), ("spikes", spikes), ("2 x difference", difference)])


def generated(sample: dict[str, Any]) -> Views:
    """Of a sample of `GuidedSyntheticDataset`; the spikes as the rate under its narrowest Gaussian."""
    rate = sample["L_spike"][0, 0]  # (h,w)
    spikes = tensor2uint((rate / rate.max().clamp_min(1e-6))[None])
    return tensor2uint(sample["L"][0]), tensor2uint(sample["H"][0]), spikes


def real(path: Path, side: int) -> Iterator[Views]:
    """Exposures of a video, cut from its middle; the spikes as their rate over eight spike frames at the centre."""
    blur = BLURS[1]
    exposure = Exposure(blur.sharp_frames, blur.sharp_frames)
    frames = spike_clock(FrameSource(path, FrameSize(scale=SCALE, multiple=MULTIPLE)), blur)
    start = np.random.default_rng(0)
    for frame in expose(frames, exposure, threshold=2.0, start=start, spike_ratio=RATIO, light="srgb"):
        rate = frame.spikes[exposure.center - 4 : exposure.center + 4].mean(0)
        spikes = np.rint(255 * rate / max(float(rate.max()), 1e-6)).astype(np.uint8)
        yield _middle(frame.blurred, side), _middle(frame.sharp, side), _middle(spikes, side // RATIO)


def _middle(picture: np.ndarray, side: int) -> np.ndarray:
    top, left = ((size - side) // 2 for size in picture.shape[:2])
    return picture[max(top, 0) : max(top, 0) + side, max(left, 0) : max(left, 0) + side]


if __name__ == "__main__":
    sys.exit(main())
