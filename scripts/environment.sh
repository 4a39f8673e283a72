# Sourced by launch_train.sh and scripts/run_tests.sh: sets PYTHON to an interpreter that has what a requirements file asks for.
# Uses $PYTHON (default python3) where it has everything, else .venv, made and filled on first use.

# OpenMP's threads spin while they wait; on cores that are shared that takes several times the time.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

use_python() { # use_python REQUIREMENTS_FILE
    local requirements=$1
    PYTHON=${PYTHON:-python3}
    command -v "$PYTHON" >/dev/null || { echo "There is no '$PYTHON' here: install Python 3.10 or newer, or set PYTHON=." >&2; return 2; }
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
        || { echo "$("$PYTHON" --version) is too old: Python 3.10 or newer is needed; choose one with PYTHON=." >&2; return 2; }
    "$PYTHON" scripts/check_requirements.py --quiet "$requirements" && return 0
    if [ ! -x .venv/bin/python ]; then
        echo "'$PYTHON' lacks what $requirements lists: making .venv"
        "$PYTHON" -m venv .venv || { echo "Making .venv failed (on Debian: apt-get install python3-venv)." >&2; return 2; }
    fi
    PYTHON=$PWD/.venv/bin/python
    "$PYTHON" scripts/check_requirements.py --quiet "$requirements" && return 0
    echo "Installing $requirements into .venv (PyTorch with CUDA: several GB, minutes)"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$requirements" \
        || { echo "Installing $requirements failed; see above." >&2; return 2; }
    "$PYTHON" scripts/check_requirements.py "$requirements"
}
