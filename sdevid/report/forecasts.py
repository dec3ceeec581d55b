"""The page's sections on futures beside baselines, and on where the model fails."""

from __future__ import annotations

import html
from typing import Any

from sdevid.report.plot import Series, plot
from sdevid.report.record import Record
from sdevid.report.words import NOT_MEASURED, between, measured, number, table

COLOURS = {
    "model": "generated",
    "persistence": "real",
    "climatology": "fourth",
    "optical_flow": "exact",
    "steps": "truth",
}  # of the forecasts that are plotted by lead time
FAR = 0.1  # of coverage from its level; beyond it a card is red


def card(run: Record) -> tuple[str, str, str, bool] | None:
    """Summarise the futures' CRPS and coverage: name, value, comparison, whether it is wrong.

    Fair CRPS of the first channel. None where they were not measured.
    """
    scores = (run.results or {}).get("futures")
    if not scores:
        return None
    model = scores["forecasts"]["model"]["channels"][0]
    others = {
        name: one["channels"][0]["crps"]["1"]["mean"]
        for name, one in scores["forecasts"].items()
        if not name.startswith("model")
    }
    crps, covered = model["crps"]["1"]["mean"], model["coverage"]["0.9"]["mean"]
    known = {name: value for name, value in others.items() if value is not None}
    if crps is None or covered is None or not known:
        return None
    best = min(known, key=lambda name: known[name])
    sentence = (
        f"{scores['unit']}; the best baseline, {_words(best)}, {number(known[best])}. Central 90 % "
        f"intervals hold {100 * covered:.0f} % of what happened"
    )
    off = abs(covered - 0.9) > FAR
    sentence += ", far from that" if off else ""
    worst = _worst_lead(scores, model, best)
    if worst is None:
        return "Fair CRPS of futures", number(crps), sentence, crps > known[best] or off
    share, lead = worst
    sentence += (
        f". Worst at {lead * scores['frame_interval']:.3g} s ahead: {share['mean']:.2f} of the "
        f"baseline's{between(share)}"
    )
    behind = (share.get("interval") or [0])[0] > 1
    return "Fair CRPS of futures", number(crps), sentence, crps > known[best] or off or behind


def _worst_lead(
    scores: dict[str, Any], model: dict[str, Any], best: str
) -> tuple[dict[str, Any], int] | None:
    """Find the lead time, from 1, of the largest CRPS in shares of the best baseline's.

    Results of before 0.2.0 give no intervals.
    """
    other = scores["forecasts"][best]
    if "model_crps_share_by_lead" in other:
        shares = other["model_crps_share_by_lead"][0]
    else:
        both = [one["crps"]["1"]["by_lead"] for one in (model, other["channels"][0])]
        pairs = zip(*both, strict=True)
        shares = [{"mean": a / b if a and b else None} for a, b in pairs]
    known = [(share, lead) for lead, share in enumerate(shares, 1) if share["mean"]]
    return max(known, key=lambda entry: entry[0]["mean"], default=None)


def futures(run: Record) -> str:
    """Tabulate every score of the futures beside the baselines'."""
    scores = (run.results or {}).get("futures")
    if not scores:
        return ""
    channels = len(scores["forecasts"]["model"]["channels"])
    head = (
        f"<h2>Futures beside baselines</h2><p>{scores['members']} futures of each of "
        f"{scores['clips']} prefixes of {scores['context']} frames, from {scores['sources']} "
        f"source videos; in {html.escape(scores['unit'])}, intervals over source videos. A "
        "calibrated ensemble has spread as error, 1, flat ranks, and intervals that hold as much "
        "as they say.</p>"
    )
    reasons = "".join(
        f"<li>{html.escape(name)}: {html.escape(reason)}</li>"
        for name, reason in scores["left_out"].items()
    )
    left_out = f'<ul class="quiet">{reasons}</ul>' if reasons else ""
    return head + "".join(_channel(scores, k, channels) for k in range(channels)) + left_out


def _channel(scores: dict[str, Any], channel: int, channels: int) -> str:
    forecasts = {name: one["channels"][channel] for name, one in scores["forecasts"].items()}
    head = ["forecast", "fair CRPS", "of 4 x 4 means", "RMSE", "spread over error"]
    head += ["50 % hold", "90 % hold", "p of flat ranks"]
    rows = []
    for name, entry in forecasts.items():
        covered = entry.get("coverage", {})
        rows.append(
            [
                _words(name),
                measured(entry["crps"]["1"]),
                measured(entry["crps"].get("4")),
                measured(entry["rmse"]),
                measured(entry.get("spread_over_error")),
                *(measured(covered.get(level)) for level in ("0.5", "0.9")),
                number(entry["ranks"]["p_value"]) if "ranks" in entry else NOT_MEASURED,
            ]
        )
    title = f"<h3>Channel {channel}</h3>" if channels > 1 else ""
    listed = table(head, rows, best=(0,))
    return f'{title}{listed}<div class="plots">{_plots(scores, forecasts)}</div>'


def _plots(scores: dict[str, Any], forecasts: dict[str, Any]) -> str:
    interval = scores["frame_interval"]
    curves = [
        Series(
            _words(name),
            [interval * (k + 1) for k in range(len(entry["crps"]["1"]["by_lead"]))],
            entry["crps"]["1"]["by_lead"],
            COLOURS[name],
        )
        for name, entry in forecasts.items()
        if name in COLOURS
    ]
    model = forecasts["model"]
    levels = [float(level) for level in model["coverage"]]
    held = [entry["mean"] for entry in model["coverage"].values()]
    share = model["ranks"]["share"]
    centres = [(k + 0.5) / len(share) for k in range(len(share))]
    flat = [1 / len(share)] * len(share)
    return (
        plot("Fair CRPS by lead time", curves, "seconds ahead", scores["unit"], from_zero=True)
        + plot(
            "Coverage of central intervals",
            [
                Series("model", levels, held, "generated", "points"),
                Series("calibrated", levels, levels, "truth", "dashed"),
            ],
            "level",
            "share held",
        )
        + plot(
            "Rank histogram",
            [
                Series("model", centres, share, "generated"),
                Series("flat", centres, flat, "truth", "dashed"),
            ],
            "rank within the ensemble",
            "share of values",
        )
    )


def failures(run: Record) -> str:
    """Tabulate where the model fails, part after part."""
    scores = (run.results or {}).get("failures")
    if not scores:
        return ""
    rows = [
        [
            _words(name),
            measured(entry),
            *(
                measured(scores[key].get(name))
                for key in ("shift_slope", "brightness", "sharpness")
            ),
        ]
        for name, entry in scores["psnr"].items()
    ]
    head = ["", "PSNR, dB", "slope of shifts", "brightness", "sharpness"]
    correlation = scores["content_state_correlation"]
    nats = ", ".join(f"{_words(name)} {measured(entry)}" for name, entry in scores["nats"].items())
    return (
        f"<h2>Where it fails</h2><p>{scores['clips']} held-out clips, {scores['context']} frames "
        "given. Each row is scored on the frame it should show; `still` is the real frame of the "
        "step's start. The slope of the centroid's shift is 1 for a right drift and 0 for one that "
        f"stands still; brightness and sharpness are shares of the real.</p>{table(head, rows)}"
        f'<p class="quiet">Nats: {nats}. Largest correlation of w with the state '
        f"{number(correlation['mean'])}, by chance {number(correlation['chance'])}.</p>"
    )


def _words(name: str) -> str:
    return html.escape(name.replace("_", " "))
