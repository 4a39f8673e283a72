"""Results of a sweep over degraded spikes: `main_test_vrt.py --sweep threshold=1,2,4 drop=0.1,0.5`."""

import csv
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.evaluation.scores import METHODS, Scores, format_value, strict
from utils.utils_file import atomic_write

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Condition:
    """Degraded spikes to test on.

    Attributes:
        kind, value: the swept quantity ("threshold", "shift", "drop" or "noise"), and its value.
        told: the network's input is scaled by the swept threshold.
        origin: description of the spikes' origin.
        changes: keys of `datasets.test` and their values; empty for the recorded spikes.
    """

    kind: str
    value: float
    told: bool
    origin: str
    changes: dict[str, Any]


@dataclass(frozen=True)
class SweepRow:
    """Result of one condition.

    Attributes:
        kind, value, origin: as of `Condition`.
        told: the network's input was scaled by the swept threshold (`spike_threshold`), not by the set's.
        means: means over all frames, as in metrics.json.
    """

    kind: str
    value: float
    told: bool
    origin: str
    means: Mapping[str, float]


@dataclass
class Sweep:
    """Results of all conditions, in the order of testing."""

    rows: list[SweepRow] = field(default_factory=list)

    def kinds(self) -> list[str]:
        """The kinds of conditions, in the order of testing."""
        return list(dict.fromkeys(row.kind for row in self.rows))

    def of(self, kind: str) -> list[SweepRow]:
        """The results of a kind."""
        return [row for row in self.rows if row.kind == kind]

    def lines(self, kind: str) -> list[str]:
        """Names of the curves with a PSNR at every value of a kind: "network", "told", "sdm"."""
        rows = self.of(kind)
        available = {
            "network": True,
            "told": any(row.told for row in rows),
            "sdm": all("sdm_psnr" in r.means for r in rows),
        }
        return [name for name, is_available in available.items() if is_available]

    def line(self, kind: str, name: str) -> list[float]:
        """The curve `name` of `lines`: PSNR at each value of a kind."""
        rows = [row for row in self.of(kind) if row.told == (name == "told")]
        return [row.means["sdm_psnr" if name == "sdm" else "psnr"] for row in rows]

    def table(self) -> str:
        """PSNR by condition as aligned text."""
        titles = {"network": "network", "told": "told", "sdm": METHODS["sdm"]}
        blocks = []
        for kind in self.kinds():
            lines = {titles[name]: self.line(kind, name) for name in self.lines(kind)}
            values = dict.fromkeys(row.value for row in self.of(kind))
            rows = [[f"{kind}, PSNR", *lines]]
            for index, value in enumerate(values):
                rows.append([f"{value:g}", *(format_value("psnr", of_line[index]) for of_line in lines.values())])
            blocks.append(
                "\n".join("  ".join([f"{first:18s}", *(f"{c:>14s}" for c in cells)]) for first, *cells in rows)
            )
        return "\n\n".join(blocks)

    def write(self, folder: Path) -> None:
        """Writes `sweep.csv` and `sweep.json`, a row per condition, into `folder`."""
        rows = [{"kind": r.kind, "value": r.value, "told": r.told, "made": r.origin, **r.means} for r in self.rows]
        with atomic_write(folder / "sweep.csv") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)
        with atomic_write(folder / "sweep.json") as file:
            json.dump(strict(rows), file, indent=1, allow_nan=False, ensure_ascii=False)


def run_sweep(
    conditions: Sequence[Condition], recorded: Scores, test: Callable[[Mapping[str, Any]], Scores]
) -> Sweep | None:
    """Tests every condition; returns None without conditions.

    Args:
        recorded: scores with the recorded spikes, which are not tested again.
        test: maps changes of the test set's options to the scores with them.
    """
    rows = []
    for condition in conditions:
        told = " (told)" if condition.told else ""
        logger.info("sweep: %s %g%s, spikes %s", condition.kind, condition.value, told, condition.origin)
        scores = test(condition.changes) if condition.changes else recorded
        means = scores.mean_over_frames()
        rows.append(SweepRow(condition.kind, condition.value, condition.told, condition.origin, means))
    return Sweep(rows) if rows else None
