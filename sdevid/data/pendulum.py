"""A stochastic pendulum, drawn as a bob on a circle: motion of second order with a known law."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from sdevid.data.synthetic import draw, substeps, units

LENGTH = 1.5  # units from the pivot, the frame's centre, to the bob


@dataclass(frozen=True)
class Pendulum:
    """d(angle) = v dt, dv = (-omega^2 sin(angle) - gamma v) dt + sigma dW; radians and seconds.

    Its stationary density is proportional to exp(-(2 gamma / sigma^2) (v^2 / 2 - omega^2
    cos(angle))): v is Gaussian with variance sigma^2 / (2 gamma), the angle von Mises'. At the
    values given here it all but never goes over the top: the barrier is 12.5 times v's variance.
    """

    omega: float = 3.0
    gamma: float = 0.5
    sigma: float = 1.2

    order = 2  # what is seen is the integral of what the noise drives

    mean = middle = 0.0  # hanging at rest

    def drift(self, x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Compute the mean acceleration at an angle, radians / s^2; the mean velocity is 0."""
        pull: Float[np.ndarray, "*n"] = -(self.omega**2) * np.sin(x)
        return pull

    def diffusion(self, x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Return sigma, the diffusion of the velocity, radians / s^(3/2)."""
        return np.full_like(x, self.sigma)

    def stationary_variance(self) -> float:
        """Integrate the angle's stationary variance by quadrature, in radians squared."""
        angle, weight = self._stationary_law()
        return float((weight * angle**2).sum())

    def simulate(
        self,
        rng: np.random.Generator,
        n: int,
        times: Float[np.ndarray, " time"],
        start: Float[np.ndarray, "n 2"] | None = None,
    ) -> Float[np.ndarray, "n time 2"]:
        """Simulate angle and velocity of `n` independent paths at rising `times`.

        From `start`, or from the stationary law. Symplectic Euler-Maruyama with at least 512 steps
        a second: the angle moves with the new velocity, which keeps the energy's mean in place.
        """
        path = np.empty((n, len(times), 2))
        path[:, 0] = self._stationary(rng, n) if start is None else start
        for k, step in enumerate(np.diff(times)):
            count = substeps(step)
            dt = step / count
            angle, v = path[:, k].T
            for noise in np.sqrt(dt) * rng.standard_normal((count, n)):
                v = v + (self.drift(angle) - self.gamma * v) * dt + self.sigma * noise
                angle = angle + v * dt
            path[:, k + 1] = np.stack([angle, v], axis=-1)
        return path

    def _stationary(self, rng: np.random.Generator, n: int) -> Float[np.ndarray, "n 2"]:
        grid, weight = self._stationary_law()
        angle = np.interp(rng.random(n), np.cumsum(weight), grid)
        v = self.sigma / np.sqrt(2 * self.gamma) * rng.standard_normal(n)
        return np.stack([angle, v], axis=-1)

    def _stationary_law(self) -> tuple[Float[np.ndarray, " grid"], Float[np.ndarray, " grid"]]:
        angle = np.linspace(-np.pi, np.pi, 16_001)
        exponent = 2 * self.gamma / self.sigma**2 * self.omega**2 * np.cos(angle)
        weight = np.exp(exponent - exponent.max())
        return angle, weight / weight.sum()


@dataclass(frozen=True)
class Swing:
    """A disc on a circle about the frame's centre, at the angle of a pendulum; 0 hangs down."""

    sde: Pendulum = Pendulum()

    @property
    def axes(self) -> dict[str, Pendulum]:
        """The visible coordinate by name, with its SDE."""
        return {"angle": self.sde}

    def simulate(
        self,
        rng: np.random.Generator,
        n: int,
        times: Float[np.ndarray, " time"],
        start: Float[np.ndarray, "n 2"] | None = None,
    ) -> Float[np.ndarray, "n time 2"]:
        """Simulate angle and velocity at `times`, from `start` or the stationary law."""
        return self.sde.simulate(rng, n, times, start)

    def seen(self, states: Float[np.ndarray, "*time 2"]) -> Float[np.ndarray, "*time 1"]:
        """Pick the angle, the part of the state that a frame shows."""
        return states[..., :1]

    def located(self, states: Float[np.ndarray, "*time 2"]) -> Float[np.ndarray, "*time 2"]:
        """Compute where the bob is, (x, y) in units."""
        angle = states[..., 0]
        return LENGTH * np.stack([np.sin(angle), np.cos(angle)], axis=-1)

    def draw(
        self, states: Float[np.ndarray, "*time 2"], frame_size: int
    ) -> UInt8[np.ndarray, "*time height width 1"]:
        """Draw a disc at each angle."""
        return draw(self.located(states), frame_size)

    def metadata(self, states: Float[np.ndarray, "time 2"]) -> dict[str, Any]:
        """Convert states to fields of KEY.json, which `state` reads."""
        angle, velocity = states.T.round(6).tolist()
        return {"angle": angle, "velocity": velocity}

    def state(self, metadata: dict[str, Any], frame: int) -> Float[np.ndarray, " 2"]:
        """Read the state at one frame from KEY.json."""
        return np.array([metadata["angle"][frame], metadata["velocity"][frame]])

    def truth(self) -> dict[str, Any]:
        """Describe the motion and the drawing for dataset.json."""
        return {
            "axes": {"angle": {"sde": "pendulum", **asdict(self.sde)}},
            "units": units() | {"length": LENGTH, "angle": "radian"},
        }
