"""How well a light network restores videos that it was not trained on: the tables of docs/results.md.

    python -m scripts.benchmark.guided_table VIDEO [VIDEO ...]
    python -m scripts.benchmark.guided_table VIDEO ... --opt options/svrt/train_guided_s.json --checkpoint FOLDER

Each video is brought to the spike clock by optical flow, blurred and seen by a simulated sensor, once for every row:
blurs of different length, thresholds, ratios of sizes, little light, linear light. A row gives mean PSNR over clips of
the blurred frames, of two training-free ratios, each with the best single width for the whole row, and of the network;
the gain over each, with the smallest gain of a clip in brackets. The ratios are of counted spikes, as published
(docs/evaluation.md), and of the rates between spikes, from which the network starts.
"""

import argparse
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmark.flags import guided_table_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(guided_table_parser(__doc__ or ""))

import numpy as np
import torch
from torch import Tensor

import data.select_dataset  # noqa: F401  registers what option files name
from data.spike.encoding import SpikeEncoding, build_encoding
from data.spike.simulation.interpolate import to_spike_clock
from data.spike.simulation.simulate import ExposedFrame, Exposure, Light, expose
from data.spike.sync import GOPRO_SPIKES_PER_FRAME, ExposureWindow
from data.spike.video_source import FrameSize, FrameSource
from models.layers.spike.ratios import spike_features
from models.network_guided import HALF, Guided, resized
from models.select_network import define_G, load_weights
from utils.options.tester_flags import checkpoint_of, task_file
from utils.user_error import UserError
from utils.utils_cli import run_command
from utils.utils_memory import keep_freed_memory
from utils.utils_option import load_options

GUIDED: dict[str, Any] = {"representation": "guided"}
SIGMAS: list[float] = build_encoding(GUIDED, 1.0).representation.sigmas  # type: ignore[attr-defined]
TICKS = 264  # spike frames simulated of each video: four exposures of 7 sharp frames, two of 13
MULTIPLE = 4  # frames are cut to multiples of the largest ratio of sizes


@dataclass(frozen=True)
class Blur:
    """How long the shutter is open.

    Attributes:
        name: of the table.
        sharp_frames: per exposure, 8 spike frames each.
        upsample: sharp frames made of a video's frame: slow motion, as from a faster camera.
    """

    name: str
    sharp_frames: int
    upsample: int


@dataclass(frozen=True)
class Sensor:
    """One row: what the spikes are seen with.

    Attributes:
        name: of the table.
        threshold, ratio, light: of the sensor.
        alone: each clip is one frame, and its stream holds no spike from before or after the exposure.
    """

    name: str
    threshold: float = 2.0
    ratio: int = 2
    light: Light = "srgb"
    alone: bool = False


BLURS = (Blur("light, n=7 of 4x", 7, 4), Blur("strong, n=13 of 4x", 13, 4), Blur("extreme, n=7 of 1x", 7, 1))
USUAL = Sensor("threshold 2, ratio 2, stored values")
SENSORS = (
    Sensor("threshold 1", threshold=1.0),
    Sensor("threshold 4", threshold=4.0),
    Sensor("threshold 8", threshold=8.0),
    Sensor("low light: threshold 15", threshold=15.0),
    Sensor("ratio 1", ratio=1),
    Sensor("ratio 4", ratio=4),
    Sensor("linear light", light="linear"),
    Sensor("clips of one frame", alone=True),
)


