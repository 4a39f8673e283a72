"""Measures the memory of a device, limits it, and recognises out-of-memory errors.

    with memory_limit(parse_memory("4GB"), device):
        network(tile)                       # above the limit raises an error for which `is_out_of_memory` is True

On a GPU the limit is that of PyTorch's allocator. On a CPU it applies to the process's resident memory, read before and
after every module (Linux).
"""

import ctypes
import gc
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from utils.user_error import UserError

# Bytes of a unit, in upper case: decimal prefixes and IEC's binary ones.
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
SAFE_SHARE = 0.8
"""Share of the free memory used without a given limit; the rest is for other processes and fragmentation."""
# Linux's files of this process: peak and current memory, and the file that resets the peak.
STATUS, STATM, CLEAR = Path("/proc/self/status"), Path("/proc/self/statm"), Path("/proc/self/clear_refs")
MALLOC = "S_VRT_MALLOC"
"""Environment variable: "tuned" (the default) or "stock", see `keep_freed_memory`."""
# Options of glibc's mallopt (malloc.h) and their values: the greatest int, except for the padding.
_MALLOC_OPTIONS = {
    "M_TRIM_THRESHOLD": (-1, 2**31 - 1),
    "M_TOP_PAD": (-2, 64 << 20),
    "M_MMAP_THRESHOLD": (-3, 2**31 - 1),
}
# In messages of PyTorch's RuntimeErrors for failed allocations: CPU allocator, CUDA, cuBLAS.
_ALLOCATION_FAILED = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


class OverLimit(MemoryError):
    """The process exceeds the limit of `memory_limit`."""


def parse_memory(text: str) -> int:
    """Bytes of "10GB", "800 MB", "4GiB".

    Raises:
        UserError: another form.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B)\s*", text, re.IGNORECASE)
    if match is None or not float(match[1]):
        raise UserError(f"max_memory: {text!r} is no amount of memory; write it like 10GB, 800MB or 4GiB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory was exhausted, so that a smaller computation could succeed."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _ALLOCATION_FAILED)


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still allocate: a GPU's free memory, or the machine's (or container's).

    Raises:
        UserError: this system does not report it.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError) as error:
        raise UserError("max_memory: the free memory of this system is not known; name a tile with --tile") from error
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        if os.path.exists(limit) and (text := Path(limit).read_text().strip()).isdigit():
            free = min(free, max(int(text) - int(Path(used).read_text()), 0))
    return free


def used_memory(device: torch.device) -> int:
    """Bytes that this process uses on a device now: tensors on a GPU, resident memory on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError as error:
        raise UserError("max_memory: a CPU's memory is measured on Linux only; name a tile with --tile") from error


def reset_peak(device: torch.device) -> None:
    """Resets the peak that `peak_memory` returns."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        CLEAR.write_text("5")


def peak_memory(device: torch.device) -> int:
    """Most bytes used since `reset_peak`."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())[1]) * 1024  # type: ignore[index]


def give_back_memory(device: torch.device) -> None:
    """Returns freed memory to the device; call it after an error whose traceback kept tensors alive."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def keep_freed_memory() -> bool:
    """Makes glibc keep up to 2 GiB of freed memory for later tensors, instead of returning each large block.

    By default every block above 32 MiB is returned to the system when freed, and each page of the next one is a page
    fault: up to half of the time on a CPU (docs/performance.md). Call this before large tensors are allocated.

    Returns:
        Whether memory is kept: not if S_VRT_MALLOC is "stock", if MALLOC_* variables or GLIBC_TUNABLES are set, or with
        another C library.

    Raises:
        UserError: another value of S_VRT_MALLOC.
    """
    chosen = os.environ.get(MALLOC, "tuned")
    if chosen not in ("tuned", "stock"):
        raise UserError(f"{MALLOC}: tuned or stock, not {chosen!r}")
    own = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if chosen == "stock" or own or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all([mallopt(option, value) for option, value in _MALLOC_OPTIONS.values()])


@contextmanager
def memory_limit(limit: int | None, device: torch.device) -> Iterator[None]:
    """Inside, using more than `limit` bytes raises an error for which `is_out_of_memory` is True; None: no limit.

    Raises:
        UserError: a CPU's memory can't be measured here.
    """
    if limit is None:
        yield
    elif device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
    else:
        most = limit

        def check(*_: Any) -> None:
            if used_memory(device) > most:
                give_back_memory(device)  # freed memory that malloc keeps counts as used
            if used_memory(device) > most:
                raise OverLimit(f"{used_memory(device) / 1e9:.2f} GB are used, {most / 1e9:.2f} GB are allowed")

        check()
        hooks = [register_module_forward_pre_hook(check), register_module_forward_hook(check)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
