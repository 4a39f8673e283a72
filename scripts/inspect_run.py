"""What a person asks of a run: how far it is, whether it learns, how fast it goes, and whether anything went wrong.

    python -m scripts.inspect_run experiments/demo_quickstart
    python -m scripts.inspect_run options/demo/quickstart.json                  # the same, by its option file
    python -m scripts.inspect_run options/demo/quickstart.json --serve          # a page that refreshes itself
    python -m scripts.inspect_run options/demo/quickstart.json --preempted      # for scripts: an exit code

Prints the last step, throughput and time left, test scores, bad steps, warnings and the state of the checkpoints, the
newest of which is read and checked; draws loss, learning rate and PSNR into `inspect.png` in the experiment's folder.
It reads `train.log`, so it works while the run goes on, on any machine that sees the folder.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.flags import inspect_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(inspect_parser(__doc__ or ""))

import numpy as np
import torch
from torch import Tensor

import data.select_dataset  # noqa: F401  (registers the data sets)
import models.select_model  # noqa: F401  (registers models, networks and losses)
from scripts.inspect_server import View, Watch
from utils.evaluation.chart import chart
from utils.user_error import UserError
from utils.utils_checkpoint import CheckpointFolder, DamagedFile, read_checkpoint
from utils.utils_cli import run_command
from utils.utils_file import list_folder, read_json, read_text
from utils.utils_image import imwrite_rgb
from utils.utils_logger import PANEL_FOLDER
from utils.utils_option import load_options
from utils.utils_signal import MARKER

STEP = re.compile(r"^(\S+ \S+) : <epoch: *(\d+), iter: *([\d,]+), lr:(\S+)> (.*)$")
AVERAGE = re.compile(r" : <epoch: *\d+, iter: *([\d,]+) Average PSNR: ([\d.]+) dB; SSIM: ([\d.]+)")
RESUMED = re.compile(r" : Resumed from step (\d+) of ")
WARNED = re.compile(r"^\S+ \S+ : (WARNING|ERROR): (.*)$")
SHOWN = 5  # warnings and bad steps that are printed


@dataclass
class Log:
    """What `train.log` tells.

    Attributes:
        steps: step -> what was measured (losses, `lr`, `grad_norm`) and `time`, `ETA`, `samples/s`, `data wait`.
        tests: step -> (PSNR, SSIM), means over clips.
        starts: steps from which the run was resumed.
    """

    steps: dict[int, dict[str, str]] = field(default_factory=dict)
    tests: dict[int, tuple[float, float]] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Log":
        """Reads a log; of steps that were taken twice, after a crash, the second time counts."""
        log = cls()
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if match := RESUMED.search(line):
                begin = int(match[1])
                log.starts.append(begin)
                log.steps = {step: values for step, values in log.steps.items() if step <= begin}
                log.tests = {step: values for step, values in log.tests.items() if step <= begin}
            elif match := AVERAGE.search(line):
                log.tests[_number(match[1])] = (float(match[2]), float(match[3]))
            elif match := STEP.match(line):
                values = dict(re.findall(r"([A-Za-z_/]+(?: wait)?): (\S+)", match[5]))
                log.steps[_number(match[3])] = {"time": match[1], "epoch": match[2], "lr": match[4], **values}
            elif match := WARNED.match(line):
                log.warnings.append(f"{match[1]}: {match[2]}")
        return log

    def curve(self, name: str) -> tuple[list[float], list[float]]:
        """Steps and values of one measured number."""
        points = [(float(step), float(values[name])) for step, values in self.steps.items() if name in values]
        return [x for x, _ in points], [y for _, y in points]

    def losses(self) -> list[str]:
        """Names of the losses."""
        return list(dict.fromkeys(name for values in self.steps.values() for name in values if name.startswith("G_")))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 a mistake, and with --preempted 3 for a run that was not."""
    arguments = inspect_parser(__doc__ or "").parse_args(argv)
    preempted = False

    def run() -> None:
        nonlocal preempted
        folder = experiment_folder(arguments.experiment, arguments.set)
        preempted = (folder / MARKER).exists()
        if arguments.serve:
            serve(folder, arguments.port)
        elif not arguments.preempted:
            inspect(folder, arguments.output or folder / "inspect.png")

    code = run_command(run)
    return code or (3 if arguments.preempted and not preempted else 0)


