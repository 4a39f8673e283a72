"""Time, memory and arithmetic of VRT, back ends of attention and recipes against each other in one run.

    python scripts/benchmark/bench_vrt.py --size 6x64x64 --compare eager,sdpa,native   # forward pass
    python scripts/benchmark/bench_vrt.py --size 6x32x32 --compare eager,sdpa --step   # training step
    python scripts/benchmark/bench_vrt.py --size 6x64x64 --recipe 006,voxel           # what the spike branch costs
    python scripts/benchmark/bench_vrt.py --size 6x192x192 --compare eager,sdpa --count_only   # nothing is run
    python scripts/benchmark/bench_vrt.py --device cuda --precision bf16 --size 6x192x192 --compare eager,sdpa,triton
    python scripts/benchmark/bench_vrt.py --device cuda --precision bf16 --size 6x192x192 --compare sdpa,sdpa+graphs

`eager` is the plain way (`models/layers/backends/eager.py`). Each variant has a process of its own; they take turns,
and the medians are printed. Columns: seconds on the clock and of all processor threads; how often faster than the first
variant by either; peak memory of the process (CPU) or allocated (GPU), with what there was before the first pass, and
the shares of the first variant's: of all, and of what the passes added; operations, GB that they read and write, TFLOP,
GB that are alive at once and the largest tensor's, counted on tensors without data (`vrt_counters.py`); share of the
roofline: the time (CPU: processor seconds) that the TFLOP take at the rate of a large matrix product, measured in the
same run, over the median; the largest difference of the first output from the first variant's, where both have the same
recipe. On a machine that others use as well, processor seconds say more than the clock."""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmark.flags import bench_vrt_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(bench_vrt_parser(__doc__ or ""))

import numpy as np
import torch

from scripts.benchmark.vrt_worker import GRAPHS, Variant, serve
from utils.user_error import UserError
from utils.utils_cli import run_command

ROOT = Path(__file__).resolve().parents[2]
RECIPES = {
    "006": "options/vrt/006_train_vrt_videodeblurring_gopro.json",
    "voxel": "options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike_voxel.json",
}
# The recipe's checkpointing is a choice of its own.
NO_CHECKPOINTS = ("netG.use_checkpoint_attn=false", "netG.use_checkpoint_ffn=false")


class Process:
    """A variant's process, waiting for commands."""

    def __init__(self, variant: Variant) -> None:
        context = multiprocessing.get_context("spawn")
        self.variant = variant
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(variant, other), daemon=True)
        self._process.start()
        other.close()

    def call(self, name: str, *arguments: Any) -> Any:
        """Calls `Workload.name` in the process.

        Raises:
            UserError: it failed there, for instance for lack of memory.
        """
        try:
            self._connection.send((name, arguments))
            result, error = self._connection.recv()
        except (EOFError, ConnectionError) as fault:
            self._process.join()
            code = self._process.exitcode
            raise UserError(f"{label(self.variant)}: its process ended with code {code}; out of memory?") from fault
        if error:
            raise UserError(f"{label(self.variant)}: {error}")
        return result

    def end(self) -> None:
        """Ends the process."""
        if self._process.is_alive():
            self._connection.send(("end", ()))
        self._process.join(10)
        self._process.kill()


def label(variant: Variant) -> str:
    """Recipe and back end."""
    names = {path: name for name, path in RECIPES.items()}
    recipe = names.get(os.path.relpath(variant.recipe, ROOT), Path(variant.recipe).stem)
    return f"{recipe} {variant.backend}"


def measure(variants: Sequence[Variant], repeats: int, count_only: bool, profile: str | None) -> list[dict[str, Any]]:
    """A row for each variant."""
    processes = [Process(variant) for variant in variants]
    rows: list[dict[str, Any]] = [{"variant": label(variant)} for variant in variants]
    try:
        if not count_only:
            _time(processes, rows, repeats)
        for process, row in zip(processes, rows, strict=True):
            # Counting needs much of PyTorch that running doesn't: it comes after the peak of memory is read.
            row.update(process.call("counts"))
        if not count_only:
            _compare(rows)
        if profile is not None:
            for process in processes:
                process.call("profile", f"{profile}_{label(process.variant).replace(' ', '_')}.txt")
    finally:
        for process in processes:
            process.end()
    return rows


