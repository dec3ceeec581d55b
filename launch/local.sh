#!/usr/bin/env bash
# Trains on this machine, one process a GPU, or one on the CPU:
#
#   bash launch/local.sh CONFIG.yaml [key=value ...]
#   bash launch/local.sh preflight CONFIG.yaml [key=value ...]     only looks whether it would
#
# RANKS=N sets the number of processes. The same command again carries on. `kill -USR2` on its pid
# makes it save and stop. launch/train.sh runs this on each node of a Slurm job.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/node.sh

command=train
if [ "${1:-}" = preflight ]; then command=preflight && shift; fi
[ $# -ge 1 ] || fail "give a config: bash launch/local.sh configs/default.yaml [key=value ...]"
config=$1
shift

trainer=(-m sdevid "$command" --config "$config" "$@")
if [ "$ranks" = 1 ] && [ -z "${SDEVID_ADDRESSES:-}" ]; then exec "$python" "${trainer[@]}"; fi

# torchrun would wait for all nodes for ten minutes and then not say which one did not come.
reach_first_node() {
  local seconds=${SDEVID_REACH_SECONDS:-120}
  timeout "$seconds" bash -c 'until (: <>"/dev/tcp/$0/$1") 2>/dev/null; do sleep 0.5; done' "$1" "$2" ||
    fail "node ${SLURMD_NODENAME:-$(hostname)} cannot reach the first node, $1 port $2, within" \
      "$seconds s; look at both and at the network, or leave one out: sbatch --exclude=NODE"
}

where=(--standalone)
if [ -n "${SDEVID_ADDRESSES:-}" ]; then
  read -r -a addresses <<<"$SDEVID_ADDRESSES"
  where=(
    --nnodes "${#addresses[@]}" --rdzv-backend c10d --rdzv-id "$SDEVID_ATTEMPT"
    --rdzv-endpoint "${addresses[0]}:$SDEVID_PORT"
    --rdzv-conf "is_host=$((SLURM_NODEID == 0)),join_timeout=600"
    --local-addr "${addresses[$SLURM_NODEID]}"
  )
  [ "$SLURM_NODEID" = 0 ] || reach_first_node "${addresses[0]}" "$SDEVID_PORT"
fi

# On these signals torchrun passes the signal on and waits for the trainer to save; without being
# told it drops dead on USR2. The exit code is the trainer's (sdevid.exit_code).
exec "$python" -m sdevid.train.torchrun "${where[@]}" --nproc-per-node "$ranks" --max-restarts 0 \
  --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGUSR2 --shutdown-timeout "${SDEVID_SAVE_SECONDS:-240}" \
  "${trainer[@]}"
