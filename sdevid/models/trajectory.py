"""The backbone's path as a problem for `sde.solve`, in every form that a solver takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.backbone import Conditions, Control, Prior, State
from sdevid.models.bridge_conditioning import BridgeTerm
from sdevid.sde import second_order, solve, stepwise
from sdevid.sde.equation import SDE
from sdevid.sde.noise import Brownian
from sdevid.sde.problem import (
    Coefficients,
    Network,
    Path,
    Posterior,
    Problem,
    SiluForm,
    Step,
)
from sdevid.types import TICKS_PER_UNIT

Controls = tuple[Tensor, ...]  # one condition a step


@dataclass(frozen=True)
class Drive:
    """What moves the state: the prior, and what steers it.

    `bridge` gives what observed frames ahead add to the drift at some ticks. Guidance is a control:
    with u = (scale - 1) (h - h') / g the drift is h' + scale (h - h'), where h' is the drift under
    the `other` conditions; Girsanov's theorem gives its cost.
    """

    prior: Prior
    conditions: Conditions
    control: tuple[Control, Controls] | None = None
    bridge: Callable[[Int64[Tensor, "batch times"]], BridgeTerm] | None = None
    other: Conditions | None = None
    guidance_scale: float = 1.0

    def step(
        self,
        z: State,
        term: BridgeTerm | None,
        condition: Tensor | None,
        temperature: float = 1.0,
    ) -> Step:
        """Evaluate the coefficients at `z`, g times the temperature.

        `condition` is the control's there.
        """
        drift, g = self.prior(z, self.conditions, term)
        g = temperature * g if temperature != 1 else g
        if self.control is not None:
            return Step(drift, g, *self.control[0](z, condition, drift, g))
        if self.other is None:
            return Step(drift, g)
        apart = drift - self.prior(z, self.other, term)[0]
        return Step(drift, g, (self.guidance_scale - 1) * apart / g)

    def coefficients(self, ticks: Int64[Tensor, "batch points"]) -> Coefficients:
        """Build the coefficients of the chain along `ticks`."""
        controls = None if self.control is None else self.control[1]

        @cache
        def terms() -> list[BridgeTerm] | None:
            return None if self.bridge is None else self.bridge(ticks[:, :-1]).unbind()

        def at(z: State, k: int) -> Step:
            term = terms()
            condition = None if controls is None else controls[k]
            return self.step(z, None if term is None else term[k], condition)

        return at

    def fields(
        self, ticks: Int64[Tensor, "batch points"], noise: str, temperature: float = 1.0
    ) -> SDE:
        """Build the coefficients of an SDE along `ticks`.

        A control's condition holds for its step of `ticks`; r is 1.
        """
        fields = _Fields(self, ticks, temperature)
        steered = self.control is not None or self.other is not None
        return SDE(
            drift=lambda t, z: fields.step(t, z).drift,
            diffusion=lambda t, z: fields.step(t, z).diffusion,
            control=fields.control if steered else None,
            noise="diagonal" if noise == "diagonal" else "additive",
            tensors=fields.tensors(),
        )

    def silu(self) -> SiluForm | str:
        """Give the coefficients as weights of SiLU networks, or say why they cannot be."""
        if self.bridge is not None:
            return "frames ahead make the drift depend on time"
        if self.other is not None:
            return "guidance compares two drifts"
        if self.prior.unlayered:
            return self.prior.unlayered
        drift = silu_layers(self.prior.drift, self.conditions.drift)
        if isinstance(drift, str):
            return f"of the drift: {drift}"
        law = self.prior.diffusion_law(self.conditions)
        if self.control is None:
            return SiluForm(*drift, law)
        control, controls = self.control
        steered = silu_layers(control.network, torch.stack(controls))
        if isinstance(steered, str):
            return f"of the control: {steered}"
        return SiluForm(*drift, law, Posterior(*steered, control.reading))


class _Fields:
    """Coefficients of a drive at a time; evaluates each state once and keeps the last one's."""

    def __init__(self, drive: Drive, ticks: Tensor, temperature: float) -> None:
        self.drive, self.ticks, self.temperature = drive, ticks.contiguous(), temperature
        control = drive.control
        self.controls = None if control is None else torch.stack(control[1], 1)
        self._key: tuple[Tensor, Tensor, bool] | None = None
        self._step: Step

    def step(self, t: Tensor, z: State) -> Step:
        key = (t, z, torch.is_grad_enabled())
        if self._key is None or any(a is not b for a, b in zip(self._key, key, strict=True)):
            self._step, self._key = self._at(t, z), key
        return self._step

    def control(self, t: Tensor, z: State) -> State:
        control = self.step(t, z).control
        assert control is not None
        return control

    def tensors(self) -> tuple[Tensor, ...]:
        """List the parameters and conditions that the coefficients close over."""
        drive = self.drive
        tensors = [*drive.prior.drift.parameters(), *drive.conditions]
        if drive.control is not None:
            tensors += [*drive.control[0].network.parameters(), self.controls]
        return tuple(tensor for tensor in tensors if tensor is not None)

    def _at(self, t: Tensor, z: State) -> Step:
        at = (t.flatten(1).double() * TICKS_PER_UNIT).round().long()
        term = self.drive.bridge(at).unbind()[0] if self.drive.bridge is not None else None
        if self.controls is None:
            return self.drive.step(z, term, None, self.temperature)
        step = torch.searchsorted(self.ticks, at, right=True)[:, 0] - 1
        step = step.clamp(0, self.ticks.shape[1] - 2)
        rows = torch.arange(len(step), device=step.device)
        return self.drive.step(z, term, self.controls[rows, step], self.temperature)


def silu_layers(network: nn.Module, condition: Tensor) -> tuple[Network, Tensor] | str:
    """Give the network's SiLU layers and the shift of the first, or say why it has none."""
    layers = getattr(network, "silu_layers", None)
    if layers is None:
        return f"{type(network).__name__} does not give its weights as layers of SiLU"
    stack: tuple[Network, Tensor] | str = layers(condition)
    return stack


def problem(
    config: Config,
    start: State,
    ticks: Int64[Tensor, "batch points"],
    noise: Brownian | Float[Tensor, "batch steps *driven"],
    saved: list[int] | None,
    drive: Drive,
) -> Problem:
    """Pose the drive's path from `start`, solved as `config.sde` says, kept at points `saved`."""
    sde = config.sde
    gathers = "ZeRO 3 gathers weights as their own modules are called"
    silu = gathers if config.zero_stage == 3 else drive.silu()
    return Problem(
        scheme=sde.solver,
        gradient=sde.gradient if torch.is_grad_enabled() else "backprop",
        start=start,
        ticks=ticks,
        noise=noise,
        coefficients=drive.coefficients(ticks),
        saved=saved,
        kernels=sde.kernels,
        order=sde.order,
        silu=silu,
        fields=drive.fields(ticks, sde.noise),
    )


def solved(
    config: Config,
    start: State,
    ticks: Int64[Tensor, "batch points"],
    noise: Brownian | Float[Tensor, "batch steps *driven"],
    saved: list[int],
    drive: Drive,
) -> Path:
    """Solve the drive's path by the first solver that takes it; return it at points `saved`."""
    return solve.solve(problem(config, start, ticks, noise, saved, drive))


def step_of(config: Config) -> Callable[[State, Tensor, Tensor, float, Tensor], State]:
    """Build the chain's step without control, (z, drift, diffusion, dt, dW) to the next state."""
    return second_order.prior_step if config.sde.order == 2 else stepwise.prior_step


def training_choice(config: Config, device: torch.device, clips: int) -> solve.Choice:
    """Choose the solver for the paths of `clips` clips at once in training on `device`.

    Raises UserError where none takes them, or `sde.kernels` cannot run there.
    """
    sde, features = config.sde, config.encoder.features
    sides = config.map_shape if sde.latent == "map" else None
    shape = sides or ()
    with torch.device("meta"):
        calculus = config.sde_type == "stratonovich"
        prior = Prior(sde, features, sides=sides, stratonovich=calculus)
        control = Control(sde, features)
        content = torch.empty(1, sde.content_size, *(shape if sde.content == "map" else ()))
        summary = torch.empty(1, math.prod(shape), features)
        conditions = prior.conditions(content, summary)
        tokens = torch.empty(1, 1, math.prod(shape), features)
        steered = control, control.conditions(tokens, sides)
    drive = Drive(prior, conditions, steered, _unasked if config.observation.ahead else None)
    points = (config.sequence_length - 1) * sde.steps_per_frame + 1
    ticks = torch.zeros(clips, points, dtype=torch.int64)
    start = torch.empty(clips, sde.state_size, *shape, device=device)
    serial = torch.arange(clips, device=device)
    noise = Brownian(0, serial, (sde.latent_size, *shape), cell=1)
    return solve.choose(problem(config, start, ticks, noise, None, drive))


def _unasked(ticks: Tensor) -> BridgeTerm:
    raise NotImplementedError(f"no path is solved along {tuple(ticks.shape)} ticks on meta tensors")
