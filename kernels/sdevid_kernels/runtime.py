"""Which implementation runs: Triton's kernel on CUDA, the torch reference elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

Backend = Literal["triton", "reference"]
Setting = Literal["auto", "triton", "reference"]


def backend(device: torch.device, setting: Setting = "auto") -> Backend:
    """Choose the implementation for tensors on `device`; `setting` forces either.

    Raises ValueError where Triton is asked for and cannot run: on a CPU it runs only under its
    interpreter (TRITON_INTERPRET=1), which is for tests.
    """
    if setting not in ("auto", "triton", "reference"):
        raise ValueError(f"kernels is {setting!r}; give 'auto', 'triton' or 'reference'")
    if setting == "auto":
        return "triton" if device.type == "cuda" and _has_triton() else "reference"
    if setting == "triton" and not _can_run_triton(device):
        raise ValueError(
            f"kernels is 'triton', but the tensors are on {device}; Triton needs CUDA (or, to "
            "test, TRITON_INTERPRET=1): move them, or give 'auto'"
        )
    return setting


def same_device(name: str, state: Tensor, **others: Tensor | None) -> None:
    """Raise ValueError where a tensor lies on another device than `state`."""
    for other, tensor in others.items():
        if tensor is not None and tensor.device != state.device:
            raise ValueError(
                f"{name}: {other} is on {tensor.device} but the state is on {state.device}; "
                "move one of them"
            )


def broadcastable(name: str, state: Tensor, **others: Tensor | None) -> None:
    """Raise ValueError where a tensor does not broadcast to the shape of `state`."""
    for other, tensor in others.items():
        if tensor is None:
            continue
        pairs = zip(reversed(tensor.shape), reversed(state.shape), strict=False)
        if tensor.dim() > state.dim() or any(have not in (1, want) for have, want in pairs):
            raise ValueError(
                f"{name}: {other} has shape {tuple(tensor.shape)}, which does not broadcast to "
                f"the state's {tuple(state.shape)}"
            )


def check_step(
    name: str,
    state: Tensor,
    dt: Tensor,
    noise: tuple[int, Tensor, Tensor] | Tensor,
    diffusions: Mapping[str, Tensor],
    **others: Tensor | None,
) -> None:
    """Raise ValueError where what a step is given does not fit the state, or has a bad value.

    Shapes and devices are looked at each time. Values, dt below 0 and a g of 0 or not finite, are
    on a CPU; on CUDA that would wait for the device each step, so the door of a solve looks at
    them, and a step only with SDEVID_CHECK=1.
    """
    coefficients: dict[str, Tensor | None] = {**others, **diffusions}
    keys = {"noise": noise} if isinstance(noise, Tensor) else {"serial": noise[1], "cell": noise[2]}
    same_device(name, state, **coefficients, dt=dt, **keys)
    broadcastable(name, state, **coefficients, **({} if "serial" in keys else keys))
    for other, tensor in {"dt": dt, **({} if "noise" in keys else keys)}.items():
        if tuple(tensor.shape) != (len(state),):
            raise ValueError(
                f"{name}: {other} has shape {tuple(tensor.shape)}, but there is one of each clip; "
                f"give ({len(state)},)"
            )
    if torch.compiler.is_compiling() or state.is_meta:
        return
    if state.is_cuda and os.environ.get("SDEVID_CHECK") != "1":
        return
    _all(name, "dt", dt, dt >= 0, "give a time of 0 s (which changes nothing) or more")
    for other, g in diffusions.items():
        sound = (g != 0) & g.isfinite()
        _all(name, other, g, sound, "give a finite g above 0, such as 0.01 + softplus(.)")


def _all(name: str, other: str, values: Tensor, sound: Tensor, advice: str) -> None:
    if not bool(sound.all()):
        raise ValueError(f"{name}: {other} holds {float(values[~sound][0]):g}; {advice}")


def _has_triton() -> bool:
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def _can_run_triton(device: torch.device) -> bool:
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return (device.type == "cuda" or interpreted) and _has_triton()