@dataclass(frozen=True)
class ClipScore:
    """PSNR of a clip in dB: blurred, network, and the ratio of each width, of counted spikes and between them."""

    blurred: float
    network: float
    counted: tuple[float, ...]
    between: tuple[float, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code: 0 done, 2 a mistake in what was asked for."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    arguments = guided_table_parser(__doc__ or "").parse_args(argv)
    arguments.download = None  # the tester's flag
    return run_command(lambda: measure(arguments))


def measure(arguments: argparse.Namespace) -> None:
    """Prints the tables.

    Raises:
        UserError: videos that can't be read or are too short, or another network.
    """
    keep_freed_memory()
    opt = load_options(arguments.opt or task_file(arguments.task))
    network = define_G(opt.netG).eval()
    if not isinstance(network, Guided):
        raise UserError(f"netG.net_type: {opt.netG.net_type}; this table is for guided networks")
    load_weights(network, checkpoint_of(opt, arguments), prefer_ema=True)
    if "speed" in arguments.rows:
        print(f"720p frame: {processor_seconds(network):.2f} processor seconds")
    if arguments.rows == ["speed"]:
        return
    sources = [FrameSource(path, FrameSize(scale=arguments.scale, multiple=MULTIPLE)) for path in arguments.videos]
    print("| | blurred | counted spikes (sigma) | rates between (sigma) | network | gain over counted | over between |")
    print("|---" * 7 + "|")
    for number, blur in enumerate(BLURS):
        sensors = [USUAL] if "blurs" in arguments.rows or number == 0 else []
        sensors += SENSORS if number == 1 and "sensors" in arguments.rows else []
        if not sensors:
            continue
        scores: list[list[ClipScore]] = [[] for _ in sensors]
        for source in sources:
            frames = spike_clock(source, blur)
            for row, sensor in zip(scores, sensors, strict=True):
                row.append(score_clip(network, frames, blur, sensor))
        for row, sensor in zip(scores, sensors, strict=True):
            print(table_row(blur.name if sensor is USUAL else f"{blur.name}, {sensor.name}", row), flush=True)


def processor_seconds(network: Guided) -> float:
    """What a frame of 1280x720 with spikes of 640x360 takes, over all cores; the least of three."""
    frames, spikes = torch.rand(1, 3, 720, 1280), torch.rand(1, network.conv_first.in_channels, 360, 640)
    spikes = spikes[:, : network.conv_first.in_channels - HALF**2 * (3 + network.widths)] + 0.01
    seconds = []
    with torch.inference_mode():
        for _ in range(3):
            begin = time.process_time()
            network.restore(frames, spikes)
            seconds.append(time.process_time() - begin)
    return min(seconds)


def spike_clock(source: FrameSource, blur: Blur) -> list[np.ndarray]:
    """TICKS frames (H,W,3) uint8 on the spike clock.

    Raises:
        UserError: the video is too short.
    """
    factor = GOPRO_SPIKES_PER_FRAME * blur.upsample
    needed = -(-(TICKS - 1) // factor) + 1
    if source.length < needed:
        raise UserError(f"{source.path}: {source.length} frames; {needed} are needed")
    return list(islice(to_spike_clock(source.frames(0, needed), factor), TICKS))


def score_clip(
    network: Guided, frames: Iterable[np.ndarray], blur: Blur, sensor: Sensor, spike: Mapping[str, Any] = GUIDED
) -> ClipScore:
    """Mean PSNR over a clip's blurred frames; `spike` is the section of options that the network was trained with."""
    exposure = Exposure(blur.sharp_frames, blur.sharp_frames)
    window = ExposureWindow(0, exposure.end, exposure.center)
    # The start of the charge decides which frames spikes fall into; the same for every row.
    shown = expose(
        frames,
        exposure,
        threshold=sensor.threshold,
        start=np.random.default_rng(0),
        spike_ratio=sensor.ratio,
        light=sensor.light,
    )
    if sensor.alone:
        shown = (replace(frame, spikes=frame.spikes[: exposure.end]) for frame in islice(shown, 1))
    encoding = build_encoding(spike, sensor.threshold)
    formulas = [build_encoding({**GUIDED, "counted": counted}, sensor.threshold) for counted in (True, False)]
    rows = [list(psnrs(network, frame, window, encoding, formulas)) for frame in shown]
    blurred, restored, *ratios = np.mean(rows, axis=0).tolist()
    return ClipScore(blurred, restored, tuple(ratios[: len(ratios) // 2]), tuple(ratios[len(ratios) // 2 :]))


def psnrs(
    network: Guided,
    frame: ExposedFrame,
    window: ExposureWindow,
    encoding: SpikeEncoding,
    formulas: Sequence[SpikeEncoding],
) -> Iterator[float]:
    """PSNR of the blurred frame, of the network, and of the ratio of each width of each formula."""
    spikes = torch.from_numpy(encoding(frame.spikes, window))[None]  # (1,K,h,w)
    blurred, sharp = (_planes(picture) for picture in (frame.blurred, frame.sharp))  # (1,3,H,W)
    yield psnr(blurred, sharp)
    with torch.inference_mode():
        yield psnr(network.restore(blurred, spikes), sharp)
    for formula in formulas:
        channels = torch.from_numpy(formula(frame.spikes, window))[None]  # (1,K,h,w)
        # As data/spike/reconstruction/baselines.py: quotients at the sensor's size, enlarged bilinearly.
        log_ratios = spike_features(channels, len(SIGMAS)).log_ratios  # (1,S,h,w)
        for ratio in resized(log_ratios.exp(), (sharp.shape[-2], sharp.shape[-1]))[0]:  # (H,W)
            yield psnr(blurred * ratio, sharp)


def psnr(picture: Tensor, sharp: Tensor) -> float:
    """In dB, of pictures in [0,1] rounded to 8 bits."""
    rounded = (picture.clamp(0, 1) * 255).round() / 255
    return float(-10 * (rounded - sharp).square().mean().log10())


def table_row(name: str, clips: Sequence[ClipScore]) -> str:
    """A row of the table in Markdown."""
    blurred, restored = (float(np.mean([getattr(clip, key) for clip in clips])) for key in ("blurred", "network"))
    formulas, gains = [], []
    for formula in ("counted", "between"):
        ratios = np.mean([getattr(clip, formula) for clip in clips], axis=0)
        best = int(np.argmax(ratios))
        each = [clip.network - getattr(clip, formula)[best] for clip in clips]
        formulas.append(f"{ratios[best]:.2f} ({SIGMAS[best]:g})")
        gains.append(f"{np.mean(each):+.2f} ({min(each):+.2f})")
    return f"| {name} | {blurred:.2f} | {' | '.join(formulas)} | {restored:.2f} | {' | '.join(gains)} |"


def _planes(picture: np.ndarray) -> Tensor:
    """(H,W,3) uint8 to (1,3,H,W) float32 in [0,1]."""
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


if __name__ == "__main__":
    sys.exit(main())
