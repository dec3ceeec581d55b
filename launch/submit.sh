#!/usr/bin/env bash
# Queues a training like sbatch, but not with a time limit that leaves no time to train:
#
#   bash launch/submit.sh [sbatch's options ...] launch/train.sh CONFIG.yaml [key=value ...]
#
# sbatch takes any limit, from --time, SBATCH_TIMELIMIT, the script or the partition. So the job is
# queued on hold, its limit read, and it is released, or cancelled and the number to use is said.
# Prints the job's number. `sbatch launch/train.sh` works too, and is refused when the job starts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/time_limit.sh

if [ $# = 0 ]; then
  echo "submit.sh: give what sbatch takes: bash launch/submit.sh launch/train.sh CONFIG.yaml" >&2
  exit 2
fi
job=$(sbatch --parsable --hold "$@")
number=${job%%;*} # a cluster's name may follow
fault=$(too_short "$(squeue --noheader --jobs "$number" --format=%l | head -n 1)")
if [ -n "$fault" ]; then
  scancel "$number"
  echo "submit.sh: $fault" >&2
  exit 2
fi
scontrol release "$number"
echo "$job"
