"""Draw a held-out radar window, three of the model's futures, their mean and their spread.

python benchmarks/radar_picture.py --model_path runs/radar --data data/radar --output radar.png
python benchmarks/radar_picture.py --between --model_path RUN --data data/radar --output b.png

With `--between` a model of `observation.ends_fraction` fills the 8 minutes between two frames.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sdevid.data.shards import open_shards
from sdevid.data.source_units import parse
from sdevid.sample.video_sde import VideoSDE

LEADS = (1, 5, 10, 15)  # frames ahead
GAP = 5  # frames from one end to the other
MEMBERS, CONTEXT = 20, 5
WINDOWS = 3  # of the held-out ones, at even distances


def rows_of(model: VideoSDE, film: Any, units: Any) -> dict[str, Any]:
    """Rain in mm/h at the lead times, by row of the picture."""
    ahead = max(LEADS)
    members = model.predict(film[:CONTEXT], MEMBERS, num_frames=CONTEXT + ahead)[:, CONTEXT:]
    rain = units.values(members)[..., 0]
    shown = [lead - 1 for lead in LEADS]
    rows = {"observed": units.values(film[CONTEXT : CONTEXT + ahead])[shown, ..., 0]}
    rows |= {f"future {k + 1}": rain[k, shown] for k in range(3)}
    return rows | {"mean": rain.mean(0)[shown], "spread (sd)": rain.std(0, ddof=1)[shown]}


def rows_between(model: VideoSDE, film: Any, units: Any) -> dict[str, Any]:
    """Rain in mm/h at the places between two frames, by row of the picture."""
    ends = film[[0, GAP]]
    members = model.fill(ends, [0, GAP], MEMBERS, num_frames=GAP + 1)[:, 1:GAP]
    rain, given = units.values(members)[..., 0], units.values(ends)[..., 0]
    share = np.arange(1, GAP)[:, None, None] / GAP
    rows = {"observed": units.values(film[1:GAP])[..., 0]}
    rows |= {"linear": (1 - share) * given[0] + share * given[1]}
    rows |= {f"member {k + 1}": rain[k] for k in range(2)}
    return rows | {"mean": rain.mean(0), "spread (sd)": rain.std(0, ddof=1)}


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name in ("--model_path", "--data", "--output"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--between", action="store_true", help="fill the gap of two frames")
    options = parser.parse_args()
    leads = tuple(range(1, GAP)) if options.between else LEADS
    units, model = parse("log:0.1:100:mm/h", {}), VideoSDE.from_pretrained(options.model_path)
    index = open_shards(options.data, "val")
    windows = np.linspace(0, len(index) - 1, WINDOWS).round().astype(int).tolist()
    figure = Figure(figsize=(4 * WINDOWS + 1, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.subfigures(1, WINDOWS)
    for part, window in zip(parts, windows, strict=True):
        film = index.read(window).video
        rows = (rows_between if options.between else rows_of)(model, film, units)
        axes = part.subplots(len(rows), len(leads))
        part.suptitle(index.clips[window].source, fontsize=8)
        for line, (name, fields) in zip(axes, rows.items(), strict=True):
            for axis, field, lead in zip(line, fields, leads, strict=True):
                image = axis.imshow(np.maximum(field, 0.05), norm="log", vmin=0.1, vmax=50)
                axis.set(xticks=[], yticks=[])
                if name == "observed":
                    axis.set_title(f"+{2 * lead} min", fontsize=7)
            line[0].set_ylabel(name, fontsize=7)
    figure.colorbar(image, ax=axes, label="mm/h", shrink=0.6)
    figure.savefig(options.output, dpi=90, metadata={"Software": None})


if __name__ == "__main__":
    main()
