"""Checkpoints: bit for bit, found after every kind of damage, never lost to a failed write."""

import errno
import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from utils import utils_checkpoint
from utils.utils_checkpoint import CheckpointFolder, NotSaved, load_plain
from utils.utils_file import sha256_of


def make_state(seed: int = 0) -> dict[str, Any]:
    """The state of a small network after one optimizer step, with its moving average and some counters."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    network(torch.rand(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    return {
        "netG": network.state_dict(),
        "netE": {key: value * 0.5 for key, value in network.state_dict().items()},
        "optimizerG": optimizer.state_dict(),
        "samples": 123,
        "rng": torch.get_rng_state(),
        "options": {"task": "x", "list": [1, 2.5, None, True], "tuple": (0.9, 0.99)},
    }


def assert_equal(one: Any, other: Any) -> None:
    """Equal to the last bit, types of numbers included."""
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert type(one) is type(other) and one == other


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def weight_names(experiment: Path) -> list[str]:
    return [name for name in names(experiment / "models") if name.endswith(".pth")]


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    state = make_state()
    checkpoints = CheckpointFolder(tmp_path)
    assert checkpoints.load_newest() is None and checkpoints.steps() == [] and checkpoints.best_step() is None
    folder = checkpoints.save(40, state)
    assert folder == tmp_path / "checkpoints" / "step_00000040"
    assert names(folder) == ["COMPLETE", "meta.json", "state.pth"]
    assert names(tmp_path / "checkpoints") == ["step_00000040"]
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["step"] == 40 and meta["format"] == 1 and meta["torch"] == torch.__version__
    loaded = CheckpointFolder(tmp_path).load_newest()
    assert loaded is not None and loaded[0] == 40
    assert_equal(dict(loaded[1]), {key: dict(v) if key == "netG" else v for key, v in state.items()})


def test_kair_finds_its_files_beside_it(tmp_path: Path) -> None:
    state = make_state()
    CheckpointFolder(tmp_path).save(40, state)
    assert weight_names(tmp_path) == ["40_E.pth", "40_G.pth", "40_optimizerG.pth"]
    for path in (tmp_path / "models").glob("*.pth"):
        assert Path(f"{path}.sha256").read_text() == f"{sha256_of(path)}  {path.name}\n"
    for key, name in (("netG", "G"), ("netE", "E"), ("optimizerG", "optimizerG")):
        assert_equal(dict(state[key]), torch.load(tmp_path / "models" / f"40_{name}.pth", weights_only=True))
    CheckpointFolder(tmp_path / "other").save(7, {**state, "netE": None})
    assert weight_names(tmp_path / "other") == ["7_G.pth", "7_optimizerG.pth"]


def test_one_memory_is_stored_once_and_a_slice_alone(tmp_path: Path) -> None:
    large = torch.rand(250_000)
    state = {"netG": {"weight": large}, "again": {"weight": large.detach()}, "slice": large[:10]}
    folder = CheckpointFolder(tmp_path).save(1, state)
    assert 1e6 < (folder / "state.pth").stat().st_size < 1.1e6
    CheckpointFolder(tmp_path / "slice").save(1, {"netG": {"weight": large[:10]}})
    assert (tmp_path / "slice" / "models" / "1_G.pth").stat().st_size < 10_000


def test_the_newest_k_the_best_and_the_pinned_are_kept(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, keep=2)
    state = make_state()
    scores = {10: 30.0, 20: 33.0, 30: 31.0, 40: None, 50: float("nan"), 60: 32.0}
    for step, score in scores.items():
        folder = checkpoints.save(step, state)
        if step == 10:
            (folder / "PINNED").touch()
        assert checkpoints.awaits_score(step)
        if score is not None:
            checkpoints.record_score(step, score)
            assert not checkpoints.awaits_score(step)
    assert checkpoints.steps() == [10, 20, 50, 60] and not checkpoints.awaits_score(70)
    assert checkpoints.best_step() == 20
    assert {int(name.split("_")[0]) for name in names(tmp_path / "models")} == {10, 20, 50, 60}
    checkpoints.save(70, state)
    assert checkpoints.steps() == [10, 20, 60, 70]
    checkpoints.record_score(70, 34.0)
    assert checkpoints.steps() == [10, 60, 70] and checkpoints.best_step() == 70
    everything = CheckpointFolder(tmp_path / "all", keep=None)
    for step in range(5):
        everything.save(step, state)
    assert everything.steps() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="checkpoint_keep"):
        CheckpointFolder(tmp_path, keep=0)


def test_files_of_others_are_not_pruned(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    torch.save({}, tmp_path / "models" / "5_G.pth")
    checkpoints = CheckpointFolder(tmp_path, keep=1)
    for step in (10, 20):
        checkpoints.save(step, {"netG": make_state()["netG"]})
    assert names(tmp_path / "models") == ["20_G.pth", "20_G.pth.sha256", "5_G.pth"]


def truncate(folder: Path) -> None:
    content = (folder / "state.pth").read_bytes()
    (folder / "state.pth").write_bytes(content[: len(content) // 2])


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "state.pth").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "state.pth").write_bytes(content)


DAMAGES = {
    "truncated": truncate,
    "bit": flip_a_bit,
    "incomplete": lambda folder: (folder / "COMPLETE").unlink(),
    "no state": lambda folder: (folder / "state.pth").unlink(),
    "bad meta": lambda folder: (folder / "meta.json").write_text("{"),
    "no meta": lambda folder: (folder / "meta.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    checkpoints.save(10, make_state(1))
    newest = checkpoints.save(20, make_state(2))
    DAMAGES[damage](newest)
    with caplog.at_level(logging.WARNING):
        loaded = checkpoints.load_newest()
    assert loaded is not None and loaded[0] == 10
    assert torch.equal(loaded[1]["netG"]["0.weight"], make_state(1)["netG"]["0.weight"])
    assert str(newest) in caplog.text and "delete" in caplog.text
    checkpoints.save(20, make_state(3))
    loaded = checkpoints.load_newest()
    assert loaded is not None and loaded[0] == 20


def test_a_damaged_later_checkpoint_does_not_push_out_the_good_ones(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, keep=1)
    truncate(checkpoints.save(30, make_state()))
    checkpoints.save(25, make_state(1))
    loaded = checkpoints.load_newest()
    assert loaded is not None and loaded[0] == 25


def test_when_all_are_damaged_nothing_starts_anew_by_itself(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    truncate(checkpoints.save(10, make_state()))
    for path in (tmp_path / "models").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"no checkpoint can be read.*step_00000010.*start again"):
        checkpoints.load_newest()


def test_kairs_files_alone_are_assembled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    models = tmp_path / "models"
    state = make_state()
    models.mkdir()
    torch.save(state["netG"], models / "900_G.pth")  # 900 before 1000: numbers, not names
    for key, name in (("netG", "G"), ("netE", "E"), ("optimizerG", "optimizerG")):
        torch.save(state[key], models / f"1000_{name}.pth")
    torch.save(state["netE"], models / "1500_E.pth")  # an average without its network
    found = checkpoints.load_newest()
    assert found is not None and found[0] == 1000
    assert_equal(found[1], {key: dict(state[key]) for key in ("netG", "netE", "optimizerG")})
    assert caplog.text == ""
    torch.save(state["netG"], models / "2000_G.pth")
    found = checkpoints.load_newest()
    assert found is not None and found[0] == 2000 and list(found[1]) == ["netG"]
    assert "2000_E.pth, only of steps [1000, 1500]" in caplog.text
    assert "2000_optimizerG.pth, only of steps [1000]" in caplog.text
    (models / "2000_G.pth").write_bytes(b"PK\x03\x04 cut")
    found = checkpoints.load_newest()
    assert found is not None and found[0] == 1000
    assert "2000_G.pth: cut short" in caplog.text


def test_our_checkpoint_goes_before_kairs_files(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    checkpoints.save(10, make_state())
    torch.save(make_state(5)["netG"], tmp_path / "models" / "99_G.pth")
    found = checkpoints.load_newest()
    assert found is not None and found[0] == 10 and found[1]["samples"] == 123


def test_a_checkpoint_of_newer_code_is_not_called_damaged(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path).save(10, make_state())
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "format": 2}))
    with pytest.raises(ValueError, match="format 2, this code reads up to 1"):
        CheckpointFolder(tmp_path).load_newest()


@pytest.mark.parametrize(
    "wrong, name",
    [(np.float64(1), "float64"), (Path("x"), "Path"), (np.zeros(2), "ndarray"), ({1}, "set"), (lambda: 0, "function")],
)
def test_what_could_not_be_read_again_is_refused_before_anything_is_written(
    tmp_path: Path, wrong: object, name: str
) -> None:
    with pytest.raises(TypeError, match=re.escape("state['deep'][1]") + f".*{name}"):
        CheckpointFolder(tmp_path).save(1, {**make_state(), "deep": [0, wrong]})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TypeError, match=r"key 1\.5"):
        CheckpointFolder(tmp_path).save(1, {**make_state(), "deep": {1.5: 0}})


def test_what_a_crash_left_behind_is_cleared(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    first = checkpoints.save(10, make_state(1))
    (tmp_path / "checkpoints" / ".unfinished_step_00000020").mkdir()
    (tmp_path / "checkpoints" / ".unfinished_step_00000020" / "state.pth").write_bytes(b"half")
    (tmp_path / "models" / ".20_G.pth.123.tmp").write_bytes(b"half")
    # Killed between the two renames of a step that is saved again.
    first.rename(first.with_name(f".replaced_{first.name}"))
    found = checkpoints.load_newest()
    assert found is not None and found[0] == 10
    checkpoints.save(20, make_state(2))
    assert names(tmp_path / "checkpoints") == ["step_00000010", "step_00000020"]
    assert not [name for name in names(tmp_path / "models") if "tmp" in name]


@pytest.mark.parametrize("step", [20, 10])
@pytest.mark.parametrize("moment", range(13))
def test_a_write_that_fails_at_any_moment_loses_nothing(
    tmp_path: Path, moment: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fsync and rename of a save fails once, for a new step and for one that is saved again."""
    checkpoints = CheckpointFolder(tmp_path)
    checkpoints.save(10, make_state(1))
    calls = 0

    def failing(real: Any) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == moment + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    monkeypatch.setattr(os, "replace", failing(os.replace))
    try:
        checkpoints.save(step, make_state(2))
    except NotSaved as error:
        assert f"step {step} could not be written" in str(error) and str(tmp_path) in str(error)
    else:
        assert calls <= moment, "the failure went unnoticed"
    monkeypatch.undo()
    found = checkpoints.load_newest()
    assert found is not None
    wholes = {1: (10,), 2: (step,)}
    match = [
        seed
        for seed, steps in wholes.items()
        if found[0] in steps and torch.equal(found[1]["netG"]["0.weight"], make_state(seed)["netG"]["0.weight"])
    ]
    assert len(match) == 1
    checkpoints.save(30, make_state(3))
    assert checkpoints.steps() == sorted({10, found[0], 30})
    assert not [name for folder in ("checkpoints", "models") for name in names(tmp_path / folder) if name[0] == "."]


