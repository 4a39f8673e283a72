"""Scores of a test run: a row per frame, means per clip, over frames and over clips; as tables, CSV and JSON.

In the paper's deblurring tables every frame has the same weight, in KAIR's log every clip: both means are reported.
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.utils_file import atomic_write

METRICS = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "psnr_y": "PSNR_Y",
    "ssim_y": "SSIM_Y",
    "lpips": "LPIPS",
    "tof": "tOF",
    "cvvdp": "CVVDP",
}
"""Names and titles of the metrics. PSNR is in dB, tOF in pixels, CVVDP in JOD; lower is better for LPIPS and tOF."""

METHODS = {
    "input": "input",
    "sdm": "training-free",
    "charge": "training-free, charge",
    "gaussian": "spikes alone, Gaussian",
    "interval": "spikes alone, interval",
    "": "network",
}
"""Names and titles of the scored methods. A method's scores have its name as prefix (`input_psnr`); the network's have
none. Results of other tests (`--compare`) are methods too, whose name is their title."""

LABELS = ("clip", "frame", "time")
"""Keys of a row that are not scores."""

# Explanations in metrics.json of missing values.
NOTES = {
    "null": "a PSNR that is infinite, because the pictures are equal, or a mean that includes one",
    "absent": "not measured: tOF needs a previous frame, spikes alone have no colour; CVVDP is in a clip's last frame",
}


def key_of(method: str, metric: str) -> str:
    """The name of a method's metric in a row."""
    return f"{method}_{metric}" if method else metric


def format_value(metric: str, value: float | None) -> str:
    """A score as text for tables; "" for None, "inf" for equal pictures."""
    return "" if value is None else f"{value:.2f}" if metric.startswith("psnr") else f"{value:.4f}"


