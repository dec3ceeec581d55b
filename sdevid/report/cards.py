"""The cards at the head of the page: each with the worst figure, its interval and its rival."""

from __future__ import annotations

import html
from typing import Any, NamedTuple

from sdevid.report import forecasts, law
from sdevid.report.findings import FORECASTS
from sdevid.report.record import Record
from sdevid.report.words import NOT_MEASURED, between, number
from sdevid.report.worst import TOLERATED, WIDE, Deviation, worst_bin

WRONG = "finding wrong"


def summary(run: Record) -> str:
    """Lay out the main figures, each with what it is to be compared with."""
    assert run.results is not None
    results, protocol = run.results, run.results["protocol"]
    clips = f"{protocol['clips']} clips of {protocol['split']}"
    findings = [_elbo(results, clips)] if "elbo" in results else []
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


def _elbo(results: dict[str, Any], clips: str) -> str:
    """Show the bound with its interval, beside the best of the run's checkpoints."""
    bound = results["elbo"]
    if bound is None:
        return _finding("Held-out ELBO", "not defined", "this kind of model has no bound")
    sentence = (
        f"nats a clip{between(bound['elbo'])}, {clips}; no figure to judge a model by alone: "
        "compare it with runs of the same data, frames and likelihood"
    )
    kept = [
        (entry["elbo"]["mean"], entry["clips"])
        for entry in results.get("elbo_over_time") or []
        if entry["elbo"]["mean"] is not None
    ]
    if len(kept) > 1:
        best, at = max(kept)
        of = f"this run's {len(kept)} checkpoints"
        sentence += f". The best of {of}: {number(best)}, at {at:,} clips"
    return _finding("Held-out ELBO", number(bound["elbo"]["mean"]), sentence)


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
    worst = _worst_frame(forecasts, measure, better)
    behind = worst is not None and worst.interval is not None and worst.interval[1] < 0
    return _finding(
        title,
        f"{number(own)}{unit}",
        f"{verdict}: {others_text}{_of_frame(worst, unit)}",
        wrong=len(ahead) < 2 or behind,
    )


class _Lead(NamedTuple):
    """How far the model is ahead of the better baseline at a frame; below 0 it is behind."""

    value: float
    frame: int  # ahead, from 1
    interval: tuple[float, float] | None  # of 95 %, over source videos


def _worst_frame(forecasts: dict[str, Any], measure: str, better: int) -> _Lead | None:
    """Find the frame ahead at which the model does worst beside the better baseline.

    Results of before 0.2.0 give no intervals.
    """
    own = forecasts["mean_of_samples" if measure == "psnr" else "samples"]
    if "lead_by_frame" in own:
        known = [
            _Lead(lead["mean"], k, lead.get("interval"))
            for k, lead in enumerate(own["lead_by_frame"], 1)
            if lead["mean"] is not None
        ]
        return min(known, default=None)
    others = [forecasts[name]["by_frame"] for name in ("copy_last_frame", "mean_frame")]
    leads = []
    for k, values in enumerate(zip(own["by_frame"], *others, strict=True), start=1):
        if None not in values:
            best = max(better * value for value in values[1:])
            leads.append(_Lead(better * values[0] - best, k, None))
    return min(leads, default=None)


def _of_frame(lead: _Lead | None, unit: str) -> str:
    if lead is None:
        return ""
    side = "ahead of" if lead.value > 0 else "behind"
    sentence = (
        f". Worst at frame {lead.frame} ahead: {number(abs(lead.value))}{unit} {side} the better "
        "baseline"
    )
    if lead.interval is None:
        return sentence
    low, high = lead.interval
    return f"{sentence} (95 % interval of the lead {number(low)} to {number(high)})"


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
