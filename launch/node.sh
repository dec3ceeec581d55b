# Sourced by local.sh and sample.sh on each node. Sets `python`, and `ranks`: processes here, one a
# GPU, or one on the CPU; RANKS=N overrides it. Inside a Slurm job, caches go to the node's own disk.

fail() { echo "${0##*/}: $*" >&2; exit 2; }

if [ -n "${PYTHON:-}" ]; then
  python=$PYTHON
  command -v "$python" >/dev/null ||
    fail "PYTHON is $PYTHON, but there is no such program on ${SLURMD_NODENAME:-$(hostname)}; correct or unset it"
else
  python=.venv/bin/python
  command -v "$python" >/dev/null || python=python3
fi

count_gpus() {
  if [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then
    echo "$SLURM_GPUS_ON_NODE"
  elif command -v nvidia-smi >/dev/null; then
    nvidia-smi -L | grep -c '^GPU' || true
  else
    echo 0
  fi
}

gpus=$(count_gpus)
ranks=${RANKS:-$((gpus > 0 ? gpus : 1))}
[[ $ranks =~ ^[1-9][0-9]*$ ]] || fail "RANKS is $ranks, but must be a number of processes, 1 or more"

cores=${SLURM_CPUS_ON_NODE:-$(nproc)}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / ranks > 0 ? cores / ranks : 1))}

# A private folder (mkdtemp, 0700) for each attempt: nobody can foretell or plant it, a build that was
# killed leaves a lock on which the next one would hang, and a shared file system is slow at what
# compilers do.
if [ -n "${SDEVID_CACHE:-}" ]; then
  node=${SLURMD_NODENAME:-node}
  # Of attempts of this job that were cut off: ours, and no symbolic link.
  find "${SDEVID_CACHE%/*}" -maxdepth 1 -type d -user "$(id -u)" \
    -name "$(basename "${SDEVID_CACHE%-*}")-*-$node.*" -exec rm -rf {} + 2>/dev/null || true
  cache=$(umask 077 && mktemp -d "$SDEVID_CACHE-$node.XXXXXXXXXX") ||
    fail "no cache folder can be made at $SDEVID_CACHE-$node; set SDEVID_NODE_DISK to a folder of this node"
  export TRITON_CACHE_DIR=$cache/triton TORCHINDUCTOR_CACHE_DIR=$cache/inductor
  export TORCH_EXTENSIONS_DIR=$cache/extensions
  mkdir -m 700 "$TRITON_CACHE_DIR" "$TORCHINDUCTOR_CACHE_DIR" "$TORCH_EXTENSIONS_DIR"
fi
