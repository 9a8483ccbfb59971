#!/bin/bash
# Shards by an array of Slurm jobs, each of which makes one share. The words are those of `extract`:
#
#     sbatch --array=0-99 workflows/slurm_array.sh --manifest ucf101.csv --root /data/ucf101 --out shards
#
# Submit it again to go on; PARTS=100 keeps the shares when only some are submitted (--array=3,7).
#SBATCH --job-name=labels
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=1G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
#SBATCH --output=labels-%A_%a.log
set -euo pipefail

# In place of the shell, so that signals arrive.
exec labelgen extract "$@" \
    --part "$SLURM_ARRAY_TASK_ID/${PARTS:-$((SLURM_ARRAY_TASK_MAX + 1))}" \
    --workers "$SLURM_CPUS_PER_TASK" \
    --scratch "${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"
