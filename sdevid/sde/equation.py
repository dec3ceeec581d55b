"""An SDE as its coefficients, and the change between Ito's and Stratonovich's calculus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sdevid.errors import NonFiniteError, UserError

Calculus = Literal["ito", "stratonovich"]
Noise = Literal["additive", "diagonal"]
Field = Callable[[Tensor, Tensor], Tensor]  # (t, z) -> like z; t is (batch, 1, ...), units of time


class Rates(NamedTuple):
    """The coefficients at one time and state."""

    drift: Tensor  # of the controlled SDE, latent units per unit of time
    diffusion: Tensor  # g, latent units per sqrt(unit of time)
    energy: Tensor  # 1/2 |u|^2, nats per unit of time, (batch,)


@dataclass(frozen=True)
class SDE:
    """dz = [h(t, z) + g(t, z) u(t, z)] dt + g(t, z) dW, diagonal noise.

    `calculus` is the one that the drift is written in. `noise` is "additive" where g does not
    depend on z. `tensors` are the parameters and conditions that the fields close over: the
    gradients that solve again instead of storing (gradient="reversible") need them named.
    """

    drift: Field
    diffusion: Field
    control: Field | None = None
    calculus: Calculus = "ito"
    noise: Noise = "diagonal"
    tensors: tuple[Tensor, ...] = ()

    def rates(self, t: Tensor, z: Tensor) -> Rates:
        """Evaluate the coefficients at `t` and `z`, in the type of `z`."""
        drift = self.drift(t, z).to(z.dtype).expand_as(z)
        g = self.diffusion(t, z).to(z.dtype).expand_as(z)
        if self.control is None:
            return Rates(drift, g, z.new_zeros(len(z)))
        u = self.control(t, z).to(z.dtype)
        return Rates(torch.addcmul(drift, g, u), g, 0.5 * u.square().flatten(1).sum(1))

    def diffusion_slope(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate g and dg_i/dz_i, by autograd."""
        differentiable = z.requires_grad or self.diffusion(t, z).requires_grad
        differentiable = differentiable and torch.is_grad_enabled()
        with torch.enable_grad():
            at = z if z.requires_grad else z.detach().requires_grad_()
            g = self.diffusion(t, at).to(z.dtype).expand_as(z)
            if not g.requires_grad:
                return g, torch.zeros_like(z)
            (slope,) = torch.autograd.grad(
                g.sum(), at, create_graph=differentiable, retain_graph=True, allow_unused=True
            )
        slope = torch.zeros_like(z) if slope is None else slope
        return (g, slope) if differentiable else (g.detach(), slope)

    def written_in(self, calculus: Calculus) -> SDE:
        """Rewrite the same process with its drift in `calculus`.

        The Stratonovich drift is Ito's less 1/2 g dg/dz (Kloeden & Platen 1992, section 4.9).
        """
        if calculus == self.calculus:
            return self
        if self.noise == "additive":
            return replace(self, calculus=calculus)
        sign = -0.5 if calculus == "stratonovich" else 0.5

        def corrected(t: Tensor, z: Tensor) -> Tensor:
            g, slope = self.diffusion_slope(t, z)
            return self.drift(t, z) + sign * g * slope

        return replace(self, drift=corrected, calculus=calculus)


def check_fields(sde: SDE, t: Tensor, z: Tensor) -> None:
    """Raise UserError where a coefficient does not fit the state `z`, or g is 0 or not finite."""
    if sde.calculus not in ("ito", "stratonovich"):
        raise UserError(f"calculus is {sde.calculus!r}; give 'ito' or 'stratonovich'")
    fields = {"drift": sde.drift, "diffusion": sde.diffusion, "control": sde.control}
    for name, field in fields.items():
        if field is None:
            continue
        value = field(t, z)
        if name == "diffusion" and value.dim() > z.dim():
            raise UserError(
                f"diffusion has shape {tuple(value.shape)} for a state of shape {tuple(z.shape)}: "
                "non-diagonal noise is out of scope; give one value of g a component"
            )
        check_coefficient(name, value, z)


def check_coefficient(name: str, value: Tensor, z: Tensor) -> None:
    """Raise UserError where `value` does not fit `z`, is not finite, or is a diffusion of 0.

    Waits for the device, so nothing but the fit is looked at while a CUDA graph is captured.
    """
    check_fits(name, value, z)
    if value.is_cuda and torch.cuda.is_current_stream_capturing():
        return
    if not bool(value.isfinite().all()):
        raise NonFiniteError(f"{name} holds a NaN or an infinity; check its network")


def check_fits(name: str, value: Tensor, z: Tensor) -> None:
    """Raise UserError where `value` does not broadcast to `z`, is elsewhere, or a diffusion of 0.

    Waits for no device: on CUDA a diffusion of 0 ends the process at the next kernel.
    """
    if value.device != z.device:
        raise UserError(f"{name} is on {value.device} but the state is on {z.device}; move one")
    try:
        value.expand_as(z)
    except RuntimeError as error:
        raise UserError(
            f"{name} has shape {tuple(value.shape)}, which does not broadcast to the state's "
            f"{tuple(z.shape)}"
        ) from error
    if name != "diffusion":
        return
    if value.is_cuda:
        torch._assert_async((value != 0).all(), "diffusion holds a zero")
    elif not value.is_meta and not bool(value.all()):
        raise UserError(
            "diffusion is 0 somewhere, but the path KL compares noises of g > 0; "
            "use a floor such as g = 0.01 + softplus(.)"
        )
