"""Writes docs/demo.md, demo.png and demo.gif from the results of the two runs of `make demo`.

python tools/demo_page.py runs/demo runs/demo-ou
"""

from __future__ import annotations

import argparse
import datetime
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sdevid.errors import UserError
from sdevid.report.record import Record, read
from sdevid.report.words import duration
from sdevid.report.worst import TOLERATED, WIDE, worst_bin
from sdevid.sample import write

HEAD = """# The demo: is the learnt SDE the true one?

`make demo` draws 3,000 clips of 32x32 video each of two discs (16 frames at 8 a second), trains
`configs/demo.yaml` on 2,700 of them, a core each, and measures on the other 300 and on free video.
The Ornstein-Uhlenbeck disc is told that its noise is one for all places (`sde.noise=additive`).
The model sees pixels alone. All below stands on `runs/demo/report.html` too, and this page is
written from its results by `python tools/demo_page.py runs/demo runs/demo-ou`.
Why the double well's squared diffusion comes out too large, and what was tried:
[ablation.md](ablation.md), [results.md](results.md).
"""
PICTURE = """![Drift and squared diffusion of generated video beside truth and real video](demo.png)
"""
MEANT = """"Truth" is the SDE simulated and seen at the frame interval through the same estimator,
which that interval biases; "exact" is the SDE's own. A CRPS is in grey levels, lower is better."""
STATISTICS = (
    ("variance", "variance"),
    ("squared_diffusion", "squared diffusion"),
    ("crossings", "crossings of the middle in 64 frames"),
    ("right_share", "share of frames on the right"),
    ("autocorrelation_time", "autocorrelation time, s"),
    ("first_passage_time", "first-passage time, s"),
)
FORECASTS = (
    ("mean_of_samples", "samples", "mean of the samples; the samples"),
    ("one_sample", None, "one sample"),
    ("copy_last_frame", "copy_last_frame", "copy the last frame"),
    ("mean_frame", "mean_frame", "mean frame"),
)


def main() -> int:
    """Write the page. Raises UserError where a run was not measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path, nargs="+", help="runs of the demo")
    parser.add_argument("--output", type=Path, default=Path("docs/demo.md"), help="the page")
    options = parser.parse_args()
    records = [read(folder) for folder in options.run_dir]
    for record in records:
        if record.results is None:
            raise UserError(f"{record.folder} holds no results.json; `make demo` measures it")
    lines = [HEAD, PICTURE, *_made(records), "", MEANT]
    for record in records:
        lines += ["", *_section(record)]
    options.output.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    draw(records, options.output.with_suffix(".png"))
    play(records[0], options.output.with_suffix(".gif"))
    print(options.output)
    return 0


def draw(records: Sequence[Record], path: Path) -> None:
    """Plot drift and squared diffusion of each run beside the true ones.

    The true ones are exact, and as estimated at the frame interval.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.2 * len(records)), layout="constrained")
    axes = figure.subplots(len(records), 2, squeeze=False)
    for record, row in zip(records, axes, strict=True):
        grid = next(iter((record.results or {})["motion"].values()))["grid"]
        for key, panel in zip(("drift", "squared_diffusion"), row, strict=True):
            for name, style in (("exact", "k--"), ("truth", "k-")):
                panel.plot(grid[name]["position"], _gaps(grid[name][key]), style, lw=1, label=name)
            for name, colour in (("real", "#b4500f"), ("generated", "#1f5fa8")):
                error = [WIDE * e for e in _gaps(grid[name][f"{key}_error"])]
                place, value = grid[name]["position"], _gaps(grid[name][key])
                panel.errorbar(place, value, error, fmt="o", ms=3, lw=1, color=colour, label=name)
            panel.set(title=f"{record.folder.name}: {key.replace('_', ' ')}", xlabel="position")
            panel.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def play(record: Record, path: Path) -> None:
    """Write a GIF of generated videos."""
    videos = write.enlarge(record.pictures["generated"][:8], 64)
    write.gif(path, write.tile(videos, 4), float(record.pictures["fps"]))


def _made(records: Sequence[Record]) -> Iterator[str]:
    results = records[0].results
    assert results is not None
    provenance = results["provenance"]
    machine, versions = provenance["machine"], provenance["versions"]
    stamp = (records[0].folder / "results.json").stat().st_mtime
    day = datetime.datetime.fromtimestamp(stamp, datetime.UTC).date()
    spent = ", ".join(
        f"{r.folder.name} {duration(r.seconds or 0)} for {r.clips:,} clips" for r in records
    )
    yield (
        f"Measured on {day} on {machine['cores']} cores of {machine['processor']}, "
        f"{machine['memory_gib']} GiB; {', '.join(f'{k} {v}' for k, v in versions.items())}. "
        f"Training, both at once: {spent}. One seed."
    )


