"""The page's sections on what was measured: summary, video, prediction, motion."""

from __future__ import annotations

import html
from typing import Any

from sdevid.report import forecasts, law, picture
from sdevid.report.plot import Kind, Series, plot
from sdevid.report.record import Record
from sdevid.report.words import NOT_MEASURED, measured, number, table
from sdevid.report.worst import TOLERATED, WIDE, Deviation, worst_bin
from sdevid.sample.film import film

FORECASTS = {
    "mean_of_samples": "mean of {samples} samples",
    "samples": "{samples} samples",
    "one_sample": "one sample",
    "copy_last_frame": "copy last frame",
    "mean_frame": "mean frame",
}
WRONG = "finding wrong"
SIDE = 64  # least side of a moving picture, in pixels


def summary(run: Record) -> str:
    """Lay out the main figures, each with what it is to be compared with."""
    assert run.results is not None
    results, protocol = run.results, run.results["protocol"]
    clips = f"{protocol['clips']} clips of {protocol['split']}"
    findings = [_elbo(results["elbo"], clips)] if "elbo" in results else []
    for measure, unit, better in (("psnr", " dB", 1), ("energy_score", "", -1)):
        if measure in results.get("prediction", {}):
            findings.append(_prediction(results["prediction"][measure], measure, unit, better))
    for axis, entry in (results.get("motion") or {}).items():
        findings.append(_motion(axis, entry))
    for card in (forecasts.card(run), law.card(run)):
        if card is not None:
            findings.append(_finding(*card[:3], wrong=card[3]))
    findings.sort(key=lambda card: WRONG not in card)  # what is wrong stands first
    return f'<div class="findings">{"".join(findings)}</div>'


def _elbo(bound: dict[str, Any] | None, clips: str) -> str:
    if bound is None:
        return _finding("Held-out ELBO", "not defined", "this kind of model has no bound")
    return _finding("Held-out ELBO", number(bound["elbo"]["mean"]), f"nats a clip, {clips}")


def _finding(name: str, value: str, sentence: str, *, wrong: bool = False) -> str:
    kind = WRONG if wrong else "finding"
    return (
        f'<div class="{kind}"><span class="name">{html.escape(name)}</span><b>{value}</b>'
        f"<span>{html.escape(sentence)}</span></div>"
    )


def _prediction(forecasts: dict[str, Any], measure: str, unit: str, better: int) -> str:
    own = forecasts["mean_of_samples" if measure == "psnr" else "samples"]["mean"]
    others = {name: forecasts[name]["mean"] for name in ("copy_last_frame", "mean_frame")}
    title = "PSNR of the mean prediction" if measure == "psnr" else "Energy score of the position"
    if own is None or None in others.values():
        return _finding(title, NOT_MEASURED, "not measured")
    ahead = [name for name, value in others.items() if better * (own - value) > 0]
    verdict = {2: "ahead of both baselines", 0: "behind both baselines"}.get(
        len(ahead), f"ahead of one baseline only ({FORECASTS[ahead[0]] if ahead else ''})"
    )
    others_text = ", ".join(f"{FORECASTS[n]} {number(v)}{unit}" for n, v in others.items())
    others_text += _worst_frame(forecasts, measure, unit, better)
    return _finding(
        title, f"{number(own)}{unit}", f"{verdict}: {others_text}", wrong=len(ahead) < 2
    )


def _worst_frame(forecasts: dict[str, Any], measure: str, unit: str, better: int) -> str:
    """Name the frame ahead at which the model does worst beside the better baseline."""
    own = forecasts["mean_of_samples" if measure == "psnr" else "samples"]["by_frame"]
    others = [forecasts[name]["by_frame"] for name in ("copy_last_frame", "mean_frame")]
    leads = []
    for k, values in enumerate(zip(own, *others, strict=True), start=1):
        if None not in values:
            best = max(better * value for value in values[1:])
            leads.append((better * values[0] - best, k))
    if not leads:
        return ""
    lead, frame = min(leads)
    side = "ahead of" if lead > 0 else "behind"
    return f". Worst at frame {frame} ahead: {number(abs(lead))}{unit} {side} the better baseline"


def _motion(axis: str, entry: dict[str, Any]) -> str:
    """Name the worst bin of the squared diffusion, and what else is far from the truth."""
    ratio = entry["ratio_to_truth"]["generated"]
    worst = worst_bin(entry["grid"], "squared_diffusion", relative=True)
    drift = worst_bin(entry["grid"], "drift", relative=False)
    generated, truth = (entry["statistics"][name] for name in ("generated", "truth"))
    means = ", ".join(
        f"{label} {NOT_MEASURED if ratio[key] is None else f'{ratio[key]:.2f}'}"
        for key, label in (("variance", "variance"), ("squared_diffusion", "squared diffusion"))
    )
    crossings = [number(motion["crossings"]["mean"], 2) for motion in (generated, truth)]
    sentences = [f"Means over truth: {means}; {crossings[0]} crossings (truth {crossings[1]})"]
    if drift is not None:
        sentences.insert(0, f"Drift at its worst bin {_deviation(drift)} of the largest true drift")
    if worst is None:
        return _finding(f"Squared diffusion along {axis}", NOT_MEASURED, ". ".join(sentences))
    return _finding(
        f"Squared diffusion along {axis}, worst bin",
        f"{100 * worst.share:+.0f} %",
        f"of the truth at {worst.position:.2g} (95 % interval {_interval(worst)}): "
        f"{'surely' if worst.is_wrong else 'not surely'} more than {100 * TOLERATED:.0f} % off. "
        + ". ".join(sentences),
        wrong=worst.is_wrong or (drift is not None and drift.is_wrong),
    )


def _deviation(one: Deviation) -> str:
    return f"{100 * one.share:+.0f} % ({_interval(one)})"


def _interval(one: Deviation) -> str:
    low, high = (one.share + sign * WIDE * one.error for sign in (-1, 1))
    return f"{100 * low:+.0f} to {100 * high:+.0f} %"


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
