#!/usr/bin/env bash
# Shards by the workers of a Dask cluster in one Slurm job; needs the extra `dask`.
#
#     MANIFEST=k400.csv ROOT=/data/k400 OUT=/data/shards sbatch workflows/dask_slurm.sh [OPTION ...]
#
# Options are those of `labelgen extract`. A worker is a Slurm task of one core, and is started
# again where it dies. Submit it again to go on: what is sealed is not made twice.
#SBATCH --job-name=labelgen-dask
#SBATCH --ntasks=64
#SBATCH --mem-per-cpu=1G
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail

MANIFEST=${MANIFEST:-manifests/ucf101.csv} # of `labelgen manifest`, which counts frames once
ROOT=${ROOT:-data/ucf101}                  # folder that holds the videos
OUT=${OUT:-shards/ucf101}                  # seen under this name by all machines
LOCAL=${LOCAL:-}                           # a folder of each machine, if OUT is slow
CLUSTER=${CLUSTER:-dask-$SLURM_JOB_ID}     # a folder that all machines see: address, logs
PATIENCE=${PATIENCE:-600}                  # seconds for the first worker to come

mkdir -p "$CLUSTER"
rm -f "$CLUSTER/scheduler.json" # of the same job, before it was put back into the queue
trap 'kill $(jobs -p) 2> /dev/null || true; wait || true' EXIT
dask scheduler --port 0 --no-dashboard --scheduler-file "$CLUSTER/scheduler.json" \
    > "$CLUSTER/scheduler.log" 2>&1 &
srun dask worker --scheduler-file "$CLUSTER/scheduler.json" --nthreads 1 --no-dashboard \
    --memory-limit 0 --local-directory "${TMPDIR:-/tmp}" > "$CLUSTER/workers.log" 2>&1 &

# Waits for the file, too; in vain where there is no scheduler or no worker ever comes.
address=$(timeout "$PATIENCE" python3 -c "import sys; from distributed import Client
with Client(scheduler_file=sys.argv[1]) as client:
    client.wait_for_workers(1)
    print(client.scheduler.address)" "$CLUSTER/scheduler.json") || {
    cat "$CLUSTER"/*.log >&2
    exit 1
}
labelgen extract --manifest "$MANIFEST" --root "$ROOT" --out "$OUT" "$@" \
    --engine dask --scheduler "$address" ${LOCAL:+--scratch "$LOCAL"}
labelgen status "$OUT"
