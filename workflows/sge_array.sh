#!/usr/bin/env bash
# Shards on many machines of an SGE cluster: a job array, each task of which makes one part.
#
#     MANIFEST=k400.csv ROOT=/data/k400 OUT=/data/shards bash workflows/sge_array.sh [OPTION ...]
#
# Options are those that `labelgen plan` and `labelgen extract` share. Run it again to go on: what
# is sealed is not made twice. The last job says whether the folder is complete and undamaged.
# What cores of one machine are called, here the parallel environment smp, is up to your cluster.
#$ -N labelgen
#$ -S /bin/bash
#$ -cwd
#$ -V
#$ -pe smp 8
#$ -r y
set -euo pipefail

export MANIFEST=${MANIFEST:-manifests/ucf101.csv} # of `labelgen manifest`, which counts frames once
export ROOT=${ROOT:-data/ucf101}                  # folder that holds the videos
export OUT=${OUT:-shards/ucf101}                  # seen under this name by all machines
export LOCAL=${LOCAL:-}                           # a folder of each machine, if OUT is slow
export TASKS=${TASKS:-100}                        # of the array, at most

what=(--manifest "$MANIFEST" --root "$ROOT" --out "$OUT" "$@")

# Outside of an array it is not set, or "undefined".
if [[ ${SGE_TASK_ID:-undefined} != undefined ]]; then
    exec labelgen extract "${what[@]}" --workers "$NSLOTS" \
        --part "$SGE_TASK_ID/$PARTS" --one-based ${LOCAL:+--scratch "$LOCAL"}
fi

read -r shards sealed < <(labelgen plan "${what[@]}" | python3 -c \
    'import json, sys; plan = json.load(sys.stdin); print(plan["shards"], plan["sealed"])')
echo "$shards shards, $sealed of them sealed" >&2
((sealed < shards)) || exit 0
export PARTS=$((shards < TASKS ? shards : TASKS))
array=$(qsub -terse -t "1-$PARTS" "$0" "$@")
qsub -hold_jid "${array%%.*}" -N labelgen-verify -S /bin/bash -cwd -V <<END
labelgen status $(printf %q "$OUT") && labelgen verify $(printf %q "$OUT")
END
