"""Fields of view of the Anomalous Diffusion Challenge 2, drawn by `andi-datasets` (extra `andi`).

Particles move by fractional Brownian motion under one of five rules of physics
(Muñoz-Gil et al. 2023, arXiv:2311.18100): each clip is one experiment, filmed through one field.
Motion is the package's, with the challenge's parameters. Frames are drawn here by the challenge's
optics, since the package draws them by a program that asks for three more packages: a Gaussian
spot as wide as the package states, over a level ground, with Poisson noise, each frame scaled by
its brightest pixel. Lengths are in pixels, x to the right and y down; times are in frames.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from sdevid.data.drawn import Drawing
from sdevid.data.spec import CutSpec
from sdevid.errors import UserError

Phenomenon = Literal["single_state", "multi_state", "immobile_traps", "dimerization", "confinement"]
PHENOMENA: tuple[Phenomenon, ...] = (
    "single_state",
    "multi_state",
    "immobile_traps",
    "dimerization",
    "confinement",
)

FIELD, ROOM = 128, 1.8  # pixels of the challenge's field; side of the particles' room, in fields
COUNT, TRAPS, COMPARTMENTS = 50, 300, 30  # in the room of a field of 128 pixels
LEAST = 20  # frames, below which a stay in the field is neither drawn nor labelled
VIPS = 10  # particles to be characterised, at most
SPOT_WIDTH = 1.22 * 500 / (2 * 1.46) / 100  # pixels, full at half maximum; pixels of 100 nm
INTENSITY, GROUND = (500.0, 20.0), 100.0  # photons: mean and sd of a spot's peak, and the ground
INSTALL = (
    "pip install 'sdevid[andi]' and then pip install --no-deps andi-datasets==2.1.13 "
    "stochastic==0.6.0 (both ask for a numpy below 2, which they do not need)"
)

Positions = Float[np.ndarray, "time particles 2"]  # NaN where a particle is not in the field


def unavailable() -> str | None:
    """Say why the challenge's package cannot run here, or None."""
    for name in ("andi_datasets", "stochastic", "sklearn", "pandas"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed; {INSTALL}"
    if np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        return f"andi-datasets fails with numpy {np.__version__}; {INSTALL}"
    return None


@dataclass(frozen=True)
class ChallengeFields:
    """Fields of view of one phenomenon, or of all five in turn.

    Raises UserError where `andi-datasets` is not installed.
    """

    phenomenon: Phenomenon | Literal["all"] = "all"

    def __post_init__(self) -> None:
        reason = unavailable()
        if reason is not None:
            raise UserError(f"--dataset andi: {reason}")

    def clips(self, rng: np.random.Generator, count: int, spec: CutSpec) -> Iterator[Drawing]:
        """Yield `count` clips, each with its particles' places, labels and VIPs."""
        for number in range(count):
            phenomenon = self.phenomenon
            if phenomenon == "all":
                phenomenon = PHENOMENA[number % len(PHENOMENA)]
            field = None
            while field is None:
                field = _experiment(phenomenon, spec, int(rng.integers(2**32)))
            places, metadata = field
            yield draw(places, spec.frame_size, rng), metadata

    def truth(self) -> dict[str, Any]:
        """Describe the challenge for dataset.json."""
        return {"challenge": "andi2", "phenomenon": self.phenomenon}


def parameters(phenomenon: Phenomenon, length: int, side: int) -> dict[str, Any]:
    """Draw the challenge's parameters of an experiment, from numpy's global generator.

    Density is the challenge's for any side of the field. A pair is mean and variance.
    """
    room, share = ROOM * side, (side / FIELD) ** 2
    drawn: dict[str, Any] = {"N": max(1, round(COUNT * share)), "T": length, "L": room}
    if phenomenon in ("single_state", "immobile_traps"):
        drawn |= {"Ds": [1, 0.01], "alphas": np.array([np.random.uniform(0.5, 1.5), 0.01])}
    else:
        fast = 1 + 0.01 * np.random.randn()
        slow = fast * np.random.rand() * (0.1 - 0.01) + 0.01
        alpha = np.random.uniform(0.8, 1.2)
        other = alpha - np.random.uniform(0.2, 0.6)
        drawn |= {
            "Ds": np.array([[fast, 0.01 * fast], [slow, 0.01 * slow]]),
            "alphas": np.array([[alpha, 0.01], [other, 0.01]]),
        }
    own: dict[Phenomenon, dict[str, Any]] = {
        "single_state": {},
        "multi_state": {"M": np.array([[0.99, 0.01], [0.01, 0.99]]), "return_state_num": True},
        "immobile_traps": {"Pu": 0.01, "Pb": 1, "Nt": max(1, round(TRAPS * share)), "r": 0.4},
        "dimerization": {"Pu": 0.01, "Pb": 1, "r": 0.6, "return_state_num": True},
        "confinement": {"r": 5, "Nc": max(1, round(COMPARTMENTS * share)), "trans": 0.1},
    }
    return drawn | own[phenomenon]


@contextmanager
def package_warnings() -> Iterator[None]:
    """Silence the package's int() of arrays of one; undo its own switching off of all warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed both global generators that the package draws from; restore them."""
    from stochastic import random

    before, noise = np.random.get_state(), random.generator
    np.random.seed(seed)
    random.use_generator(np.random.default_rng(seed))
    try:
        with package_warnings():
            yield
    finally:
        np.random.set_state(before)
        random.generator = noise


def _experiment(
    phenomenon: Phenomenon, spec: CutSpec, seed: int
) -> tuple[Positions, dict[str, Any]] | None:
    """Simulate one experiment and look at one field; None where no VIP is to be seen."""
    from andi_datasets.models_phenom import models_phenom
    from andi_datasets.utils_challenge import extract_ensemble

    side, length = spec.frame_size, spec.clip_length
    with _seeded(seed):
        drawn = parameters(phenomenon, length, side)
        paths, labels = getattr(models_phenom(), phenomenon)(**drawn)
        low, high = int(0.05 * drawn["L"]), int(0.95 * drawn["L"]) - side
        origin = np.random.randint(low, max(high, low + 1), 2)
        stays = list(_stays(paths - origin, labels, side))
        if not stays:
            return None
        places = np.stack([stay.places for stay in stays], axis=1)
        vips = _vips(places, side)
        if not vips:
            return None
        states = np.concatenate([stay.labels[:, -1] for stay in stays])
        ensemble = extract_ensemble(states, {"model": phenomenon} | drawn)
    order = vips + [number for number in range(len(stays)) if number not in vips]
    return places[:, order], {
        "phenomenon": phenomenon,
        "vips": len(vips),  # the first of the tracks
        "tracks": [stays[number].as_json() for number in order],
        "ensemble": ensemble.tolist(),
    }


@dataclass(frozen=True)
class Stay:
    """One particle's stay in the field, from `first` on."""

    first: int
    places: Float[np.ndarray, "time 2"]  # of the whole clip; NaN outside the stay
    labels: Float[np.ndarray, "stay labels"]  # alpha, K, state, and the model's own state last

    def as_json(self) -> dict[str, Any]:
        """List places from the first frame on, and segments as the challenge states them.

        A segment ends before its frame in `changes`, counted from the first; the last is the
        stay's length. K is in pixel^2 / frame^alpha; a state is 0 immobile, 1 confined, 2 free or
        3 directed.
        """
        from andi_datasets.utils_challenge import label_continuous_to_list

        changes, alphas, coefficients, states = label_continuous_to_list(self.labels[:, :3])
        here = self.places[self.first : self.first + len(self.labels)]
        return {
            "first": self.first,
            "places": here.round(3).tolist(),
            "changes": changes.tolist(),
            "alpha": alphas.tolist(),
            "K": coefficients.tolist(),
            "state": states.astype(int).tolist(),
        }


def _stays(
    paths: Float[np.ndarray, "time particles 2"],
    labels: Float[np.ndarray, "time particles labels"],
    side: int,
) -> Iterator[Stay]:
    """Yield the stays of `paths` in a field from 0 to `side`, as the challenge takes them."""
    from andi_datasets.utils_challenge import label_filter
    from andi_datasets.utils_trajectories import segs_inside_fov

    for path, label in zip(paths.swapaxes(0, 1), labels.swapaxes(0, 1), strict=True):
        inside = segs_inside_fov(path, (0, 0), side, min(LEAST, len(path)))
        for first, last in () if inside is None else inside:
            places = np.full_like(path, np.nan)
            places[first:last] = path[first:last] - 0.5  # a pixel's middle is a whole number
            kept = [label_filter(column[first:last]) for column in label.T]
            yield Stay(int(first), places, np.stack(kept, axis=1))


def _vips(places: Positions, side: int) -> list[int]:
    """Choose up to `VIPS` particles of the first frame, apart and off the edge, the longest first.

    Other than in the challenge a field may hold fewer.
    """
    from andi_datasets.utils_challenge import get_VIP

    outside = -20.0
    padded = np.where(np.isnan(places), outside, places + 0.5)
    for count in range(VIPS, 0, -1):
        try:
            chosen = get_VIP(padded, count, SPOT_WIDTH, outside, side, (0, 0), SPOT_WIDTH)
        except ValueError:  # there are fewer
            continue
        return [int(number) for number in chosen]
    return []


def draw(
    places: Positions, side: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "time side side 1"]:
    """Draw bright spots with shot noise, and scale each frame by its brightest pixel."""
    spread = SPOT_WIDTH / np.sqrt(8 * np.log(2))
    pixel = np.arange(side)
    apart = np.nan_to_num(places, nan=-1e3)[..., None] - pixel
    across, down = np.exp(-0.5 * (apart / spread) ** 2).transpose(2, 0, 1, 3)
    peaks = rng.normal(*INTENSITY, places.shape[1])
    light = GROUND + np.einsum("n,tny,tnx->tyx", peaks, down, across, optimize=True)
    photons = rng.poisson(light).astype(np.float64)
    scaled = 255 * photons / photons.max((1, 2), keepdims=True)
    film: UInt8[np.ndarray, "time side side 1"] = scaled.astype(np.uint8)[..., None]
    return film
