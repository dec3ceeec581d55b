#!/usr/bin/env bash
# Looks whether nodes are fit to train, and names those that are not, without training:
#
#   sbatch [--nodes=4 --gpus-per-node=8 ...] slurm/preflight.sh CONFIG.yaml [key=value ...]
#   bash launch/local.sh preflight CONFIG.yaml                        on this machine alone
#
# GPUs (count, free memory, ECC), disks, clocks, the data's index, versions of what is installed, who
# hears whom, and an all-reduce with its bandwidth. The trainer does the same before it starts.
#SBATCH --job-name=sdevid-preflight
#SBATCH --ntasks-per-node=1
set -euo pipefail
if [ -z "${SLURM_JOB_ID:-}" ]; then
  echo "preflight.sh is for Slurm: sbatch slurm/preflight.sh CONFIG.yaml" >&2
  exit 2
fi
cd "$SLURM_SUBMIT_DIR"
source slurm/job.sh
code=0
"${on_each_node[@]}" bash launch/local.sh preflight "$@" || code=$?
remove_caches
exit "$code"
