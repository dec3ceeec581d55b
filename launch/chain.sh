#!/usr/bin/env bash
# Queues a run as N jobs that follow each other, for sites where a job cannot go back into the queue,
# or to train for longer than one job may run:
#
#   bash launch/chain.sh N [sbatch's options ...] launch/train.sh CONFIG.yaml [key=value ...]
#
# Each carries on from where the one before it stopped, however that ended; once the run is over
# (done, stopped, or failed as slurm/requeue.sh says) those left end at once. Prints the jobs'
# numbers; `scancel --name=NAME` ends the whole chain.
set -euo pipefail

count=${1:-}
if ! [[ $count =~ ^[1-9][0-9]*$ ]] || [ $# -lt 2 ]; then
  echo "chain.sh: N is '$count', but must be a number of jobs, 1 or more, before what sbatch takes" >&2
  exit 2
fi
shift

export SDEVID_CHAIN=sdevid-chain-$(date +%s)-$$
echo "chain.sh: $count jobs called $SDEVID_CHAIN" >&2
for ((i = 0; i < count; i++)); do
  bash "$(dirname "$0")/submit.sh" --job-name="$SDEVID_CHAIN" --dependency=singleton "$@"
done
