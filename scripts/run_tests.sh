#!/usr/bin/env bash
# Style, types and all tests: ./scripts/run_tests.sh [pytest's arguments]; makes .venv where the current Python lacks what it needs.
# The test files are shared out among the cores, one thread each: small tensors gain nothing from more threads. They start in the
# order of tests/conftest.py, the longest first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
use_python requirement-dev.txt
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check --quiet .
"$PYTHON" -m mypy
# A worker takes up to 2 GB: no more than eight of them.
cores=$("$PYTHON" -c 'import os; print(min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))')
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
exec "$PYTHON" -m pytest --numprocesses "$cores" --dist loadfile --no-loadscope-reorder "$@"
