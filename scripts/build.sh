#!/usr/bin/env bash
# Configures and builds into build/. Arguments name targets (default: everything).
# usage: scripts/build.sh [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."

[[ -f build/build.ninja ]] || cmake -G Ninja -B build
ninja -C build "$@"
