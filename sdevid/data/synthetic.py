"""Drawn video whose true SDE is known: a disc that follows a scalar SDE along each axis.

Positions are in units: the frame's half width is `HALF_WIDTH` units at any frame size, x grows to
the right and y downwards, and (0, 0) is the frame's centre. Times are in seconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

HALF_WIDTH = 2.2  # units from the centre of a frame to its edge
RADIUS = 1 / 8  # of the disc, as a share of the frame's side: 4 pixels of 32
GROUND, DISC = 20, 235  # grey levels
_SUBSTEPS = 64  # Euler-Maruyama steps between two frames, where the law has no closed form

Positions = Float[np.ndarray, "clips time"]


@dataclass(frozen=True)
class OrnsteinUhlenbeck:
    """dX = theta (mean - X) dt + sigma dW; simulated from its exact transition law."""

    theta: float = 1.0
    mean: float = 0.0
    sigma: float = 0.5

    def drift(self, x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Units a second."""
        return self.theta * (self.mean - x)

    def diffusion(self, x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Units per square root of a second."""
        return np.full_like(x, self.sigma)

    def stationary_variance(self) -> float:
        """sigma^2 / (2 theta), in units squared."""
        return self.sigma**2 / (2 * self.theta)

    def simulate(
        self, rng: np.random.Generator, n: int, times: Float[np.ndarray, " time"]
    ) -> Positions:
        """`n` independent paths at rising `times`, from the stationary law at the first."""
        path = np.empty((n, len(times)))
        path[:, 0] = self.mean + np.sqrt(self.stationary_variance()) * rng.standard_normal(n)
        for k, step in enumerate(np.diff(times)):
            decay = np.exp(-self.theta * step)
            spread = np.sqrt(self.stationary_variance() * (1 - decay**2))
            path[:, k + 1] = self.mean + decay * (path[:, k] - self.mean)
            path[:, k + 1] += spread * rng.standard_normal(n)
        return path


@dataclass(frozen=True)
class DoubleWell:
    """dX = k (X - X^3) dt + sigma dW: wells at -1 and 1, a barrier at 0.

    Its stationary density is proportional to exp((2 k / sigma^2) (x^2 / 2 - x^4 / 4)).
    """

    k: float = 0.8
    sigma: float = 0.55

    def drift(self, x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Units a second."""
        pull: Float[np.ndarray, "*n"] = self.k * (x - x**3)
        return pull

    def diffusion(self, x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Units per square root of a second."""
        return np.full_like(x, self.sigma)

    def stationary_variance(self) -> float:
        """By quadrature of the stationary density, in units squared."""
        x, weight = self._stationary_law()
        return float((weight * x**2).sum())

    def simulate(
        self, rng: np.random.Generator, n: int, times: Float[np.ndarray, " time"]
    ) -> Positions:
        """`n` independent paths at rising `times`, from the stationary law at the first.

        Euler-Maruyama with 64 steps between two times.
        """
        x_grid, weight = self._stationary_law()
        path = np.empty((n, len(times)))
        path[:, 0] = np.interp(rng.random(n), np.cumsum(weight), x_grid)
        for k, step in enumerate(np.diff(times)):
            x, dt = path[:, k], step / _SUBSTEPS
            for noise in np.sqrt(dt) * rng.standard_normal((_SUBSTEPS, n)):
                x = x + self.drift(x) * dt + self.sigma * noise
            path[:, k + 1] = x
        return path

    def _stationary_law(self) -> tuple[Float[np.ndarray, " grid"], Float[np.ndarray, " grid"]]:
        x = np.linspace(-4.0, 4.0, 16_001)
        exponent = 2 * self.k / self.sigma**2 * (x**2 / 2 - x**4 / 4)
        weight = np.exp(exponent - exponent.max())
        return x, weight / weight.sum()


_NAMES: dict[str, type[DoubleWell] | type[OrnsteinUhlenbeck]] = {
    "double-well": DoubleWell,
    "ou": OrnsteinUhlenbeck,
}


def named(name: str, **parameters: float) -> DoubleWell | OrnsteinUhlenbeck:
    """The SDE called `name` (double-well or ou). Raises KeyError for another name."""
    return _NAMES[name](**parameters)


@dataclass(frozen=True)
class Motion:
    """How the disc moves: an SDE along x and, where wanted, another along y."""

    x: DoubleWell | OrnsteinUhlenbeck
    y: DoubleWell | OrnsteinUhlenbeck | None = None

    def simulate(
        self, rng: np.random.Generator, n: int, times: Float[np.ndarray, " time"]
    ) -> Float[np.ndarray, "clips time axes"]:
        """Positions (x, y), in units, of `n` discs at `times`; y is 0 without an SDE along it."""
        x = self.x.simulate(rng, n, times)
        y = np.zeros_like(x) if self.y is None else self.y.simulate(rng, n, times)
        return np.stack([x, y], axis=-1)

    def truth(self) -> dict[str, Any]:
        """What dataset.json says of the motion and of the drawing; `from_truth` reads it."""
        axes = {"x": self.x, "y": self.y}
        return {
            "axes": {
                axis: None if sde is None else {"sde": _name_of(sde), **asdict(sde)}
                for axis, sde in axes.items()
            },
            "units": {
                "half_width": HALF_WIDTH,
                "disc_radius": 2 * HALF_WIDTH * RADIUS,
                "time": "second",
            },
            "grey_levels": {"ground": GROUND, "disc": DISC},
        }


def from_truth(truth: dict[str, Any]) -> Motion:
    """The motion that a `truth` of dataset.json names."""
    sdes = {
        axis: None
        if said is None
        else named(said["sde"], **{key: v for key, v in said.items() if key != "sde"})
        for axis, said in truth["axes"].items()
    }
    along_x = sdes["x"]
    if along_x is None:
        raise ValueError("truth.axes.x is null, but something must move along x")
    return Motion(along_x, sdes["y"])


def draw(
    positions: Float[np.ndarray, "*time 2"], frame_size: int
) -> UInt8[np.ndarray, "*time height width 1"]:
    """A bright disc, antialiased, at each (x, y) in units, on dark ground."""
    centre = (frame_size - 1) / 2 + positions * (frame_size / 2 / HALF_WIDTH)
    pixel = np.arange(frame_size)
    across = pixel - centre[..., 0, None]
    down = pixel - centre[..., 1, None]
    distance = np.hypot(across[..., None, :], down[..., :, None])
    cover = np.clip(RADIUS * frame_size + 0.5 - distance, 0.0, 1.0)
    return np.rint(GROUND + (DISC - GROUND) * cover).astype(np.uint8)[..., None]


def _name_of(sde: DoubleWell | OrnsteinUhlenbeck) -> str:
    return next(name for name, kind in _NAMES.items() if isinstance(sde, kind))
