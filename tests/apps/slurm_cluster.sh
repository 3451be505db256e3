#!/usr/bin/env bash
# A Slurm cluster of this machine alone: munged, slurmctld, slurmd with all they write below FOLDER.
# It has one GPU for Slurm, whatever there is: /dev/null stands for its device file.
# usage: slurm_cluster.sh start|stop FOLDER    start prints the environment for sbatch and others;
# exit code 77: not possible here, with the reason
set -euo pipefail
folder=$(readlink -f "$2")
skip() { echo "$*"; exit 77; }

# Returns when none of them writes any more; they save their state as they end.
stop() {
    local name pid turn
    for name in slurmd slurmctld munged; do
        pid=$(cat "$folder/$name.pid" 2> /dev/null) && kill "$pid" 2> /dev/null || continue
        for ((turn = 0; turn < 100; ++turn)); do
            readlink "/proc/$pid/exe" > /dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2> /dev/null || true
    done
}
[[ $1 == stop ]] && { stop; exit 0; }

PATH=$PATH:/usr/sbin
for program in munged slurmctld slurmd sbatch; do
    command -v $program > /dev/null || skip "$program is not installed (packages slurmctld slurmd slurm-client munge)"
done
[[ $(id -u) == 0 ]] || skip "slurmd needs root"

mkdir -p "$folder"/{state,spool,munge}
chmod 700 "$folder/munge"
head -c 1024 /dev/urandom > "$folder/munge/key"
chmod 400 "$folder/munge/key"
munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" ||
    skip "munged does not start: $(tail -n 1 "$folder/munge/log")"
host=$(hostname -s)
port=$((20000 + RANDOM % 10000))
cat > "$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
SlurmctldParameters=idle_on_node_suspend
SchedulerParameters=sched_min_interval=100000
KillWait=5
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
echo "Name=gpu File=/dev/null" > "$folder/gres.conf"
export SLURM_CONF=$folder/slurm.conf
trap 'stop' ERR
slurmctld || skip "slurmctld does not start: $(tail -n 1 "$folder/slurmctld.log")"
slurmd || skip "slurmd does not start: $(tail -n 1 "$folder/slurmd.log")"
for ((i = 0; i < 100; ++i)); do
    [[ $(sinfo -h -o %T 2> /dev/null) == idle ]] && { echo "SLURM_CONF=$SLURM_CONF"; exit 0; }
    sleep 0.1
done
stop
skip "the node does not come up: $(tail -n 1 "$folder/slurmd.log")"
