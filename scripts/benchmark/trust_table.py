"""Whether `--trust` can be trusted: its maps against true errors, and a pasted object, on simulated clips.

    python -m scripts.benchmark.trust_table VIDEO [VIDEO ...]

Each video is blurred and seen by a simulated sensor as in `guided_table`; a blurred frame is restored at nine instants
by the shipped network. A row gives, over patches, the rank correlation (Spearman) of the contradiction with the true
error of the restored instants; then the share of the pixels that is painted: of the restoration, of the sharp pictures
themselves, of an object pasted into all restored instants, and beside that. The last row correlates over the patches
of all clips. No sharp frame is used for the maps.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmark.flags import trust_table_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(trust_table_parser(__doc__ or ""))

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from data.spike.encoding import build_encoding
from data.spike.simulation.simulate import ExposedFrame, Exposure, expose
from data.spike.sync import ExposureWindow
from data.spike.video_source import FrameSize, FrameSource
from models.pretrained import SpikeRestorer, load
from scripts.benchmark.guided_table import BLURS, MULTIPLE, Blur, spike_clock
from utils.evaluation.trust import NEIGHBOURHOOD, PAINTED, Measured, judge
from utils.utils_cli import run_command

INSTANTS = 9
PATCH = 16  # pixels
THRESHOLD, RATIO = 2.0, 2
OBJECT = (0.9, 0.2, 0.1)  # colour of what is pasted into the middle, a quarter of the frame's height and width


class Row(NamedTuple):
    """Of one clip: contradiction and true squared error by patch, and shares of painted pixels."""

    contradiction: np.ndarray
    error: np.ndarray
    painted: float
    painted_truth: float
    painted_object: float
    painted_beside: float


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code: 0 done, 2 a mistake in what was asked for."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    arguments = trust_table_parser(__doc__ or "").parse_args(argv)
    return run_command(lambda: measure(arguments))


def measure(arguments: argparse.Namespace) -> None:
    """Prints the table."""
    restorer, rows = load("guided"), []
    print("| | rank correlation | painted | of the sharp pictures | of a pasted object | beside it |")
    print("|---|---|---|---|---|---|")
    for path in arguments.videos:
        source = FrameSource(path, FrameSize(scale=arguments.scale, multiple=MULTIPLE))
        for blur in BLURS[:2]:
            row = judge_clip(restorer, source, blur)
            rows.append(row)
            print(table_row(f"{path.stem}, {blur.name}", row), flush=True)
    contradictions, errors = (np.concatenate([row[part] for row in rows]) for part in (0, 1))
    shares = np.mean([row[2:] for row in rows], axis=0).tolist()
    print(table_row("all patches", Row(contradictions, errors, *shares)))


def judge_clip(restorer: SpikeRestorer, source: FrameSource, blur: Blur) -> Row:
    """The second blurred frame of a clip: its spikes have others before them."""
    exposure = Exposure(blur.sharp_frames, blur.sharp_frames)
    start = np.random.default_rng(0)
    clip = expose(
        spike_clock(source, blur), exposure, threshold=THRESHOLD, start=start, spike_ratio=RATIO, instants=INSTANTS
    )
    next(clip)
    frame = next(clip)
    restored, sharp = restore(restorer, frame, exposure.end), planes(np.stack(list(frame.instants.values())))
    blurred, spikes = planes(frame.blurred[None])[0], torch.from_numpy(frame.spikes[: exposure.end]).float()
    measured = Measured(blurred, spikes, THRESHOLD, list(frame.instants))
    trust, pasted = judge(restored, measured), restored.clone()
    height, width = blurred.shape[1:]
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[3 * height // 8 : 5 * height // 8, 3 * width // 8 : 5 * width // 8] = True
    pasted[:, :, inside] = torch.tensor(OBJECT)[None, :, None]
    near = torch.nn.functional.max_pool2d(inside[None].float(), NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2)[0] > 0
    painted = judge(pasted, measured).contradiction > PAINTED
    return Row(
        patches(trust.contradiction.square()),
        patches((restored - sharp).square().mean((0, 1))),
        trust.painted,
        judge(sharp, measured).painted,
        float(painted[inside].float().mean()),
        float(painted[~near].float().mean()),
    )


def restore(restorer: SpikeRestorer, frame: ExposedFrame, end: int) -> Tensor:
    """The instants (N,3,H,W) that a simulated frame has sharp pictures of, rounded to 8 bits."""
    encoding = build_encoding(restorer.spike, THRESHOLD)
    windows = [ExposureWindow(0, end, center) for center in frame.instants]
    channels = [torch.from_numpy(encoding(frame.spikes, window))[None, None] for window in windows]  # (1,1,K,h,w)
    blurred = planes(frame.blurred[None])[None]  # (1,1,3,H,W)
    with torch.inference_mode():
        pictures = [restorer.network(blurred, each)[0, 0] for each in channels]
    return (torch.stack(pictures).clamp(0, 1) * 255).round() / 255


def patches(plane: Tensor) -> np.ndarray:
    """Means of the patches of (H,W)."""
    result: np.ndarray = torch.nn.functional.avg_pool2d(plane[None], PATCH)[0].flatten().numpy()
    return result


def planes(pictures: np.ndarray) -> Tensor:
    """(N,H,W,3) uint8 to (N,3,H,W) float32 in [0,1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def table_row(name: str, row: Row) -> str:
    """A row of the table in Markdown."""
    correlation = spearmanr(row.contradiction, row.error).statistic
    return f"| {name} | {correlation:.2f} | {' | '.join(f'{share:.1%}' for share in row[2:])} |"


if __name__ == "__main__":
    sys.exit(main())
