"""The smallest experiment that trains, for tests of the entry scripts: an option file on a data set of a few pictures.

    run = TinyRun.make(tmp_path)
    assert run.train("train.total_iter=4") == 0
    run.weights(4), run.log(), run.folder

A step of its network takes about 0.15 s on one core; 1.4 of its 1.5 million parameters are SpyNet's.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import main_test_vrt
import main_train_vrt
from scripts.local_ranks import LocalRanks
from scripts.stress_resume import differing  # noqa: F401  (tests take it from here)
from tests.data.trees import GoproTree, make_gopro_tree

LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_STEP_NUM_TASKS", "TORCHRUN_ARGS")
NETWORK = {
    "net_type": "vrt",
    "upscale": 1,
    "img_size": [2, 16, 16],
    "window_size": [2, 4, 4],
    "depths": [2, 1, 1, 1, 1, 1, 1, 1],
    "indep_reconsts": [],
    "embed_dims": [8] * 8,
    "num_heads": [2] * 8,
    "pa_frames": 2,
    "deformable_groups": 2,
}
TRAIN = {
    "E_decay": 0.5,
    "G_optimizer_lr": 1e-3,
    "total_iter": 2,
    "checkpoint_test": 1000,
    "checkpoint_save": 1000,
    "checkpoint_print": 1,
}


@dataclass(frozen=True)
class TinyRun:
    """An experiment.

    Attributes:
        options: its option file.
        folder: its experiment folder, <root>/experiments/tiny; made by training, not before.
        results: where its tests go.
        train_data, test_data: its data, two clips of four frames of 24x32 pixels each.
    """

    options: Path
    folder: Path
    results: Path
    train_data: GoproTree
    test_data: GoproTree

    @classmethod
    def make(cls, root: Path, test_clips: int = 2, **sections: dict[str, Any]) -> "TinyRun":
        """Writes the data and the option file into `root`; `sections` are merged into those of the same name."""
        small: dict[str, Any] = {"frames": 4, "size": (24, 32), "spikes_per_frame": 8}
        train_data = make_gopro_tree(root, phase="train", clips=2, **small)
        test_data = make_gopro_tree(root, phase="test", clips=test_clips, **small)
        spike = {"representation": "tfp", "bins": 1}
        tree: dict[str, Any] = {
            "task": "tiny",
            "path": {"root": str(root / "experiments")},
            "datasets": {
                "train": {
                    "dataset_type": "VideoRecurrentTrainDatasetRGBSpike",
                    **train_data.roots,
                    "spike": spike,
                    "num_frame": 2,
                    "gt_size": 16,
                    "dataloader_num_workers": 0,
                    "dataloader_batch_size": 1,
                },
                "test": {
                    "dataset_type": "VideoRecurrentTestDatasetRGBSpike",
                    **test_data.roots,
                    "meta_info_file": str(test_data.meta_info),
                    "spike": spike,
                    "num_frame": 2,
                },
            },
            "netG": NETWORK,
            "train": TRAIN,
            "logger": {"tensorboard": False},
        }
        for name, section in sections.items():
            tree[name] = {**tree.get(name, {}), **section}
        options = root / "tiny.json"
        options.write_text(json.dumps(tree, indent=1))
        return cls(options, root / "experiments" / "tiny", root / "results", train_data, test_data)

    def train(self, *overrides: str, flags: tuple[str, ...] = ()) -> int:
        """Runs main_train_vrt.py in this process, with `--set`; returns its exit code."""
        with alone():
            return main_train_vrt.main(["--opt", str(self.options), *flags, *_set(overrides)])

    def test(self, *flags: object, overrides: tuple[str, ...] = ()) -> int:
        """Runs main_test_vrt.py on the experiment in this process; returns its exit code."""
        return run_test("--opt", self.options, "--output", self.results, *flags, *_set(overrides))

    def weights(self, step: int, kind: str = "G") -> dict[str, Any]:
        """What is in KAIR's file `<step>_<kind>.pth`."""
        return torch.load(self.folder / "models" / f"{step}_{kind}.pth", weights_only=True)

    def state(self, step: int) -> dict[str, Any]:
        """The whole state of a checkpoint."""
        return torch.load(self.folder / "checkpoints" / f"step_{step:08d}" / "state.pth", weights_only=True)

    def log(self) -> str:
        """The log file's text."""
        return (self.folder / "train.log").read_text()

    def metrics(self) -> dict[str, Any]:
        """The test's metrics.json."""
        return json.loads((self.results / "tiny" / "metrics.json").read_text())


def run_test(*flags: object) -> int:
    """Runs main_test_vrt.py in this process; returns its exit code."""
    with alone():
        return main_test_vrt.main([str(flag) for flag in flags])


def start_ranks(
    run: TinyRun,
    world_size: int,
    *overrides: str,
    setup: Callable[[int], None] | None = None,
    flags: tuple[str, ...] = (),
) -> LocalRanks:
    """Several ranks of main_train_vrt.py on the run, with `--set`; to be entered. `setup`: see LocalRanks."""
    arguments = ["--opt", str(run.options), *flags, *_set(overrides)]
    printed, variables = run.options.parent / "printed", {"CUDA_VISIBLE_DEVICES": ""}
    return LocalRanks(arguments, world_size, printed, partial(one_thread, setup), variables)


def one_thread(setup: Callable[[int], None] | None, rank: int) -> None:
    torch.set_num_threads(1)
    if setup is not None:
        setup(rank)


@contextmanager
def alone() -> Iterator[None]:
    """As if in a process of its own: one thread, no GPU, no launcher's variables, and logging as it was before."""
    threads, root = torch.get_num_threads(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHERS}
    torch.set_num_threads(1)
    try:
        with (
            mock.patch.dict(os.environ, environment, clear=True),
            mock.patch("torch.cuda.device_count", return_value=0),
            mock.patch("torch.cuda.is_available", return_value=False),
        ):
            yield
    finally:
        torch.set_num_threads(threads)
        logging.captureWarnings(False)
        for handler in [handler for handler in root.handlers if handler not in handlers]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)


def close(run: TinyRun, other: TinyRun, begin: int, end: int) -> bool:
    """Whether two runs learnt the same from step `begin` to step `end`, to rounding.

    Adam's first steps go by a gradient's sign, also where it is nothing but rounding: single weights may differ by as
    much as a step, but what was learnt is the same by and large.
    """
    moves = []
    for kind in ("G", "E"):
        start, first, second = (
            torch.cat([value.flatten() for value in weights.values()])
            for weights in (run.weights(begin, kind), run.weights(end, kind), other.weights(end, kind))
        )
        moves.append(((second - first).norm() / (first - start).norm()).item())
    return max(moves) < 1e-2


def interpreter(folder: Path) -> Path:
    """This interpreter for launch_train.sh, taken to have all requirements: what it lacks a test must not install."""
    path = folder / "python"
    path.write_text(
        f'#!/usr/bin/env bash\n[[ $1 == *scripts/check_requirements.py ]] || exec "{sys.executable}" "$@"\n'
    )
    path.chmod(0o755)
    return path


def environment(**variables: object) -> dict[str, str]:
    """This process's environment for a command: one thread, no GPU, no launcher's variables but those given."""
    kept = {name: value for name, value in os.environ.items() if name not in LAUNCHERS}
    fixed = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHON": sys.executable}
    return {**kept, **fixed, **{name: str(value) for name, value in variables.items()}}


def _set(overrides: tuple[str, ...]) -> list[str]:
    return ["--set", *overrides] if overrides else []
