"""What scoring costs beside the restoration it goes with.

    python -m scripts.benchmark.bench_metrics
    python -m scripts.benchmark.bench_metrics --size 720 1280 --frames 8 --rounds 3 --json

A clip of noise goes through the tester's code in two ways: restored by the network of --opt, untrained, without
scores; and not restored, the input taken for the result, with PSNR, SSIM, both in Y, and tOF of the network, the input
and the training-free restorations, which are made as well. Both in turn within one run; the ratio of the medians is
what scoring costs where nothing of it hides behind the network. Then every part alone, on one thread.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmark.flags import bench_metrics_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(bench_metrics_parser(__doc__ or ""))

import numpy as np
import torch
from torch import Tensor, nn

import data.select_dataset  # noqa: F401  registers data sets
from data.spike.encoding import build_encoding
from data.spike.reconstruction.baselines import training_free
from data.spike.sync import ExposureWindow
from models.select_network import define_G
from models.testing.evaluate import evaluate
from models.testing.restore import Testing
from utils.evaluation.frame_result import FrameResult
from utils.evaluation.metrics import optical_flow, psnr, psnr_y, ssim, ssim_y
from utils.evaluation.scorer import Pictures, Scorer
from utils.user_error import UserError
from utils.utils_cli import run_command
from utils.utils_option import load_options

SPIKE_FRAMES = 56
GOAL = 1.0  # of the restoration's time


@dataclass(frozen=True)
class NoiseClip:
    """One clip in memory, as `models.testing.evaluate.ClipSet` takes it.

    Attributes:
        blurred, sharp: (T,3+S,H,W) and (T,3,H,W) in [0,1].
        scored: whether the ground truth is handed out.
    """

    blurred: Tensor
    sharp: Tensor
    scored: bool

    @dataclass(frozen=True)
    class Clip:
        """Its names."""

        name: str
        frames: tuple[str, ...]
        target: None = None

    @property
    def clips(self) -> Sequence[Any]:
        return [self.Clip("noise", tuple(f"{k:06d}" for k in range(len(self.blurred))))]

    def load(self, index: int, begin: int = 0, end: int | None = None) -> dict[str, Any]:
        frames = list(self.clips[0].frames[begin:end])
        sample = {"L": self.blurred[begin:end], "folder": "noise", "lq_path": frames}
        return {**sample, "H": self.sharp[begin:end]} if self.scored else sample


class Untouched(nn.Module):
    """The input's colours."""

    def forward(self, frames: Tensor) -> Tensor:
        """(B,T,C,H,W) to (B,T,3,H,W)."""
        return frames[:, :, :3]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = bench_metrics_parser(__doc__ or "").parse_args(argv)
    return run_command(lambda: report(measure(arguments), arguments.json))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians in milliseconds per frame and their ratio."""
    height, width = arguments.size
    if min(height, width) < 32 or arguments.frames < 2 or arguments.rounds < 1:
        raise UserError("--size needs at least 32 32, --frames 2, --rounds 1")
    opt = load_options(arguments.opt, ["netG.spynet_path=null"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = define_G(opt.netG).to(device)
    testing = Testing.from_options(opt.val, opt.scale, None, opt.netG)
    generator = torch.Generator().manual_seed(0)
    sharp = torch.rand(arguments.frames, 3, height, width, generator=generator)
    channels = opt.netG.arguments().get("in_chans", 3)
    blurred = torch.rand(arguments.frames, channels, height, width, generator=generator)
    spikes = (torch.rand(SPIKE_FRAMES, height // 2, width // 2, generator=generator) < 0.2).numpy().astype(np.uint8)

    def without_training(result: FrameResult) -> Pictures:
        assert result.blurred is not None  # a `NoiseClip` has frames
        window = ExposureWindow(0, SPIKE_FRAMES - 7, SPIKE_FRAMES // 2)
        return training_free(result.blurred, lambda section: build_encoding(section, 2.0)(spikes, window)[0], 0.04)

    def run(used: nn.Module, scored: bool) -> None:
        clip = NoiseClip(blurred, sharp, scored)
        evaluate(used, clip, testing, device, input_scores=True, scorer=Scorer(), baselines=without_training)

    workloads = {"restoration": lambda: run(network, False), "scores": lambda: run(Untouched(), True)}
    milliseconds = {name: ms / arguments.frames for name, ms in medians(workloads, arguments.rounds).items()}
    first, second = ((sharp[k].permute(1, 2, 0).numpy() * 255).astype(np.uint8) for k in (0, 1))
    result = FrameResult("noise", "0", 0, 1, first, first, second, None)
    metrics: list[Callable[[np.ndarray, np.ndarray], Any]] = [psnr, ssim, psnr_y, ssim_y, optical_flow]
    parts: dict[str, Callable[[], Any]] = {m.__name__: (lambda m=m: m(first, second)) for m in metrics}  # type: ignore[misc]
    parts["training-free"] = lambda: without_training(result)
    return {
        "size": [height, width],
        "frames": arguments.frames,
        "device": device.type,
        "milliseconds": milliseconds,
        "parts": medians(parts, arguments.rounds),
        "ratio": milliseconds["scores"] / milliseconds["restoration"],
        "goal": GOAL,
    }


def medians(jobs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each job; they take turns, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        for name, job in jobs.items():
            begin = time.perf_counter()
            job()
            if turn:
                times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: statistics.median(of_job) for name, of_job in times.items()}


def report(found: dict[str, Any], as_json: bool) -> None:
    """Prints what was measured."""
    if as_json:
        print(json.dumps(found, indent=1))
        return
    height, width = found["size"]
    print(f"{found['frames']} frames of {height}x{width} on the {found['device']}; medians, milliseconds per frame")
    for name, value in found["milliseconds"].items():
        print(f"{name:16}{value:10.1f}")
    for name, value in found["parts"].items():
        print(f"  {name:14}{value:10.2f}   of one pair of pictures, or one frame")
    met = "met" if found["ratio"] < found["goal"] else "MISSED"
    print(f"scores cost {found['ratio']:.4f} of the restoration; goal below {found['goal']:g}: {met}")


if __name__ == "__main__":
    sys.exit(main())
