"""Settings of the device: TF32, cuDNN's choice of algorithm, and the layout of convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sdevid.config import Config


@contextmanager
def backend_flags(config: Config) -> Iterator[None]:
    """Set PyTorch's flags for CUDA as `config` says, and restore them at the end."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = config.tf32
    cudnn.benchmark = config.cudnn_benchmark
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


def is_channels_last(config: Config, device: torch.device) -> bool:
    """Return whether convolutions run with channels last: `auto` is bf16 on CUDA."""
    if config.channels_last == "auto":
        return device.type == "cuda" and config.precision == "bf16"
    return config.channels_last == "on"


def set_channels_last(module: nn.Module) -> None:
    """Give every convolution of pictures its input with channels last in memory.

    The output follows the input, also where ZeRO has laid the weights out anew.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_pre_hook(_channels_last)


def _channels_last(_part: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
    x, *rest = inputs
    return x.contiguous(memory_format=torch.channels_last), *rest
