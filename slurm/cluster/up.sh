#!/usr/bin/env bash
# Starts a real Slurm on this machine: munge, one controller and NODES compute nodes named n0, n1, ...
#
#   eval "$(bash slurm/cluster/up.sh [FOLDER] [NODES])"     then sinfo, sbatch, squeue work in this shell
#   bash slurm/cluster/down.sh [FOLDER]                     ends it and removes FOLDER
#
# Needs root and Debian's packages slurm-wlm and munge. Everything it writes (keys, sockets, logs,
# state) is in FOLDER, by default /tmp/sdevid-slurm; a Slurm or munge that runs already is not
# touched. Standard output holds only the export lines; all else goes to standard error.
set -euo pipefail

folder=$(realpath -m "${1:-/tmp/sdevid-slurm}")
nodes=${2:-2}

fail() { echo "up.sh: $*" >&2; exit 2; }

[ "$(id -u)" = 0 ] || fail "slurmd runs other users' jobs, so this needs root; try sudo"
[[ $nodes =~ ^[1-9][0-9]*$ ]] || fail "NODES is $nodes, but must be a number from 1 up"
[ ! -e "$folder" ] || fail "$folder exists; bash slurm/cluster/down.sh $folder removes a cluster there"
for program in munged slurmctld slurmd sinfo; do
  command -v "$program" >/dev/null || fail "$program is missing; apt-get install slurm-wlm munge"
done

free_ports() {  # as many as asked, held together so that they differ
  python3 - "$1" <<'PY'
import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in held))
PY
}

write_config() {
  local host=$1 controller_port=$2 i=0
  shift 2
  cat <<CONF
ClusterName=sdevid
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller_port
SlurmUser=root
# cred_expire is also how long a requeued job waits before it starts again, in seconds.
AuthInfo=socket=$folder/munge/socket,cred_expire=10
StateSaveLocation=$folder/state
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdSpoolDir=$folder/spool-%n
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmdLogFile=$folder/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
SchedulerParameters=sched_interval=2,bf_interval=2
KillWait=10
CONF
  for port in "$@"; do
    echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$port CPUs=1"
    i=$((i + 1))
  done
  echo "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP"
}

start_munge() {
  runuser -u munge -- test -x "$folder" || fail "the user munge cannot enter $folder; choose another"
  install -d -m 700 "$folder/munge-private"
  install -d -m 755 "$folder/munge"
  (umask 077 && head -c 128 /dev/urandom >"$folder/munge-private/key")
  chown -R munge: "$folder/munge" "$folder/munge-private"
  runuser -u munge -- munged --key-file="$folder/munge-private/key" --socket="$folder/munge/socket" \
    --pid-file="$folder/munge/pid" --log-file="$folder/munge-private/log" \
    --seed-file="$folder/munge-private/seed" >&2
}

mkdir -p "$(dirname "$folder")"
mkdir -m 755 "$folder"
touch "$folder/sdevid-cluster"  # down.sh removes nothing without it
trap 'bash "$(dirname "$0")/down.sh" "$folder"; fail "the cluster did not start"' ERR

read -r -a ports < <(free_ports $((nodes + 1)))
mkdir "$folder/state"
for ((i = 0; i < nodes; i++)); do mkdir "$folder/spool-n$i"; done
write_config "$(hostname -s)" "${ports[@]}" >"$folder/slurm.conf"
export SLURM_CONF=$folder/slurm.conf

start_munge
# The daemons and each job's slurmstepd inherit the mark by which down.sh knows them.
export SDEVID_CLUSTER=$folder
slurmctld -c >&2
for ((i = 0; i < nodes; i++)); do slurmd -N "n$i" >&2; done

wait_for_nodes() {
  for _ in {1..120}; do
    if [ "$(sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l)" = "$nodes" ]; then return; fi
    sleep 0.5
  done
  sinfo -N -l >&2 || true
  tail -n 20 "$folder"/slurm*.log >&2
  return 1
}
wait_for_nodes

echo "Slurm runs with $nodes nodes; end it with: bash slurm/cluster/down.sh $folder" >&2
echo "export SLURM_CONF='$folder/slurm.conf'"
