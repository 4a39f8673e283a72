#!/usr/bin/env bash
# A training on SLURM that outlives time limits and preemption; --set after the file goes to main_train_vrt.py:
#   sbatch scripts/cluster/slurm.sh options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike.json --set train.total_iter=100
# Adapt the #SBATCH lines; GPUS is what --gpus-per-node says. A task per machine starts torchrun, which starts a rank per GPU.
#SBATCH --job-name=s-vrt
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm_%j.log
# Five minutes before the end every task gets SIGTERM: the ranks finish their step, save and leave PREEMPTED.
#SBATCH --signal=TERM@300
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
options=${1:?"Usage: sbatch scripts/cluster/slurm.sh OPTION_FILE [--set KEY=VALUE ...]"}
shift

export NNODES=${SLURM_JOB_NUM_NODES:-1}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RDZV_ENDPOINT="$first:$((20000 + SLURM_JOB_ID % 20000))"
export RDZV_ID=$SLURM_JOB_ID
export TORCHRUN_ARGS=${TORCHRUN_ARGS:---max-restarts 3}
srun --kill-on-bad-exit=1 ./launch_train.sh "${GPUS:-${SLURM_GPUS_ON_NODE:-1}}" "$options" -- "$@"
code=$?

# The exit code does not tell a finished run from one that was told to stop.
if "${PYTHON:-python3}" -m scripts.inspect_run "$options" --preempted "$@"; then
    echo "Stopped before its end; back into the queue."
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
