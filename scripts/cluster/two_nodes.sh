#!/usr/bin/env bash
# One training on two machines that see the same files, without a scheduler; run it on either:
#   scripts/cluster/two_nodes.sh node0 node1 8 options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike.json
#   scripts/cluster/two_nodes.sh localhost localhost 1 options/demo/quickstart.json      (a trial: two agents, one machine)
# Options after the file go to main_train_vrt.py. Other machines are started by ssh; Ctrl-C stops both, after a save.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ $# -ge 4 ] || { echo "Usage: $0 HOST0 HOST1 GPUS_PER_HOST OPTION_FILE [main_train_vrt.py's options]" >&2; exit 2; }
hosts=("$1" "$2")
gpus=$3
options=$4
shift 4
[ "${1:-}" != -- ] || shift

variables=(NNODES=2 RDZV_ENDPOINT="${hosts[0]}:${RDZV_PORT:-29400}" TORCHRUN_ARGS="${TORCHRUN_ARGS:---max-restarts 3}")
[ -z "${PYTHON:-}" ] || variables+=(PYTHON="$PYTHON")
agents=()
for host in "${hosts[@]}"; do
    command=(env "${variables[@]}" ./launch_train.sh "$gpus" "$options" -- "$@")
    case "$host" in
        localhost | 127.0.0.1 | "$(hostname)") "${command[@]}" & ;;
        # A terminal of its own (-tt) lets the signal reach the other machine.
        *) ssh -tt "$host" "cd $(printf %q "$PWD") && $(printf '%q ' "${command[@]}")" & ;;
    esac
    agents+=($!)
done
trap 'kill -TERM "${agents[@]}" 2>/dev/null' INT TERM HUP USR1
code=0
for agent in "${agents[@]}"; do
    while kill -0 "$agent" 2>/dev/null; do
        wait "$agent" || true # a signal ends wait before the agent ends
    done
    wait "$agent" || code=$?
done
exit "$code"
