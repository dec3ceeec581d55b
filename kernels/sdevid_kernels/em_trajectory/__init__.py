"""A whole Euler-Maruyama chain with SiLU networks as drift and control."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sdevid_kernels import philox, runtime
from sdevid_kernels.em_step import em_step
from sdevid_kernels.em_trajectory import by_hand, door, reference
from sdevid_kernels.em_trajectory.reference import Diffusion, Network, Posterior, Trajectory

Key = tuple[int, Tensor, Tensor]  # seed, clip serials (clips,), cells of the path (steps, clips)


def em_trajectory(
    z: Tensor,
    drift: Network,
    drift_shift: Tensor,
    diffusion: Tensor | Diffusion,
    posterior: Posterior | None,
    dt: Tensor,
    noise: Key | Tensor,
    saved: Sequence[int] | None = None,
    setting: runtime.Setting = "auto",
) -> Trajectory:
    """The reference's chain. `noise`: dW (steps, rows, d), or the key of cells that steps span.

    Rows of a clip are neighbours and its components count on through them. With Triton one launch
    forward and one backward where the networks fit (`why_not`), else a launch of em_step a step; on
    a CPU a backward pass by hand; `setting` "reference" is autograd. Raises ValueError where a
    shape, device, time, g or setting does not fit.
    """
    door.check(z, drift, drift_shift, diffusion, posterior, dt, noise, saved)
    diffusion = reference.settled(diffusion)
    fused = runtime.backend(z.device, setting) == "triton"
    refused = why_not(z, drift, posterior, dt, noise, diffusion, saved)
    if fused and refused is None and isinstance(diffusion, Tensor):
        from sdevid_kernels.em_trajectory import kernel

        if posterior is not None and len(posterior.shifts) == 1:
            posterior = posterior._replace(shifts=posterior.shifts.expand(len(dt), -1, -1))
        return kernel.run(z, drift, drift_shift, diffusion, posterior, dt, noise)
    dw = noise if isinstance(noise, Tensor) else _increments(z, dt, noise)
    given = (z, drift, drift_shift, diffusion, posterior, dt, dw, saved)
    if fused:
        return reference.em_trajectory(*given, step=partial(em_step, setting=setting))
    if setting == "reference" or z.device.type != "cpu":
        return reference.em_trajectory(*given)
    return by_hand.em_trajectory(*given)


def why_not(
    z: Tensor,
    drift: Network,
    posterior: Posterior | None,
    dt: Tensor,
    noise: Key | Tensor,
    diffusion: Tensor | Diffusion | None = None,
    saved: Sequence[int] | None = None,
) -> str | None:
    """Why the fused kernel does not take these networks; None where it does."""
    networks = [drift] if posterior is None else [drift, posterior.network]
    tokens = 1 if isinstance(noise, Tensor) else len(z) // len(noise[1])
    size, hidden = z.shape[1], len(drift.first)
    if z.dtype != torch.float32:
        return f"the state is {z.dtype}, not float32"
    if isinstance(diffusion, Diffusion) and diffusion.slope is not None:
        return "g depends on the state"
    if posterior is not None and posterior.unit is not None:
        return "the control is read in latent units"
    if saved is not None:
        return "only some states are asked for"
    if any(network.hidden for network in networks):
        return "a network has more than one hidden layer"
    if any(len(network.first) != hidden for network in networks):
        return "drift and control differ in hidden width"
    if size > 256 or hidden > 512:
        return f"a state of {size} or a hidden layer of {hidden} passes 256 or 512"
    if z.is_cuda and size > 64:
        about = torch.cuda.get_device_properties(z.device)
        room = getattr(about, "shared_memory_per_block_optin", 2**20)
        if room < 131_072:  # what the backward pass takes for 256 components
            return f"{size} components need 128 KiB of shared memory a block, here are {room >> 10}"
    if len(dt) * len(z) * max(size, 2 * hidden) >= 2**31:
        return "the chain is too long for 32-bit places"
    if tokens > 1 and size % 4:
        return f"a map of {size} channels, which is no multiple of 4"
    return None


def _increments(z: Tensor, dt: Tensor, key: Key) -> Tensor:
    seed, serial, place = key
    tokens = len(z) // len(serial)
    eps = philox.normals(seed, serial, place.t(), tokens * z.shape[1])
    return eps.transpose(0, 1).reshape(len(dt), *z.shape) * dt.sqrt()[..., None]
