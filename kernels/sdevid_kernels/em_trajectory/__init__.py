"""A whole Euler-Maruyama chain with SiLU networks as drift and control."""

from __future__ import annotations

import torch
from torch import Tensor

from sdevid_kernels import philox, runtime
from sdevid_kernels.em_trajectory import by_hand, reference
from sdevid_kernels.em_trajectory.reference import Network, Posterior, Trajectory

Key = tuple[int, Tensor, Tensor]  # seed, clip serials (clips,), cells of the path (steps, clips)


def em_trajectory(
    z: Tensor,
    drift: Network,
    drift_shift: Tensor,
    diffusion: Tensor,
    posterior: Posterior | None,
    dt: Tensor,
    noise: Key | Tensor,
    setting: runtime.Setting = "auto",
) -> Trajectory:
    """The reference's chain. `noise`: dW (steps, rows, d), or the key of cells that steps span.

    Rows of a clip are neighbours and its components count on through them. On CUDA one launch
    forward and one backward where the networks fit (`why_not`), on a CPU a backward pass by hand;
    `setting` "reference" is autograd. Raises ValueError where a device differs, and where "triton"
    is asked for networks that do not fit.
    """
    given = {"drift_shift": drift_shift, "diffusion": diffusion, "dt": dt, "weight": drift.first}
    runtime.same_device("em_trajectory", z, **given)
    refused = why_not(z, drift, posterior, dt, noise)
    if runtime.backend(z.device, setting) == "triton":
        if refused is None:
            from sdevid_kernels.em_trajectory import kernel

            return kernel.run(z, drift, drift_shift, diffusion, posterior, dt, noise)
        if setting == "triton":
            raise ValueError(f"em_trajectory: {refused}; give 'auto', which then uses em_step")
    dw = noise if isinstance(noise, Tensor) else _increments(z, dt, noise)
    by_autograd = setting == "reference" or z.device.type != "cpu"
    use = reference.em_trajectory if by_autograd else by_hand.em_trajectory
    return use(z, drift, drift_shift, diffusion, posterior, dt, dw)


def why_not(
    z: Tensor, drift: Network, posterior: Posterior | None, dt: Tensor, noise: Key | Tensor
) -> str | None:
    """Why the fused kernel does not take these networks; None where it does."""
    networks = [drift] if posterior is None else [drift, posterior.network]
    tokens = 1 if isinstance(noise, Tensor) else len(z) // len(noise[1])
    size, hidden = z.shape[1], len(drift.first)
    if z.dtype != torch.float32:
        return f"the state is {z.dtype}, not float32"
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
