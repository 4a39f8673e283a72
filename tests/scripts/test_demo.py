"""The demo's commands: their order, what --set changes, and what ends it; README's test runs them."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import svrt
from scripts import demo
from scripts.flags import DEMO
from utils.utils_option import load_options
from utils.utils_signal import mark_preempted


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], dict[str, Callable[[], int]]]:
    """The commands that are run instead of being run, and actions by the part of a command that triggers them."""
    made: list[str] = []
    actions: dict[str, Callable[[], int]] = {}

    def record(argv: Sequence[str]) -> int:
        made.append(" ".join(argv))
        return next((action() for part, action in actions.items() if part in made[-1]), 0)

    monkeypatch.setattr(svrt, "main", record)
    return made, actions


def test_the_commands(calls: tuple, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--set", "train.total_iter=3", "netG.pa_frames=2"]) == 0
    assert calls[0] == [
        "simulate",
        "test --task guided --folder_lq trainsets/demo/GOPRO_Large/test_GT_blurred --folder_gt "
        "trainsets/demo/GOPRO_Large/test_GT --folder_spike trainsets/demo/GOPRO_Large_spike_seq/test --save_result",
        "train --opt options/demo/guided.json --set train.total_iter=3",
        "test --opt options/demo/guided.json --save_result",
        "train --opt options/demo/quickstart.json --set train.total_iter=3 netG.pa_frames=2",
        "test --opt options/demo/quickstart.json --save_result --compare light network=results/guided light network, "
        "trained on=results/demo_guided --set train.total_iter=3 netG.pa_frames=2",
    ]
    told = capsys.readouterr().out
    assert "$ ./svrt train --opt options/demo/guided.json" in told and "./svrt restore clip.mp4" in told


def test_a_dry_run_trains_nothing(calls: tuple) -> None:
    assert demo.main(["--dry-run"]) == 0
    assert calls[0] == ["simulate", "train --opt options/demo/quickstart.json --dry-run"]


@pytest.mark.parametrize("failing, count", [("simulate", 1), ("--task", 2), ("train --opt", 3), ("--compare", 6)])
def test_the_first_failure_ends_it_with_its_code(calls: tuple, failing: str, count: int) -> None:
    calls[1][failing] = lambda: 7
    assert demo.main([]) == 7 and len(calls[0]) == count


def test_a_training_that_was_told_to_stop_ends_it(calls: tuple, tmp_path: Path) -> None:
    changes = [f"path.root={tmp_path}", "task=stopped"]
    folder = load_options(DEMO, changes).experiment_dir

    def stop() -> int:
        folder.mkdir(parents=True)
        mark_preempted(folder, 3, "SIGINT")
        return 0

    calls[1]["train --opt options/demo/quickstart.json"] = stop
    assert demo.main(["--set", *changes]) == 0
    assert calls[0][-1].startswith("train --opt options/demo/quickstart.json")


def test_a_command_keeps_its_log_to_itself(calls: tuple, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = list(root.handlers)

    def log() -> int:
        root.addHandler(logging.NullHandler())
        print("shown")
        return 0

    calls[1][""] = log
    demo.command("test")
    demo.command("test", quiet=True)
    assert root.handlers == before and capsys.readouterr().out.count("shown") == 1


def test_the_networks_are_trained_on_the_same_clips() -> None:
    light, vrt = load_options(demo.LIGHT), load_options(DEMO)
    for phase in ("train", "test"):
        sections = [getattr(opt.datasets, phase) for opt in (light, vrt)]
        for key in ("dataroot_gt", "dataroot_lq", "dataroot_spike"):
            assert getattr(sections[0], key) == getattr(sections[1], key)
    assert {f"dataroot_{flag.removeprefix('--folder_')}": root for flag, root in demo.FOLDERS.items()} == {
        key: getattr(vrt.datasets.test, key) for key in ("dataroot_lq", "dataroot_gt", "dataroot_spike")
    }
