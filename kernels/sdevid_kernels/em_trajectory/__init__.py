"""A whole Euler-Maruyama chain with SiLU networks as drift and control."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdevid_kernels import philox, runtime
from sdevid_kernels.em_trajectory import cpu, door, reference
from sdevid_kernels.em_trajectory.reference import Diffusion, Network, Posterior, Trajectory

SHARED = 65_536  # bytes a block, at most; test_compile.py holds it
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
    finite: bool = True,
) -> Trajectory:
    """Solve the chain of `reference.em_trajectory` by the backend of `z`'s device.

    `noise`: dW (steps, rows, d), or the key of cells that steps span. Rows of a clip are neighbours
    and its components count on through them. With Triton one launch forward and one backward, on a
    CPU one autograd function; `setting` "reference" is autograd. Raises ValueError where a shape,
    device, time, g or setting does not fit, or the kernel does not take the networks (`why_not`);
    without `finite`, a g that is no number makes NaNs of its rows.
    """
    fused = runtime.backend(z.device, setting) == "triton"
    door.check_arguments(z, drift, drift_shift, diffusion, posterior, dt, noise, saved, finite)
    diffusion = reference.settled(diffusion)
    if fused:
        reason = why_not(z, drift, posterior, dt, noise)
        if reason is not None:
            raise ValueError(f"em_trajectory: no kernel takes this chain: {reason}")
        from sdevid_kernels.em_trajectory.triton import operator

        points = None if saved is None else tuple(saved)
        return operator.launch_trajectory(
            z, drift, drift_shift, diffusion, posterior, dt, noise, points
        )
    dw = noise if isinstance(noise, Tensor) else _increments(z, dt, noise)
    arguments = (z, drift, drift_shift, diffusion, posterior, dt, dw, saved)
    if setting == "reference" or z.device.type != "cpu":
        return reference.em_trajectory(*arguments)
    return cpu.em_trajectory(*arguments)


def why_not(
    z: Tensor, drift: Network, posterior: Posterior | None, dt: Tensor, noise: Key | Tensor
) -> str | None:
    """Say why the fused kernel does not take these networks; None where it does."""
    networks = [drift] if posterior is None else [drift, posterior.network]
    tokens = 1 if isinstance(noise, Tensor) else len(z) // len(noise[1])
    size, hidden, depth = z.shape[1], len(drift.first), 1 + len(drift.hidden)
    if z.dtype != torch.float32:
        return f"the state is {z.dtype}, not float32"
    if not len(dt):
        return "there is no step"
    if depth > 3 or any(1 + len(network.hidden) != depth for network in networks):
        return "drift and control have not the same 1, 2 or 3 hidden layers"
    layers = [weight for network in networks for weight, _ in network.hidden]
    if any(len(weight) != hidden for weight in [*layers, *(net.first for net in networks)]):
        return "hidden layers differ in width"
    if size > 256 or hidden > 512:
        return f"a state of {size} or a hidden layer of {hidden} passes 256 or 512"
    if z.is_cuda:
        about = torch.cuda.get_device_properties(z.device)
        room = getattr(about, "shared_memory_per_block_optin", SHARED)
        if room < SHARED:
            return f"it takes {SHARED >> 10} KiB of shared memory a block, here are {room >> 10}"
    if len(dt) * len(z) * max(size, 2 * hidden) >= 2**31:
        return "the chain is too long for 32-bit offsets"
    if tokens > 1 and size % 4:
        return f"a map of {size} channels, which is no multiple of 4"
    return None


def _increments(z: Tensor, dt: Tensor, key: Key) -> Tensor:
    seed, serial, cell = key
    tokens = len(z) // len(serial)
    eps = philox.normals(seed, serial, cell.t(), tokens * z.shape[1])
    return eps.transpose(0, 1).reshape(len(dt), *z.shape) * dt.sqrt()[..., None]
