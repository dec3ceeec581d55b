# Settings of this site, sourced by the batch scripts inside each job. Edit it.
# sbatch's own settings (partition, account, time) go on its command line:
#   sbatch --partition=gpu --nodes=4 --gpus-per-node=8 --time=24:00:00 launch/train.sh CONFIG.yaml

# The environment. Default: the repository's .venv. For example:
# module load cuda/12.8
# export PYTHON=/path/to/python

# Run inside a container (Slurm's Pyxis plugin): an image and what it sees of the file system.
# export SDEVID_CONTAINER_IMAGE=/images/pytorch.sqsh
# export SDEVID_CONTAINER_MOUNTS=$PWD:$PWD,/data:/data

# Disk of the node itself, for compilers' caches. Default: the job's temporary folder, or /tmp.
# export SDEVID_NODE_DISK=/local/scratch

# Seconds for saving after the signal, below the 300 of `--signal` in launch/train.sh.
# export SDEVID_SAVE_SECONDS=240

# Failures in a row, each after a newer checkpoint, after which a job stays ended: slurm/requeue.sh.
# export SDEVID_MAX_FAILURES=5

# Seconds in which a node must reach the first one, or it is named and the job ends.
# export SDEVID_REACH_SECONDS=120

# The network, where NCCL or gloo picks the wrong interface:
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0
