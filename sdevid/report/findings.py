"""The page's sections on what was measured: video, prediction, motion."""

from __future__ import annotations

import html
from typing import Any

from sdevid.report import picture
from sdevid.report.plot import Kind, Series, plot
from sdevid.report.record import Record
from sdevid.report.words import measured, number, table
from sdevid.sample.film import film

FORECASTS = {
    "mean_of_samples": "mean of {samples} samples",
    "samples": "{samples} samples",
    "one_sample": "one sample",
    "copy_last_frame": "copy last frame",
    "mean_frame": "mean frame",
}
SIDE = 64  # least side of a moving picture, in pixels


def videos(run: Record) -> str:
    """Lay out generated beside real video, moving."""
    generated, real = run.pictures.get("generated"), run.pictures.get("real")
    if generated is None or real is None:
        return ""
    fps = float(run.pictures["fps"])
    columns = 4 if len(real) > 4 else 2
    left = film(generated, fps, columns, SIDE, "generated videos")
    right = film(real, fps, columns, SIDE, "real videos")
    trained = run.config.get("observation", {}).get("free_fraction", 1) > 0
    caution = "" if trained else " Training never began from nothing (free_fraction is 0)."
    return (
        '<h2>Generated beside real video</h2><div class="pair">'
        f"<figure>{left}<figcaption>Generated from nothing: the first {len(generated)} samples of "
        f"the seed.{caution}</figcaption></figure><figure>{right}"
        "<figcaption>Real and held out: clips at even distances through the split.</figcaption>"
        "</figure></div>"
    )


def prediction(run: Record) -> str:
    """Lay out futures of held-out clips, and how good they are beside the baselines."""
    assert run.results is not None
    if "prediction" not in run.results:
        return ""
    protocol, scores = run.results["protocol"], run.results["prediction"]
    context, samples = protocol["context"], protocol["samples"]
    strips = "".join(_strip(run, i, context) for i in range(len(run.pictures.get("clips", ()))))
    plots = "".join(
        _by_frame(scores[name], title, unit, protocol)
        for name, title, unit in (
            ("psnr", "PSNR by frame", "dB, higher is better"),
            ("energy_score", "Energy score by frame", "units, lower is better"),
        )
        if name in scores
    )
    return (
        f"<h2>Prediction from {context} frames</h2>"
        f"<p>{protocol['clips']} held-out clips, {samples} futures each. PSNR is taken of the mean "
        f"of the samples, which is what it rewards. {_of_one_sample(scores['psnr'])}"
        f"{_of_energy(scores)}</p>"
        f'{_scores(scores, samples)}<div class="plots">{plots}</div>'
        f'<h3>Clips at even distances through the split</h3><div class="scroll">{strips}</div>'
    )


def _of_one_sample(psnr: dict[str, Any]) -> str:
    one, copy = psnr["one_sample"]["mean"], psnr["copy_last_frame"]["mean"]
    sentence = (
        "One sample of a stochastic motion is rightly worse in PSNR than copying the last frame: a "
        "sharp draw of another future than the one that came is charged twice, where things are "
        f"and where they should be. Here it has {number(one)} dB, and copying {number(copy)} dB."
    )
    if one is not None and copy is not None and one > copy:
        sentence += (
            " That it is ahead here speaks of blurred or still samples, or of regular motion."
        )
    return sentence


def _of_energy(scores: dict[str, Any]) -> str:
    if "energy_score" not in scores:
        return ""
    return (
        " The energy score of the tracked position asks whether the samples are spread as the "
        "futures are; a baseline is a point forecast, whose score is its distance."
    )


def _scores(scores: dict[str, Any], samples: int) -> str:
    psnr, ssim, energy = scores["psnr"], scores.get("ssim"), scores.get("energy_score")
    rows = []
    for name in psnr:
        label = FORECASTS[name].format(samples=samples)
        other = "samples" if name == "mean_of_samples" else name
        cells = [label, measured(psnr[name], 4)]
        if ssim is not None:
            cells.append(measured(ssim[name]))
        if energy is not None:
            cells.append(measured(energy.get(other)))
        rows.append(cells)
    head = ["forecast", "PSNR, dB"] + (["SSIM"] if ssim else [])
    head += ["energy score, units"] if energy else []
    note = "Means with standard errors over clips."
    if energy is not None:
        note += " The first row's energy score is that of all its samples."
    return f'{table(head, rows, best=(0,))}<p class="quiet">{note}</p>'


def _by_frame(scores: dict[str, Any], title: str, unit: str, protocol: dict[str, Any]) -> str:
    curves = []
    for (name, score), colour in zip(scores.items(), _colours(scores), strict=True):
        values = score["by_frame"]
        label = FORECASTS[name].format(samples=protocol["samples"])
        kind: Kind = "dashed" if name == "one_sample" else "line"
        ahead = list(range(1, len(values) + 1))
        curves.append(Series(label, ahead, values, colour, kind))
    return plot(title, curves, "frames ahead", unit)


