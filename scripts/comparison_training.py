"""One training of a comparison, in a process of its own, so that its peak memory is its own.

    python -m scripts.comparison_training --cost FILE --opt OPTIONS [--set KEY=VALUE ...]

Trains as `main_train_vrt.py` does with the same flags, and writes {"gb": ..., "of": "GPU" or "RAM",
"processor_seconds": ...} to FILE: the most memory that tensors took on the GPU, or without one the most that the
process had resident, and the processor time of all its threads (loader workers apart). Of a run that is continued, the
larger memory and the sum of the times.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.flags import comparison_training_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(comparison_training_parser(__doc__ or ""))

import torch

import main_train_vrt
from utils.utils_file import atomic_write, read_json
from utils.utils_timer import peak_gpu_gigabytes

STATUS = Path("/proc/self/status")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code of `main_train_vrt.py`."""
    arguments, training = comparison_training_parser(__doc__ or "").parse_known_args(argv)
    code = main_train_vrt.main(training)
    if code == 0:
        write_cost(arguments.cost)
    return code


def write_cost(path: Path) -> None:
    """Writes this process's peak memory, or what the file says where that is more, and adds its processor time."""
    of = "GPU" if torch.cuda.is_available() else "RAM"
    gb = peak_gpu_gigabytes(torch.device("cuda")) if of == "GPU" else resident_peak()
    before = read_json(path) if path.exists() else {}
    cost: dict[str, Any] = {"processor_seconds": before.get("processor_seconds", 0.0) + time.process_time()}
    if gb is not None:
        cost |= {"gb": max(gb, before.get("gb", 0.0)), "of": of}
    with atomic_write(path) as file:
        json.dump(cost, file)


def resident_peak() -> float | None:
    """The most memory this process had resident so far, in GB (1e9 bytes); None where the system does not tell.

    Not `resource.getrusage`: that of a child starts at its parent's peak.
    """
    if not STATUS.is_file():
        return None
    lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) * 1024 / 1e9


if __name__ == "__main__":
    sys.exit(main())
