"""Runs cases in Triton's interpreter, in a process of their own: Triton decides when its functions are defined."""

import os
import subprocess
import sys
from pathlib import Path


def run_cases(cases: Path) -> None:
    """Pytest of the file `cases`, which must pass."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-x", str(cases)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
