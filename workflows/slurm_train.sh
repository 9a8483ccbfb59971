#!/usr/bin/env bash
# Pre-training on several machines of a Slurm cluster, each with several GPUs; docs/training.md.
#
#     LABELS=shards/kinetics400/kinetics400-train RUN=runs/k400 \
#         sbatch workflows/slurm_train.sh --recipe kinetics [OPTION ...]
#
# Options are those of `train pretrain`. A job that was stopped, by its time limit too, or lost a
# machine is put back into the queue, and goes on from the last checkpoint.
#SBATCH --job-name=pretrain
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

LABELS=${LABELS:-shards/ucf101/ucf101-train1} # seen under this name by all machines
RUN=${RUN:-runs/ucf101}                       # folder of the run
RANKS=${RANKS:-8}                             # processes per machine, one per GPU
RESTARTS=${RESTARTS:-50}                      # then give up

# The machine that the ranks meet on, at a port that other jobs on it do not use.
machines=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${machines%%$'\n'*}
port=$((20000 + SLURM_JOB_ID % 10000))

srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$RANKS" \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first:$port" \
    --no-python train pretrain --labels "$LABELS" --out "$RUN" "$@" && exit

# torchrun turns every failure into 1; the run's folder knows what it was. 75: to be gone on with.
code=0
train status "$RUN" || code=$?
((code != 75 || ${SLURM_RESTART_COUNT:-0} >= RESTARTS)) || scontrol requeue "$SLURM_JOB_ID"
exit $((code ? code : 1))
