"""Checks and measures a graphics card: kernels right or wrong, a training, a test, a resumption, time and memory.

    python -m scripts.gpu_check --minutes 8 --out gpu_check
    python -m scripts.gpu_check --device cpu --tiny --minutes 2        # every step on a CPU, to try the command itself

What matters most comes first, and each step has a process and a share of the time of its own: an error, a hang or the
end of the time leaves what was found before. OUT gets gpu_check.json after every row, and a log for each step. On a GPU
the card's tables in docs/performance.md are replaced. Exit code 1 where anything is wrong: a fault, a step that failed
or hung. Measurements that there was no time for are listed, and are not wrong.
"""

import json
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.benchmark.gpu_process import serve
from scripts.benchmark.gpu_rows import Row, Setting, Step, steps_for
from scripts.flags import gpu_check_parser
from utils.options.flags import answer_first
from utils.user_error import UserError
from utils.utils_cli import run_command
from utils.utils_file import atomic_write, read_text

if __name__ == "__main__":  # --help and mistakes in flags are answered before the import below, which takes seconds
    answer_first(gpu_check_parser(__doc__ or ""))

import torch  # noqa: F401  the steps' processes need it: a missing one is told here, in a line

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- gpu_check: written by scripts/gpu_check.py -->", "<!-- end of gpu_check -->"
# What the last steps leave for writing and for processes that have to be ended.
RESERVE_SECONDS = 5.0
# Beyond its share a step is given as much to end by itself.
GRACE_SECONDS = 10.0


@dataclass
class Result:
    """What came of a step.

    Attributes:
        state: "done"; "failed" by an error or a signal; "late": of those that must end, longer than its share; "cut" by
            the end of the time.
        reason: of a failure.
    """

    step: str
    state: str = "cut"
    seconds: float = 0.0
    reason: str = ""
    rows: list[Row] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """What is wrong."""
        found = [f"{row.what}, {row.variant}: {row.fault}" for row in self.rows if row.fault is not None]
        return found + ([f"{self.state}: {self.reason}"] if self.state in ("failed", "late") else [])


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 nothing wrong, 1 something is, 2 a mistake in what was asked for."""
    arguments = gpu_check_parser(__doc__ or "").parse_args(argv)
    results: list[Result] = []
    code = run_command(lambda: check(arguments, results))
    return code or int(any(result.faults for result in results))


def check(arguments: Any, results: list[Result]) -> None:
    """Runs all steps; fills in `results` and writes them as they come."""
    if arguments.minutes <= 0:
        raise UserError(f"--minutes {arguments.minutes}: a positive number is needed")
    if arguments.docs is not None:
        read_text(arguments.docs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * arguments.minutes - RESERVE_SECONDS
    setting = Setting(arguments.device, arguments.tiny, arguments.out.resolve(), end)
    page = arguments.docs or (PAGE if arguments.device == "cuda" else None)

    def write() -> None:
        content = {"minutes": arguments.minutes, "device": arguments.device, "tiny": arguments.tiny}
        content |= {"date": time.strftime("%Y-%m-%d"), "steps": [asdict(result) for result in results]}
        with atomic_write(arguments.out / "gpu_check.json") as file:
            json.dump(content, file, indent=1)

    for step in steps_for(arguments.device, arguments.tiny):
        results.append(Result(step.name))
        limit = min(60 * arguments.minutes * step.share, end - time.monotonic())
        if limit > 0:
            run_step(step, replace(setting, end=time.monotonic() + limit), end, results[-1], write)
        write()
        told(results[-1])
        if step.name == "versions" and results[-1].faults and not results[-1].rows:
            break  # no GPU, or none that computes
    if page is not None and any(result.rows for result in results):
        write_page(page, results)
    print(summary(results, arguments.out / "gpu_check.json"))


def run_step(step: Step, setting: Setting, end: float, result: Result, write: Callable[[], None]) -> None:
    """A step in a process of its own, forked from one that has imported everything and has touched no GPU.

    Args:
        end: of all time; `setting.end` is that of the step.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scripts.benchmark.gpu_steps"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=serve, args=(step.name, setting, sender))
    begin = time.monotonic()
    process.start()
    sender.close()
    last = min(setting.end + GRACE_SECONDS, end)
    result.state, result.reason = "failed", "its process ended without a word"
    try:
        while receiver.poll(max(0.0, last - time.monotonic())):
            message = receiver.recv()
            if not isinstance(message, Row):
                result.state, result.reason = ("done", "") if message is None else ("failed", message)
                break
            result.rows.append(message)
            write()
        else:
            late = last < end and step.must_end
            result.state, result.reason = ("late", f"more than {last - begin:.0f} s") if late else ("cut", "")
    except EOFError:
        process.join(GRACE_SECONDS)
        if process.exitcode:
            result.reason = f"its process ended with code {process.exitcode}"
    end_process(process)
    result.seconds = round(time.monotonic() - begin, 1)


