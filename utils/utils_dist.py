"""Training on several processes: rank and device of this process, and communication between ranks.

One process per GPU. torchrun, a platform (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment) or SLURM's
srun sets a process's rank; without any of them it is a single process, and every function below returns at once.

    torchrun --nproc_per_node=8 main_train_vrt.py --opt FILE
    srun --ntasks=8 --gpus-per-task=1 python main_train_vrt.py --opt FILE

torch.distributed's backend is nccl on GPUs and gloo on CPUs, so that everything here also runs without a GPU.
"""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as torch_dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from utils.user_error import UserError
from utils.utils_signal import stop_with_parent

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


@dataclass(frozen=True)
class Dist:
    """Rank and device of this process.

    Attributes:
        rank: 0 .. world_size - 1 over all machines. local_rank: the same on this machine.
        world_size: number of processes.
        device: this process's CPU or GPU.
    """

    rank: int
    world_size: int
    local_rank: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes checkpoints and prints messages."""
        return self.rank == 0


@dataclass(frozen=True)
class Launch:
    """Rank of this process, from the environment; `init_method` is the address at which rank 0 waits."""

    rank: int
    world_size: int
    local_rank: int
    init_method: str
    launcher: str


def init_dist(device: str | None = None, timeout_minutes: float = 120) -> Dist:
    """Determines this process's rank and device, and connects it to the others.

    Args:
        device: "cpu" for a CPU; None: a GPU if there is one.
        timeout_minutes: how long a rank waits for the others; long, as a rank with fewer frames to test waits.

    Raises:
        UserError: the environment is contradictory, or there are more processes than GPUs.
    """
    launch = read_launch(os.environ) or Launch(0, 1, 0, "", "single process")
    if launch.launcher == "torchrun":
        stop_with_parent()
    place = _choose_device(launch, device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if launch.world_size > 1:
        timeout = timedelta(minutes=timeout_minutes)
        torch_dist.init_process_group(
            backend="nccl" if place.type == "cuda" else "gloo",
            rank=launch.rank,
            world_size=launch.world_size,
            timeout=timeout,
            device_id=place if place.type == "cuda" else None,
            **_meeting_point(launch, timeout),
        )
    logger.info("Rank %d of %d on %s (%s)", launch.rank, launch.world_size, place, launch.launcher)
    return Dist(launch.rank, launch.world_size, launch.local_rank, place)


def close_dist() -> None:
    """Leaves the process group; does nothing in a single process."""
    if torch_dist.is_available() and torch_dist.is_initialized():
        torch_dist.destroy_process_group()


def all_reduce_sum(values: Tensor | Sequence[float], dist: Dist) -> Tensor:
    """Sums numbers over the ranks; returns the same float64 tensor, on the CPU, on every rank."""
    total = torch.as_tensor(values, dtype=torch.float64).detach().clone().to(dist.device)
    if dist.world_size > 1:
        torch_dist.all_reduce(total)
    return total.cpu()


def any_rank(flag: bool | Tensor, dist: Dist) -> bool:
    """Whether the flag is set on any rank; the same result on all. Reading a tensor's flag waits for the GPU."""
    if dist.world_size == 1:
        return bool(flag)
    agreed = torch.as_tensor(flag, device=dist.device).to(torch.int32)
    torch_dist.all_reduce(agreed, torch_dist.ReduceOp.MAX)
    return bool(agreed.item())


def broadcast_object(item: Item, dist: Dist) -> Item:
    """Rank 0's item, on every rank; the items of other ranks are ignored. Picklable, small."""
    if dist.world_size == 1:
        return item
    box = [item]
    torch_dist.broadcast_object_list(box, src=0)
    return box[0]


def all_gather_object(item: Item, dist: Dist) -> list[Item]:
    """The items of all ranks, in the order of ranks, on every rank. Picklable, small."""
    if dist.world_size == 1:
        return [item]
    items: list[Any] = [None] * dist.world_size
    torch_dist.all_gather_object(items, item)
    return items


def on_main(action: Callable[[], Item], dist: Dist) -> Item:
    """Runs an action on rank 0; every rank returns its picklable result, or raises its exception."""
    if dist.world_size == 1:
        return action()
    result: Any = None
    error: Exception | None = None
    if dist.is_main:
        try:
            result = action()
        except Exception as raised:
            error = raised
    result, error = broadcast_object((result, error), dist)
    if error is not None:
        raise error
    found: Item = result
    return found


def attempt(action: Callable[[], Item]) -> tuple[Item | None, Exception | None]:
    """Runs this rank's share of work; returns its result, or its exception for `raise_on_any`."""
    try:
        return action(), None
    except Exception as error:
        return None, error


def raise_on_any(error: Exception | None, dist: Dist) -> None:
    """Ends all ranks if one has failed: that one raises its error, and the others end without a message.

    Raises:
        SystemExit: on the other ranks; the code is 2 for an error about data or files, else 1.
    """
    code = 0 if error is None else 2 if isinstance(error, (ValueError, OSError)) else 1
    codes = all_gather_object(code, dist)
    if error is not None:
        raise error
    if any(codes):
        raise SystemExit(max(codes))


