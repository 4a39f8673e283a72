#!/usr/bin/env bash
# Style, types and all tests: ./scripts/run_tests.sh [pytest's arguments]; makes .venv where the current Python lacks what it needs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
use_python requirement-dev.txt
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check --quiet .
"$PYTHON" -m mypy
exec "$PYTHON" -m pytest "$@"
