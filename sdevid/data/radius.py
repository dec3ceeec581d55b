"""A disc whose radius follows geometric Brownian motion, kept in a range that can be seen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from sdevid.data.synthetic import draw, units


@dataclass(frozen=True)
class GeometricBrownian:
    """dR = sigma^2 / 2 R dt + sigma R dW, reflected at `low` and `high`; units and seconds.

    With that drift log R is a Brownian motion without drift, so that reflection is exact: the
    path is the free one folded into the range (Karatzas & Shreve 1991, section 2.8). The
    stationary law of log R is uniform.
    """

    sigma: float = 0.5
    low: float = 0.35
    high: float = 1.6

    order = 1

    @property
    def mean(self) -> float:
        """Mean of R under the uniform law of log R."""
        return float((self.high - self.low) / np.log(self.high / self.low))

    @property
    def middle(self) -> float:
        """The median, half way in log R."""
        return float(np.sqrt(self.low * self.high))

    def drift(self, x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Compute the drift inside the range, in units / s."""
        return self.sigma**2 / 2 * x

    def diffusion(self, x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Compute the diffusion, in units per square root of a second."""
        return self.sigma * x

    def stationary_variance(self) -> float:
        """Compute E R^2 - (E R)^2 under the uniform law of log R, in units squared."""
        length = np.log(self.high / self.low)
        return float((self.high**2 - self.low**2) / (2 * length) - self.mean**2)

    def simulate(
        self,
        rng: np.random.Generator,
        n: int,
        times: Float[np.ndarray, " time"],
        start: Float[np.ndarray, " n"] | None = None,
    ) -> Float[np.ndarray, "n time"]:
        """Simulate `n` paths exactly at rising `times`, from `start` or the stationary law."""
        floor, length = np.log(self.low), np.log(self.high / self.low)
        first = length * rng.random(n) if start is None else np.log(start) - floor
        steps = self.sigma * np.sqrt(np.diff(times)) * rng.standard_normal((n, len(times) - 1))
        free = np.concatenate([first[:, None], first[:, None] + np.cumsum(steps, axis=1)], axis=1)
        folded: Float[np.ndarray, "n time"] = length - np.abs(free % (2 * length) - length)
        radius: Float[np.ndarray, "n time"] = np.exp(floor + folded)
        return radius


@dataclass(frozen=True)
class Pulse:
    """A disc in the middle of the frame that grows and shrinks."""

    sde: GeometricBrownian = GeometricBrownian()

    @property
    def axes(self) -> dict[str, GeometricBrownian]:
        """The visible coordinate by name, with its SDE."""
        return {"radius": self.sde}

    def simulate(
        self,
        rng: np.random.Generator,
        n: int,
        times: Float[np.ndarray, " time"],
        start: Float[np.ndarray, "n 1"] | None = None,
    ) -> Float[np.ndarray, "n time 1"]:
        """Simulate the radius at `times`, from `start` or the stationary law."""
        return self.sde.simulate(rng, n, times, None if start is None else start[:, 0])[..., None]

    def seen(self, states: Float[np.ndarray, "*time 1"]) -> Float[np.ndarray, "*time 1"]:
        """Return the radius, which is the whole state."""
        return states

    def located(self, states: Float[np.ndarray, "*time 1"]) -> Float[np.ndarray, "*time 1"]:
        """Return the radius in units, on which a forecast is scored."""
        return states

    def draw(
        self, states: Float[np.ndarray, "*time 1"], frame_size: int
    ) -> UInt8[np.ndarray, "*time height width 1"]:
        """Draw a disc of each radius in the middle of the frame."""
        centre = np.zeros((*states.shape[:-1], 2))
        return draw(centre, frame_size, states[..., 0])

    def metadata(self, states: Float[np.ndarray, "time 1"]) -> dict[str, Any]:
        """Convert states to fields of KEY.json, which `state` reads."""
        return {"radius": states[:, 0].round(6).tolist()}

    def state(self, metadata: dict[str, Any], frame: int) -> Float[np.ndarray, " 1"]:
        """Read the state at one frame from KEY.json."""
        return np.array([metadata["radius"][frame]])

    def truth(self) -> dict[str, Any]:
        """Describe the motion and the drawing for dataset.json."""
        metadata = units()
        del metadata["disc_radius"]
        return {"axes": {"radius": {"sde": "gbm", **asdict(self.sde)}}, "units": metadata}
