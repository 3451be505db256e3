#!/bin/bash
# each_gpu.sh N COMMAND...: runs a training script in N processes of this machine, one for each GPU (team.py); the first
# one that fails ends the others.
set -u
export WORLD_SIZE=${1:?number of processes} MASTER_ADDR=127.0.0.1 MASTER_PORT=${MASTER_PORT:-29511}
shift
trap 'kill $(jobs -p) 2>/dev/null' EXIT
trap 'exit 143' TERM INT
for ((rank = 0; rank < WORLD_SIZE; rank++)); do
  RANK=$rank LOCAL_RANK=$rank "$@" &
done
for ((rank = 0; rank < WORLD_SIZE; rank++)); do
  wait -n || exit
done
