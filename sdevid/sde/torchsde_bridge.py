"""Our SDE and our Brownian path as torchsde's: an oracle for the tests, adaptive steps to sample.

The only file that knows torchsde.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sdevid import types
from sdevid.errors import UserError
from sdevid.sde.equation import SDE
from sdevid.sde.noise import Brownian

_METHODS = {"ito": "milstein", "stratonovich": "heun"}


class _Equation:
    """torchsde's protocol: states are (batch, components), time is a scalar."""

    def __init__(self, sde: SDE, shape: torch.Size, noise_type: str) -> None:
        self.sde, self.shape = sde, shape
        self.sde_type, self.noise_type = sde.calculus, noise_type

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return self.sde.rates(*self._ours(t, y)).drift.flatten(1)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        time, z = self._ours(t, y)
        g = self.sde.diffusion(time, z).expand_as(z).flatten(1)
        return g.diag_embed() if self.noise_type == "additive" else g

    def _ours(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z = y.view(self.shape)
        return t.expand(len(z)).view(-1, *[1] * (z.dim() - 1)), z


class _Path:
    """Our Brownian path asked by float seconds, which are rounded to the nearest tick."""

    levy_area_approximation = "space-time"

    def __init__(self, noise: Brownian, like: Tensor) -> None:
        self.noise, self.like = noise, like
        self.shape = (len(noise.serial), noise.size)
        self.dtype, self.device = like.dtype, like.device

    def __call__(self, ta: float | Tensor, tb: float | Tensor, **wanted: bool) -> Any:
        points = [round(float(t) * types.TICKS_PER_SECOND) for t in (ta, tb)]
        ticks = torch.tensor([points]).expand(self.shape[0], -1)
        moved = self._flat(self.noise.increments(ticks))
        return (moved, self._flat(self.noise.areas(ticks))) if wanted.get("return_U") else moved

    def _flat(self, steps: Tensor) -> Tensor:
        return steps[:, 0].flatten(1).to(self.like)


def integrate(
    sde: SDE,
    start: Float[Tensor, "batch *shape"],
    ticks: Int64[Tensor, "batch points"],
    noise: Brownian,
    method: str | None = None,
    **options: Any,
) -> Float[Tensor, "batch points *shape"]:
    """States at `ticks` by torchsde's `sdeint`, along our Brownian path.

    `method` is torchsde's name (Milstein for Ito, Heun for Stratonovich by default); `options` go
    to it: `dt` in seconds, or `adaptive=True` with `rtol`, `atol` and `dt_min`. Adaptive steps end
    between ticks, where W is taken at the nearest one (6.5 microseconds off at most). Raises
    UserError where the clips have different times: torchsde takes one grid for a batch.
    """
    import torchsde

    if not bool((ticks == ticks[:1]).all()):
        raise UserError(
            "torchsde takes one time grid for a batch, but the clips' ticks differ; "
            "solve clips of equal times together, or use one of our solvers"
        )
    noise_type = "additive" if method == "srk" and sde.noise == "additive" else "diagonal"
    ys: Tensor = torchsde.sdeint(
        _Equation(sde, start.shape, noise_type),
        start.flatten(1),
        types.seconds(ticks[0]).to(start),
        bm=_Path(noise, start),
        method=method or _METHODS[sde.calculus],
        **options,
    )
    return ys.transpose(0, 1).reshape(len(start), -1, *start.shape[1:])


def sample_adaptively(
    sde: SDE,
    start: Float[Tensor, "batch *shape"],
    ticks: Int64[Tensor, "batch points"],
    noise: Brownian,
    tolerance: float = 1e-3,
) -> Float[Tensor, "batch points *shape"]:
    """States at `ticks` with steps chosen by step doubling, for sampling: no gradient, no KL.

    `tolerance` is both relative and, in latent units, absolute.
    """
    frame = float(types.seconds(ticks[0].diff()).min())
    states = [start]
    with torch.no_grad():
        for k in range(ticks.shape[1] - 1):  # torchsde interpolates at inner times
            ends = integrate(
                sde,
                states[-1],
                ticks[:, k : k + 2],
                noise,
                adaptive=True,
                dt=frame / 2,
                dt_min=frame / 1024,
                rtol=tolerance,
                atol=tolerance,
            )
            states.append(ends[:, 1])
    return torch.stack(states, 1)
