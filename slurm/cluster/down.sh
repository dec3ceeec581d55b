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

processes() {  # slurmctld, slurmd and slurmstepd carry up.sh's mark; munged names its socket
  local pid
  for pid in $(cd /proc && printf '%s\n' [0-9]*); do
    case "$(readlink "/proc/$pid/exe" || true)" in
      */slurmctld* | */slurmd* | */slurmstepd*)  # Debian adds -wlm
        grep -qzx "SDEVID_CLUSTER=$folder" "/proc/$pid/environ" && echo "$pid" ;;
      */munged) grep -qzx -- "--socket=$folder/munge/socket" "/proc/$pid/cmdline" && echo "$pid" ;;
    esac
  done 2>/dev/null || true
}

gone() {  # within so many half seconds
  for ((i = 0; i < $1; i++)); do
    [ -n "$($2)" ] || return 0
    sleep 0.5
  done
  return 1
}

jobs_left() { timeout 5 squeue -h -o %i 2>/dev/null || true; }

jobs_left | xargs -r timeout 10 scancel >&2 || true
gone 60 jobs_left || echo "down.sh: some jobs did not end in 30 s" >&2
processes | xargs -r kill 2>/dev/null || true
gone 20 processes || processes | xargs -r kill -KILL 2>/dev/null || true
gone 20 processes || { echo "down.sh: still running: $(processes | xargs)" >&2; exit 1; }
rm -rf "$folder"
