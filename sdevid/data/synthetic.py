"""Drawn video whose true SDE is known: a disc that follows a scalar SDE along each axis.

Positions are in units: the frame's half width is `HALF_WIDTH` units at any frame size, x grows to
the right and y downwards, and (0, 0) is the frame's centre. Times are in seconds.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

HALF_WIDTH = 2.2  # units from the centre of a frame to its edge
RADIUS = 1 / 8  # of the disc, as a share of the frame's side: 4 pixels of 32
GROUND, DISC = 20, 235  # grey levels
STEPS = 512  # Euler-Maruyama steps a second, at least, where the law has no closed form

Positions = Float[np.ndarray, "clips time"]


@dataclass(frozen=True)
class OrnsteinUhlenbeck:
    """dX = theta (mean - X) dt + sigma dW; simulated from its exact transition law."""

    theta: float = 1.0
    mean: float = 0.0
    sigma: float = 0.5

    order = 1

    @property
    def middle(self) -> float:
        """The mean."""
        return self.mean

    def drift(self, x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Compute the drift theta (mean - x), in units / s."""
        return self.theta * (self.mean - x)

    def diffusion(self, x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Return sigma at each x, in units per square root of a second."""
        return np.full_like(x, self.sigma)

    def stationary_variance(self) -> float:
        """Compute sigma^2 / (2 theta), in units squared."""
        return self.sigma**2 / (2 * self.theta)

    def autocorrelation_time(self) -> float:
        """Compute the seconds in which the autocorrelation falls to 1/e."""
        return 1 / self.theta

    def passage_time(self, distance: float, horizon: float) -> float:
        """Compute the mean first-passage time to the mean from `distance` off it, in seconds.

        Each passage counts up to `horizon` seconds. The chance not to have passed by t is
        erf(distance / sqrt(2 s)), s = sigma^2 (exp(2 theta t) - 1) / (2 theta): the process is
        exp(-theta t) times a Brownian motion at time s.
        """
        t = (np.arange(20_000) + 0.5) * (horizon / 20_000)
        s = self.stationary_variance() * np.expm1(2 * self.theta * t)
        alive = [math.erf(z) for z in distance / np.sqrt(2 * s)]
        return float(np.mean(alive) * horizon)

    def simulate(
        self,
        rng: np.random.Generator,
        n: int,
        times: Float[np.ndarray, " time"],
        start: Float[np.ndarray, " n"] | None = None,
    ) -> Positions:
        """Simulate `n` independent paths at rising `times`, from `start` or the stationary law."""
        path = np.empty((n, len(times)))
        if start is None:
            start = self.mean + np.sqrt(self.stationary_variance()) * rng.standard_normal(n)
        path[:, 0] = start
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

    order = 1
    mean = middle = 0.0  # the barrier

    def drift(self, x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Compute the drift k (x - x^3), in units / s."""
        pull: Float[np.ndarray, "*n"] = self.k * (x - x**3)
        return pull

    def diffusion(self, x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Return sigma at each x, in units per square root of a second."""
        return np.full_like(x, self.sigma)

    def stationary_variance(self) -> float:
        """Integrate the stationary variance by quadrature, in units squared."""
        x, weight = self._stationary_law()
        return float((weight * x**2).sum())

    def simulate(
        self,
        rng: np.random.Generator,
        n: int,
        times: Float[np.ndarray, " time"],
        start: Float[np.ndarray, " n"] | None = None,
    ) -> Positions:
        """Simulate `n` independent paths at rising `times`, from `start` or the stationary law.

        Euler-Maruyama with at least 512 steps a second.
        """
        path = np.empty((n, len(times)))
        if start is None:
            x_grid, weight = self._stationary_law()
            start = np.interp(rng.random(n), np.cumsum(weight), x_grid)
        path[:, 0] = start
        for k, step in enumerate(np.diff(times)):
            x, count = path[:, k], substeps(step)
            dt = step / count
            for noise in np.sqrt(dt) * rng.standard_normal((count, n)):
                x = x + self.drift(x) * dt + self.sigma * noise
            path[:, k + 1] = x
        return path

    def _stationary_law(self) -> tuple[Float[np.ndarray, " grid"], Float[np.ndarray, " grid"]]:
        x = np.linspace(-4.0, 4.0, 16_001)
        exponent = 2 * self.k / self.sigma**2 * (x**2 / 2 - x**4 / 4)
        weight = np.exp(exponent - exponent.max())
        return x, weight / weight.sum()


def substeps(seconds: float) -> int:
    """Count the solver steps in an interval of `seconds`."""
    return math.ceil(seconds * STEPS)


_NAMES: dict[str, type[DoubleWell] | type[OrnsteinUhlenbeck]] = {
    "double-well": DoubleWell,
    "ou": OrnsteinUhlenbeck,
}


def named(name: str, **parameters: float) -> DoubleWell | OrnsteinUhlenbeck:
    """Build the SDE called `name` (double-well or ou). Raises KeyError for another name."""
    return _NAMES[name](**parameters)


@dataclass(frozen=True)
class Motion:
    """How the disc moves: an SDE along x and, where wanted, another along y."""

    x: DoubleWell | OrnsteinUhlenbeck
    y: DoubleWell | OrnsteinUhlenbeck | None = None

    @property
    def axes(self) -> dict[str, DoubleWell | OrnsteinUhlenbeck]:
        """The moving coordinates by name, each with its SDE."""
        return {"x": self.x} if self.y is None else {"x": self.x, "y": self.y}

    def simulate(
        self,
        rng: np.random.Generator,
        n: int,
        times: Float[np.ndarray, " time"],
        start: Float[np.ndarray, "clips 2"] | None = None,
    ) -> Float[np.ndarray, "clips time 2"]:
        """Simulate positions (x, y), in units, of `n` discs at `times`.

        y is 0 without an SDE along it. From `start`, or from the stationary law.
        """
        first = (None, None) if start is None else (start[:, 0], start[:, 1])
        x = self.x.simulate(rng, n, times, first[0])
        y = np.zeros_like(x) if self.y is None else self.y.simulate(rng, n, times, first[1])
        return np.stack([x, y], axis=-1)

    def seen(self, states: Float[np.ndarray, "*time 2"]) -> Float[np.ndarray, "*time axes"]:
        """Pick the positions along `axes`."""
        return states[..., : len(self.axes)]

    def located(self, states: Float[np.ndarray, "*time 2"]) -> Float[np.ndarray, "*time 2"]:
        """Return where the disc is, (x, y) in units: the state itself."""
        return states

    def draw(
        self, states: Float[np.ndarray, "*time 2"], frame_size: int
    ) -> UInt8[np.ndarray, "*time height width 1"]:
        """Draw a disc at each position."""
        return draw(states, frame_size)

    def metadata(self, states: Float[np.ndarray, "time 2"]) -> dict[str, Any]:
        """Convert states to fields of KEY.json, which `state` reads."""
        return {"position": states.round(6).tolist()}

    def state(self, metadata: dict[str, Any], frame: int) -> Float[np.ndarray, " 2"]:
        """Read the state at one frame from KEY.json."""
        return np.array(metadata["position"][frame])

    def truth(self) -> dict[str, Any]:
        """Describe the motion and the drawing for dataset.json; `from_truth` reads it."""
        axes = {"x": self.x, "y": self.y}
        return {
            "axes": {
                axis: None if sde is None else {"sde": _name_of(sde), **asdict(sde)}
                for axis, sde in axes.items()
            },
            "units": units(),
            "grey_levels": {"ground": GROUND, "disc": DISC},
        }


def units() -> dict[str, Any]:
    """Describe the drawing's units for dataset.json."""
    return {"half_width": HALF_WIDTH, "disc_radius": 2 * HALF_WIDTH * RADIUS, "time": "second"}


def from_truth(truth: dict[str, Any]) -> Motion:
    """Build the motion that a `truth` of dataset.json describes."""
    sdes = {
        axis: None
        if parameters is None
        else named(parameters["sde"], **{key: v for key, v in parameters.items() if key != "sde"})
        for axis, parameters in truth["axes"].items()
    }
    along_x = sdes["x"]
    if along_x is None:
        raise ValueError("truth.axes.x is null, but something must move along x")
    return Motion(along_x, sdes["y"])


def draw(
    positions: Float[np.ndarray, "*time 2"],
    frame_size: int,
    radii: Float[np.ndarray, "*time"] | None = None,
) -> UInt8[np.ndarray, "*time height width 1"]:
    """Draw a bright antialiased disc at each (x, y) in units, on dark ground.

    Its radius is an eighth of the frame, or one of `radii`, in units.
    """
    pixels = RADIUS * frame_size
    reach = pixels if radii is None else radii[..., None, None] * (frame_size / 2 / HALF_WIDTH)
    centre = (frame_size - 1) / 2 + positions * (frame_size / 2 / HALF_WIDTH)
    pixel = np.arange(frame_size)
    across = pixel - centre[..., 0, None]
    down = pixel - centre[..., 1, None]
    distance = np.hypot(across[..., None, :], down[..., :, None])
    cover = np.clip(reach + 0.5 - distance, 0.0, 1.0)
    return np.rint(GROUND + (DISC - GROUND) * cover).astype(np.uint8)[..., None]


def _name_of(sde: DoubleWell | OrnsteinUhlenbeck) -> str:
    return next(name for name, kind in _NAMES.items() if isinstance(sde, kind))
