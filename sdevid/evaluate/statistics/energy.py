"""The energy score: a proper score of a forecast that is given as samples."""

from __future__ import annotations

import numpy as np

from sdevid.evaluate.statistics.estimate import Floats


def energy_score(samples: Floats, observed: Floats) -> Floats:
    """Compute the energy score E|X - y| - 1/2 E|X - X'|; less is better.

    `samples` are (m, ..., d), `observed` (..., d). The second mean runs over the m (m - 1) pairs of
    distinct samples, so that the score's expectation does not depend on m (the fair form: Ferro
    2014). One sample is a point forecast, whose score is its distance. A NaN in an observation or
    in every sample gives NaN; samples that are NaN alone are left out. Gneiting & Raftery 2007,
    section 4.3.
    """
    valid = np.asarray(np.isfinite(samples).all(axis=-1))
    filled = np.where(valid[..., None], samples, 0.0)
    count = valid.sum(axis=0).astype(np.float64)
    reach = np.linalg.norm(filled - observed, axis=-1)
    accuracy = np.where(valid, reach, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan)
    spread = np.zeros_like(accuracy)
    for i in range(len(samples) - 1):
        distance = np.linalg.norm(filled[i + 1 :] - filled[i], axis=-1)
        spread += np.where(valid[i + 1 :] & valid[i], distance, 0.0).sum(axis=0)
    score: Floats = accuracy - spread / np.maximum(count * (count - 1), 1.0)
    return score
