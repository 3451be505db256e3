#!/usr/bin/env bash
# Pictures a second of `fovea batch` by batch size and devices, beside separate `fovea generate`.
# usage: scripts/batch_throughput.sh [JOBS [SIZE [STEPS [DEVICES [BATCHES]]]]]
#   scripts/batch_throughput.sh                                    a CPU: 16 jobs of 128x128, 4 steps
#   scripts/batch_throughput.sh 512 256x256 24 0 "1 2 4 8 16 32 64"    a GPU by batch size
#   scripts/batch_throughput.sh 8192 256x256 24 0,1 64                 two GPUs
# A first run fills the caches and is not counted. Up to 512 jobs are followed by separate runs of
# generate. Where nvidia-smi is, its utilisation is sampled each 100 ms of a run, and the mean of
# the GPUs that did anything is printed.
set -euo pipefail
cd "$(dirname "$0")/.."
fovea=$PWD/build/fovea
jobs=${1:-16} size=${2:-128x128} steps=${3:-4} devices=${4:-} batches=${5:-"1 auto"}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
seconds() { date +%s.%N; }
{
    echo "{\"defaults\": {\"type\": \"generate\", \"size\": \"$size\", \"steps\": $steps}}"
    for ((i = 0; i < jobs; ++i)); do
        echo "{\"prompt\": \"a red apple on a blue background\", \"seed\": $i}"
    done
} > "$work/jobs.jsonl"

# batch NAME ARGUMENT...: one row, pictures a second of the whole command.
batch() {
    local name=$1 begin end sampler= busy=
    shift
    if command -v nvidia-smi > /dev/null; then
        nvidia-smi --query-gpu=index,utilization.gpu --format=csv,noheader,nounits -lms 100 \
            > "$work/busy" 2> /dev/null &
        sampler=$!
    fi
    rm -rf "$work/out"
    begin=$(seconds)
    "$fovea" batch "$work/jobs.jsonl" -o "$work/out" --progress none ${devices:+--devices "$devices"} \
        --metrics "$work/metrics.prom" "$@" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
    end=$(seconds)
    if [[ -n $sampler ]]; then
        kill "$sampler"
        wait "$sampler" 2> /dev/null || true
        busy=$(awk -F, '{ s[$1] += $2; n[$1]++ }
            END { for (i in s) if (s[i] > n[i]) { total += s[i] / n[i]; ++gpus }
                  if (gpus) printf ", %d GPU(s) %.0f %% busy, start-up included", gpus, total / gpus }' "$work/busy")
    fi
    awk -v n="$jobs" -v b="$begin" -v e="$end" -v name="$name" -v busy="$busy" \
        -v work="$(sed -n 's/^fovea_batch_busy_ratio //p' "$work/metrics.prom")" \
        'BEGIN { t = e - b; printf "%-22s %7.1f s  %8.3f pictures/s, workers computing %.0f %%%s\n", name, t, n / t, 100 * work, busy }'
}

head -n 129 "$work/jobs.jsonl" > "$work/few.jsonl"
"$fovea" batch "$work/few.jsonl" -o "$work/warm" --progress none ${devices:+--devices "$devices"} 2> /dev/null
for size_of_batch in $batches; do batch "batch $size_of_batch" --batch "$size_of_batch"; done

[[ $jobs -le 512 ]] || exit 0
count=$((jobs < 16 ? jobs : 16))
begin=$(seconds)
for ((i = 0; i < count; ++i)); do
    "$fovea" generate "a red apple on a blue background" --size "$size" --steps "$steps" --seed "$i" \
        ${devices:+--device "${devices%%,*}"} -o "$work/single.png" > /dev/null 2>&1
done
end=$(seconds)
awk -v n="$count" -v b="$begin" -v e="$end" \
    'BEGIN { t = e - b; printf "%-22s %7.1f s  %8.3f pictures/s\n", "generate, " n " times", t, n / t }'
