"""A sweep's table and files, and which conditions are tested again."""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.spike.sweep import Condition
from utils.evaluation.scores import Scores
from utils.evaluation.sweep import Sweep, SweepRow, run_sweep


def sweep() -> Sweep:
    rows = [
        SweepRow("threshold", value, told, "made", {"psnr": value + told, "sdm_psnr": 10 * value})
        for value in (1.0, 2.0, 2.5)
        for told in (False, True)
    ]
    return Sweep([*rows, SweepRow("drop", 0.5, False, "perturbed", {"psnr": math.inf})])


def test_lines_and_table() -> None:
    assert sweep().kinds() == ["threshold", "drop"]
    assert sweep().lines("threshold") == ["network", "told", "sdm"] and sweep().lines("drop") == ["network"]
    assert sweep().line("threshold", "network") == [1, 2, 2.5]
    assert sweep().line("threshold", "told") == [2, 3, 3.5]
    assert sweep().line("threshold", "sdm") == [10, 20, 25]
    assert [line.split() for line in sweep().table().splitlines()] == [
        ["threshold,", "PSNR", "network", "told", "training-free"],
        ["1", "1.00", "2.00", "10.00"],
        ["2", "2.00", "3.00", "20.00"],
        ["2.5", "2.50", "3.50", "25.00"],
        [],
        ["drop,", "PSNR", "network"],
        ["0.5", "inf"],
    ]


def test_files(tmp_path: Path) -> None:
    sweep().write(tmp_path)
    rows = json.loads((tmp_path / "sweep.json").read_text())
    assert rows[1] == {"kind": "threshold", "value": 1, "told": True, "made": "made", "psnr": 2, "sdm_psnr": 10}
    assert rows[-1]["psnr"] is None
    with open(tmp_path / "sweep.csv", encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    assert [row["psnr"] for row in listed] == ["1.0", "2.0", "2.0", "3.0", "2.5", "3.5", "inf"]
    assert listed[-1]["sdm_psnr"] == ""


def test_recorded_spikes_are_not_tested_again() -> None:
    recorded, asked = Scores(), []
    recorded.add("a", "0", {"psnr": 30.0})

    def test(changes: Mapping[str, Any]) -> Scores:
        asked.append(changes)
        scores = Scores()
        scores.add("a", "0", {"psnr": 20.0})
        scores.add("a", "1", {"psnr": 22.0})
        return scores

    perturb = {"spike_perturb": {"kind": "drop", "amount": 0.5}}
    conditions = [Condition("drop", 0.0, False, "as recorded", {}), Condition("drop", 0.5, False, "perturbed", perturb)]
    found = run_sweep(conditions, recorded, test)
    assert found is not None and found.line("drop", "network") == [30, 21] and asked == [perturb]
    assert run_sweep([], recorded, test) is None
