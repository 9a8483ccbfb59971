#!/bin/bash
# Shards by a Dask cluster inside one Slurm job. The words are those of `extract`:
#
#     sbatch --nodes=8 workflows/dask_slurm.sh --manifest ucf101.csv --root /data/ucf101 --out shards
#
# Scheduler and `extract` share the first node with workers; neither does much. Needs the extra dask.
#SBATCH --job-name=labels
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --mem-per-cpu=1G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --output=labels-%j.log
set -euo pipefail

# Where all nodes see it.
file="$PWD/.dask-$SLURM_JOB_ID.json"
trap 'kill $(jobs -p) 2> /dev/null || true; rm -f "$file"' EXIT

dask scheduler --port 0 --no-dashboard --scheduler-file "$file" &
scheduler=$!
srun dask worker --scheduler-file "$file" --nworkers "$SLURM_CPUS_PER_TASK" --nthreads 1 \
    --no-dashboard --local-directory "${SLURM_TMPDIR:-${TMPDIR:-/tmp}}" &

until [ -s "$file" ]; do
    kill -0 "$scheduler" || { echo "the scheduler has ended" >&2; exit 1; }
    sleep 0.2
done
address=$(sed -n 's/.*"address": *"\([^"]*\)".*/\1/p' "$file")

labelgen extract "$@" --engine dask --scheduler "$address" &
run=$!
trap 'kill -TERM "$run"' TERM
code=0
wait "$run" || code=$?
# A signal ends the first wait; extract then takes a moment to stop.
while kill -0 "$run" 2> /dev/null; do code=0; wait "$run" || code=$?; done
exit "$code"
