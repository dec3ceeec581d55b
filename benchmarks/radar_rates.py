"""Forecast held-out radar windows at steps of 1, 2 and 5 minutes, and compare where they meet.

python benchmarks/radar_rates.py --model_path runs/radar --data data/radar --output rates.json

The model knows steps of 2 minutes alone. Decoded frames at 10, 20 and 30 minutes are scored against
what happened, and each ensemble is compared with that of 2-minute steps by the unbiased energy
distance of fields, which is 0 on average where the laws are one; `again` is 2 minutes from other
noise. Errors are standard errors over windows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdevid.data import stream
from sdevid.data.shards import open_shards
from sdevid.evaluate.statistics.ensemble import crps
from sdevid.sample.forecaster import Forecaster

MINUTES = {"1 min": 1, "2 min": 2, "5 min": 5, "2 min again": 2}
MEET = (10, 20, 30)  # minutes
MEMBERS, CONTEXT, EVERY = 20, 5, 2  # minutes between the frames that are given


def apart(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Compute the root mean square distance of each pair of fields (members, height, width)."""
    difference = a[:, None].astype(np.float64) - b[None]
    return np.asarray(np.sqrt(np.square(difference).mean((2, 3))))


def energy_distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Compute 2 E|a - b| - E|a - a'| - E|b - b'| without a pair of a member and itself."""
    n = len(a)
    within = sum(apart(each, each).sum() / (n * (n - 1)) for each in (a, b))
    return float(2 * apart(a, b).mean() - within)


def scores_of(forecaster: Forecaster, video: NDArray[np.uint8], serial: int) -> dict[str, Any]:
    """Score the forecasts of one window at each step, by the minutes at which they meet."""
    frame = 1 / forecaster.video_sde.config.fps  # seconds of the film, which are EVERY minutes
    given = forecaster.units.values(video[:CONTEXT])
    fields = {}
    for other, (name, step) in enumerate(MINUTES.items()):
        minutes = np.arange(step, MEET[-1] + 1, step)
        seed = len(MINUTES) * serial + other  # the distance is of independent ensembles
        film = forecaster(given, list(minutes * frame / EVERY), MEMBERS, seed)
        fields[name] = film.values[:, np.searchsorted(minutes, MEET), 0]
    observed = forecaster.units.values(video[[CONTEXT - 1 + m // EVERY for m in MEET]])[..., 0]
    return {
        name: {
            "crps": crps(each, observed).mean((1, 2)).tolist(),
            "rain": each.mean((0, 2, 3)).tolist(),
            "spread": np.sqrt(each.var(0, ddof=1).mean((1, 2))).tolist(),
            "distance": [
                0.0 if name == "2 min" else energy_distance(each[:, k], fields["2 min"][:, k])
                for k in range(len(MEET))
            ],
        }
        for name, each in fields.items()
    }


def main() -> None:
    """Write means and standard errors over the windows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name in ("--model_path", "--data", "--output"):
        parser.add_argument(name, type=Path, required=True)
    options = parser.parse_args()
    forecaster = Forecaster(options.model_path, "log:0.1:100:mm/h")
    config, index = forecaster.video_sde.config, open_shards(options.data, "val")
    windows = [
        scores_of(forecaster, stream.fixed(index, config, range(k, k + 1)).values[0], k)
        for k in range(len(index))
    ]
    table: dict[str, Any] = {"minutes": MEET, "windows": len(windows), "members": MEMBERS}
    for name in MINUTES:
        for score in windows[0][name]:
            values = np.array([window[name][score] for window in windows])
            error = values.std(0, ddof=1) / np.sqrt(len(values))
            mean = values.mean(0)
            table[f"{name}, {score}"] = [mean.round(4).tolist(), error.round(4).tolist()]
    options.output.write_text(json.dumps(table, indent=2) + "\n")
    print(options.output.read_text())


if __name__ == "__main__":
    main()