FULL_DISK = """
import resource, sys, torch
from utils.utils_checkpoint import CheckpointFolder, NotSaved
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
checkpoints = CheckpointFolder(sys.argv[1])
checkpoints.save(1, {"netG": {"weight": torch.ones(1000)}})
try:
    checkpoints.save(2, {"netG": {"weight": torch.ones(1_000_000)}})
except NotSaved as error:
    print(error)
"""


def test_a_full_disk_while_saving(tmp_path: Path, repository: Path) -> None:
    assert hasattr(resource, "RLIMIT_FSIZE") and signal.SIGXFSZ
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    result = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=60, check=True)
    assert "step 2 could not be written (File too large; free some space" in result.stdout
    assert str(tmp_path / "checkpoints") in result.stdout
    assert names(tmp_path / "checkpoints") == ["step_00000001"]
    found = CheckpointFolder(tmp_path).load_newest()
    assert found is not None and found[0] == 1


def test_plain_loading_never_runs_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"params": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth: holds more than tensors"):
        load_plain(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_no_other_way_of_loading_is_used() -> None:
    source = Path(utils_checkpoint.__file__).read_text()
    assert source.count("torch.load(") == 1 and "weights_only=True)" in source


def test_of_equal_scores_the_first_stays_the_best(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, keep=1)
    for step in (10, 20):
        checkpoints.save(step, make_state())
        checkpoints.record_score(step, 30.0)
    assert checkpoints.best_step() == 10
