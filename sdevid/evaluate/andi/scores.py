"""Scores of the Anomalous Diffusion Challenge 2, by the functions of `andi-datasets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from sdevid.data.andi import package_warnings
from sdevid.evaluate.statistics.estimate import Floats

IMMOBILE, CONFINED, FREE, DIRECTED = range(4)  # states, as the challenge counts them
SINGLE = ("change_rmse", "change_jaccard", "alpha_mae", "K_msle", "state_f1")
ENSEMBLE = ("alpha_distance", "K_distance")
SUPPORT = 100_000  # points of a distribution; the package's 1,000,000 take ten times as long
_LEAST_VARIANCE = 1e-6  # of a predicted ensemble


@dataclass(frozen=True)
class Segments:
    """One particle's motion: segments of constant exponent, coefficient and state.

    Segment i ends before frame `changes[i]`; the last is the particle's number of frames. K is in
    pixel^2 / frame^alpha: the mean square displacement is 4 K t^alpha.
    """

    changes: Sequence[int]
    alpha: Sequence[float]
    K: Sequence[float]
    state: Sequence[int]

    @classmethod
    def of(cls, track: Mapping[str, Any]) -> Segments:
        """Read the labels of a track of KEY.json."""
        return cls(**{name: track[name] for name in ("changes", "alpha", "K", "state")})


def single_scores(true: Sequence[Segments], predicted: Sequence[Segments]) -> dict[str, float]:
    """Score the particles of one experiment, in the same order on both sides.

    RMSE of the change points in frames (0 where none is hit), their Jaccard index, MAE of alpha,
    MSLE of K, and F1 of the states.
    """
    from andi_datasets.utils_challenge import error_SingleTraj_dataset

    with package_warnings():
        values = error_SingleTraj_dataset(
            _table(predicted), _table(true), prints=False, disable_tqdm=True
        )
    return dict(zip(SINGLE, map(float, values), strict=True))


def _table(particles: Sequence[Segments]) -> Any:
    import pandas

    names = {"changes": "changepoints", "alpha": "alphas", "K": "Ds", "state": "states"}
    rows = [
        {"traj_idx": number} | {names[key]: list(value) for key, value in asdict(one).items()}
        for number, one in enumerate(particles)
    ]
    return pandas.DataFrame(rows)


def ensemble_scores(
    true: Float[np.ndarray, "5 states"], predicted: Float[np.ndarray, "5 states"]
) -> dict[str, float]:
    """Compute the Wasserstein distances of alpha's and K's distribution in one experiment.

    Rows are mean and variance of alpha, mean and variance of K, and the state's weight.
    """
    from andi_datasets.utils_challenge import error_Ensemble_dataset

    with package_warnings():  # it writes into its arguments
        values = error_Ensemble_dataset(true.copy(), predicted.copy(), SUPPORT)
    return dict(zip(ENSEMBLE, map(float, values), strict=True))


def one_state(particles: Sequence[Segments]) -> Floats:
    """Summarise an experiment as a single state: moments over segments, weighted by their length.

    Shape (5, 1), as `ensemble_scores` reads it.
    """
    weight = np.concatenate([np.diff([0, *one.changes]) for one in particles]).astype(np.float64)
    moments = []
    for values in ([one.alpha for one in particles], [one.K for one in particles]):
        each = np.concatenate(values)
        mean = np.average(each, weights=weight)
        variance = np.average((each - mean) ** 2, weights=weight)
        moments += [mean, max(variance, _LEAST_VARIANCE)]
    return np.array([*moments, weight.sum()])[:, None]
