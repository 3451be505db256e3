#!/usr/bin/env bash
# Times the engine and PyTorch on the same cases in one run and writes one table with ratios, for
# instance docs/benchmarks.md. Without PyTorch the table holds the engine alone.
# usage: scripts/benchmarks.sh FOLDER [options of `fovea bench`, as in: attention --shapes targets]
set -euo pipefail

if [[ $# == 0 || $1 == -h || $1 == --help ]]; then
    sed -n '2,4s/^# //p' "$0"
    exit $(( $# == 0 ))
fi

root=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
shift
mkdir -p "$folder"
"$root/build/fovea" bench "${@:-all}" --json "$folder/own.json"
files=("$folder/own.json")
if python3 "$root/apps/bench/peers/torch_peers.py" "$folder/own.json" -o "$folder/torch.json"; then
    files+=("$folder/torch.json")
fi
"$root/build/fovea" bench --merge "${files[@]}" --json "$folder/both.json" \
    --markdown "$folder/benchmarks.md" --plot "$folder/benchmarks.svg"
