#!/usr/bin/env bash
# Kills `fovea batch` at random moments and checks after each that nothing that was done is lost or
# made again, and at the end that every job is done, every hash right, and no half file is left.
# usage: scripts/batch_kill_test.sh [KILLS]    default: 200, over 400 jobs; minutes on a CPU
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/build.sh fovea apps_tests
run=
[[ -x .deps/bin/run ]] && run=.deps/bin/run
FOVEA_KILLS=${1:-200} $run build/apps_tests --gtest_filter='Batch.KilledAtAnyMoment*'
