# Sets up .venv once (Python 3.11 or newer) and runs the project's main jobs in it.

SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCKED = sed -n -E 's/^($(1)==[^ ;]+).*/\1/p' requirements.lock

DEMO_DATA := data/demo
DEMO_RUN := runs/demo
DRAW := tools/make_shards.py --num_clips 3000

# One thread each: the jobs below run several processes, or are too small for more threads to pay.
export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo demo-page check test test-slow fuzz drills docs lint format lock gpu-check clean

help:
	@echo "make demo       draw video of a known SDE, train on it, sample, write $(DEMO_RUN)/report.html"
	@echo "make check      lint, types, rooms and a smoke test of the whole path, within 90 s"
	@echo "make test       the quick tests (CPU); they need no system package"
	@echo "make test-slow  the rest that needs no GPU; Slurm's tests need slurm-wlm, munge and root"
	@echo "make fuzz       readers of strangers' files, 5 s each by atheris; Linux"
	@echo "make drills     faults in real runs, each carried on and compared; needs root; docs/drills.md"
	@echo "make demo-page  docs/demo.md and the pictures of the page, from what make demo left"
	@echo "make docs       the site, build/site/index.html; warnings are errors"
	@echo "make lint       ruff and mypy;  make format  rewrites with ruff"
	@echo "make gpu-check  GPU tests, benchmarks, a short training in 6 minutes; PYTHON=... runs it"
	@echo "make setup      only set up $(VENV);  make lock  pins what it holds;  make clean  removes caches"

setup: $(STAMP)

# Torch first, alone: the pinned DeepSpeed is built from source against it and may not replace it.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1), but sdevid needs Python 3.11 or newer; run make PYTHON=python3.12" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $$($(call LOCKED,setuptools)) $$($(call LOCKED,wheel)) $$($(call LOCKED,torch))
	if ! command -v nvidia-smi >/dev/null; then export DS_ACCELERATOR=cpu; fi; \
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --no-build-isolation -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

TRAIN := $(BIN)/python -m sdevid train --config
OU := run_dir=$(DEMO_RUN)-ou data=$(DEMO_DATA)/ou sde.noise=additive max_clips=32000 save_every=3200
BLOBS := $(DEMO_DATA)/brownian
TRAIN_BLOBS := run_dir=$(DEMO_RUN)-blobs data=$(BLOBS) max_clips=2400 save_every=600
DRAW_BLOBS := tools/make_shards.py --dataset brownian --num_clips 660 --clip_length 25 --fps 6
ONE_PROCESS := --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no
# $(call beside,LOG,FIRST,SECOND): FIRST in the background, a process group of its own with its log
# in LOG, while SECOND is shown; fails if either does, and ends FIRST where it is ended.
beside = mkdir -p $(dir $(1)) && { set -m; { $(2); } >$(1) 2>&1 & other=$$!; set +m; \
  trap 'kill -- -$$other 2>/dev/null' INT TERM; ( $(3) ) && wait $$other || \
  { kill -- -$$other 2>/dev/null; tail -n 5 $(1) >&2; exit 1; }; }
# $(call measured,RUN): whether the results are of the newest checkpoint, which is not measured again.
measured = [ $(1)/results.json -nt $(1)/latest ]
# $(call measure,RUN): its samples, its results and its page.
measure = { $(call measured,$(1)) || { ACCELERATE_USE_CPU=true $(BIN)/accelerate launch $(ONE_PROCESS) -m sdevid.sample \
    --model_path $(1) --output_dir $(1)/samples --num_samples 6 --num_frames 64 && \
  $(BIN)/python -m sdevid evaluate --model_path $(1) --output $(1)/results.json; }; } && \
  $(BIN)/python -m sdevid report $(1)
MEASURE_BLOBS = { $(call measured,$(DEMO_RUN)-blobs) || { \
  $(BIN)/python -m sdevid law $(DEMO_RUN)-blobs --films $(BLOBS) --calibrate $(DEMO_RUN)-blobs/calibrated \
    --output $(DEMO_RUN)-blobs/law.json && \
  $(BIN)/python -m sdevid evaluate --model_path $(DEMO_RUN)-blobs --output $(DEMO_RUN)-blobs/results.json \
    --metrics futures,prediction --num_clips 32; }; } && \
  $(BIN)/python -m sdevid report $(DEMO_RUN)-blobs

