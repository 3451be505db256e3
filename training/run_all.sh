#!/bin/bash
# Goes on from the exported models until relations are obeyed: text encoder, pool of latents, training, evaluation.
#
#   training/run_all.sh start      in the background; prints the folder of the logs
#   training/run_all.sh status     what is done, and the last lines of every log
#   training/run_all.sh wait 500   returns when all is done, or after 500 seconds (exit status 3)
#   training/run_all.sh stop       ends the run; start goes on from the last checkpoints
#
# Each part leaves a mark when it is done, so start after a stop (or a lost connection) does only what is missing.
# Settings, by environment: MODELS, DATA, STATE, RUN, PYTHON, TEXT_MIN, POOL_MIN, TRAIN_MIN, TEXT_X, TRAIN_X, EVAL_X;
# COMMIT, which the exported files name, where this is a copy without .git.
set -u
self=$(readlink -f "$0")
cd "$(dirname "$self")/.."
MODELS=${MODELS:-assets/default} DATA=${DATA:-.carry} RUN=${RUN:-out/run} PYTHON=${PYTHON:-python3}
TEXT_MIN=${TEXT_MIN:-2} POOL_MIN=${POOL_MIN:-3} TRAIN_MIN=${TRAIN_MIN:-8.5}
# 510,000 latents are 12.5 GB: in memory where there is room, else on disk.
if [ -z "${STATE:-}" ]; then
  free=$(df -BG --output=avail /dev/shm 2>/dev/null | tail -1 | tr -dc 0-9)
  [ "${free:-0}" -gt 40 ] && STATE=/dev/shm/fovea || STATE=/tmp/fovea
fi
. training/run_parts.sh

run_all() {
  mkdir -p "$STATE"
  part import1 120 $(script import_state.py) --models "$MODELS" --only autoencoder,evaluator || return 1
  # The text encoder is small: it learns its sides while scenes are drawn and encoded.
  part text "$(seconds "$TEXT_MIN")" $(script pretrain_text.py) --models "$MODELS" --minutes "$TEXT_MIN" \
    --workers 4 ${TEXT_X:-} & local text=$!
  part pool "$(seconds "$POOL_MIN")" $(script train_dit.py) --only-pool --pool-minutes "$POOL_MIN" --workers 8 || return 1
  wait $text || return 1
  part import2 120 $(script import_state.py) --models "$MODELS" --only dit || return 1
  part train "$(seconds "$TRAIN_MIN")" $(script train_dit.py) --minutes "$TRAIN_MIN" --pool-minutes 0 \
    --workers 0 --flat 0.4 ${TRAIN_X:-} || return 1
  part export 120 $(script export.py) --out "$RUN/models" --commit "$COMMIT"
  local exported=$?
  part evaluate 240 $(script evaluate.py) --out "$RUN/eval" ${EVAL_X:-} && return $exported
}

run_command "$@"
