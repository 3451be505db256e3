#!/bin/bash
# Trains the segmentation model from nothing, exports it and measures it.
#
#   training/run_segment.sh start        in the background; prints the folder of the logs
#   training/run_segment.sh status       what is done, and the last lines of every log
#   training/run_segment.sh wait 500     returns when all is done, or after 500 seconds (exit status 3)
#   training/run_segment.sh collect DIR  copies what is there so far (model, logs, figures, sheets): 2 files
#   training/run_segment.sh stop         ends the run; start goes on from the last checkpoint
#
# Settings, by environment: MODELS (with the text encoder), DATA, STATE, RUN, PYTHON, TRAIN_MIN (start-up included),
# PROCESSES (one for each GPU), TRAIN_X, EVAL_X (more options of the scripts); COMMIT, which the exported file names,
# where this is a copy without .git.
set -u
self=$(readlink -f "$0")
cd "$(dirname "$self")/.."
MODELS=${MODELS:-assets/default} DATA=${DATA:-.carry} RUN=${RUN:-out/segment} PYTHON=${PYTHON:-python3}
TRAIN_MIN=${TRAIN_MIN:-10} STATE=${STATE:-/tmp/fovea-segment} PROCESSES=${PROCESSES:-1}
. training/run_parts.sh

run_all() {
  mkdir -p "$STATE"
  part train "$(seconds "$TRAIN_MIN")" training/each_gpu.sh "$PROCESSES" $(script train_segment.py) --models "$MODELS" \
    --minutes "$TRAIN_MIN" --export "$RUN/models" --commit "$COMMIT" ${TRAIN_X:-} || return 1
  part evaluate 240 $(script evaluate_segment.py) --models "$MODELS" --weights "$RUN/models" --out "$RUN/eval" \
    ${EVAL_X:-}
}

collect() {
  mkdir -p "$1"
  cp "$RUN/models/segment.safetensors" "$1" 2>/dev/null || echo "no segment.safetensors yet"
  tar -czf "$1/run.tar.gz" --exclude='*.safetensors' --exclude='*.part' -C "$RUN" .
}

if [ "${1:-}" = collect ]; then collect "${2:?folder}"; else run_command "$@"; fi
