#!/usr/bin/env bash
# Installs what is needed, builds everything, checks the formatting, runs every test.
# usage: scripts/test.sh [options of ctest]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
scripts/format.sh --check
scripts/build.sh
ctest --test-dir build --output-on-failure --parallel "$(nproc)" "$@"
