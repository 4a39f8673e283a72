"""Kills a training again and again and checks that nothing is lost: the end has the weights of a training left alone.

    python -m scripts.stress_resume --opt options/demo/quickstart.json --set train.total_iter=8 --ranks 1 --kills 20
    python -m scripts.stress_resume --opt FILE --ranks 2 --kills 20 --folder /scratch/stress --seed 1

Trains once undisturbed, and then with SIGKILL to a random rank, in every second start at a random moment up to the end
of the second step, else at a random moment of a save. After every kill the newest complete checkpoint must not be
older than before, and the same command must go on. A second training in the folder of a running one must be refused.
Weights, moving average and optimizer at the two ends are compared bit by bit, which a CPU allows; on GPUs differences
are counted instead of being an error. Where a training ends before all kills are spent, another begins.
"""

import contextlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.flags import stress_resume_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(stress_resume_parser(__doc__ or ""))

import torch
from torch import Tensor

import data.select_dataset  # noqa: F401  (registers the data sets)
import models.select_model  # noqa: F401  (registers models, networks and losses)
from scripts.local_ranks import LocalRanks
from utils.utils_checkpoint import CheckpointFolder
from utils.utils_cli import run_command
from utils.utils_lock import NAME as LOCK
from utils.utils_option import load_options

TIMEOUT = 3600.0
SAVE_SECONDS = 0.5


@dataclass
class Stress:
    """Trainings of one option file with kills.

    Attributes:
        option_file, overrides: of `main_train_vrt.py`; `path.root` and `train.checkpoint_save` are set here.
        folder: where all is written.
        setup: see `LocalRanks`.
        kills: done so far. in_saves: those that met a checkpoint half written. trainings: with kills.
        window: seconds from a start to the end of the second step.
    """

    option_file: str
    overrides: Sequence[str]
    world_size: int
    folder: Path
    rng: random.Random
    setup: Callable[[int], None] | None = None
    kills: int = 0
    in_saves: int = 0
    trainings: int = 0
    window: float = 0.0

    def run(self, kills: int) -> list[str]:
        """The whole test; names of what differs from the undisturbed training (nothing is what should come).

        Raises:
            RuntimeError: a training failed, could not go on, or lost a checkpoint.
        """
        with self._start("warming_up", "train.total_iter=1") as ranks:
            ranks.wait(TIMEOUT)
        undisturbed = self._train("whole")
        found = [f"concurrent{place}" for place in differing(undisturbed, self._concurrent("concurrent"))]
        while self.kills < kills:
            self.trainings += 1
            name = f"killed{self.trainings}"
            found += [f"{name}{place}" for place in differing(undisturbed, self._disturbed(name, kills))]
            shutil.rmtree(self.folder / name)
        return found

    def _train(self, name: str) -> dict[str, Any]:
        """Trains to the end; the state there."""
        begin = time.monotonic()
        with self._start(name) as ranks:
            if not self.window:
                second = self._checkpoints(name).folder / "step_00000002"
                while not (second.exists() or ranks.ended()):
                    time.sleep(0.01)
                self.window = time.monotonic() - begin
            codes = ranks.wait(TIMEOUT)
        if any(codes):
            raise RuntimeError(f"{name}: the ranks ended with {codes}; they said:\n{ranks.text()}")
        found = self._checkpoints(name).load_newest()
        assert found is not None
        return {key: found[1][key] for key in ("netG", "netE", "optimizerG", "samples")}

    def _concurrent(self, name: str) -> dict[str, Any]:
        """The state at the end of a training in whose folder a second one is started meanwhile, which is refused.

        The first training is halted while the second starts: a short one would end before it.
        """
        with self._start(name) as first:
            lock = self._checkpoints(name).folder.parent / LOCK
            while not ((lock.exists() and lock.read_text()) or first.ended()):
                time.sleep(0.01)
            first.signal(signal.SIGSTOP)
            with self._start(name) as second:
                codes = second.wait(TIMEOUT)
            first.signal(signal.SIGCONT)
            if any(code != 2 for code in codes):
                raise RuntimeError(f"{name}: a second training in one folder ended with {codes}, not 2")
            if any(first.wait(TIMEOUT)):
                raise RuntimeError(f"{name}: a second training disturbed the first; {first.text()}")
        return self._train(name)

    def _disturbed(self, name: str, kills: int) -> dict[str, Any]:
        """Trains with kills until the training or the kills are at their end; the state at the training's end."""
        newest, done, checkpoints = 0, False, self._checkpoints(name)
        while self.kills < kills and not done:
            left = _unfinished(checkpoints)
            with self._start(name) as ranks:
                if self.kills % 2:
                    while not (_unfinished(checkpoints) - left or ranks.ended()):
                        time.sleep(0.01)
                time.sleep(self.rng.uniform(0, SAVE_SECONDS if self.kills % 2 else self.window))
                victim = self.rng.choice(ranks.processes)
                codes = ranks.wait(0)
                done = None not in codes
                if done and any(codes):
                    raise RuntimeError(f"{name}: nothing was killed, but the ranks ended with {codes}; {ranks.text()}")
                if not done:
                    victim.kill()
                    victim.join()
                    self.kills += victim.exitcode == -signal.SIGKILL
                    self.in_saves += bool(_unfinished(checkpoints) - left)
            if max(checkpoints.steps(), default=0) < newest:
                raise RuntimeError(f"{name}: step {newest} was saved and is gone after a kill")
            newest = max(checkpoints.steps(), default=0)
        return self._train(name)

    def _checkpoints(self, name: str) -> CheckpointFolder:
        opt = load_options(self.option_file, [*self.overrides, f"path.root={self.folder / name}"])
        return CheckpointFolder(opt.experiment_dir)

    def _start(self, name: str, *overrides: str) -> LocalRanks:
        overrides = (*self.overrides, f"path.root={self.folder / name}", "train.checkpoint_save=1", *overrides)
        arguments = ["--opt", self.option_file, "--set", *overrides]
        variables = {} if torch.cuda.is_available() else {"CUDA_VISIBLE_DEVICES": ""}
        return LocalRanks(arguments, self.world_size, self.folder / name, self.setup, variables)