# Two discs, one in a double well and one that follows an OU process, then blobs in Brownian motion;
# on two cores: two trainings beside one and its measuring, then the measuring of the two.
demo: $(STAMP)
	$(BIN)/python $(DRAW) --dataset double-well --output_dir $(DEMO_DATA)/double-well
	$(BIN)/python $(DRAW) --dataset ou --output_dir $(DEMO_DATA)/ou
	$(BIN)/python $(DRAW_BLOBS) --splits train=0.9,val=0.1 --output_dir $(BLOBS)
	$(call beside,$(DEMO_RUN)-ou/train.log,\
	  $(TRAIN) configs/demo.yaml $(OU) && $(TRAIN) configs/brownian.yaml $(TRAIN_BLOBS),\
	  $(TRAIN) configs/demo.yaml run_dir=$(DEMO_RUN) data=$(DEMO_DATA)/double-well && $(call measure,$(DEMO_RUN)))
	$(call beside,$(DEMO_RUN)-ou/measure.log,$(call measure,$(DEMO_RUN)-ou),$(MEASURE_BLOBS))
	@echo "Done. Open $(DEMO_RUN)/report.html (the double well), $(DEMO_RUN)-ou/report.html and"
	@echo "$(DEMO_RUN)-blobs/report.html: what was learnt, measured beside the truth. Videos are in"
	@echo "$(DEMO_RUN)/samples and $(DEMO_RUN)-ou/samples."

check: lint
	$(BIN)/python -m pytest -q -m smoke tests/test_smoke.py
	$(BIN)/python -m pytest -q tests/test_rooms.py tests/cli

# By two processes in an order that changes with each commit and is the same on every machine;
# TEST_OPTIONS= for one process in the files' order.
TEST_OPTIONS ?= -n 2 --dist loadfile --random-order-seed=$(or $(shell git rev-parse --short HEAD 2>/dev/null),0)
test: $(STAMP)
	$(BIN)/python -m pytest $(TEST_OPTIONS) -m "not (slow or gpu or slurm or browser or extra or weights)"

# SLOW=FOLDER for that folder's alone, SLOW=--ignore=FOLDER for the others.
SLOW ?= tests
test-slow: $(STAMP)
	$(BIN)/python -m pytest $(SLOW) -m "(slow or slurm or browser) and not (gpu or extra or weights)" --durations=15

fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/fuzz.py --seconds 5 --seed 1

# Kills, hangs, a torn shard, a full disk: needs root, for a tmpfs.
drills: $(STAMP)
	$(BIN)/python tests/drills/table.py --output docs/drills.md

docs: $(STAMP)
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/site
	@echo "open build/site/index.html"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:
	{ echo "# Exact versions for Python 3.11 to 3.13, written by make lock from a tested $(VENV)."; \
	  $(BIN)/python -m pip freeze --all --exclude-editable | grep -vE '^(pip|sdevid)( |=)' | \
	  sed -E -e 's/^(torch==[0-9.]+)\+.*/\1/' -e "s/^((atheris|triton|xformers)==.*)/\1; sys_platform == 'linux'/"; \
	} > requirements.lock.new
	mv requirements.lock.new requirements.lock

# Uses PYTHON where it is given, as on a GPU node that has torch already, and installs nothing.
GPU_PYTHON = $(if $(filter command environment,$(firstword $(origin PYTHON))),$(PYTHON),$(BIN)/python)
gpu-check:
	$(GPU_PYTHON) tools/gpu_check.py

# Of what `make demo` left: docs/demo.md, and the pictures, which need chromium and chromium-driver.
demo-page: $(STAMP)
	$(BIN)/python tools/demo_page.py $(DEMO_RUN) $(DEMO_RUN)-ou
	$(BIN)/python tools/screenshots.py $(DEMO_RUN)

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find sdevid kernels tools tests -name __pycache__ -type d -prune -exec rm -rf {} +
