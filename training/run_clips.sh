#!/bin/bash
# Goes on from the exported models with pictures and clips together: pools of latents, training, export, evaluation.
#
#   training/run_clips.sh start        in the background; prints the folder of the logs
#   training/run_clips.sh status       what is done, and the last lines of every log
#   training/run_clips.sh wait 500     returns when all is done, or after 500 seconds (exit status 3)
#   training/run_clips.sh collect DIR  copies what is there so far (models, logs, figures, strips): 4 files
#   training/run_clips.sh stop         ends the run; start goes on from the last checkpoint, with new pools
#
# Settings, by environment: MODELS, DATA, STATE, RUN, PYTHON, TRAIN_MIN (pools included), POOL_MIN, DECODER_MIN (0: the
# decoder stays), PROCESSES (one for each GPU), TRAIN_X, VIDEO_X, EVAL_X (more options of the scripts); COMMIT, which the
# exported files name, where this is a copy without .git.
set -u
self=$(readlink -f "$0")
cd "$(dirname "$self")/.."
MODELS=${MODELS:-assets/default} DATA=${DATA:-.carry} RUN=${RUN:-out/clips} PYTHON=${PYTHON:-python3}
TRAIN_MIN=${TRAIN_MIN:-20} POOL_MIN=${POOL_MIN:-4} DECODER_MIN=${DECODER_MIN:-3} STATE=${STATE:-/tmp/fovea-clips}
PROCESSES=${PROCESSES:-1}
. training/run_parts.sh

run_all() {
  mkdir -p "$STATE"
  part import 120 $(script import_state.py) --models "$MODELS" || return 1
  # The compiler works while clips are drawn and encoded; training finds its results in the cache.
  part compile 300 $(script train_clips.py) --only-compile ${TRAIN_X:-} &
  # Latents stay as they are; only what the decoder makes of those of small clips gets better.
  [ "$DECODER_MIN" = 0 ] || part decoder "$(seconds "$DECODER_MIN")" $(script train_autoencoder.py) --freeze-encoder \
    --lr 3e-4 --small 0.6 --minutes "$DECODER_MIN" --compile 0 --workers 4 & local decoder=$!
  part train "$(seconds "$TRAIN_MIN")" training/each_gpu.sh "$PROCESSES" $(script train_clips.py) \
    --minutes "$TRAIN_MIN" --pool-minutes "$POOL_MIN" --workers 12 --export "$RUN/models" --commit "$COMMIT" \
    ${TRAIN_X:-} || return 1
  wait $decoder
  part export 120 $(script export.py) --out "$RUN/models" --commit "$COMMIT" || return 1
  part video 300 $(script evaluate_video.py) --out "$RUN/eval" ${VIDEO_X:-}
  part evaluate 240 $(script evaluate.py) --out "$RUN/eval" --guidance 3 ${EVAL_X:-}
}

collect() {
  mkdir -p "$1"
  for name in dit text autoencoder; do
    cp "$RUN/models/$name.safetensors" "$1" 2>/dev/null || echo "no $name.safetensors yet"
  done
  tar -czf "$1/run.tar.gz" --exclude='*.safetensors' --exclude='*.part' -C "$RUN" .
}

if [ "${1:-}" = collect ]; then collect "${2:?folder}"; else run_command "$@"; fi
