#!/usr/bin/env bash
# Formats all C++ sources in place; with --check only reports what it would change, and fails.
set -euo pipefail
cd "$(dirname "$0")/.."

# Versions of clang-format disagree about the same .clang-format; Debian 12's is the measure.
WANTED=14
tool=$(command -v clang-format-$WANTED || command -v clang-format)
version=$("$tool" --version | sed 's/.*version \([0-9]*\).*/\1/')
if [[ $version != "$WANTED" ]]; then
    echo "format: skipped, needs clang-format $WANTED, found $version"
    exit 0
fi

options=(-i)
[[ ${1:-} == --check ]] && options=(--dry-run --Werror)
find . \( -path './build*' -o -path './.*' \) -prune -o \( -name '*.h' -o -name '*.cpp' \) -print0 |
    xargs -0 "$tool" "${options[@]}"
