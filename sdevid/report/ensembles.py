"""The page's sections on other frame rates, many futures, digits, and every figure as a table."""

from __future__ import annotations

import html
from typing import Any

from sdevid.evaluate import registry
from sdevid.evaluate.digits import futures as digit_futures
from sdevid.report.plot import Series, plot
from sdevid.report.record import Record
from sdevid.report.words import measured, number, table

STATISTICS = (
    ("variance", "variance"),
    ("squared_diffusion", "squared diffusion"),
    ("autocorrelation_time", "autocorrelation time, s"),
    ("first_passage_time", "first-passage time, s"),
)


def rates(run: Record) -> str:
    """Lay out the motion at other frame rates beside that of training."""
    results = run.results or {}
    estimates, motion = results.get("rates"), results.get("motion")
    if not estimates or not motion:
        return ""
    sections = "".join(
        _axis_rates(axis, estimates, motion, results["protocol"]["fps"]) for axis in motion
    )
    return (
        "<h3>At other frame rates</h3><p>The same videos generated at 1/2, 2 and 4 times the "
        "training rate. In brackets the true SDE, simulated and seen at that rate through the same "
        f"estimator; a finite interval biases both.</p>{sections}"
    )


def _axis_rates(axis: str, estimates: dict[str, Any], motion: dict[str, Any], fps: float) -> str:
    at = {float(factor): axes[axis] for factor, axes in estimates.items()} | {1.0: motion[axis]}
    factors = sorted(at)
    head = [f"along {axis}", *(f"{factor * fps:g} frames a second" for factor in factors)]
    rows = []
    for key, label in STATISTICS:
        cells = []
        for factor in factors:
            statistics = at[factor]["statistics"]
            truth = number(statistics["truth"][key]["mean"])
            cells.append(f"{measured(statistics['generated'][key])} ({truth})")
        rows.append([label, *cells])
    return table(head, rows)


def futures(run: Record) -> str:
    """Lay out the model's futures beside the simulator's."""
    scores = (run.results or {}).get("simulator_futures")
    if not scores:
        return ""
    together = scores["energy_score"]
    gap = measured(together["model_minus_simulator"])
    head = (
        f"<h2>{scores['members']} futures beside the simulator's</h2><p>From the first "
        f"{scores['context']} frames of {scores['clips']} held-out clips the model makes "
        f"{scores['members']} futures each; the true SDE makes as many from the clip's true state. "
        f"Energy score: model {measured(together['model'])}, simulator "
        f"{measured(together['simulator'])}, difference {gap}; no forecast is better than the "
        "simulator's on average. A calibrated ensemble has spread as error, 1, and flat ranks.</p>"
    )
    return head + "".join(_axis_futures(axis, who) for axis, who in scores["axes"].items())


def _axis_futures(axis: str, who: dict[str, Any]) -> str:
    rows = []
    for name, entry in who.items():
        last = entry["last_frame"]
        cells = [measured(entry["crps"]), measured(entry["spread_skill"])]
        cells += [number(entry["reliability_index"]), number(last["p_value"])]
        rows.append([name, *cells])
    head = [f"along {axis}", "CRPS", "spread over error", "reliability index", "p of flat ranks"]
    plots = "".join(
        plot(title, _curves(who, key), label, unit)
        for key, title, label, unit in (
            ("ranks", "Ranks of what came", "bin of ranks", "share of cases"),
            ("crps_by_frame", "CRPS by frame", "frames ahead", "lower is better"),
        )
    )
    note = (
        "The reliability index is the ranks' mean distance from even shares; p at the last frame."
    )
    return f'{table(head, rows)}<p class="quiet">{note}</p><div class="plots">{plots}</div>'


def _curves(who: dict[str, Any], key: str) -> list[Series]:
    steps = [float(i + 1) for i in range(len(who["model"][key]))]
    return [
        Series("model", steps, who["model"][key], "generated"),
        Series("simulator", steps, who["simulator"][key], "truth"),
    ]


def digits(run: Record) -> str:
    """Lay out the scores of Stochastic Moving MNIST by its protocol."""
    section = (run.results or {}).get("digits")
    if not section:
        return ""
    scores = section["scores"]
    rows = [
        [label, measured(scores[key], 4), measured(scores.get(f"{key}_real"), 4)]
        for key, label in digit_futures.TITLES.items()
    ]
    return (
        f"<h2>Stochastic Moving MNIST, {html.escape(section['generator'])}'s generator</h2>"
        f"<p>{section['context']} frames seen, {section['predicted']} predicted, "
        f"{section['clips']} held-out clips, best of K = {section['best_of']} futures. "
        "The best of many rewards guesses that are spread too wide; the energy score of the "
        "digits' places does not. Digits are read by a small network trained on the training "
        "split: what it makes of real frames is "
        f"its own error.</p>{table(['', 'generated', 'real'], rows)}"
    )


def figures(run: Record) -> str:
    """Tabulate every figure that was measured, with its error and interval."""
    if run.results is None:
        return ""
    body, section = [], ""
    for row in registry.rows(run.results):
        if row.section != section:
            section = row.section
            body.append([f"<b>{html.escape(section)}</b>", "", "", ""])
        interval = row.entry.get("interval")
        bounds = f"{number(interval[0], 4)} to {number(interval[1], 4)}" if interval else ""
        body.append([html.escape(row.name), measured(row.entry, 4), bounds, html.escape(row.note)])
    listed = table(["", "mean", "95 % interval, bootstrap", ""], body)
    return f"<h2>Every figure</h2><details><summary>As a table</summary>{listed}</details>"
