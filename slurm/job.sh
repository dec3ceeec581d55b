# Sourced by the batch scripts: where this job's processes meet, and how to start one on each node.

fail() { echo "${SLURM_JOB_NAME:-sdevid}: $*" >&2; exit 2; }

source slurm/env.sh

# Each node by the address that Slurm itself reaches it at, in the order of SLURM_NODEID.
node_addresses() {
  declare -A address
  local name at
  while read -r name at; do address[$name]=$at; done < <(
    scontrol -o show node "$SLURM_JOB_NODELIST" |
      sed -n -E 's/^NodeName=([^ ]+) .*NodeAddr=([^ ]+) .*/\1 \2/p'
  )
  for name in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do echo "${address[$name]:-$name}"; done
}

SDEVID_ADDRESSES=$(node_addresses | xargs)
# A port of this node, the first, that nobody listens on: tried from the job's own number on.
free_port() {
  local i port
  for ((i = 0; i < 50; i++)); do
    port=$((20000 + (SLURM_JOB_ID + i * 211) % 10000))
    if ! (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && ! (: <>"/dev/tcp/${SDEVID_ADDRESSES%% *}/$port") 2>/dev/null; then
      [ "$i" = 0 ] || echo "port $((20000 + SLURM_JOB_ID % 10000)) is taken; the processes meet at $port" >&2
      echo "$port"
      return
    fi
  done
  fail "50 ports from 20000 on are taken on the first node"
}

SDEVID_PORT=$(free_port)
SDEVID_ATTEMPT=$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}
SDEVID_CACHE=${SDEVID_NODE_DISK:-${SLURM_TMPDIR:-/tmp}}/sdevid-$SDEVID_ATTEMPT
export SDEVID_ADDRESSES SDEVID_PORT SDEVID_ATTEMPT SDEVID_CACHE
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
  export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun does not take it from sbatch since 22.05
fi

container=()
if [ -n "${SDEVID_CONTAINER_IMAGE:-}" ]; then
  container=(
    --container-image="$SDEVID_CONTAINER_IMAGE" --container-workdir="$PWD"
    --container-mounts="${SDEVID_CONTAINER_MOUNTS:-$PWD:$PWD}"
  )
fi

# Commands that start what follows them: on the first node, or once on each.
on_one_node=(srun --nodes=1 --ntasks=1 "${container[@]}")
on_each_node=(srun --ntasks-per-node=1 --kill-on-bad-exit=1 "${container[@]}")

remove_caches() {
  timeout 60 srun --ntasks-per-node=1 bash -c '
    find "${SDEVID_CACHE%/*}" -maxdepth 1 -type d -user "$(id -u)" \
      -name "$(basename "$SDEVID_CACHE")-${SLURMD_NODENAME:-node}.*" -exec rm -rf {} +' || true
}