def _colours(scores: dict[str, Any]) -> list[str]:
    fixed = {"copy_last_frame": "real", "mean_frame": "fourth"}
    return [fixed.get(name, "generated") for name in scores]


def _strip(run: Record, i: int, context: int) -> str:
    clip, mean, samples = (run.pictures[name][i] for name in ("clips", "means", "samples"))
    rows = [("real", clip, 0), ("mean", mean, context)]
    rows += [(f"sample {j}", sample, context) for j, sample in enumerate(samples)]
    cells = "".join(
        f"<span>{name}</span>{picture.strip(frames, before, name)}" for name, frames, before in rows
    )
    ahead = len(clip) - context
    return (
        '<div class="strip"><span></span><div class="spans">'
        f'<div style="flex:{context}">observed</div>'
        f'<div style="flex:{ahead}">predicted</div></div>{cells}</div>'
    )


def motion(run: Record) -> str:
    """Plot drift and squared diffusion of the tracked motion beside truth."""
    assert run.results is not None
    entries, protocol = run.results.get("motion"), run.results["protocol"]
    if not entries:
        return ""
    head = (
        "<h2>Is the SDE right?</h2><p>The disc is tracked in "
        f"{protocol['rollouts']} generated videos of {protocol['rollout_frames']} frames and in "
        "the real held-out clips, and drift and squared diffusion are estimated from its steps "
        "between frames. Such estimates are biased by the finite interval, so the fair "
        "comparison is the full line: the true SDE, simulated and seen through the same estimator. "
        "The dashed line is the SDE's own function.</p>"
    )
    return head + "".join(_axis(axis, entry, protocol) for axis, entry in entries.items())


_FIRST_ORDER = (
    ("drift", "Drift", "units a second"),
    ("squared_diffusion", "Squared diffusion", "units² a second"),
)
_SECOND_ORDER = (
    ("drift", "Mean acceleration", "radians a second²"),
    ("squared_diffusion", "Squared diffusion of the velocity", "radians² a second³"),
)


def _axis(axis: str, entry: dict[str, Any], protocol: dict[str, Any]) -> str:
    sde = dict(protocol["truth"]["axes"][axis])
    name = sde.pop("sde")
    parameters = ", ".join(f"{key} = {value:g}" for key, value in sde.items())
    plots = "".join(
        _coefficient(entry["grid"], key, title, unit)
        for key, title, unit in (_SECOND_ORDER if entry.get("order") == 2 else _FIRST_ORDER)
    )
    title = f"<h3>Along {axis}: {html.escape(name)} with {html.escape(parameters)}</h3>"
    return f'{title}<div class="plots">{plots}</div>{_statistics(entry)}'


def _coefficient(grid: dict[str, Any], key: str, title: str, unit: str) -> str:
    curves = [
        Series("exact", grid["exact"]["position"], grid["exact"][key], "exact", "dashed"),
        Series(
            "truth at the frame interval", grid["truth"]["position"], grid["truth"][key], "truth"
        ),
    ]
    for name, shift in (("real", -0.15), ("generated", 0.15)):
        x = grid[name]["position"]
        width = x[1] - x[0]
        shifted = [value + shift * width for value in x]
        errors = grid[f"{name}"][f"{key}_error"]
        curves.append(Series(name, shifted, grid[name][key], name, "points", errors))
    values = [v for one in curves for v in one.y if v is not None]
    low, high = min(values), max(values)
    pad = 0.1 * (high - low)
    floor = 0.0 if key == "squared_diffusion" else low - pad
    return plot(title, curves, "position, units", unit, (floor, high + pad))


def _statistics(entry: dict[str, Any]) -> str:
    statistics, ratio = entry["statistics"], entry["ratio_to_truth"]
    exact = statistics["exact"]
    rows = []
    for key, label in (
        ("variance", "variance, units²"),
        ("squared_diffusion", "squared diffusion, units² a second"),
        ("crossings", "crossings of the middle in 64 frames"),
        ("right_share", "share of frames on the positive side"),
        ("autocorrelation_time", "autocorrelation time, to 1/e, s"),
        ("first_passage_time", "first-passage time, s"),
        ("lost", "share of frames with no disc found"),
    ):
        cells = [measured(statistics[name].get(key)) for name in ("generated", "real", "truth")]
        shares = [number(ratio[name].get(key), 3) for name in ("generated", "real")]
        rows.append([label, *cells, number(exact.get(key)), *shares])
    head = ["", "generated", "real", "truth at the interval", "exact"]
    return table([*head, "generated / truth", "real / truth"], rows) + _of_passage(entry)


def _of_passage(entry: dict[str, Any]) -> str:
    horizon = entry.get("horizon")
    until = f", each counted up to {horizon:.2f} s" if horizon else ""
    meant = f"First passages are from one standard deviation off the middle to it{until}."
    return f'<p class="quiet">{meant}</p>'