@dataclass
class Scores:
    """Collects the scores of frames.

    A row has `clip`, `frame`, one number per method and metric (`key_of`) that was measured, and, where exposures are
    restored at several instants, `time` as text.

    Attributes:
        rows: of the frames.
        network: title of the network's numbers.
    """

    rows: list[dict[str, str | float]] = field(default_factory=list)
    network: str = METHODS[""]

    def add(self, clip: str, frame: str, scores: Mapping[str, float], time: float | None = None) -> None:
        """Adds the scores of one frame, or of one instant of its exposure."""
        instant = {} if time is None else {"time": f"{time:.4g}"}
        self.rows.append({"clip": clip, "frame": frame, **instant, **scores})

    def metrics(self) -> list[str]:
        """Names of all scores that occur in the rows."""
        return [name for name in dict.fromkeys(key for row in self.rows for key in row) if name not in LABELS]

    def methods(self) -> list[str]:
        """Names of the scored methods, in the order of `METHODS`, with compared results before the network."""
        scored = self.metrics()
        known = [method for method in METHODS if any(key_of(method, metric) in scored for metric in METRICS)]
        compared = [name.removesuffix("_psnr") for name in scored if name.endswith("_psnr")]
        of_other_tests = [method for method in compared if method not in METHODS]
        return [*filter(None, known), *of_other_tests, *(method for method in known if not method)]

    def title(self, method: str) -> str:
        """Title of a method in tables."""
        return METHODS.get(method, method) if method else self.network

    def clips(self) -> dict[str, dict[str, float]]:
        """Mean over the frames of every clip, in the order of the rows."""
        rows: dict[str, list[Mapping[str, str | float]]] = {}
        for row in self.rows:
            rows.setdefault(str(row["clip"]), []).append(row)
        return {name: mean(of_clip) for name, of_clip in rows.items()}

    def instants(self) -> dict[str, dict[str, float]]:
        """Mean over frames for each scored instant, in ascending order; {} without instants."""
        rows: dict[str, list[Mapping[str, str | float]]] = {}
        for row in self.rows:
            if "time" in row:
                rows.setdefault(str(row["time"]), []).append(row)
        return {time: mean(rows[time]) for time in sorted(rows, key=float)}

    def instants_table(self) -> str:
        """PSNR by instant of all methods in colour, as aligned text; "" without instants."""
        instants = self.instants()
        methods = [method for method in self.methods() if key_of(method, "psnr") in self.metrics()]
        if not instants:
            return ""
        lines = [["instant, PSNR", *map(self.title, methods)]]
        for time, means in instants.items():
            lines.append([time, *(format_value("psnr", means.get(key_of(method, "psnr"))) for method in methods)])
        return aligned(lines)

    def mean_over_clips(self) -> dict[str, float]:
        """Mean of the clips' means, with equal weights of clips (KAIR's log)."""
        return mean(self.clips().values())

    def mean_over_frames(self) -> dict[str, float]:
        """Mean of all frames, with equal weights of frames (the paper's deblurring tables)."""
        return mean(self.rows)

    def table(self) -> str:
        """PSNR and SSIM of the clips and both means, with the gain over the input if scored, as aligned text."""
        rows = {**self.clips(), **self._means()}
        columns = [("input PSNR", "input_psnr"), ("input SSIM", "input_ssim")]
        columns += [(METRICS[metric], metric) for metric in ("psnr", "ssim", "psnr_y", "ssim_y")]
        columns = [(title, key) for title, key in columns if key in self.metrics()]
        lines = [["clip", *(title for title, _ in columns), ""]]
        for name, values in rows.items():
            cells = [format_value(key.removeprefix("input_"), values.get(key)) for _, key in columns]
            lines.append([name, *cells, gain(values)])
        return aligned(lines)

    def _means(self) -> dict[str, dict[str, float]]:
        """Both means; or one if tables would show equal values, for example for clips of equal length."""
        clips, frames = self.mean_over_clips(), self.mean_over_frames()
        if all(format_value(name, clips[name]) == format_value(name, frames.get(name)) for name in clips):
            return {"mean over clips and frames": clips}
        return {"mean over clips": clips, "mean over frames": frames}

    def method_table(self) -> str:
        """One line per method under both means, as aligned text; "" if only the network was scored."""
        methods = self.methods()
        if len(methods) < 2:
            return ""
        scored = [metric for metric in METRICS if any(key_of(method, metric) in self.metrics() for method in methods)]
        parts = []
        for title, means in self._means().items():
            lines = [[title, *(METRICS[metric] for metric in scored)]]
            for method in methods:
                cells = [format_value(metric, means.get(key_of(method, metric))) for metric in scored]
                lines.append([self.title(method), *cells])
            parts.append(aligned(lines))
        return "\n\n".join(parts)

    def summary(self) -> dict[str, Any]:
        """Content of `metrics.json`: both means, clips, frames; None for infinite values, which JSON lacks."""
        tree = {
            "mean_over_clips": self.mean_over_clips(),
            "mean_over_frames": self.mean_over_frames(),
            "clips": self.clips(),
            "frames": self.rows,
            **({"instants": self.instants()} if self.instants() else {}),
        }
        return {"notes": NOTES, **strict(tree)}

    def write(self, folder: Path) -> None:
        """Writes `metrics.csv` (a row per frame) and `metrics.json` (frames, clips, both means) into `folder`."""
        with atomic_write(folder / "metrics.csv") as file:
            labels = [name for name in LABELS if name != "time" or self.instants()]
            writer = csv.DictWriter(file, [*labels, *self.metrics()])
            writer.writeheader()
            writer.writerows(self.rows)
        with atomic_write(folder / "metrics.json") as file:
            json.dump(self.summary(), file, indent=1, allow_nan=False, ensure_ascii=False)


def gain(values: Mapping[str, float]) -> str:
    """The network's gain over the input in dB, as text for tables; "" if it is NaN."""
    difference = values.get("psnr", math.nan) - values.get("input_psnr", math.nan)
    return "" if math.isnan(difference) else f"{difference:+5.2f} dB"


def strict(tree: Any) -> Any:
    """A tree of dicts, lists and numbers with infinite numbers replaced by None."""
    if isinstance(tree, Mapping):
        return {key: strict(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [strict(value) for value in tree]
    return None if isinstance(tree, float) and math.isinf(tree) else tree


def aligned(lines: list[list[str]]) -> str:
    """Rows of cells as text: the first column aligned left, the others right, at least 10 characters wide."""
    width = max(len(cells[0]) for cells in lines)
    columns = zip(*lines, strict=True)
    widths = [0 if column[-1].endswith("dB") else max(10, *map(len, column)) for column in columns]
    texts = [
        "  ".join([f"{cells[0]:{width}s}", *(f"{cell:>{w}s}" for cell, w in zip(cells[1:], widths[1:], strict=True))])
        for cells in lines
    ]
    return "\n".join(text.rstrip() for text in texts)


def mean(rows: Iterable[Mapping[str, str | float]]) -> dict[str, float]:
    """Mean of every score over the rows that have it, in float64."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if not isinstance(value, str):
                values.setdefault(name, []).append(float(value))
    return {name: float(np.mean(of_name)) for name, of_name in values.items()}
