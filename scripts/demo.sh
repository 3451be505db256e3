#!/usr/bin/env bash
# From a fresh clone to a picture: installs what is needed, builds, generates.
# usage: scripts/demo.sh "PROMPT" [options of `fovea generate`]
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ $# == 0 || $1 == -h || $1 == --help ]]; then
    sed -n '2,3s/^# //p' "$0"
    exit $(( $# == 0 ))
fi

scripts/setup.sh
scripts/build.sh fovea
build/fovea generate "$@"
