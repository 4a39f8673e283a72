"""A process that holds one variant of a network and runs it when told to: the other half of `bench_vrt.py`.

Each variant has a process, so that each has a peak of memory, an allocator and caches of its own while all take turns.
"""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import data.select_dataset  # noqa: F401  (registers the data sets)
from models.layers.backends.backend import COMPUTE_BACKENDS
from models.network_vrt import VRT
from models.select_network import define_G
from models.testing.cuda_graphs import GraphedNetwork
from models.training.execution import compile_blocks
from scripts.benchmark.vrt_counters import count
from scripts.estimate_memory import NO_FILES
from utils.user_error import UserError
from utils.utils_memory import keep_freed_memory
from utils.utils_option import load_options

GRAPHS = "+graphs"
# Side of the square matrices whose product tells what the device can do.
_GEMM_SIDE = {"cpu": 2048, "cuda": 8192}


@dataclass(frozen=True)
class Variant:
    """What is measured.

    Attributes:
        recipe: option file. overrides: of its options, KEY=VALUE. backend: `netG.compute_backend`; with
            `GRAPHS` behind it, passes are replayed from a CUDA graph, as `val.cuda_graphs` does it.
        size: (frames, height, width). batch: clips. step: forward and backward pass and optimizer instead of forward.
        device: "cpu" or "cuda". precision: "fp32", "tf32" or "bf16" (autocast). compile: as `train.compile`.
        malloc: "stock", or "tuned" by `keep_freed_memory`.
    """

    recipe: str
    overrides: tuple[str, ...]
    backend: str
    size: tuple[int, int, int]
    batch: int = 1
    step: bool = False
    device: str = "cpu"
    precision: str = "fp32"
    compile: bool = False
    malloc: str = "stock"


class Workload:
    """A variant, built."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        torch.manual_seed(0)
        torch.set_float32_matmul_precision("high" if variant.precision == "tf32" else "highest")
        # Convolutions in TF32 are PyTorch's default, and so what others run.
        self.device = torch.device(variant.device)
        opt = load_options(variant.recipe, [*NO_FILES, *variant.overrides])
        network = define_G(opt.netG)
        for parameter in network.parameters():
            # Offsets, flow and fusions start at zero: as if trained, they shall move what is sampled.
            if not parameter.any():
                nn.init.normal_(parameter, std=0.01)
        backend = variant.backend.removesuffix(GRAPHS)
        if backend != "auto":
            dtype = torch.bfloat16 if variant.precision == "bf16" else torch.float32
            reason = COMPUTE_BACKENDS.get(backend)().refusal(self.device, dtype)
            if reason is not None:  # what takes its place must not be measured under its name
                raise UserError(f"it can't run here: {reason}")
        for module in network.modules():
            if isinstance(module, VRT):
                module.compute_backend = backend
        self.network = network.to(self.device).train(variant.step)
        self.graphed = None if backend == variant.backend else GraphedNetwork(self.network)
        if variant.compile:
            compile_blocks(self.network)
        frames, height, width = variant.size
        channels, bins = getattr(opt.netG, "in_chans", opt.n_channels), getattr(opt.netG, "spike_bins", None)
        shapes = [(channels, height, width)]
        if bins is not None:
            shapes.append((bins, height // opt.netG.spike_ratio, width // opt.netG.spike_ratio))
        self.inputs = [torch.rand(variant.batch, frames, *shape).to(self.device) for shape in shapes]
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-5) if variant.step else None
        self.start_bytes = _resident("VmRSS")

    def run(self) -> Tensor:
        """The pass once; its output."""
        enabled = self.variant.precision == "bf16"
        with torch.set_grad_enabled(self.variant.step), torch.autocast(self.device.type, torch.bfloat16, enabled):
            output = (self.graphed or self.network)(*self.inputs)
        if self.optimizer is not None:
            loss = (output.float() - self.inputs[0][:, :, :3]).square().add(1e-9).sqrt().mean()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return output.detach()

    def timed(self) -> dict[str, float]:
        """Seconds of one pass: on the clock, and of all processor threads together."""
        gc.collect()
        wall, processor = time.perf_counter(), time.process_time()
        self.run()
        return {"seconds": time.perf_counter() - wall, "processor_seconds": time.process_time() - processor}

    def output(self) -> np.ndarray:
        """The output of the first pass, float32; of CUDA graphs that of the first replay."""
        torch.manual_seed(0)
        if self.graphed is not None:
            self.run()
        return self.run().float().cpu().numpy()

    def memory(self) -> dict[str, int]:
        """Bytes: peak so far, and before the first pass (network and inputs loaded)."""
        if self.device.type == "cuda":
            return {"peak": torch.cuda.max_memory_allocated(), "start": torch.cuda.memory_allocated()}
        return {"peak": _resident("VmHWM"), "start": self.start_bytes}

    def counts(self) -> dict[str, int]:
        """See `vrt_counters.Counts`."""
        self.network.eval()
        return count(self.network, self.inputs, self.variant.step).as_dict()

    def gemm(self) -> float:
        """FLOP per second (CPU: of processor time) of a large matrix product in the variant's precision: the roof."""
        clock = time.perf_counter if self.device.type == "cuda" else time.process_time
        side = _GEMM_SIDE[self.device.type]
        dtype = torch.bfloat16 if self.variant.precision == "bf16" else torch.float32
        a = torch.ones(side, side, device=self.device, dtype=dtype)
        seconds = []
        for _ in range(4):
            start = clock()
            a @ a
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(clock() - start)
        return 2 * side**3 / min(seconds)

    def profile(self, path: str) -> None:
        """Writes the operators that take most time."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as profiler:
            self.run()
        key = f"self_{'cpu' if self.device.type == 'cpu' else 'cuda'}_time_total"
        Path(path).write_text(profiler.key_averages().table(sort_by=key, row_limit=40), encoding="utf-8")


def serve(variant: Variant, connection: Connection) -> None:
    """Body of the process: calls the methods of a `Workload` that are sent, and sends back results or the error."""
    if variant.malloc == "tuned":
        keep_freed_memory()
    workload: Workload | None = None
    while True:
        name, arguments = connection.recv()
        if name == "end":
            return
        try:
            workload = workload or Workload(variant)
            method: Callable[..., Any] = getattr(workload, name)
            connection.send((method(*arguments), None))
        except (ValueError, RuntimeError, MemoryError) as error:
            connection.send((None, f"{type(error).__name__}: {error}"))


def _resident(field: str) -> int:
    """Bytes of this process in memory now (VmRSS) or at most (VmHWM).

    Unlike `getrusage`'s, this peak does not begin with the parent's.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))
