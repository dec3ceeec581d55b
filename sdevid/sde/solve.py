"""Chooses a solver for a problem, and says why not another.

A solver has a NAME, `unsupported(problem)`, which says why it cannot take a problem, and
`solve(problem)`. The first of SOLVERS that can take it does.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

from sdevid_kernels import runtime

from sdevid.errors import UserError
from sdevid.sde import fused, stepwise, torchsde_bridge
from sdevid.sde.problem import EULER, Path, Problem
from sdevid.sde.solvers import SOLVERS as SCHEMES

__all__ = ["SOLVERS", "Choice", "Path", "Problem", "Solver", "choose", "solve"]


class Solver(Protocol):
    """What a module of a solver holds."""

    NAME: str

    def unsupported(self, problem: Problem) -> str | None:
        """Say why this solver cannot take `problem`, or None if it can."""

    def solve(self, problem: Problem) -> Path:
        """Solve the path. Raises UserError where something does not fit."""


SOLVERS = cast(tuple[Solver, ...], (fused, stepwise, torchsde_bridge))


class Choice(NamedTuple):
    """The solver that takes a problem, and why those before it do not."""

    solver: Solver
    problem: Problem
    refused: dict[str, str]  # reason by solver

    def __str__(self) -> str:
        problem, device = self.problem, self.problem.start.device
        scheme, bound = problem.scheme, "Girsanov's bound"
        if scheme == EULER:
            bound = "the chain's bound"
        if scheme in SCHEMES and not isinstance(problem.fields, str):
            order = SCHEMES[scheme].strong_order[problem.fields.noise]
            scheme = f"{scheme} of strong order {order:g}"
        summary = f"SDE solve: {self.solver.NAME}, {scheme}, {bound}"
        if problem.gradient != "backprop":
            summary += f", gradient {problem.gradient}"
        if self.solver.NAME in ("fused", "stepwise"):
            summary += f"; kernels {runtime.backend(device, problem.kernels)} on {device.type}"
        reasons = (f"; not {name}: {reason}" for name, reason in self.refused.items())
        return summary + "".join(reasons)


def choose(problem: Problem) -> Choice:
    """Choose the first solver that takes `problem`. Raises UserError with all reasons if none."""
    try:
        runtime.backend(problem.start.device, problem.kernels)
    except ValueError as error:
        raise UserError(str(error)) from error
    refused: dict[str, str] = {}
    for solver in SOLVERS:
        reason = solver.unsupported(problem)
        if reason is None:
            return Choice(solver, problem, refused)
        refused[solver.NAME] = reason
    reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
    raise UserError(f"no solver takes this problem (sde.solver is {problem.scheme}): {reasons}")


def solve(problem: Problem) -> Path:
    """Solve the path by the first solver that takes `problem`."""
    return choose(problem).solver.solve(problem)
