"""Where a training step's time goes, and what the engine costs beside the network, for a recipe.

    python scripts/benchmark/bench_train.py options/demo/quickstart.json                    # the recipe's own data
    python scripts/benchmark/bench_train.py RECIPE --synthetic --set datasets.train.gt_size=64 --steps 5 --json

Two trainings of the same network on the same batches alternate within one run, step by step, and medians are printed:
with the engine as in `main_train_vrt.py` (data loader, learning rate, noise by the step, norm and finite check of the
gradients, moving average, agreement on stopping, timers, logs), and bare: forward pass, backward pass, optimizer. The
engine's own share is all of its step but data, forward, backward and optimizer. With `--synthetic` batches of random
numbers take the data's place, and no data set is needed. One process; on a GPU the first one is used.
"""

import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmark.flags import bench_train_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(bench_train_parser(__doc__ or ""))

import torch

from data.select_dataset import define_Dataset
from main_train_vrt import stream
from models.model_base import ModelBase
from models.select_model import define_Model
from scripts.estimate_memory import NO_FILES, batch_of
from utils.user_error import UserError
from utils.utils_cli import run_command
from utils.utils_dist import Dist, any_rank, init_dist
from utils.utils_logger import Writer, log_train
from utils.utils_memory import keep_freed_memory
from utils.utils_option import Options, load_options
from utils.utils_timer import Timer, peak_gpu_gigabytes

PARTS = ("data", "forward", "backward", "step")
TARGET = 0.02


def batches(opt: Options, dist: Dist, synthetic: bool) -> Iterator[dict[str, Any]]:
    """Batches of the recipe's data, or of random numbers of the same shapes."""
    assert opt.datasets.train is not None
    if not synthetic:
        shared = {"seed": opt.train.manual_seed, "scale": opt.scale, "n_channels": opt.n_channels}
        yield from stream(opt, define_Dataset(opt.datasets.train, **shared), dist, consumed=0)
    batch = batch_of(opt, opt.datasets.train.dataloader_batch_size)
    generator = torch.Generator().manual_seed(0)
    for tensor in batch.values():
        tensor.uniform_(generator=generator)
    yield from itertools.repeat({**batch, "key": ["random"] * len(batch["L"])})


def engine_step(model: ModelBase, step: int, source: Iterator[dict[str, Any]], writer: Writer, opt: Options) -> None:
    """One step as `main_train_vrt.py` takes it, its log line included at the recipe's interval."""
    assert opt.datasets.train is not None
    with model.timer.step():
        with model.timer.section("data"):
            batch = next(source)
        model.optimize_parameters(step, batch)
        any_rank(False, model.dist)
        if step % opt.train.checkpoint_print == 0:
            size = opt.datasets.train.dataloader_batch_size
            log_train(writer, model.timer, 0, step, opt.train.total_iter, size, 0.0, model.measured())
        _finish(model.dist)


def bare_step(model: ModelBase, batch: dict[str, Any], timer: Timer) -> None:
    """Forward pass, backward pass, optimizer, and nothing else."""
    model.netG.train()
    with timer.step():
        model.optimizer.zero_grad(set_to_none=True)
        with timer.section("forward"):
            loss = torch.stack(list(model.compute_losses(model.to_device(batch)).values())).sum()
        with timer.section("backward"):
            loss.backward()
        with timer.section("step"):
            model.optimizer.step()
        _finish(model.dist)


def measure(opt: Options, synthetic: bool, steps: int, warmup: int) -> dict[str, Any]:
    """Medians of both trainings, in seconds per step, and what follows from them."""
    assert opt.datasets.train is not None
    dist = init_dist()
    keep_freed_memory()
    source = batches(opt, dist, synthetic)
    model, bare = (define_Model(opt, dist, pretrained=False) for _ in range(2))
    bare.prepare(1)
    rows: dict[str, list[dict[str, float]]] = {"engine": [], "bare": []}
    batch = next(source)
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(folder, opt.logger)
        for step in range(1, warmup + steps + 1):
            model.timer, timer = Timer(dist.device, window=1), Timer(dist.device, window=1)
            engine_step(model, step, source, writer, opt)
            bare_step(bare, batch, timer)
            if step > warmup:
                rows["engine"].append(model.timer.seconds())
                rows["bare"].append(timer.seconds())
        writer.close()
    found: dict[str, Any] = {
        name: {part: statistics.median(row.get(part, 0.0) for row in taken) for part in (*PARTS, "step_total")}
        for name, taken in rows.items()
    }
    own = [row["step_total"] - sum(row.get(part, 0.0) for part in PARTS) for row in rows["engine"]]
    share = statistics.median(seconds / row["step_total"] for seconds, row in zip(own, rows["engine"], strict=True))
    found["own"] = {"seconds": statistics.median(own), "share": share, "target": TARGET, "met": share < TARGET}
    found["ratio"] = statistics.median(
        (engine["step_total"] - engine["data"]) / plain["step_total"]
        for engine, plain in zip(rows["engine"], rows["bare"], strict=True)
    )
    samples = opt.datasets.train.dataloader_batch_size
    found |= {"samples_per_second": samples / found["engine"]["step_total"], "memory_gb": memory(dist)}
    found |= {"task": opt.task, "device": str(dist.device), "steps": steps, "batch_size": samples}
    return found


def memory(dist: Dist) -> float | None:
    """Peak memory in GB (1e9 bytes) of both trainings together: the GPU's, or the process's; None where not told."""
    if dist.device.type == "cuda":
        return peak_gpu_gigabytes(dist.device)
    status = Path("/proc/self/status")
    line = next((x for x in status.read_text().splitlines() if x.startswith("VmHWM")), "") if status.exists() else ""
    return int(line.split()[1]) * 1024 / 1e9 if line else None


def _finish(dist: Dist) -> None:
    if dist.device.type == "cuda":
        torch.cuda.synchronize(dist.device)


def report(found: dict[str, Any]) -> None:
    """Prints the figures."""
    print(f"{found['task']} on {found['device']}: medians of {found['steps']} steps of {found['batch_size']} samples")
    print(f"{'seconds per step':18}" + "".join(f"{name:>10}" for name in (*PARTS, "all")))
    for name in ("engine", "bare"):
        print(f"{name:18}" + "".join(f"{found[name][part]:10.4f}" for part in (*PARTS, "step_total")))
    own = found["own"]
    verdict = "met" if own["met"] else "MISSED"
    print(f"engine's own time: {own['seconds']:.4f} s, {own['share']:.2%} of a step   target < {TARGET:.0%}: {verdict}")
    print(f"step with the engine over bare step, data left out: {found['ratio']:.3f}")
    gb = "" if found["memory_gb"] is None else f"; peak memory of both {found['memory_gb']:.2f} GB"
    print(f"{found['samples_per_second']:.3g} samples/s{gb}")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = bench_train_parser(__doc__ or "").parse_args(argv)

    def run() -> None:
        opt = load_options(arguments.recipe, [*(NO_FILES if arguments.synthetic else ()), *arguments.set])
        if opt.datasets.train is None:
            raise UserError("datasets.train: missing; the benchmark is of training")
        found = measure(opt, arguments.synthetic, arguments.steps, arguments.warmup)
        print(json.dumps(found, indent=1)) if arguments.json else report(found)

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