def _unfinished(checkpoints: CheckpointFolder) -> set[tuple[str, int]]:
    """Names and times of change of what a save has not finished, or a killed one has left."""
    found = set()
    for path in [*checkpoints.folder.glob(".*"), *checkpoints.models.glob(".*")]:
        with contextlib.suppress(FileNotFoundError):
            found.add((path.name, path.stat().st_mtime_ns))
    return found


def differing(first: Any, second: Any, place: str = "") -> list[str]:
    """Places where two states differ by a bit or more."""
    if isinstance(first, Tensor):
        return [] if first.dtype == second.dtype and torch.equal(first, second) else [place]
    if isinstance(first, dict):
        places = [] if first.keys() == second.keys() else [f"{place}: keys"]
        return places + [
            p for k in first.keys() & second.keys() for p in differing(first[k], second[k], f"{place}.{k}")
        ]
    if isinstance(first, (list, tuple)):
        places = [] if len(first) == len(second) else [f"{place}: length"]
        return places + [
            p for i, (a, b) in enumerate(zip(first, second, strict=False)) for p in differing(a, b, f"{place}.{i}")
        ]
    return [] if first == second else [place]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 nothing lost, 1 something was, 2 a mistake in the options."""
    arguments = stress_resume_parser(__doc__ or "").parse_args(argv)
    failed = False

    def run() -> None:
        nonlocal failed
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            rng = random.Random(arguments.seed)
            stress = Stress(arguments.opt, arguments.set, arguments.ranks, Path(folder), rng)
            try:
                found = stress.run(arguments.kills)
            except RuntimeError as error:
                print(error)
                failed = True
                return
            print(
                f"{stress.kills} kills of {stress.trainings} trainings, {stress.in_saves} of them amid a save; "
                f"{len(found)} differences{': ' if found else ''}{', '.join(found[:10])}"
            )
            failed = bool(found) and not torch.cuda.is_available()

    code = run_command(run)
    return code or int(failed)


if __name__ == "__main__":
    sys.exit(main())