def check_same_weights(module: nn.Module, dist: Dist) -> None:
    """Checks that parameters are equal bit for bit on all ranks; called before every checkpoint.

    Buffers may differ: DDP does not share them.

    Raises:
        RuntimeError: on every rank, naming the parameters that differ.
    """
    if dist.world_size == 1:
        return
    own = {name: _digest(parameter) for name, parameter in module.named_parameters()}
    everyones = all_gather_object(own, dist)
    names = dict.fromkeys(name for digests in everyones for name in digests)
    differing = [name for name in names if len({digests.get(name) for digests in everyones}) > 1]
    if differing:
        shown = ", ".join(differing[:10]) + (", ..." if len(differing) > 10 else "")
        raise RuntimeError(
            f"{len(differing)} of {len(names)} parameters are not the same on all {dist.world_size} ranks: {shown}. "
            f"Start the same command again: it resumes from the last checkpoint, where they were."
        )


def read_launch(environ: Mapping[str, str]) -> Launch | None:
    """Reads a process's rank from its environment: torchrun's and platforms' variables first, then srun's.

    Returns:
        None for a single process.

    Raises:
        UserError: variables are missing or have invalid numbers.
    """
    if "RANK" in environ or "WORLD_SIZE" in environ:
        _require(environ, ["RANK", "WORLD_SIZE"])
        rank, world_size = _number(environ, "RANK"), _number(environ, "WORLD_SIZE")
        if world_size > 1:
            _require(environ, ["MASTER_ADDR", "MASTER_PORT"])
        local = next((_number(environ, name) for name in ("LOCAL_RANK", "SLURM_LOCALID") if name in environ), None)
        if local is None:
            local = rank % max(torch.cuda.device_count(), 1)
        launcher = "torchrun" if "TORCHELASTIC_RUN_ID" in environ else "platform"
        return _checked(Launch(rank, world_size, local, "env://", launcher))
    # Only srun sets this one: Python started directly in a batch script has SLURM_NTASKS too, but is a single process.
    if "SLURM_STEP_NUM_TASKS" in environ:
        _require(environ, ["SLURM_PROCID", "SLURM_LOCALID"])
        rank, world_size = _number(environ, "SLURM_PROCID"), _number(environ, "SLURM_STEP_NUM_TASKS")
        host = environ.get("MASTER_ADDR") or first_host(environ.get("SLURM_STEP_NODELIST", "localhost"))
        # Derive the port from the job's number, as two jobs on one machine must not share a port.
        port = environ.get("MASTER_PORT") or str(20000 + int(environ.get("SLURM_JOB_ID", "0")) % 20000)
        return _checked(Launch(rank, world_size, _number(environ, "SLURM_LOCALID"), f"tcp://{host}:{port}", "SLURM"))
    return None


def first_host(nodelist: str) -> str:
    """First machine of SLURM's compressed list: "gpu[07-09,12],cpu1" gives "gpu07"."""
    match = re.match(r"([^,\[]+)(?:\[(\w+)[^\]]*\]([^,\[]*))?", nodelist)
    if match is None:
        raise UserError(f"SLURM_STEP_NODELIST={nodelist!r} is no list of machines; set MASTER_ADDR to the first one")
    return "".join(part or "" for part in match.groups())


def _checked(launch: Launch) -> Launch:
    if not 0 <= launch.rank < launch.world_size:
        raise UserError(f"the environment says rank {launch.rank} of {launch.world_size} processes; unset or fix both")
    return launch


def _require(environ: Mapping[str, str], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in environ]
    if missing:
        raise UserError(
            f"the environment announces several processes but lacks {', '.join(missing)}; set them, start with "
            f"torchrun, or unset RANK and WORLD_SIZE to run alone"
        )


def _number(environ: Mapping[str, str], name: str) -> int:
    try:
        return int(environ[name])
    except ValueError:
        raise UserError(f"the environment variable {name}={environ[name]!r} is not a whole number") from None


def _choose_device(launch: Launch, device: str | None) -> torch.device:
    """The device of this process: its GPU, or the CPU."""
    if device not in (None, "cpu"):
        raise UserError(f"device: {device!r} can't be chosen here; use 'cpu', or None and CUDA_VISIBLE_DEVICES")
    count = 0 if device == "cpu" else torch.cuda.device_count()
    if count == 0:
        return torch.device("cpu")
    if launch.local_rank < count:
        return torch.device("cuda", launch.local_rank)
    # With SLURM and some platforms each process sees only its own GPU; with torchrun it sees all.
    if count == 1 and launch.launcher in ("SLURM", "platform"):
        return torch.device("cuda", 0)
    raise UserError(
        f"process {launch.local_rank + 1} of this machine has no GPU: there are {count}; start at most {count}"
    )


def _meeting_point(launch: Launch, timeout: timedelta) -> dict[str, Any]:
    """Arguments of `init_process_group` that connect the ranks.

    torchrun's agent keeps its key-value store after a crash. Restarted workers would read the ended workers' addresses
    there and hang, so each attempt uses its own prefix of keys. Agents count attempts separately, so with several
    machines TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 is needed, which launch_train.sh sets.
    """
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if launch.init_method != "env://" or not shared:
        return {"init_method": launch.init_method}
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        if launch.rank == 0 and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
            logger.warning("Set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 on all machines, or restarted workers may hang.")
        return {"init_method": launch.init_method}
    store, _, _ = next(rendezvous("env://", launch.rank, launch.world_size, timeout=timeout))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return {"store": PrefixStore(f"attempt_{attempt}", store)}


def _digest(parameter: Tensor) -> str:
    """SHA-256 of a tensor's bytes, so that NaNs with equal bits compare equal."""
    flat = parameter.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()


def device_called(name: str) -> torch.device:
    """The device that `--device` names.

    Raises:
        UserError: PyTorch can't compute on it here.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[name]:
        choices = ", ".join(kind for kind, found in available.items() if found)
        raise UserError(f"--device: this PyTorch finds no {name} device here. Choices: {choices}.")
    return torch.device(name)