def end_process(process: Any) -> None:
    """Ends a step's process, and what it has started; of itself at first."""
    process.join(1.0)
    if process.pid is not None:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # its session's; gone where nothing is left of it
        except (ProcessLookupError, PermissionError):
            pass
    process.kill()
    process.join(GRACE_SECONDS)


def told(result: Result) -> None:
    """Prints a step's rows."""
    print(f"{result.step}: {result.state}, {result.seconds:.1f} s {result.reason}".rstrip())
    for row in result.rows:
        print("  " + " | ".join(cells(row)), flush=True)


def cells(row: Row) -> list[str]:
    """A row's columns, as text."""
    milliseconds = "" if row.milliseconds is None else f"{row.milliseconds:.4g}"
    gigabytes = "" if row.gigabytes is None else f"{row.gigabytes:.2f}"
    said = "; ".join(filter(None, (row.note, row.fault and f"WRONG: {row.fault}")))
    return [row.what, row.variant, milliseconds, gigabytes, said.replace("|", "/")]


def summary(results: Sequence[Result], path: Path) -> str:
    """The last lines: what is wrong, what was left out."""
    faults = [f"  {result.step}: {fault}" for result in results for fault in result.faults]
    cut = [result.step for result in results if result.state == "cut"]
    lines = ["wrong:", *faults] if faults else ["nothing wrong"]
    if cut:
        lines.append(f"no time left for: {', '.join(cut)}")
    return "\n".join([*lines, f"figures: {path}"])


def write_page(page: Path, results: Sequence[Result]) -> None:
    """Replaces the card's tables between the markers of a page, or adds them; other cards' stay.

    Raises:
        UserError: the page lacks the markers.
    """
    text = read_text(page)
    match = re.search(rf"(?s){re.escape(BEGIN)}\n(.*?){re.escape(END)}", text)
    if match is None:
        raise UserError(f"{page}: lacks the lines {BEGIN} and {END}, between which the cards' tables are written")
    rows = [row for result in results for row in result.rows]
    card = next((row.variant for row in rows if row.what == "card"), "unknown card")
    blocks = dict(re.findall(r"(?ms)^### (.+?)\n\n(.*?)(?=^### |\Z)", match[1]))
    lines = [f"| {' | '.join(cells(row))} |" for row in rows if row.what != "card"]
    facts = next((row.note for row in rows if row.what == "card"), "")
    left_out = [f"{result.step} ({result.state})" for result in results if result.state != "done"]
    said = f"{facts}; {time.strftime('%Y-%m-%d')}" + (f"; not finished: {', '.join(left_out)}" if left_out else "")
    table = ["| what | how | ms | GB | |", "|---|---|---|---|---|", *lines]
    blocks[card] = "\n".join([f"{said}.", "", *table, "", ""])
    content = "".join(f"### {name}\n\n{block.rstrip()}\n\n" for name, block in sorted(blocks.items()))
    with atomic_write(page) as file:
        file.write(f"{text[: match.start()]}{BEGIN}\n{content}{text[match.end() - len(END) :]}")


if __name__ == "__main__":
    sys.exit(main())
