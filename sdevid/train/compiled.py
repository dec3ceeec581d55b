"""The parts of a model that see frames, compiled for training."""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from typing import cast

import torch
from torch import nn

from sdevid.config import Config
from sdevid.errors import UserError

PARTS = ("encoder", "temporal", "decoder")  # each is called with few shapes, and few times a step


def check_compiler(config: Config, device: torch.device) -> None:
    """Raise UserError where `compile` is on and cannot be used."""
    if not config.compile:
        return
    if config.zero_stage == 3:
        raise UserError(
            "compile is true, but zero_stage is 3, which gathers weights by hooks between modules; "
            "set zero_stage=2 or compile=false"
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError(
            f"compile is true, but on {device} that needs Triton, which does not import here; "
            "install triton or set compile=false"
        )
    variable, usual = ("CC", ("gcc", "clang")) if device.type == "cuda" else ("CXX", ("g++",))
    wanted = [os.environ[variable]] if os.environ.get(variable) else usual
    if not any(shutil.which(name) for name in wanted):
        raise UserError(
            f"compile is true, but on {device} that needs {' or '.join(wanted)}, which PATH does "
            f"not have; install it, let {variable} name another, or set compile=false"
        )


def compile_parts(model: nn.Module) -> None:
    """Compile `PARTS` at their first call, for its shapes; names of parameters stay."""
    # The attention's choice is a pure function, so tracing it anew is as good as its cache.
    warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`")
    packs = cast(Config, model.config).encoder.pack  # with other shapes in every micro-batch
    for part in PARTS:
        if packs and part == "temporal":
            continue
        model.get_submodule(part).compile(dynamic=False)


def compiled_summary(config: Config) -> str:
    """Describe for the start of a run what is compiled; empty where nothing is."""
    if not config.compile:
        return ""
    if config.encoder.pack:
        return "; encoder and decoder compiled, not the temporal encoder (encoder.pack)"
    return "; encoder, temporal encoder and decoder compiled"
