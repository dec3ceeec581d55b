#!/usr/bin/env bash
# Ends the cluster that up.sh started in FOLDER (default /tmp/sdevid-slurm) and removes FOLDER.
# Signals only processes that up.sh started, by number, after a look that each still is one.
set -euo pipefail

folder=$(realpath -m "${1:-/tmp/sdevid-slurm}")
[ -e "$folder" ] || exit 0
if [ ! -f "$folder/sdevid-cluster" ]; then
  echo "down.sh: $folder is not a folder of up.sh's, so it stays as it is" >&2
  exit 2
fi
export SLURM_CONF=$folder/slurm.conf

# Numbers of processes: with such a text in FILE of their /proc; whose LINK there leads somewhere.
having() { grep -lsxz -- "$2" /proc/[0-9]*/"$1" | cut -d/ -f3 | sort; }
linked() { find /proc/[0-9]*/"$1" -maxdepth 0 -lname "$2" 2>/dev/null | cut -d/ -f3 | sort; }

# slurmctld and slurmd (Debian adds -wlm) carry up.sh's mark; slurmstepd overwrites its environment,
# but works in the folder; munged names its socket; what jobs have left behind names the cluster.
processes() {
  comm -12 <(having environ "SDEVID_CLUSTER=$folder") <(linked exe '*/slurm*')
  comm -12 <(linked cwd "$folder") <(linked exe '*/slurmstepd*')
  comm -12 <(having cmdline "--socket=$folder/munge/socket") <(linked exe '*/munged')
  comm -12 <(having environ "SLURM_CONF=$SLURM_CONF") <(having environ 'SLURM_JOB_ID=[0-9]*')
} 2>/dev/null

gone() {  # within so many half seconds
  for ((i = 0; i < $1; i++)); do
    [ -n "$($2)" ] || return 0
    sleep 0.5
  done
  return 1
}

jobs_left() { timeout 5 squeue -h -o %i 2>/dev/null || true; }

jobs_left | xargs -r timeout 10 scancel >&2 || true
gone 40 jobs_left || echo "down.sh: some jobs did not end in 20 s" >&2
processes | xargs -r kill 2>/dev/null || true
gone 20 processes || processes | xargs -r kill -KILL 2>/dev/null || true
gone 20 processes || { echo "down.sh: still running: $(processes | xargs)" >&2; exit 1; }
rm -rf "$folder"
