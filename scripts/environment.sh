# Sourced by svrt, launch_train.sh and scripts/run_tests.sh: sets PYTHON to an interpreter that has what a requirements file asks for.
# Uses $PYTHON (default python3) where it has everything, else .venv of the checkout, made and filled on first use.

# OpenMP's threads spin while they wait; on cores that are shared that takes several times the time.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

use_python() { # use_python REQUIREMENTS_FILE [FOLDER: of the file and of .venv, by default the checkout]
    local root=${2:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
    local requirements=$root/$1
    PYTHON=${PYTHON:-python3}
    command -v "$PYTHON" >/dev/null || { echo "There is no '$PYTHON' here: install Python 3.10 or newer, or set PYTHON=." >&2; return 2; }
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
        || { echo "$("$PYTHON" --version) is too old: Python 3.10 or newer is needed; choose one with PYTHON=." >&2; return 2; }
    lacks_nothing "$requirements" && return 0
    if [ ! -x "$root/.venv/bin/python" ]; then
        echo "'$PYTHON' lacks what $1 lists: making $root/.venv" >&2
        "$PYTHON" -m venv "$root/.venv" || { echo "Making .venv failed (on Debian: apt-get install python3-venv)." >&2; return 2; }
    fi
    PYTHON=$root/.venv/bin/python
    lacks_nothing "$requirements" && return 0
    install "$requirements" || { echo "Installing $1 failed; see above." >&2; return 2; }
    "$PYTHON" "$root/scripts/check_requirements.py" "$requirements" >&2
}

lacks_nothing() {
    "$PYTHON" "$(dirname "$1")/scripts/check_requirements.py" --quiet "$1"
}

# What is told goes to standard error: standard output is the command's own.
install() {
    local lacking log pip minutes=0
    lacking=$("$PYTHON" "$(dirname "$1")/scripts/check_requirements.py" "$1") || true
    echo "Installing into $(dirname "$1")/.venv what $(basename "$1") asks for:" >&2
    echo "$lacking" | sed 's/^torch:.*/& (with CUDA several GB, minutes)/; s/^/  /' >&2
    pip=("$PYTHON" -m pip install --disable-pip-version-check -r "$1")
    if [ -t 2 ]; then
        "${pip[@]}" >&2 # with pip's progress bars
        return
    fi
    log=$(mktemp)
    "${pip[@]}" >"$log" 2>&1 &
    local installing=$!
    trap 'kill "$installing" 2>/dev/null; rm -f "$log"; exit 130' INT TERM
    while kill -0 "$installing" 2>/dev/null; do
        # A line a minute, and at once when pip ends.
        for _ in $(seq 60); do
            kill -0 "$installing" 2>/dev/null || break 2
            sleep 1
        done
        minutes=$((minutes + 1))
        echo "  $minutes min: $(tail -n 1 "$log" | cut -c 1-100)" >&2
    done
    trap - INT TERM
    local code=0
    wait "$installing" || { code=$?; tail -n 20 "$log" >&2; }
    rm -f "$log"
    return "$code"
}
