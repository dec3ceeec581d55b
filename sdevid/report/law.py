"""The page's section on the law of motion: what `sdevid law` read off the model and off tracks."""

from __future__ import annotations

from sdevid.report.law_file import ComparedRates, Estimated, StatedLaw
from sdevid.report.record import Record
from sdevid.report.words import NOT_MEASURED, missing, number, table

TOLERATED = 0.15  # of the real films' diffusion


def section(run: Record) -> str:
    """Lay out the law in units, and tracked films beside real ones; empty where neither applies."""
    if run.law is None:
        particles = run.config.get("sde", {}).get("latent") == "particles"
        if not particles:
            return ""
        lacking = missing("law.json is not there yet: the law was not read.", _command(run))
        return f"<h2>The law of motion</h2>{lacking}"
    parts = ["<h2>The law of motion</h2>"]
    if run.law.law is not None:
        parts.append(_particles(run.law.law))
    if run.law.compared:
        parts.append(_tracked(run.law.compared))
    return "".join(parts)


def card(run: Record) -> tuple[str, str, str, bool] | None:
    """Summarise D of futures at the worst rate: name, value, comparison, whether it is wrong.

    None where no films were tracked on both sides.
    """
    shares = [
        (one.futures.diffusion.value / one.real.diffusion.value - 1, one.fps, one.real, one.futures)
        for one in (run.law.compared if run.law is not None else [])
        if one.futures and one.real and one.real.diffusion.value
    ]
    if not shares:
        return None
    share, fps, real, futures = max(shares, key=lambda entry: abs(entry[0]))
    sentence = (
        f"pixel²/s by tracks at {fps:g} frames a second, the worst of {len(shares)} rates: "
        f"{100 * share:+.0f} % of the real films' {number(real.diffusion.value)}"
    )
    return "Diffusion of futures", number(futures.diffusion.value), sentence, abs(share) > TOLERATED


def _particles(law: StatedLaw) -> str:
    place, speed = ("pixel²/s", "pixel/s") if law.order == 1 else ("pixel²/s³", "pixel/s²")
    length = "independent" if law.length is None else f"{number(law.length)} pixels"
    walls = [
        [f"walls along {axis}, pixels", f"{number(low)} to {number(high)}"]
        for axis, (low, high) in zip("xy", law.walls or [], strict=False)
    ]
    rows = [
        [f"diffusion D = g²/2, {place}", _interval(law.diffusion)],
        [f"drift along x, {speed}", _interval(law.drift[0])],
        [f"drift along y, {speed}", _interval(law.drift[1])],
        ["length that noise is carried over", length],
        *walls,
        ["D of the posterior's own path, one step, pixel²/s", _interval(law.posterior_step)],
        ["D of that path, slope over lags 2 to 6", _interval(law.posterior_slope)],
        ["correlation of that path's successive steps (0: white)", number(law.step_correlation)],
    ]
    return (
        f"<p>Read off the weights at {law.particles:,} particles of {law.clips:,} clips. "
        "In brackets 95 % intervals, clips drawn again.</p>" + table(["", ""], rows)
    )


def _tracked(rates: list[ComparedRates]) -> str:
    rows = []
    for one in rates:
        row = [f"{one.fps:g}"]
        for side in (one.real, one.futures):
            row += (
                [NOT_MEASURED] * 2
                if side is None
                else [
                    _interval(side.diffusion),
                    f"{number(side.first)} to {number(side.last)}",
                ]
            )
        rows.append(row)
    head = ["frames a second", "D of real films", "blobs", "D of futures", "blobs"]
    return (
        "<p>Held-out films and futures of their first frames by one tracker; D in pixel²/s, and "
        "blobs a frame from the first frame to the last.</p>" + table(head, rows)
    )


def _interval(bounds: Estimated) -> str:
    shown = number(bounds.value)
    if bounds.low is None or bounds.high is None:
        return shown
    return f"{shown} <small>[{number(bounds.low)}, {number(bounds.high)}]</small>"


def _command(run: Record) -> str:
    return f"python -m sdevid law {run.folder}"
