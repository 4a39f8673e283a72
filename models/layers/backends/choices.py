"""Choices made by measurements, in the user's cache: a file for each set of circumstances, so that others are measured.

    choice = Choice.read(key)           # None: to be measured
    Choice(key, "triton", rows).write()

With `S_VRT_RETUNE=1` an existing file is ignored and replaced by a new measurement.
Test: `python -m pytest tests/models/layers/backends/test_choices.py`.
"""

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from models.layers.backends.cpu.library_cache import cache_folder
from utils.utils_file import atomic_write

logger = logging.getLogger(__name__)

RETUNE = "S_VRT_RETUNE"  # environment variable
DRIVER = Path("/proc/driver/nvidia/version")  # written by NVIDIA's kernel module on Linux
_TOOL_SECONDS = 10  # time limit of nvidia-smi, far above its usual time: if it hangs, the run continues
_LAYERS = Path(__file__).resolve().parents[1]  # all code that a measurement can depend on


@dataclass(frozen=True)
class Choice:
    """A choice.

    Attributes:
        key: the circumstances: `environment`, and the computation measured.
        name: the candidate chosen.
        figures: the measurements, as text.
    """

    key: Mapping[str, Any]
    name: str
    figures: str

    @classmethod
    def read(cls, key: Mapping[str, Any]) -> "Choice | None":
        """The choice made in the same circumstances; None if there is none, or `S_VRT_RETUNE` is 1."""
        if os.environ.get(RETUNE) == "1":
            return None
        try:
            kept = json.loads(choice_file(key).read_text(encoding="utf-8"))
            return cls(key, str(kept["name"]), str(kept["figures"]))
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s can't be read (%s): measured again", choice_file(key), error)
            return None

    def write(self) -> Path | None:
        """Writes the choice's file and returns its path, or None, with a warning, if it can't be written."""
        try:
            path = choice_file(self.key)
            with atomic_write(path) as file:
                json.dump(asdict(self), file, indent=1)
            return path
        except (OSError, RuntimeError) as error:
            logger.warning("a choice can't be stored for the next start: %s", error)
            return None


def choice_file(key: Mapping[str, Any]) -> Path:
    """The file of the choice for a key; raises as `cache_folder` does."""
    return cache_folder() / f"choice_{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]}.json"


def environment(device: torch.device) -> dict[str, Any]:
    """All that a measurement depends on beside the computation: device, driver, libraries, and our layers' code."""
    versions = {"torch": torch.__version__, "triton": package_version("triton"), "code": _code_version()}
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        return {"device": torch.cuda.get_device_name(device), "memory": memory, "driver": driver_version(), **versions}
    vectors = torch.backends.cpu.get_cpu_capability()
    return {"device": processor_name(), "vectors": vectors, "threads": torch.get_num_threads(), **versions}


def package_version(name: str) -> str | None:
    """The version of a package; None if it isn't installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def driver_version() -> str | None:
    """The version of NVIDIA's driver, such as "580.159.03"; None if neither the kernel nor nvidia-smi reports it."""
    text = DRIVER.read_text() if DRIVER.is_file() else ""
    match = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", text)
    return match[0] if match else _told_by_tool()


def _told_by_tool() -> str | None:
    """The driver's version from nvidia-smi, for containers without the kernel's file."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TOOL_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else None


def processor_name() -> str:
    """The CPU's name."""
    listed = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", listed.read_text()) if listed.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


@cache
def _code_version() -> str:
    """A digest of `models/layers`: changed kernels are measured again."""
    digest = hashlib.sha256()
    for path in sorted(path for path in _LAYERS.rglob("*") if path.suffix in (".py", ".cpp")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
