#!/bin/bash
# Training on the GPUs of several nodes of Slurm. The words are a command of `train`, without --out:
#
#     RUN=runs/k400 sbatch --nodes=2 workflows/slurm_train.sh pretrain --labels shards/k400 --recipe kinetics
#
# At the end of the time the run is saved and the job submitted again, until the run is finished.
#SBATCH --job-name=train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=train-%j.log
set -euo pipefail

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# torchrun exits with 1 whatever stopped its ranks; the run's folder knows.
srun torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first:${PORT:-29500}" \
    --no-python train "$@" --out "$RUN" || true

code=0
train status "$RUN" || code=$?
[ "$code" -ne 75 ] || scontrol requeue "$SLURM_JOB_ID"
exit "$code"
