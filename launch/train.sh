#!/usr/bin/env bash
# Trains under Slurm on any number of nodes and GPUs (or CPU nodes: one gloo process each):
#
#   bash launch/submit.sh [--nodes=4 --gpus-per-node=8 ...] launch/train.sh CONFIG.yaml [key=value ...]
#
# or sbatch in place of launch/submit.sh, which looks at the time limit first. Submit from the
# repository's root. Five minutes before the time limit the run saves, stops and goes back into the
# queue, and it carries on from there; so does the same command given again.
# A failed run goes back if it made progress: slurm/requeue.sh has the rules, and launch/chain.sh a
# way without requeue. `touch RUN/SAVE` saves at the next step; `touch RUN/STOP` saves and ends.
# The trainer first checks every node and names a bad one (slurm/preflight.sh does that alone).
# Settings of the site: slurm/env.sh.
#SBATCH --job-name=sdevid
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@300
set -euo pipefail
if [ -z "${SLURM_JOB_ID:-}" ]; then
  echo "train.sh is for Slurm: sbatch launch/train.sh CONFIG.yaml; without it: launch/local.sh" >&2
  exit 2
fi
cd "$SLURM_SUBMIT_DIR"
if [ ! -f slurm/job.sh ]; then
  echo "train.sh: $PWD is not the repository's root; submit from there" >&2
  exit 2
fi
source slurm/job.sh
source slurm/requeue.sh
source launch/time_limit.sh
[ $# -ge 1 ] || fail "give a config: sbatch launch/train.sh CONFIG.yaml [key=value ...]"

# launch/submit.sh refuses this before the job is queued.
fault=$(too_short "$(squeue --noheader --jobs "$SLURM_JOB_ID" --format=%L 2>/dev/null | head -n 1 || true)")
[ -z "$fault" ] || fail "$fault"

signalled= step=
# srun passes the signal on to every node's task.
trap 'signalled=yes; [ -z "$step" ] || kill -USR2 "$step" 2>/dev/null || true' USR2

# Also checks the settings, before any node waits for another.
print_run_dir='unset SDEVID_CACHE; source launch/node.sh; exec "$python" -c "
import pathlib, sys
from sdevid import config, errors, owner
try:
    run_dir = config.load(pathlib.Path(sys.argv[1]), sys.argv[2:]).run_dir
    owner.refuse_if_owned(run_dir, \"run_dir\")
    print(run_dir)
except errors.UserError as error:
    sys.exit(str(error))" "$@"'
run_dir=$("${on_one_node[@]}" bash -c "$print_run_dir" - "$@") || exit 2
begin_attempt
trap cut_off TERM

echo "$(date +%FT%T) job $SLURM_JOB_ID, attempt $((${SLURM_RESTART_COUNT:-0} + 1)):" \
  "$SLURM_JOB_NUM_NODES nodes ($SLURM_JOB_NODELIST), run in $run_dir"

"${on_each_node[@]}" bash launch/local.sh "$@" &
step=$!
[ -z "$signalled" ] || kill -USR2 "$step"
while kill -0 "$step" 2>/dev/null; do # a signal ends a wait before the step ends
  wait "$step" || true
done

trap - TERM
judge "$signalled"
remember "$verdict"
remove_caches
echo "$(date +%FT%T) job $SLURM_JOB_ID ended: $why"

if [ "$verdict" = over ]; then exit "$code"; fi
if [ -n "${SDEVID_CHAIN:-}" ]; then
  echo "the next job of the chain carries on"
  exit 0
fi
if scontrol requeue "$SLURM_JOB_ID"; then
  sleep 120 # Slurm ends this script here
fi
echo "the job could not be requeued; the same sbatch command carries on" >&2
exit 1
