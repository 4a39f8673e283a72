#!/usr/bin/env bash
# Trains from an option file, on one machine or as one node of a platform's job. See usage() below.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
    cat <<'USAGE'
./launch_train.sh [GPUS=1] [OPTION_FILE] [--demo] [--prepare-data] [--blur=NAME] [--dry-run] [--help] [-- --set a.b=c ...]

  GPUS            processes on this machine, one per GPU (CPU processes where there is no GPU)
  OPTION_FILE     default options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike.json
  --demo          makes the demo data set, restores its held-out clips with the light network that comes with the code,
                  trains that and options/demo/quickstart.json (or OPTION_FILE), and compares them all in one table
  --prepare-data  makes or checks the data set that the option file names, before training
  --blur=NAME     with --prepare-data: which of GoPro's blurred frames, blur or blur_gamma (default: as before, or blur)
  --dry-run       shows what the run would use, and stops
  -- ...          the rest goes to main_train_vrt.py, e.g. -- --set train.total_iter=100

Several machines: the same command on each, with NNODES (how many) and RDZV_ENDPOINT (host:port of one of them) set.
SIGTERM or Ctrl-C: the training saves, leaves experiments/<task>/PREEMPTED and ends with 0; the same command goes on.
Uses $PYTHON (default python3) where it has what requirement.txt lists, else makes .venv and installs it there.
Where a platform has set RANK and WORLD_SIZE, starts plain Python as that rank instead of torchrun.
More of torchrun's flags go into $TORCHRUN_ARGS, e.g. TORCHRUN_ARGS="--max-restarts 3". Exit code: the training's.
USAGE
}

gpus=1
options=""
demo=false
prepare=false
blur=()
dry_run=false
arguments=()
while [ $# -gt 0 ]; do
    case "$1" in
        --help | -h) usage; exit 0 ;;
        --demo) demo=true ;;
        --prepare-data) prepare=true ;;
        --blur=*) blur=("$1") ;;
        --dry-run) dry_run=true ;;
        --) shift; arguments+=("$@"); break ;;
        -*) echo "Unknown flag '$1'." >&2; usage >&2; exit 2 ;;
        *[!0-9]*) options=$1 ;;
        *) gpus=$1 ;;
    esac
    shift
done
if $demo; then
    options=${options:-options/demo/quickstart.json}
fi
options=${options:-options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike.json}
[ -f "$options" ] || { echo "There is no option file '$options'; they are under options/." >&2; exit 2; }
$prepare || [ ${#blur[@]} -eq 0 ] || { echo "--blur belongs to --prepare-data." >&2; exit 2; }
! $demo || { [ "$gpus" -eq 1 ] && ! $prepare; } || { echo "The demo is one process: ./launch_train.sh 1 --demo" >&2; exit 2; }
[ "$gpus" -ge 1 ] || { echo "GPUS must be 1 or more, not '$gpus'." >&2; exit 2; }

source scripts/environment.sh
use_python requirement.txt

# Without this, workers that torchrun restarts join the dead ones' rendezvous and hang.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(($(nproc) / gpus > 0 ? $(nproc) / gpus : 1))}

if $demo; then
    demo=(-m scripts.demo --opt "$options" ${arguments[@]+"${arguments[@]}"})
    if $dry_run; then
        demo+=(--dry-run)
    fi
    exec "$PYTHON" -u "${demo[@]}"
fi
if $prepare; then
    "$PYTHON" -m scripts.data_preparation.prepare --opt "$options" ${blur[@]+"${blur[@]}"}
    "$PYTHON" -m scripts.doctor --no-step --opt "$options" ${arguments[@]+"${arguments[@]}"}
fi

train=(main_train_vrt.py --opt "$options" ${arguments[@]+"${arguments[@]}"})
if $dry_run; then
    train+=(--dry-run)
fi
meeting=(--standalone)
if [ "${NNODES:-1}" != 1 ]; then
    : "${RDZV_ENDPOINT:?NNODES=$NNODES needs RDZV_ENDPOINT=host:port, the same on all machines}"
    meeting=(--nnodes="$NNODES" --rdzv-backend=c10d --rdzv-endpoint="$RDZV_ENDPOINT" --rdzv-id="${RDZV_ID:-s-vrt}")
fi
if [ -n "${RANK:-}" ] && [ -n "${WORLD_SIZE:-}" ]; then
    command=("$PYTHON" -u "${train[@]}")
elif [ "$gpus" -eq 1 ] && [ "${NNODES:-1}" = 1 ] && [ -z "${TORCHRUN_ARGS:-}" ]; then
    command=("$PYTHON" -u "${train[@]}")
else
    # shellcheck disable=SC2206  # several flags in one variable
    command=("$PYTHON" -m scripts.run_ranks "${meeting[@]}" --nproc_per_node="$gpus" --shutdown-timeout=120 ${TORCHRUN_ARGS:-}
        "${train[@]}")
fi
if ! $dry_run && [ "${RANK:-0}" = 0 ]; then
    of=("$options")
    [ "${arguments[0]:-}" != --set ] || of+=("${arguments[@]}")
    echo "To watch it: ./svrt inspect $(printf '%q ' "${of[@]}")--serve, then http://127.0.0.1:8008 in a browser here"
fi
exec "${command[@]}" # in the shell's place, so that signals reach it
