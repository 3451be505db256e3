#!/usr/bin/env bash
# Configures and builds into build/. Arguments name targets (default: everything).
# A fresh folder compiles sources together; who changes them: cmake -D FOVEA_UNITY=OFF build
# usage: scripts/build.sh [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."

[[ -f build/build.ninja ]] || cmake -G Ninja -B build -D FOVEA_UNITY=ON
ninja -C build "$@"
