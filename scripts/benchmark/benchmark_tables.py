"""What the restoration benchmark found: the results of each competitor, its JSON file and its tables in Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from utils.evaluation.intervals import SpeedErrors, bootstrap_interval, speed_names
from utils.evaluation.scores import METRICS, Scores, format_value, strict

BASE = "training-free"
"""The competitor that others are set against: what a network has to beat."""


SHOWN = ("ssim", "lpips", "tof", "cvvdp")
"""Metrics of the table beside PSNR; the JSON file has all."""


@dataclass
class Result:
    """What a competitor achieved.

    Attributes:
        name: of its row. origin: where its numbers come from.
        scores: a row per frame; a clip's name is <group>/<clip>.
        speeds: its errors by the speed of motion.
        seconds: per frame, of the processor or on a GPU, reading and turning spikes into channels included; None where
            nothing was computed.
        memory: bytes that it took at most beyond what the process had before; None where that is not known.
    """

    name: str
    origin: Mapping[str, str]
    scores: Scores = field(default_factory=Scores)
    speeds: SpeedErrors = field(default_factory=SpeedErrors)
    seconds: float | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Clips:
    """What was restored.

    Attributes:
        sources: what each clip shows, by clip: a scene, a photograph, a video.
        factors: what it was recorded with, by clip: kind of factor -> its value in words.
    """

    sources: Mapping[str, str]
    factors: Mapping[str, Mapping[str, str]]


def summary(results: Sequence[Result], clips: Clips, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Content of the JSON file; None for infinite numbers."""
    competitors = {
        result.name: {
            **result.origin,
            "seconds_per_frame": result.seconds,
            "memory_bytes": result.memory,
            "mean_over_frames": result.scores.mean_over_frames(),
            "mean_over_clips": result.scores.mean_over_clips(),
            "interval_over_clips": {
                metric: list(interval(result, clips, metric)) for metric in result.scores.metrics()
            },
            "psnr_by_speed": dict(zip(speed_names(), result.speeds.psnr(), strict=True)),
            "clips": result.scores.clips(),
            "frames": result.scores.rows,
        }
        for result in results
    }
    tree: dict[str, Any] = strict(
        {**settings, "sources": clips.sources, "factors": clips.factors, "competitors": competitors}
    )
    return tree


def interval(result: Result, clips: Clips, metric: str) -> tuple[float, float]:
    """95 % interval of a number's mean over clips, over sources."""
    values = {name: means[metric] for name, means in result.scores.clips().items() if metric in means}
    return bootstrap_interval(list(values.values()), [clips.sources[name] for name in values])


def gain(result: Result, base: Result, clips: Clips) -> str:
    """The mean gain in PSNR over another competitor's, clip by clip, with its interval."""
    ours, theirs = result.scores.clips(), base.scores.clips()
    differences = {name: means["psnr"] - theirs[name]["psnr"] for name, means in ours.items()}
    low, high = bootstrap_interval(list(differences.values()), [clips.sources[name] for name in differences])
    return f"{np.mean(list(differences.values())):+.2f} [{low:+.2f}, {high:+.2f}]"


def competitor_table(results: Sequence[Result], clips: Clips) -> str:
    """A row per competitor: means, intervals, time and memory."""
    base = next((result for result in results if result.name == BASE), results[0])
    metrics = [metric for metric in SHOWN if any(metric in result.scores.metrics() for result in results)]
    heads = ["PSNR over frames", "PSNR over clips", f"gain over {base.name}"]
    heads += [METRICS[metric] for metric in metrics]
    lines = ["| | " + " | ".join([*heads, "seconds per frame", "memory"]) + " |", "|---" * (len(heads) + 3) + "|"]
    for result in results:
        frames, means = result.scores.mean_over_frames(), result.scores.mean_over_clips()
        low, high = interval(result, clips, "psnr")
        cells = [f"{frames['psnr']:.2f}", f"{means['psnr']:.2f} [{low:.2f}, {high:.2f}]"]
        cells.append("" if result is base else gain(result, base, clips))
        for metric in metrics:
            low, high = interval(result, clips, metric)
            cells.append(f"{format_value(metric, means[metric])} [{low:.3f}, {high:.3f}]")
        cells.append("" if result.seconds is None else f"{result.seconds:.3f}")
        cells.append("" if result.memory is None else f"{result.memory / 1e6:.0f} MB")
        lines.append(f"| {result.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def factor_table(results: Sequence[Result], clips: Clips) -> str:
    """Mean PSNR over the clips recorded with each value of each factor."""
    lines = ["| | clips | " + " | ".join(result.name for result in results) + " |", "|---" * (len(results) + 2) + "|"]
    means = [result.scores.clips() for result in results]
    values = dict.fromkeys(pair for factors in clips.factors.values() for pair in factors.items())
    kinds = list(dict.fromkeys(kind for kind, _ in values))
    for kind, value in sorted(values, key=lambda pair: kinds.index(pair[0])):
        names = [name for name, factors in clips.factors.items() if factors.get(kind) == value]
        cells = [f"{np.mean([of[name]['psnr'] for name in names]):.2f}" for of in means]
        lines.append(f"| {value} | {len(names)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def speed_table(results: Sequence[Result]) -> str:
    """PSNR of patches by the speed at which the scene moves there."""
    patches = results[0].speeds.patches
    lines = [
        "| speed, pixels per frame | patches | " + " | ".join(result.name for result in results) + " |",
        "|---" * (len(results) + 2) + "|",
    ]
    columns = [result.speeds.psnr() for result in results]
    for number, name in enumerate(speed_names()):
        cells = ["" if column[number] is None else f"{column[number]:.2f}" for column in columns]
        lines.append(f"| {name} | {patches[number]:,} | {' | '.join(cells)} |")
    return "\n".join(lines)
