#!/usr/bin/env bash
# Shards on many machines of a Slurm cluster: a job array, each task of which makes one part.
#
#     MANIFEST=k400.csv ROOT=/data/k400 OUT=/data/shards bash workflows/slurm_array.sh [OPTION ...]
#
# Options are those that `labelgen plan` and `labelgen extract` share. Run it again to go on: what
# is sealed is not made twice. The last job says whether the folder is complete and undamaged.
#SBATCH --job-name=labelgen
#SBATCH --cpus-per-task=8
#SBATCH --mem=8G
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail

export MANIFEST=${MANIFEST:-manifests/ucf101.csv} # of `labelgen manifest`, which counts frames once
export ROOT=${ROOT:-data/ucf101}                  # folder that holds the videos
export OUT=${OUT:-shards/ucf101}                  # seen under this name by all machines
export LOCAL=${LOCAL:-}                           # a folder of each machine, if OUT is slow
export TASKS=${TASKS:-100}                        # of the array, at most

what=(--manifest "$MANIFEST" --root "$ROOT" --out "$OUT" "$@")

if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
    # srun passes Slurm's SIGTERM on; since Slurm 22.05 it must ask for the cores itself.
    exec srun --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
        labelgen extract "${what[@]}" --workers "$SLURM_CPUS_PER_TASK" \
        --part "$SLURM_ARRAY_TASK_ID/$PARTS" ${LOCAL:+--scratch "$LOCAL"}
fi

read -r shards sealed < <(labelgen plan "${what[@]}" | python3 -c \
    'import json, sys; plan = json.load(sys.stdin); print(plan["shards"], plan["sealed"])')
echo "$shards shards, $sealed of them sealed" >&2
((sealed < shards)) || exit 0
export PARTS=$((shards < TASKS ? shards : TASKS))
array=$(sbatch --parsable --array="0-$((PARTS - 1))" "$0" "$@")
sbatch --dependency="afterany:${array%%;*}" --job-name=labelgen-verify \
    --wrap "labelgen status $(printf %q "$OUT") && labelgen verify $(printf %q "$OUT")"
