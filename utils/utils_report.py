"""Scores of a test run: a row per frame, means per clip, over frames and over clips; as a table, CSV and JSON.

The paper's deblurring tables weigh every frame alike, KAIR's log every clip: both means are kept, by these names.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.utils_file import atomic_write
from utils.utils_metric import psnr, psnr_y, ssim, ssim_y

METRICS = {"psnr": psnr, "ssim": ssim, "psnr_y": psnr_y, "ssim_y": ssim_y}


def score_frame(restored: np.ndarray, sharp: np.ndarray) -> dict[str, float]:
    """PSNR and SSIM, in RGB and in Y, of two uint8 (H,W,3) RGB pictures."""
    return {name: metric(restored, sharp) for name, metric in METRICS.items()}


@dataclass
class Scores:
    """Collects the scores of frames.

    A row has `clip`, `frame`, and one number per metric; those of the blurred input carry the prefix `input_`.
    """

    rows: list[dict[str, str | float]] = field(default_factory=list)

    def add(self, clip: str, frame: str, scores: Mapping[str, float]) -> None:
        """Adds the scores of one frame."""
        self.rows.append({"clip": clip, "frame": frame, **scores})

    def metrics(self) -> list[str]:
        """Names of the numbers in the rows."""
        return [name for name in self.rows[0] if name not in ("clip", "frame")] if self.rows else []

    def clips(self) -> dict[str, dict[str, float]]:
        """Mean over the frames of every clip, clips in their order of arrival."""
        names = dict.fromkeys(str(row["clip"]) for row in self.rows)
        return {name: _mean(row for row in self.rows if row["clip"] == name) for name in names}

    def mean_over_clips(self) -> dict[str, float]:
        """Mean of the clips' means: every clip weighs the same (KAIR's log)."""
        return _mean(self.clips().values())

    def mean_over_frames(self) -> dict[str, float]:
        """Mean of all frames: every frame weighs the same (the paper's deblurring tables)."""
        return _mean(self.rows)

    def table(self) -> str:
        """The clips and both means as aligned text; the gain over the input where the input was scored."""
        rows = {**self.clips(), "mean over clips": self.mean_over_clips(), "mean over frames": self.mean_over_frames()}
        columns = [("input PSNR", "input_psnr", "{:.2f}"), ("input SSIM", "input_ssim", "{:.4f}")]
        columns = columns if "input_psnr" in self.metrics() else []
        columns = [*columns, ("PSNR", "psnr", "{:.2f}"), ("SSIM", "ssim", "{:.4f}")]
        columns += [("PSNR_Y", "psnr_y", "{:.2f}"), ("SSIM_Y", "ssim_y", "{:.4f}")]
        width = max(len(name) for name in rows)
        lines = ["  ".join([f"{'clip':{width}s}", *(f"{title:>10s}" for title, _, _ in columns), " " * 8])]
        for name, values in rows.items():
            gain = f"{values['psnr'] - values['input_psnr']:+5.2f} dB" if "input_psnr" in values else ""
            cells = [f"{template.format(values[key]):>10s}" for _, key, template in columns]
            lines.append("  ".join([f"{name:{width}s}", *cells, gain]))
        return "\n".join(line.rstrip() for line in lines)

    def write(self, folder: Path) -> None:
        """Writes `metrics.csv` (a row per frame) and `metrics.json` (frames, clips, both means) into `folder`."""
        with atomic_write(folder / "metrics.csv") as file:
            writer = csv.DictWriter(file, ["clip", "frame", *self.metrics()])
            writer.writeheader()
            writer.writerows(self.rows)
        summary = {"mean_over_clips": self.mean_over_clips(), "mean_over_frames": self.mean_over_frames()}
        with atomic_write(folder / "metrics.json") as file:
            json.dump({**summary, "clips": self.clips(), "frames": self.rows}, file, indent=1)


def _mean(rows: Iterable[Mapping[str, str | float]]) -> dict[str, float]:
    """Mean of every number in the rows, in float64."""
    rows = list(rows)
    names = [name for name, value in rows[0].items() if not isinstance(value, str)] if rows else []
    return {name: float(np.mean([float(row[name]) for row in rows])) for name in names}
