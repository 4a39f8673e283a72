"""The steps of `python -m scripts.gpu_check`, each run in a process of its own; their order: `gpu_rows.py`.

A step reports rows one by one, so that what ends it, an error of the GPU or the time, leaves those before. With `tiny`
all of them run on a CPU in seconds, for the test of the command.
"""

import importlib
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import data.select_dataset  # noqa: F401  (registers the data sets)
from models.layers.backends.choices import driver_version, package_version, processor_name
from models.layers.backends.measure import one_line
from scripts.benchmark import bench_train
from scripts.benchmark.bench_vrt import ROOT
from scripts.benchmark.gpu_kernels import kernels
from scripts.benchmark.gpu_rows import Row, Rows, Setting
from scripts.benchmark.gpu_speed import TINY_NETWORK, light, memory, peak, speed, tiles
from scripts.local_ranks import free_port
from utils.utils_option import load_options
from utils.utils_signal import stop_with_parent

DEMO = ROOT / "options" / "demo" / "quickstart.json"
# dB by which tiles from CUDA graphs may differ: rounding.
GRAPH_MARGIN = 0.01


def serve(name: str, setting: Setting, connection: Connection) -> None:
    """Body of a step's process: sends its rows, and at last None or what it failed by."""
    os.setsid()  # what it starts ends with it
    stop_with_parent()
    with open(setting.folder / f"{name.replace(' ', '_')}.log", "w", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if setting.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        for row in rows_of(name, setting):
            connection.send(row)
        connection.send(None)
    except Exception as error:
        traceback.print_exc()
        connection.send(one_line(error))
    sys.stdout.flush()


def versions(setting: Setting) -> Rows:
    """Card and versions."""
    yield Row("card", card(setting.device), note=", ".join(f"{key} {value}" for key, value in facts(setting).items()))
    a = torch.randn(64, 64, device=setting.device)
    error = float((a @ a.inverse() - torch.eye(64, device=setting.device)).abs().max())
    yield Row("a matrix times its inverse", "float32", fault=None if error < 1e-2 else f"off by {error:.1e}")


def card(device: str) -> str:
    """The device's name."""
    return torch.cuda.get_device_name() if device == "cuda" else processor_name()


def facts(setting: Setting) -> dict[str, Any]:
    """What the figures depend on."""
    found = {"python": sys.version.split()[0], "torch": torch.__version__, "triton": package_version("triton")}
    if setting.device == "cuda":
        free, total = torch.cuda.mem_get_info()
        capability = ".".join(map(str, torch.cuda.get_device_capability()))
        found |= {"driver": driver_version(), "CUDA": torch.version.cuda, "cuDNN": torch.backends.cudnn.version()}
        found |= {"capability": capability, "GB free": f"{free / 1e9:.1f} of {total / 1e9:.1f}"}
    return found


def demo(setting: Setting) -> Rows:
    """The demo's data, a training in bf16, tests in tiles with and without CUDA graphs, and going on."""
    size = (
        "--size",
        "48",
        "64",
        "--train_clips",
        "1",
        "--test_clips",
        "1",
        "--train_frames",
        "4",
        "--test_frames",
        "4",
    )
    begin = time.monotonic()
    command("scripts.data_preparation.simulate_dataset", "--root", str(data_root(setting)), *(size * setting.tiny))
    yield Row("demo's data", "simulated", 1e3 * (time.monotonic() - begin))
    steps = 2 if setting.tiny else 200
    begin = time.monotonic()
    command("main_train_vrt", *demo_options(setting, steps))
    seconds = time.monotonic() - begin
    amp = "bf16" if setting.device == "cuda" else "fp32"
    yield Row(f"demo, {steps} steps", amp, 1e3 * seconds / steps, peak(setting), "per step, start and save included")
    scores = {}
    for graphs in ("false", "auto") if setting.tiny else ("false", "true", "auto"):
        begin = time.monotonic()
        scores[graphs] = tested(setting, steps, graphs)
        restored, blurred = scores[graphs]["psnr"], scores[graphs]["input_psnr"]
        faults = []
        if not setting.tiny and not restored > blurred:
            faults.append("the trained network restores nothing")
        if abs(restored - scores["false"]["psnr"]) > GRAPH_MARGIN:
            faults.append(f"CUDA graphs change the score from {scores['false']['psnr']:.3f} dB")
        note = f"{restored:.3f} dB, input {blurred:.3f} dB"
        yield Row(
            "demo's test in tiles", f"cuda_graphs {graphs}", 1e3 * (time.monotonic() - begin), peak(setting), note,
            "; ".join(faults) or None,
        )  # fmt: skip
    more = steps + 2
    command("main_train_vrt", *demo_options(setting, more))
    log = (setting.folder / "experiments" / "demo_quickstart" / "train.log").read_text(encoding="utf-8")
    resumed = f"Resumed from step {steps} " in log and f"Saved step {more}" in log
    yield Row("resume", f"from step {steps} to {more}", fault=None if resumed else "the log does not tell of it")


def data_root(setting: Setting) -> Path:
    """Where the demo's data are."""
    return setting.folder / "demo"


def demo_overrides(setting: Setting, steps: int) -> list[str]:
    """Options of the demo in the step's folder."""
    folders = {"gt": "GOPRO_Large/{}_GT", "lq": "GOPRO_Large/{}_GT_blurred", "spike": "GOPRO_Large_spike_seq/{}"}
    roots = [
        f"datasets.{phase}.dataroot_{kind}={data_root(setting) / folder.format(phase)}"
        for phase in ("train", "test")
        for kind, folder in folders.items()
    ]
    small = [*TINY_NETWORK, "datasets.train.gt_size=32", "val.tile=[4,32,32]", "val.tile_overlap=[0,8,8]"]
    amp = "bf16" if setting.device == "cuda" else "null"  # PyTorch's bf16 on a CPU is slow
    return [
        f"path.root={setting.folder / 'experiments'}", f"train.total_iter={steps}", f"train.amp_dtype={amp}",
        "logger.tensorboard=false", *roots, *(small if setting.tiny else ()),
    ]  # fmt: skip


def demo_options(setting: Setting, steps: int) -> list[str]:
    """Arguments of the training's command."""
    return ["--opt", str(DEMO), "--set", *demo_overrides(setting, steps)]


def tested(setting: Setting, steps: int, graphs: str) -> dict[str, float]:
    """The demo's scores, means over its clips."""
    output = setting.folder / f"results_{graphs}"
    command(
        "main_test_vrt", "--opt", str(DEMO), "--device", setting.device, "--output", str(output),
        "--set", *demo_overrides(setting, steps), f"val.cuda_graphs={graphs}",
    )  # fmt: skip
    metrics = json.loads((output / "demo_quickstart" / "metrics.json").read_text(encoding="utf-8"))
    return metrics["mean_over_clips"]


def command(module: str, *arguments: str) -> None:
    """Runs a command of this repository in this process.

    Raises:
        RuntimeError: its exit code is not 0.
    """
    print(f"\n$ python -m {module} {' '.join(arguments)}", flush=True)
    code = importlib.import_module(module).main(list(arguments))
    if code:
        raise RuntimeError(f"{module} ended with code {code}: see the step's log")


def one_rank(setting: Setting) -> Rows:
    """A process group of one rank: a sum, and gradients under DistributedDataParallel that are those without it."""
    cuda = setting.device == "cuda"
    backend, device = ("nccl", torch.device("cuda", 0)) if cuda else ("gloo", torch.device("cpu"))
    begin = time.monotonic()
    torch.distributed.init_process_group(
        backend, rank=0, world_size=1, init_method=f"tcp://127.0.0.1:{free_port()}", device_id=device if cuda else None
    )
    total = torch.ones(1 << 10, device=device)
    torch.distributed.all_reduce(total)
    layer = nn.Linear(8, 8).to(device)
    x = torch.randn(4, 8, device=device)
    alone = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    wrapped = DistributedDataParallel(layer, device_ids=[0] if cuda else None, gradient_as_bucket_view=True)
    wrapped(x).square().sum().backward()
    same = all(
        torch.allclose(parameter.grad, grad)  # type: ignore[arg-type]
        for parameter, grad in zip(layer.parameters(), alone, strict=True)
    )
    right = same and bool((total == 1).all())
    milliseconds = 1e3 * (time.monotonic() - begin)
    torch.distributed.destroy_process_group()
    yield Row("one rank", backend, milliseconds, fault=None if right else "a sum or a gradient is wrong")


def loader(setting: Setting) -> Rows:
    """The data's and the engine's share of the demo's training step."""
    opt = load_options(DEMO, demo_overrides(setting, 100))
    found = bench_train.measure(opt, synthetic=False, steps=1 if setting.tiny else 20, warmup=1)
    step = found["engine"]["step_total"]
    note = f"waits for data {found['engine']['data'] / step:.1%}, engine {found['own']['share']:.1%}"
    yield Row("demo's training step", str(opt.train.amp_dtype), 1e3 * step, found["memory_gb"], note)


WORK: dict[str, Callable[..., Any]] = {
    "versions": versions,
    "kernels": kernels,
    "demo": demo,
    "rank": one_rank,
    "speed": partial(speed, first=True),
    "memory": memory,
    "tiles": tiles,
    "light": light,
    "loader": loader,
    "more": partial(speed, first=False),
}


def rows_of(name: str, setting: Setting) -> Rows:
    """The rows of a step."""
    kind, _, backend = name.partition(" ")
    return WORK[kind](setting, backend) if backend else WORK[kind](setting)
