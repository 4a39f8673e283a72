"""Judges every exposure of a test by its measurements (`utils/evaluation/trust.py`): numbers, maps and a table.

    meter = TrustMeter(folder, clips)
    verdict = meter.add(result)         # for each restored instant, in order; a verdict after an exposure's last one
    meter.write()                       # trust.csv, trust.json

<folder>/trust/<clip>/<frame>.png is the restored middle instant in gray, with contradictions in colour: from yellow
(`PAINTED`) to red (three times `PAINTED`).
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch

from utils.evaluation.frame_result import FrameResult
from utils.evaluation.scores import aligned, mean
from utils.evaluation.trust import PAINTED, Measured, Trust, judge
from utils.user_error import UserError
from utils.utils_dist import Dist, all_gather_object
from utils.utils_file import atomic_write, check_relative
from utils.utils_image import imwrite_rgb

COLUMNS = {
    "reblur_psnr": ("re-blur PSNR", "{:.2f}"),
    "spike_ll": ("spike log-lik.", "{:.3f}"),
    "rate_ll": ("of own rate", "{:.3f}"),
    "gain": ("spike gain", "{:.3f}"),
    "painted": ("contradicts", "{:.1%}"),
}
"""Numbers of an exposure, with titles and formats."""


class Exposures(Protocol):
    """A test set of instants (`data/dataset_video_instants.py`)."""

    times: list[float]
    spike_threshold: float

    def place(self, clip: str, frame: str) -> tuple[str, Any]:
        """The blurred frame of an instant, and this frame's exposure (`begin`, `end`, `center` in spike frames)."""

    def exposed_spikes(self, clip: str, frame: str) -> np.ndarray:
        """Spikes of a blurred frame's exposure, (L,h,w) uint8."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on an exposure, and its map as a picture (H,W,3) uint8 RGB."""

    frame: str
    trust: Trust
    picture: np.ndarray


class TrustMeter:
    """Collects the verdicts of a test.

    Args:
        folder: the results' folder.
        clips: the test set, with instants from the beginning of an exposure to its end.

    Attributes:
        rows: for each exposure, `clip`, `frame` and the numbers of `COLUMNS`.
    """

    def __init__(self, folder: Path, clips: Exposures) -> None:
        assert clips.times[0] == 0 and clips.times[-1] == 1, clips.times
        self.folder, self.clips = folder, clips
        self.rows: list[dict[str, str | float]] = []
        self._instants: list[FrameResult] = []

    def add(self, result: FrameResult) -> Verdict | None:
        """Adds a restored instant; returns the verdict if it is its exposure's last, else None."""
        self._instants.append(result)
        if len(self._instants) < len(result.times):
            return None
        instants, self._instants = self._instants, []
        frame = self.clips.place(result.clip, result.frame)[0]
        trust = judge(*measured(instants, self.clips))
        numbers = {name: float(getattr(trust, name)) for name in COLUMNS}
        self.rows.append({"clip": result.clip, "frame": frame, **numbers})
        picture = painted(instants[len(instants) // 2].restored, trust.contradiction.numpy())
        folder = self.folder / "trust" / check_relative(result.clip, self.folder)
        imwrite_rgb(folder / f"{check_relative(frame, folder)}.png", picture)
        return Verdict(frame, trust, picture)

    def gather(self, dist: Dist, order: Sequence[str]) -> None:
        """Collects the verdicts of all ranks, with clips in the given order."""
        rows = [row for part in all_gather_object(self.rows, dist) for row in part]
        self.rows = sorted(rows, key=lambda row: order.index(str(row["clip"])))

    def clips_means(self) -> dict[str, dict[str, float]]:
        """Means over the exposures of every clip, and over all, by name."""
        names = list(dict.fromkeys(str(row["clip"]) for row in self.rows))
        means = {name: mean(row for row in self.rows if row["clip"] == name) for name in names}
        return {**means, "mean over frames": mean(self.rows)} if len(names) > 1 else means

    def table(self) -> str:
        """A table as aligned text, with one line per clip."""
        lines = [["trust", *(title for title, _ in COLUMNS.values())]]
        lines += [[name, *shown(means)] for name, means in self.clips_means().items()]
        return aligned(lines)

    def write(self) -> None:
        """Writes `trust.csv`, a row per exposure, and `trust.json`."""
        with atomic_write(self.folder / "trust.csv") as file:
            writer = csv.DictWriter(file, ["clip", "frame", *COLUMNS])
            writer.writeheader()
            writer.writerows(self.rows)
        with atomic_write(self.folder / "trust.json") as file:
            json.dump({"clips": self.clips_means(), "frames": self.rows}, file, indent=1, ensure_ascii=False)


def measured(instants: Sequence[FrameResult], clips: Exposures) -> tuple[torch.Tensor, Measured]:
    """The restored instants of an exposure, (N,3,H,W) in [0,1], and its measurements.

    Raises:
        UserError: an exposure of a single spike frame.
    """
    places = [clips.place(instant.clip, instant.frame) for instant in instants]
    frame, exposure = places[0]
    if len(exposure) < 2:
        raise UserError(f"--trust: {instants[0].clip}/{frame}: an exposure of one spike frame has no instants")
    # Instants of a short exposure may share a spike frame.
    by_offset = {
        window.center - window.begin: instant.restored
        for (_, window), instant in zip(reversed(places), reversed(instants), strict=True)
    }
    offsets = sorted(by_offset)
    pictures = np.stack([by_offset[offset] for offset in offsets])
    spikes = torch.from_numpy(clips.exposed_spikes(instants[0].clip, frame)).float()
    blurred = instants[0].blurred
    assert blurred is not None  # `Exposures` are of frames
    return _planes(pictures), Measured(_planes(blurred[None])[0], spikes, clips.spike_threshold, offsets)


def painted(picture: np.ndarray, contradiction: np.ndarray) -> np.ndarray:
    """A picture (H,W,3) uint8 in gray, coloured where `contradiction` (H,W) exceeds `PAINTED`; (H,W,3) uint8."""
    gray = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, 2).astype(np.float32)
    red = np.clip((contradiction - PAINTED) / (2 * PAINTED), 0, 1)[..., None]
    colour = np.concatenate([np.full_like(red, 255), 220 * (1 - red), np.zeros_like(red)], 2)
    opaque = np.where(contradiction > PAINTED, 0.6, 0)[..., None]
    result: np.ndarray = np.rint(gray * (1 - opaque) + colour * opaque).astype(np.uint8)
    return result


def shown(means: Mapping[str, float]) -> list[str]:
    """The numbers of an exposure or of a mean, formatted for tables."""
    return [form.format(means[name]) for name, (_, form) in COLUMNS.items()]


def _planes(pictures: np.ndarray) -> torch.Tensor:
    """(N,H,W,3) uint8 to (N,3,H,W) float32 in [0,1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float() / 255
