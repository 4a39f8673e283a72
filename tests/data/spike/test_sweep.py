"""Conditions of a sweep: what each changes; spikes simulated again show the same scene; what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.spike.sweep import conditions, parse_spec, simulated_anew
from data.spike.sync import SyncTable
from scripts.data_preparation import simulate_dataset
from utils.spike_loader import SpikeStream


class Section:
    def __init__(self, **options: Any) -> None:
        self.options = {"dataroot_gt": "gt", "spike_threshold": 2.0, "spike_perturb": None, **options}

    def arguments(self) -> dict[str, Any]:
        return self.options


def changes(spec: str, **options: Any) -> list[tuple[float, bool, dict[str, Any]]]:
    return [(c.value, c.told, c.changes) for c in conditions([spec], Section(**options))]


def test_perturbed_spikes() -> None:
    assert changes("drop=0,0.5") == [(0, False, {}), (0.5, False, {"spike_perturb": {"kind": "drop", "amount": 0.5}})]
    assert changes("shift=-8")[0][2] == {"spike_perturb": {"kind": "shift", "amount": -8}}
    found = conditions(["noise=0.01", "drop=1"], Section())
    assert [(c.kind, c.value, c.origin) for c in found] == [("noise", 0.01, "perturbed"), ("drop", 1, "perturbed")]


def test_multiples_of_the_cameras_threshold() -> None:
    perturb = {"spike_perturb": {"kind": "threshold", "amount": 3}}
    told = [(6, False, perturb), (6, True, {**perturb, "spike_threshold": 6})]
    assert changes("threshold=2,6") == [(2, False, {}), (2, True, {}), *told]
    assert [c.origin for c in conditions(["threshold=2,6"], Section())] == ["as recorded"] * 2 + ["one spike in 3"] * 2


def test_other_thresholds_are_simulated_anew(tmp_path: Path) -> None:
    root, value = tmp_path / "set", 1.0
    small = ["--train_clips=0", "--test_clips=1", "--test_frames=2", "--size", "48", "64", "--seed=5"]
    assert simulate_dataset.main([f"--root={root}", *small]) == 0
    spikes = root / "GOPRO_Large_spike_seq" / "test"
    found = conditions([f"threshold={value}"], Section(dataroot_spike=str(spikes)))
    anew = Path(found[0].changes["dataroot_spike"])
    assert anew == tmp_path / f"set_threshold_{value:g}" / "GOPRO_Large_spike_seq" / "test"
    assert [(c.told, c.changes.get("spike_threshold")) for c in found] == [(False, None), (True, value)]
    (clip,) = (path.name for path in anew.iterdir())
    before, after = (SpikeStream(side / clip / "spike" / "000001.dat").get_spike_matrix() for side in (spikes, anew))
    assert before.shape == after.shape and len(SyncTable.load(anew / clip / "sync.json")) == 2
    assert after.mean() * value == pytest.approx(before.mean() * 2, rel=0.03)
    pictures = [sorted((side / "GOPRO_Large").rglob("*.png")) for side in (root, tmp_path / f"set_threshold_{value:g}")]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*pictures, strict=True))
    # The second time nothing is made.
    made = (anew / clip / "spike" / "000001.dat").stat().st_mtime_ns
    assert simulated_anew(spikes, value) == anew
    assert (anew / clip / "spike" / "000001.dat").stat().st_mtime_ns == made
    assert np.array_equal(after, SpikeStream(anew / clip / "spike" / "000001.dat").get_spike_matrix())


def test_thresholds_that_can_not_be_had(tmp_path: Path) -> None:
    spikes = tmp_path / "set" / "GOPRO_Large_spike_seq" / "test"
    spikes.mkdir(parents=True)
    with pytest.raises(
        ValueError, match=r"threshold=1: from recorded spikes, only whole multiples .* no simulated set"
    ):
        changes("threshold=1", dataroot_spike=str(spikes))
    manifest = tmp_path / "set" / "simulation.json"
    manifest.write_text(json.dumps({"parameters": {"kind": "videos"}}))
    with pytest.raises(ValueError, match=r"made from videos: .*--threshold 1 and another --root"):
        changes("threshold=1", dataroot_spike=str(spikes))
    with pytest.raises(ValueError, match="threshold=0: a threshold above 0"):
        changes("threshold=0")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("threshold", "numbers are needed, as in threshold=1,2,4"),
        ("drop=", "numbers are needed"),
        ("drop=a,b", "numbers are needed"),
        ("zero=1", "'zero' is unknown; choices: threshold, shift, drop, noise"),
        ("drop=1.5", r"a probability in \[0, 1\]"),
        ("shift=0.5", "whole number of spike frames"),
        ("threshold=nan", "numbers are needed"),
        ("drop=inf", "numbers are needed"),
    ],
)
def test_mistakes(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conditions([spec], Section(dataroot_spike="nowhere"))


def test_sets_that_can_not_be_swept() -> None:
    with pytest.raises(ValueError, match=r"has no spikes; name them .* --folder_spike"):
        conditions(["drop=1"], type("Plain", (), {"arguments": lambda self: {"dataroot_gt": "gt"}})())
    with pytest.raises(ValueError, match="without sharp frames; give --folder_gt"):
        conditions(["drop=1"], Section(dataroot_gt=None))
    with pytest.raises(ValueError, match="spike_perturb is set"):
        conditions(["drop=1"], Section(spike_perturb={"kind": "zero"}))


def test_values_are_tested_once() -> None:
    assert parse_spec("drop=0.1,0.1,1") == ("drop", [0.1, 1.0])
