#!/usr/bin/env bash
# Collects wheels for a machine that has Python with PyTorch and Triton but reaches no package index:
#
#   bash tools/wheelhouse.sh [PYTHON_VERSION] [NAME ...]      default 3.12; NAMEs beside the usual ones
#
# in wheelhouse/ (about 9 MiB; `av` adds 34, `wandb` with its needs 20). Over there:
#
#   python3 -m pip install --no-index --no-deps --target site wheelhouse/*.whl
#   PYTHONPATH=site make gpu-check PYTHON=python3
#
# Versions come from requirements.lock. `make setup` first: DeepSpeed's wheel is built in .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=${1:-3.12}
[[ $version =~ ^3\.[0-9]+$ ]] || { echo "wheelhouse.sh: PYTHON_VERSION is $version; give e.g. 3.12" >&2; exit 2; }
shift || true
names=(xformers pydantic pydantic_core simplejpeg webdataset torchsde hjson typing_extensions
  typing-inspection annotated-types braceexpand trampoline threadpoolctl "$@")
python=.venv/bin/python

locked() {
  local found
  found=$(sed -n -E "s/^($1==[^ ;]+).*/\1/Ip" requirements.lock)
  [ -n "$found" ] || { echo "wheelhouse.sh: $1 is not in requirements.lock" >&2; return 2; }
  echo "$found"
}

pinned=()
for name in "${names[@]}"; do pinned+=("$(locked "$name")"); done
deepspeed=$(locked deepspeed)

platforms=() # pip matches each name exactly
for glibc in 2_34 2_31 2_28 2_27 2_24 2_17 2_12 2_5; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64)

rm -rf wheelhouse
"$python" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp \
  --python-version "$version" "${platforms[@]}" --dest wheelhouse "${pinned[@]}"
# Pure Python with its operators left out; the accelerator named is what it is built for.
DS_ACCELERATOR=cuda DS_BUILD_OPS=0 "$python" -m pip wheel --quiet --no-deps --no-build-isolation \
  --wheel-dir wheelhouse "$deepspeed"
du -ch wheelhouse/*.whl