def experiment_folder(path: Path, overrides: Sequence[str]) -> Path:
    """The folder of a run that is named by itself or by its option file.

    Raises:
        UserError: there is no such folder or file.
    """
    return path if path.is_dir() else load_options(path, overrides).experiment_dir


def inspect(folder: Path, picture: Path) -> None:
    """Prints what there is to say of a run and draws its curves.

    Raises:
        UserError: the folder has no log.
    """
    path = folder / "train.log"
    if not path.is_file():
        raise UserError(f"{folder}: no train.log; name the folder of a run, experiments/<task>, or its option file")
    log = Log.read(path)
    resolved = folder / "options" / "resolved.json"
    options = read_json(resolved) if resolved.is_file() else {}
    for line in [*progress(log, folder, options), *troubles(log, folder), *checkpoints(folder)]:
        print(line)
    drawn = curves(log)
    imwrite_rgb(picture, np.concatenate([drawn[name]() for name in ("loss", "learning rate", "test PSNR")]))
    print(f"curves: {picture}")


def serve(folder: Path, port: int) -> None:
    """Shows a run, which need not have begun, as a page on this machine until Ctrl-C.

    Raises:
        UserError: the port is taken.
    """
    with Watch(lambda: look(folder), port) as watch:
        print(f"{folder}: {watch.address} (Ctrl-C ends it)", flush=True)
        watch.serve_forever()


def look(folder: Path) -> View:
    """What the page shows of a run now."""
    path, resolved = folder / "train.log", folder / "options" / "resolved.json"
    log = Log.read(path) if path.is_file() else Log()
    total = read_json(resolved).get("train", {}).get("total_iter") if resolved.is_file() else None
    lines = list(progress(log, folder, {"train": {"total_iter": total}}))
    last = log.steps[max(log.steps)] if log.steps else {}
    bad = folder / "bad_steps.jsonl"
    bad_steps = len(read_text(bad).splitlines()) if bad.is_file() else 0
    newest = f"{log.tests[max(log.tests)][0]:.2f} dB" if log.tests else "–"
    step = max(log.steps, default=0)
    kept = CheckpointFolder(folder)
    facts = {
        "name": folder.name,
        "status": lines[0].removeprefix(f"{folder.name}: "),
        "share": min(1.0, step / total) if total else None,
        "figures": [
            ["step", f"{step:,}{f' of {total:,}' if total else ''}"],
            ["samples per second", last.get("samples/s", "–")],
            ["waits for data", last.get("data wait", "–")],
            ["time left", last.get("ETA", "–")],
            ["test PSNR, newest", newest],
            ["bad steps", str(bad_steps), bad_steps > 0],
        ],
        "troubles": list(troubles(log, folder)),
        "checkpoints": f"{', '.join(f'{step:,}' for step in kept.steps()) or 'none'}; best {kept.best_step() or '–'}",
    }
    version = str(path.stat().st_mtime_ns) if path.is_file() else "0"
    return View(facts, curves(log) if log.steps else {}, version, panels_of(folder))


def panels_of(folder: Path) -> dict[str, Path]:
    """Panels of the newest test, by clip."""
    return {path.stem: path for path in list_folder(folder / PANEL_FOLDER)} if (folder / PANEL_FOLDER).is_dir() else {}


def curves(log: Log) -> dict[str, Callable[[], np.ndarray]]:
    """What draws each chart, by name."""
    tests = sorted(log.tests.items())
    psnr = ([step for step, _ in tests], [values[0] for _, values in tests])
    x_range = (min(log.steps, default=0), max([*log.steps, *log.tests], default=1))
    drawn = partial(chart, x_range=x_range)
    losses = {name: log.curve(name) for name in log.losses()}
    return {
        "loss": partial(drawn, "loss", losses, logarithmic=True),
        "test PSNR": partial(drawn, "test PSNR in dB, mean over clips", {"PSNR": psnr}, dots=True),
        "throughput": partial(drawn, "samples per second", {"samples/s": log.curve("samples/s")}),
        "gradient norm": partial(drawn, "gradient norm", {"grad_norm": log.curve("grad_norm")}, logarithmic=True),
        "learning rate": partial(drawn, "learning rate", {"lr": log.curve("lr")}),
    }


