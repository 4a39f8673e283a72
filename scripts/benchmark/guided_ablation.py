"""What each part of the light network is worth: variants trained for the same processor time, and scored alike.

    python -m scripts.benchmark.guided_ablation --seconds 840 [VIDEO ...]

Each variant trains from the option file with the changes of its row, in this process, until it has used so many
processor seconds. It is scored by mean PSNR on generated samples that no training sees, and on videos where some are
given (blurred as in `scripts.benchmark.guided_table`, its middle blur).
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmark.flags import guided_ablation_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(guided_ablation_parser(__doc__ or ""))

import numpy as np
import torch

from data.sampler import SampleIndex, training_batches
from data.select_dataset import define_Dataset
from data.spike.video_source import FrameSize, FrameSource
from models.network_guided import Guided
from models.select_model import define_Model
from scripts.benchmark.guided_table import BLURS, MULTIPLE, USUAL, psnr, score_clip, spike_clock
from utils.utils_cli import run_command
from utils.utils_dist import init_dist
from utils.utils_option import Options, load_options

RECIPE = Path(__file__).resolve().parents[2] / "options" / "svrt" / "train_guided_s.json"
VALIDATION_SEED = 987654321
VALIDATION_SAMPLES = 64


@dataclass(frozen=True)
class Variant:
    """A row: its name and the options that it changes."""

    name: str
    changes: tuple[str, ...] = ()


ONE_WIDTH = ("datasets.train.spike.sigmas=[6.0]", "netG.widths=1", "netG.start=0")
VARIANTS = (
    Variant("as it is"),
    Variant("starts as the blurred frame", ("netG.start=10",)),
    Variant("rates of counted spikes", ("datasets.train.spike.counted=true",)),
    Variant("one width", ONE_WIDTH),
    Variant("no bins beside the instant", ("datasets.train.spike.bins=1",)),
    Variant("no noise channel", ("netG.noise_channel=false",)),
    Variant("no loss of spectra", ("train.G_fft_weight=0",)),
    Variant("dead leaves alone", ("datasets.train.sim_photographs=0",)),
    Variant("photographs alone", ("datasets.train.sim_photographs=1",)),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code: 0 done, 2 a mistake in what was asked for."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    arguments = guided_ablation_parser(__doc__ or "").parse_args(argv)
    return run_command(lambda: ablate(arguments))


def ablate(arguments: argparse.Namespace) -> None:
    """Trains and scores the variants one after another, and prints the table."""
    common = ["datasets.train.dataloader_num_workers=0", *arguments.set]
    every = [load_options(RECIPE, [*common, *variant.changes]) for variant in VARIANTS]
    sources = [FrameSource(path, FrameSize(scale=0.5, multiple=MULTIPLE)) for path in arguments.videos]
    clips = [spike_clock(source, BLURS[1]) for source in sources]
    print("| variant | steps | generated samples | videos |\n|---|---|---|---|")
    for variant, opt in zip(VARIANTS, every, strict=True):
        network, steps = train(opt, arguments.seconds)
        assert opt.datasets.train is not None
        spike = opt.datasets.train.arguments()["spike"]
        scores = [score_clip(network, frames, BLURS[1], USUAL, spike).network for frames in clips]
        videos = f"{np.mean(scores):.2f}" if scores else ""
        print(f"| {variant.name} | {steps} | {score_generated(network, opt):.2f} | {videos} |", flush=True)


def train(opt: Options, seconds: float) -> tuple[Guided, int]:
    """A network trained for so much processor time, and its steps; the rate falls as over a whole run."""
    assert opt.datasets.train is not None
    torch.manual_seed(opt.train.manual_seed)
    dataset = _dataset(opt, opt.train.manual_seed)
    model = define_Model(opt, init_dist())
    shape: dict[str, Any] = {"rank": 0, "world_size": 1, "consumed": 0, "pin_memory": False}
    batches = training_batches(dataset, opt.datasets.train, seed=opt.train.manual_seed, **shape)
    begin, steps, taken = time.process_time(), 0, 0.0
    while taken < seconds:
        # The step at which a whole run of this much time would be; during the warm-up, the steps themselves.
        place = int(taken / seconds * opt.train.total_iter)
        steps += 1
        model.optimize_parameters(steps if steps < opt.train.G_scheduler_warmup_iter else place, next(batches))
        taken = time.process_time() - begin
    network = model.tested_network.eval()
    assert isinstance(network, Guided)
    return network, steps


def score_generated(network: Guided, opt: Options) -> float:
    """Mean PSNR of generated samples that no training sees."""
    dataset = _dataset(opt, VALIDATION_SEED)
    scores = []
    for index in range(VALIDATION_SAMPLES):
        sample = dataset[SampleIndex(0, index)]
        with torch.inference_mode():
            restored = network(sample["L"][None], sample["L_spike"][None])[0]
        scores += [psnr(picture, sharp) for picture, sharp in zip(restored, sample["H"], strict=True)]
    return float(np.mean(scores))


def _dataset(opt: Options, seed: int) -> Any:
    assert opt.datasets.train is not None
    return define_Dataset(opt.datasets.train, seed=seed, scale=opt.scale, n_channels=opt.n_channels)


if __name__ == "__main__":
    sys.exit(main())