def _time(processes: Sequence[Process], rows: Sequence[dict[str, Any]], repeats: int) -> None:
    """Fills in what is timed. The first pass of each variant warms up, and gives the output that is compared."""
    outputs = [process.call("output") for process in processes]
    times: list[list[dict[str, float]]] = [[] for _ in processes]
    roofs: list[list[float]] = [[] for _ in processes]
    for _ in range(repeats):
        for i, process in enumerate(processes):
            times[i].append(process.call("timed"))
            roofs[i].append(process.call("gemm"))
    for i, (process, row) in enumerate(zip(processes, rows, strict=True)):
        for key in ("seconds", "processor_seconds"):
            row[key] = statistics.median(sample[key] for sample in times[i])
        row.update(process.call("memory"))
        row["roof"] = max(map(max, roofs))
        row["roof_seconds"] = row["seconds" if process.variant.device == "cuda" else "processor_seconds"]
        same = process.variant.recipe == processes[0].variant.recipe
        row["difference"] = float(np.abs(outputs[i] - outputs[0]).max()) if same else None


def _compare(rows: Sequence[dict[str, Any]]) -> None:
    """Fills in the ratios to the first variant, and to the roofline."""
    for row in rows:
        for key in ("seconds", "processor_seconds"):
            row[f"{key}_ratio"] = rows[0][key] / row[key]
        row["peak_share"] = row["peak"] / rows[0]["peak"]
        row["added_share"] = (row["peak"] - row["start"]) / max(1, rows[0]["peak"] - rows[0]["start"])
        row["roofline"] = row["flop"] / row["roof"] / row["roof_seconds"]


def print_table(rows: Sequence[dict[str, Any]], step: bool) -> None:
    """One line per variant."""
    timed = "seconds" in rows[0]
    head = f"{'variant':18}"
    if timed:
        head += f"{'seconds':>9}{'ratio':>7}{'cpu s':>9}{'ratio':>7}{'peak GB':>9}{'start':>7}{'share':>7}{'added':>7}"
    head += f"{'ops':>8}{'GB':>9}{'TFLOP':>8}{'alive GB':>9}{'largest':>8}"
    head += f"{'kept GB':>9}{'by attn.':>9}" if step else ""
    print(head + (f"{'roofline':>10}{'differs':>10}" if timed else ""))
    for row in rows:
        line = f"{row['variant']:18}"
        if timed:
            line += f"{row['seconds']:9.3f}{row['seconds_ratio']:7.2f}{row['processor_seconds']:9.3f}"
            line += f"{row['processor_seconds_ratio']:7.2f}{row['peak'] / 1e9:9.2f}{row['start'] / 1e9:7.2f}"
            line += f"{row['peak_share']:7.2f}{row['added_share']:7.2f}"
        line += f"{row['operations']:8d}{row['moved'] / 1e9:9.1f}{row['flop'] / 1e12:8.3f}"
        line += f"{row['peak_alive'] / 1e9:9.2f}{row['largest'] / 1e9:8.3f}"
        line += f"{row['kept'] / 1e9:9.2f}{row['kept_by_attention'] / 1e9:9.2f}" if step else ""
        if timed:
            difference = "-" if row["difference"] is None else f"{row['difference']:.1e}"
            line += f"{row['roofline']:10.1%}{difference:>10}"
        print(line)


def hardware(device: str) -> str:
    """The processor, in words."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    name = names[0] if names else platform.processor()
    return f"{name}, {torch.get_num_threads()} threads, load average {os.getloadavg()[0]:.1f}"


def run(arguments: argparse.Namespace) -> None:
    """Measures and prints."""
    try:
        frames, height, width = map(int, arguments.size.split("x"))
    except ValueError:
        raise UserError(f"--size {arguments.size}: FRAMESxHEIGHTxWIDTH, such as 6x64x64") from None
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU here")
    for compared in arguments.compare.split(","):
        if "+" in compared.removesuffix(GRAPHS) or (compared.endswith(GRAPHS) and arguments.step):
            raise UserError(f"--compare {compared}: BACKEND or, for a forward pass, BACKEND{GRAPHS}")
    overrides = (*(() if arguments.checkpoint else NO_CHECKPOINTS), *arguments.set)
    variants = [
        Variant(
            str(ROOT / RECIPES[recipe]) if recipe in RECIPES else recipe, overrides, backend, (frames, height, width),
            arguments.batch, arguments.step, arguments.device, arguments.precision, arguments.compile, arguments.malloc,
        )
        for recipe in arguments.recipe.split(",")
        for backend in arguments.compare.split(",")
    ]  # fmt: skip
    rows = measure(variants, arguments.repeats, arguments.count_only, arguments.profile)
    if arguments.json:
        print(
            json.dumps({"arguments": vars(arguments), "hardware": hardware(arguments.device), "rows": rows}, indent=1)
        )
        return
    what = "training step" if arguments.step else "forward pass"
    print(
        f"{what} of [{arguments.batch},{frames},3,{height},{width}], {arguments.precision}, {arguments.malloc} malloc; "
        f"{hardware(arguments.device)}; torch {torch.__version__}; medians of {arguments.repeats} interleaved repeats"
    )
    print_table(rows, arguments.step)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = bench_vrt_parser(__doc__ or "").parse_args(argv)
    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
