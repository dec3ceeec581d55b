"""What bench.py times: one training step of a latent SDE in several ways, and its memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

import torch
from sdevid_kernels.em_trajectory import Key, em_trajectory
from sdevid_kernels.em_trajectory.reference import Network, Posterior
from torch import Tensor

from sdevid.sde.equation import SDE
from sdevid.sde.noise import Brownian
from sdevid.sde.problem import Gradient
from sdevid.sde.stepwise import integrate
from sdevid.types import TICKS_PER_UNIT

CELL = 1200  # ticks a step
ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"


class Size(NamedTuple):
    """A latent SDE's shape: rows are clips * tokens."""

    clips: int
    tokens: int
    state: int
    hidden: int
    steps: int
    frames: int = 16


SIZES = {
    "tiny": Size(3, 2, 8, 16, 4, frames=2),  # to rehearse
    "small": Size(32, 1, 64, 256, 32),
    "map": Size(4, 64, 32, 128, 32),
    "medium": Size(64, 1, 256, 512, 64),
}


class Step:
    """One training step of a latent SDE: ELBO with noise and KL, and every gradient."""

    def __init__(self, size: Size) -> None:
        torch.manual_seed(0)
        self.size, self.rows = size, size.clips * size.tokens
        self.drift, self.control = self._network(), self._network()
        self.start = self._leaf(self.rows, size.state)
        self.drift_shift = self._leaf(self.rows, size.hidden)
        self.shifts = self._leaf(size.steps, self.rows, size.hidden)
        self.g = (0.1 + torch.rand(1, size.state, device=DEVICE)).requires_grad_()
        self.target = torch.randn(size.frames, self.rows, size.state, device=DEVICE)
        self.ticks = (torch.arange(size.steps + 1) * CELL).expand(size.clips, -1)
        self.serial = torch.arange(size.clips, device=DEVICE)
        self.cells = (self.ticks[:, :-1] // CELL).t().contiguous().to(DEVICE)
        self.dt = torch.full((size.steps, self.rows), CELL / TICKS_PER_UNIT, device=DEVICE)
        self.noise = Brownian(1, self.serial, (size.tokens, size.state), CELL)
        networks = (self.drift, self.control)
        self.weights = [x for net in networks for x in (net.first, *net.last)]
        self.leaves = [self.start, self.drift_shift, self.shifts, self.g, *self.weights]

    def _leaf(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=DEVICE).requires_grad_()

    def _network(self) -> Network:
        wide, narrow = self.size.hidden, self.size.state
        first = (torch.randn(wide, narrow, device=DEVICE) / narrow**0.5).requires_grad_()
        last = (torch.randn(narrow, wide, device=DEVICE) / wide**0.5).requires_grad_()
        return Network(first, (), (last, torch.zeros(narrow, device=DEVICE).requires_grad_()))

    def finish(self, states: Tensor, kl: Tensor) -> None:
        """Sum the loss of frames' `states` (frames, rows, d) and `kl`, and take all gradients."""
        loss = 0.5 * (states - self.target).square().sum() + kl.sum()
        torch.autograd.grad(loss, self.leaves, allow_unused=True)

    def increments(self) -> Tensor:
        """Draw dW of every step, (steps, rows, state)."""
        dw = self.noise.increments(self.ticks)
        return dw.transpose(0, 1).reshape(self.size.steps, self.rows, self.size.state)

    def ours(self) -> None:
        """Run em_trajectory as it is chosen on this device, noise included."""
        self.finish(*self.solve())

    def solve(self) -> tuple[Tensor, Tensor]:
        """Solve by em_trajectory; return the states at frames and each row's KL."""
        key: Key | Tensor = (1, self.serial, self.cells) if ON_GPU else self.increments()
        posterior = Posterior(self.control, self.shifts)
        arguments = (self.start, self.drift, self.drift_shift, self.g, posterior, self.dt, key)
        each = self.size.steps // self.size.frames
        trajectory = em_trajectory(*arguments, saved=range(each, self.size.steps + 1, each))
        return trajectory.states, trajectory.energy

    def eager(self) -> None:
        """Run the plain loop, by autograd."""
        self.finish(*self.loop(self.increments()))

    def loop(self, dw: Tensor) -> tuple[Tensor, Tensor]:
        """Step the chain in a plain loop; return the states at frames and each row's KL."""
        z, kl, kept = self.start, torch.zeros(self.rows, device=DEVICE), []
        each = self.size.steps // self.size.frames
        d = CELL / TICKS_PER_UNIT
        for k, shift in enumerate(self.shifts.unbind(0)):
            h, u = self.drift(z, self.drift_shift), self.control(z, shift)
            kl = kl + 0.5 * u.square().sum(1) * d
            z = z + (h + self.g * u) * d + self.g * dw[k]
            if (k + 1) % each == 0:
                kept.append(z)
        return torch.stack(kept), kl

    def products(self) -> Callable[[], None]:
        """Build a run of such a step's matrix products alone, preallocated."""
        size, networks = (
            self.size,
            [(n.first.detach(), n.last[0].detach()) for n in (self.drift, self.control)],
        )
        z, x = torch.randn_like(self.start), torch.randn(self.rows, size.hidden, device=DEVICE)
        to_x, to_z = torch.empty_like(x), torch.empty_like(z)
        to_first, to_last = torch.empty_like(networks[0][0]), torch.empty_like(networks[0][1])

        def run() -> None:
            for _ in range(size.steps):
                for first, last in networks:
                    torch.mm(z, first.t(), out=to_x)
                    torch.mm(x, last.t(), out=to_z)
            for _ in range(size.steps):
                for first, last in networks:
                    torch.mm(z, last, out=to_x)
                    torch.mm(z.t(), x, out=to_last)
                    torch.mm(x, first, out=to_z)
                    torch.mm(x.t(), z, out=to_first)

        return run

    def torchsde(self, adjoint: bool) -> None:
        """Run torchsde's Euler with its KL in an extra component, by autograd or by its adjoint.

        The adjoint leaves out the shifts' gradients, which would be part of its state at each step.
        """
        import torchsde

        model = _ForTorchsde(self)
        wide = torch.cat([self.start, self.start.new_zeros(self.rows, 1)], 1)
        frames = torch.linspace(0, self.size.steps, self.size.frames + 1, device=DEVICE)
        run = torchsde.sdeint_adjoint if adjoint else torchsde.sdeint
        named = (self.drift_shift, self.g, *self.weights)
        more = {"adjoint_params": named} if adjoint else {}
        d = CELL / TICKS_PER_UNIT
        states = run(model, wide, frames * d, method="euler", dt=d, **more)
        self.finish(states[1:, :, :-1], states[-1, :, -1])


class _ForTorchsde(torch.nn.Module):
    sde_type, noise_type = "ito", "diagonal"

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step, self.seen = step, step.shifts.unbind(0)
        self.nothing = step.start.new_zeros(step.rows, 1)

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        step, z = self.step, y[:, :-1]
        k = min(int(float(t) * TICKS_PER_UNIT / CELL + 0.5), step.size.steps - 1)
        u = step.control(z, self.seen[k])
        total = step.drift(z, step.drift_shift) + step.g * u
        return torch.cat([total, 0.5 * u.square().sum(1, keepdim=True)], 1)

    def g(self, _t: Tensor, _y: Tensor) -> Tensor:
        return torch.cat([self.step.g.expand_as(self.step.start), self.nothing], 1)


def memory_of(gradient: str, steps: int) -> float:
    """Measure the megabytes above the start that a training step of 128 rows of 128 takes.

    The hidden layers have 256 units.
    """
    step = Step(Size(128, 1, 128, 256, steps))
    shift = step.shifts[0].detach()
    shift.requires_grad_()
    leaves = [step.start, step.drift_shift, step.g, shift, *step.weights]

    way = cast(Gradient, gradient)

    def run(count: int) -> None:
        saves = sorted({count * frame // step.size.frames for frame in range(step.size.frames + 1)})
        if gradient == "em_trajectory":
            posterior = Posterior(step.control, shift[None])
            arguments = (
                step.start,
                step.drift,
                step.drift_shift,
                step.g,
                posterior,
                step.dt[:count],
            )
            key = (1, step.serial, step.cells[:count]) if ON_GPU else step.increments()[:count]
            trajectory = em_trajectory(*arguments, key, saved=saves)
            torch.autograd.grad(trajectory.states[-1].square().sum(), leaves)
            return
        sde = SDE(
            lambda _t, z: step.drift(z, step.drift_shift),
            lambda _t, z: step.g.expand_as(z),
            lambda _t, z: step.control(z, shift),
            calculus="stratonovich",
            noise="additive",
            tensors=tuple(leaves[1:]),
        )
        noise = Brownian(1, step.serial, (step.size.state,), CELL)
        path = integrate(
            sde, step.start, step.ticks[:, : count + 1], noise, "reversible_heun", saves, way
        )
        torch.autograd.grad(path.states[:, -1].square().sum(), leaves)

    run(2)  # what is loaded once is not counted
    if ON_GPU:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(steps)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text(
        "5", encoding="utf-8"
    )  # the peak starts again from what is resident
    before = _peak()
    run(steps)
    return (_peak() - before) / 2**10


def _peak() -> int:
    """Read the process's peak resident memory in KiB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
