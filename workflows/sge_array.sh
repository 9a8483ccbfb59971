#!/bin/bash
# Shards by an array of Grid Engine tasks, each of which makes one share. The words are those of `extract`:
#
#     qsub -t 1-100 workflows/sge_array.sh --manifest ucf101.csv --root /data/ucf101 --out shards
#
# Submit it again to go on; PARTS=100 keeps the shares when only some are submitted (-t 3-7). The
# name of the parallel environment, smp, is each site's own: `qconf -spl` lists them.
#$ -N labels
#$ -S /bin/bash
#$ -cwd
#$ -V
#$ -j y
#$ -r y
#$ -pe smp 4
#$ -l h_vmem=1G
#$ -l h_rt=12:00:00
set -euo pipefail

exec labelgen extract "$@" \
    --part "$SGE_TASK_ID/${PARTS:-$SGE_TASK_LAST}" --one-based \
    --workers "$NSLOTS" \
    --scratch "${TMPDIR:-/tmp}"
