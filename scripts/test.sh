#!/usr/bin/env bash
# Installs what is needed, builds everything, checks the formatting, runs every test.
# usage: scripts/test.sh [options of ctest]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
scripts/format.sh --check
scripts/build.sh
# One cache of Mesa's compiled kernels, of tests with a cache folder of their own too.
export MESA_SHADER_CACHE_DIR=${MESA_SHADER_CACHE_DIR:-$PWD/build}
ctest --test-dir build --output-on-failure --parallel "$(nproc)" "$@"
# What was not run, and why.
awk '/: Skipped$/ { getline; count[$0]++ } END { for (why in count) print count[why], "skipped:", why }' \
    build/Testing/Temporary/LastTest.log
