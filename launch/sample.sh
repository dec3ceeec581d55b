#!/usr/bin/env bash
# Samples with accelerate, one process a GPU, or one on the CPU (RANKS=N overrides it):
#
#   sbatch [--nodes=2 --gpus-per-node=8 ...] launch/sample.sh --model_path R --output_dir O [...]
#   bash launch/sample.sh --model_path R --output_dir O [...]            on this machine alone
#
# Takes the options of `python -m sdevid sample`. The same seed gives the same videos on any number
# of processes. Submit from the repository's root; settings of the site: slurm/env.sh.
#SBATCH --job-name=sdevid-sample
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"
if [ ! -f launch/node.sh ]; then
  echo "sample.sh: $PWD is not the repository's root; submit from there" >&2
  exit 2
fi

if [ -n "${SLURM_JOB_ID:-}" ] && [ -z "${SDEVID_ADDRESSES:-}" ]; then # the batch script itself
  source slurm/job.sh
  code=0
  "${on_each_node[@]}" bash launch/sample.sh "$@" || code=$?
  remove_caches
  exit "$code"
fi

source launch/node.sh
read -r -a addresses <<<"${SDEVID_ADDRESSES:-127.0.0.1}"
machines=${#addresses[@]}
processes=$((machines * ranks))

options=(--num_processes "$processes" --num_machines "$machines" --mixed_precision no)
options+=(--dynamo_backend no)
if [ "$machines" -gt 1 ]; then
  options+=(--machine_rank "$SLURM_NODEID" --rdzv_backend static)
  options+=(--main_process_ip "${addresses[0]}" --main_process_port "$SDEVID_PORT")
fi
[ "$gpus" -gt 0 ] || export ACCELERATE_USE_CPU=true
# Without --multi_gpu accelerate starts a single process, on a CPU too.
[ "$processes" = 1 ] || options+=(--multi_gpu)

exec "$python" -m accelerate.commands.accelerate_cli launch "${options[@]}" -m sdevid.sample "$@"