def progress(log: Log, folder: Path, options: Mapping[str, Any]) -> Iterator[str]:
    """How far the run is, how fast it goes, and what it scores."""
    total = options.get("train", {}).get("total_iter")
    if not log.steps:
        yield f"{folder.name}: no step logged yet (every train.checkpoint_print steps)"
        return
    step, last = max(log.steps), log.steps[max(log.steps)]
    of = f" of {total:,} ({step / total:.0%})" if total else ""
    state = "finished" if step == total else "told to stop early" if (folder / MARKER).exists() else "not finished"
    yield f"{folder.name}: step {step:,}{of}, epoch {last['epoch']}, {state}; last line {last['time']}"
    losses = ", ".join(f"{name} {last[name]}" for name in log.losses() if name in last)
    yield f"loss: {losses}; learning rate {last['lr']}; gradient norm {last.get('grad_norm', '?')}"
    speeds = log.curve("samples/s")[1]
    median = f"{np.median(speeds[-20:]):.3g}" if speeds else "?"
    yield f"throughput: {median} samples/s; waits for data {last.get('data wait', '?')} of the time; ETA {last['ETA']}"
    if log.tests:
        best, newest = max(log.tests, key=lambda s: log.tests[s][0]), max(log.tests)
        shown = (f"{name} {log.tests[s][0]:.2f} dB (step {s:,})" for name, s in (("newest", newest), ("best", best)))
        yield f"test PSNR: {', '.join(shown)}"
    if log.starts:
        yield f"resumed {len(log.starts)} times, last from step {log.starts[-1]:,}"


def troubles(log: Log, folder: Path) -> Iterator[str]:
    """Steps that were skipped, and the last warnings."""
    path = folder / "bad_steps.jsonl"
    lines = read_text(path).splitlines() if path.is_file() else []
    yield f"bad steps: {len(lines)}{f', the last of them in {path}:' if lines else ''}"
    for line in lines[-SHOWN:]:
        try:
            entry = json.loads(line)
            ranks = "; ".join(f"rank {rank['rank']} loss {rank['loss']} {rank['keys']}" for rank in entry["ranks"])
            yield f"  step {entry['step']}: gradient norm {entry['grad_norm']}; {ranks}"
        except (ValueError, KeyError, TypeError, RecursionError):
            yield f"  not readable, cut short by a crash? {line[:80]}"
    warnings = list(dict.fromkeys(text for text in log.warnings if not re.search(r"Step \d+ skipped", text)))
    yield f"warnings and errors: {len(warnings)}{', the last of them:' if warnings else ''}"
    yield from (f"  {text}" for text in warnings[-SHOWN:])


def checkpoints(folder: Path) -> Iterator[str]:
    """The checkpoints, and what is in the newest: whether it can be read, and whether all its numbers are finite."""
    kept = CheckpointFolder(folder)
    steps = kept.steps()
    yield f"checkpoints: {', '.join(f'{step:,}' for step in steps) or 'none'}; best {kept.best_step() or 'not known'}"
    if not steps:
        return
    newest = kept.folder / f"step_{steps[-1]:08d}"
    try:
        state = read_checkpoint(newest)
    except DamagedFile as error:
        yield f"newest checkpoint: DAMAGED, the next start takes the one before it. {error}"
        return
    size, seen = (newest / "state.pth").stat().st_size / 1e6, state.get("samples", "?")
    bad = state.get("bad_steps", 0)
    yield f"newest checkpoint: intact, {size:.0f} MB, {seen} samples seen, {bad} bad steps in a row"
    for name in ("netG", "netE"):
        tensors = [value for value in (state.get(name) or {}).values() if isinstance(value, Tensor)]
        floats = [tensor.float() for tensor in tensors if tensor.is_floating_point()]
        if floats:
            norm = torch.stack([tensor.norm() for tensor in floats]).norm()
            broken = sum(not bool(torch.isfinite(tensor).all()) for tensor in floats)
            yield f"  {name}: {sum(t.numel() for t in floats):,} numbers, norm {norm:.4g}, {broken} tensors not finite"


def _number(text: str) -> int:
    return int(text.replace(",", ""))


if __name__ == "__main__":
    sys.exit(main())
