"""Reading DeepSpeed's files as data: torch.load without running what a pickle may hold."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch

from sdevid.errors import UserError


def allowed_classes() -> list[Any]:
    """List the classes beside tensors and containers that DeepSpeed's ZeRO files hold."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, ZeroStageEnum, fragment_address]


@contextmanager
def data_only(*, trusted: bool = False) -> Iterator[None]:
    """Make every torch.load in this context, DeepSpeed's too, read with `weights_only=True`.

    DeepSpeed asks for weights_only=False at each of its reads. With `trusted` nothing is changed.
    Raises UserError where a file holds anything but tensors, plain containers and
    `allowed_classes`.
    """
    if trusted:
        yield
        return
    unrestricted = torch.load

    def load(file: Any, *args: Any, **options: Any) -> Any:
        return unrestricted(file, *args, **options | {"weights_only": True})

    torch.load = cast(Any, load)
    try:
        with torch.serialization.safe_globals(allowed_classes()):
            yield
    except pickle.UnpicklingError as error:
        raise UserError(
            "a checkpoint's file holds more than data and is not read, since it could run a "
            f"command: {_named(error)}; if you made it yourself, --trust-checkpoint reads it"
        ) from error
    finally:
        torch.load = unrestricted


def read(path: Path, *, trusted: bool = False) -> Any:
    """Read one file on the CPU. Raises UserError where it holds more than data."""
    with data_only(trusted=trusted):
        return torch.load(path, map_location="cpu", weights_only=not trusted)


def _named(error: pickle.UnpicklingError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line]
    return (lines or [str(error).splitlines()[0]])[0][:200]