def _section(record: Record) -> Iterator[str]:
    results = record.results
    assert results is not None
    for axis, entry in results["motion"].items():
        sde = results["protocol"]["truth"]["axes"][axis]
        parameters = ", ".join(f"{k} = {v:g}" for k, v in sde.items() if k != "sde")
        yield f"## {record.folder.name}: {sde['sde']}, {parameters}"
        yield ""
        yield from _worst(entry)
        yield ""
        yield from _motion(entry)
    yield ""
    yield from _rates(results)
    yield ""
    yield from _futures(results)
    yield ""
    yield from _prediction(results)
    yield ""
    terms = ", ".join(
        f"{name.replace('_', ' ')} {_measured(term)}" for name, term in results["elbo"].items()
    )
    yield f"Held out, no frame observed, nats a clip: {terms}."


def _worst(entry: dict[str, Any]) -> Iterator[str]:
    """Describe the worst bin of drift and squared diffusion, whether or not it is good."""
    for key, of in (("squared_diffusion", "the truth there"), ("drift", "the largest true drift")):
        worst = worst_bin(entry["grid"], key, relative=key == "squared_diffusion")
        if worst is None:
            continue
        sure = "surely" if worst.is_wrong else "not surely"
        yield (
            f"- Worst bin of the {key.replace('_', ' ')}: {100 * worst.share:+.0f} ± "
            f"{100 * WIDE * worst.error:.0f} % of {of}, at {worst.position:.2g} (95 % interval); "
            f"{sure} more than {100 * TOLERATED:.0f} % off."
        )


def _motion(entry: dict[str, Any]) -> Iterator[str]:
    statistics, exact = entry["statistics"], entry["statistics"]["exact"]
    rows = []
    for key, label in STATISTICS:
        cells = [_measured(statistics[who].get(key)) for who in ("generated", "real", "truth")]
        rows.append([label, *cells, _number(exact.get(key))])
    yield from _table(["64 frames, generated", "generated", "real", "truth", "exact"], rows)


def _rates(results: dict[str, Any]) -> Iterator[str]:
    fps = results["protocol"]["fps"]
    for axis, entry in results["motion"].items():
        at = {float(k): axes[axis] for k, axes in results["rates"].items()} | {1.0: entry}
        head = ["in brackets the truth", *(f"{factor * fps:g} a second" for factor in sorted(at))]
        rows = []
        for key, label in STATISTICS[:2]:
            cells = []
            for factor in sorted(at):
                seen = at[factor]["statistics"]
                truth = _number(seen["truth"][key]["mean"])
                cells.append(f"{_number(seen['generated'][key]['mean'])} ({truth})")
            rows.append([label, *cells])
        yield from _table(head, rows)


def _futures(results: dict[str, Any]) -> Iterator[str]:
    """Tabulate futures against baselines on pixels, and the simulator on the position."""
    scores = results["futures"]
    rows = []
    for name, forecast in scores["forecasts"].items():
        one = forecast["channels"][0]
        covered = one.get("coverage", {}).get("0.9")
        spread = one.get("spread_over_error")
        cells = [one["crps"]["1"], covered, spread]
        rows.append([name.replace("_", " "), *map(_measured, cells)])
    members, clips, context = (scores[name] for name in ("members", "clips", "context"))
    yield f"{members} futures of {clips} prefixes of {context} frames:"
    yield ""
    yield from _table(["", "fair CRPS", "90 % intervals hold", "spread over error"], rows)
    yield ""
    beside = results["simulator_futures"]
    energy = beside["energy_score"]
    yield (
        f"Energy score of the position of {beside['members']} futures: model "
        f"{_measured(energy['model'])}, simulator {_measured(energy['simulator'])}, difference "
        f"{_measured(energy['model_minus_simulator'])}; on average none can beat the simulator."
    )


def _prediction(results: dict[str, Any]) -> Iterator[str]:
    protocol, scores = results["protocol"], results["prediction"]
    rows = []
    for name, scored, label in FORECASTS:
        energy = scores.get("energy_score", {}).get(scored) if scored else None
        rows.append([label, _measured(scores["psnr"][name]), _measured(energy)])
    yield (
        f"Prediction from {protocol['context']} frames, {protocol['clips']} held-out clips, "
        f"{protocol['samples']} samples of each:"
    )
    yield ""
    yield from _table(["", "PSNR, dB", "energy score of the position"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def _measured(entry: dict[str, Any] | None) -> str:
    if entry is None or entry.get("mean") is None:
        return ""
    mean, error = entry["mean"], entry.get("standard_error")
    if not error:
        return _number(mean)
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{mean:,.{decimals}f} ± {error:,.{decimals}f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"demo_page: {error}", file=sys.stderr)
        sys.exit(2)
