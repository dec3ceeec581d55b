"""The results as rows of a table: what was measured, its value, its error, its interval."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Entry = dict[str, Any]  # {"mean", "standard_error", "interval"} of the results


@dataclass(frozen=True)
class Row:
    """One figure."""

    section: str
    name: str
    entry: Entry
    note: str = ""  # what it is to be compared with


def rows(results: dict[str, Any]) -> list[Row]:
    """Every figure with its error that the results hold, section after section."""
    makers = (
        _bound,
        _prediction,
        _refinement,
        _digits,
        _prompts,
        _judged,
        _sets,
        _motion,
        _rates,
        _futures,
    )
    return [row for maker in makers for row in maker(results)]


def text(results: dict[str, Any]) -> str:
    """The rows as plain text, in columns."""
    lines: list[str] = []
    section = ""
    found = rows(results)
    wide = max((len(row.name) for row in found), default=0)
    for row in found:
        if row.section != section:
            section = row.section
            lines += ["", section] if lines else [section]
        told = f"  {row.name:<{wide}}  {_value(row.entry):<22}  {_interval(row.entry):<24}"
        lines.append(f"{told}  {row.note}".rstrip())
    return "\n".join(lines) + "\n"


def _bound(results: dict[str, Any]) -> Iterator[Row]:
    section = "Held out, nats a clip"
    if "elbo" in results and results["elbo"] is None:
        why = "not defined: model_type follmer has no bound on the likelihood"
        yield Row(section, "ELBO", {"mean": None}, why)
    for name, entry in (results.get("elbo") or {}).items():
        yield Row(section, "ELBO at weight 1" if name == "elbo" else _plain(name), entry)
    if "iwae" in results:
        tight = results["iwae"]
        yield Row(section, f"IWAE bound, {tight['draws']} draws", tight["iwae"])
        yield Row(section, "its gain over the ELBO", tight["gain"], "of the same draws")


def _prediction(results: dict[str, Any]) -> Iterator[Row]:
    protocol = results["protocol"]
    for measure, forecasts in results.get("prediction", {}).items():
        section = (
            f"Prediction from {protocol['context']} frames, {protocol['samples']} samples: "
            f"{NAMES.get(measure, _plain(measure))}"
        )
        for name, entry in forecasts.items():
            yield Row(section, _plain(name), entry)


def _refinement(results: dict[str, Any]) -> Iterator[Row]:
    found = results.get("refinement", {"rates": {}})
    for factor, entry in found["rates"].items():
        section = f"The same seed at a finer rate, {found['videos']} free videos"
        name = f"distance at {factor} times the rate, {entry['fps']:g} fps"
        yield Row(section, name, entry["distance"], "0 the same video, 1 another seed's")


def _digits(results: dict[str, Any]) -> Iterator[Row]:
    if "digits" not in results:
        return
    found = results["digits"]
    section = (
        f"Stochastic Moving MNIST, {found['generator']}'s: {found['context']} frames seen, "
        f"{found['predicted']} predicted, {found['clips']} clips, K = {found['best_of']}"
    )
    scores = found["scores"]
    for key, name in DIGITS.items():
        real = scores.get(f"{key}_real")
        yield Row(section, name, scores[key], f"real {_short(real)}" if real else "")


def _prompts(results: dict[str, Any]) -> Iterator[Row]:
    if "prompts" not in results:
        return
    found = results["prompts"]
    section = f"Prompts followed: {found['videos']} videos of each of {len(found['prompts'])}"
    if not found["scales"]:
        yield Row(section, "share", {"mean": None}, "no clip bears a caption or a label")
    for scale, entry in found["scales"].items():
        note = f"by chance {_number(found['chance'])}"
        yield Row(section, f"nearest clip of that caption, guidance {scale}", entry["share"], note)
        yield Row(section, f"nats spent, guidance {scale}", entry["nats"])


def _judged(results: dict[str, Any]) -> Iterator[Row]:
    if "lpips" in results:
        found = results["lpips"]
        section = f"LPIPS of frames predicted from {found['context']}, {found['clips']} clips"
        yield Row(section, f"one of {found['samples']} samples", found["one_sample"])
        yield Row(section, "copy last frame", found["copy_last_frame"])
    if "warping" in results:
        found = results["warping"]
        section = f"Temporal warping error, {found['videos']} videos"
        yield Row(section, "generated", found["generated"])
        yield Row(section, "real", found["real"])
        yield Row(section, "generated over real", found["ratio"], "1 where it is as steady")


def _sets(results: dict[str, Any]) -> Iterator[Row]:
    for key in ("fvd", "kid"):
        if key not in results:
            continue
        found = results[key]
        how = {
            "none": "generated freely",
            "in": "predicted, observed frames in",
            "out": "predicted, observed frames left out",
        }[found["context"]]
        name = "FVD by the given I3D" if key == "fvd" else "KID on random 3-D features"
        section = f"{name}: {found['videos']} videos of {found['frames']} frames, {how}"
        for one in found.get("seeds", [found]):
            which = f", feature seed {one['feature_seed']}" if "feature_seed" in one else ""
            floor = f"real against real {_short(one['floor'])}"
            yield Row(section, f"generated from real{which}", one["distance"], floor)


def _motion(results: dict[str, Any]) -> Iterator[Row]:
    for axis, entry in (results.get("motion") or {}).items():
        yield from _statistics(f"Motion of generated video along {axis}", entry)


def _rates(results: dict[str, Any]) -> Iterator[Row]:
    for factor, axes in results.get("rates", {}).items():
        for axis, entry in axes.items():
            section = f"The same at {factor} times the training rate, {entry['fps']:g} fps: {axis}"
            yield from _statistics(section, entry)


def _statistics(section: str, entry: dict[str, Any]) -> Iterator[Row]:
    told, exact = entry["statistics"], entry["statistics"]["exact"]
    for key, value in told["generated"].items():
        real, truth = (_short(told[name][key]) for name in ("real", "truth"))
        note = f"real {real}, truth {truth}"
        if key in exact:
            note += f", exact {exact[key]:.3g}"
        yield Row(section, _plain(key), value, note)


def _futures(results: dict[str, Any]) -> Iterator[Row]:
    if "futures" not in results:
        return
    found = results["futures"]
    section = f"{found['members']} futures of each of {found['clips']} prefixes"
    together = found["energy_score"]
    simulator = f"simulator {_short(together['simulator'])}"
    yield Row(section, "energy score", together["model"], simulator)
    yield Row(section, "that less the simulator's", together["model_minus_simulator"])
    for axis, who in found["axes"].items():
        model, simulator = who["model"], who["simulator"]
        for key, name in (("crps", "CRPS"), ("spread_skill", "spread over error")):
            note = f"simulator {_short(simulator[key])}"
            yield Row(section, f"{name} of {axis}", model[key], note)
        for key, name in (("reliability_index", "reliability index of ranks"),):
            note = f"simulator {_number(simulator[key])}"
            yield Row(section, f"{name}, {axis}", {"mean": model[key]}, note)
        p = {"mean": model["last_frame"]["p_value"]}
        note = f"simulator {_number(simulator['last_frame']['p_value'])}"
        yield Row(section, f"p of flat ranks at the last frame, {axis}", p, note)


DIGITS = {
    "psnr_best": "PSNR of the best, dB",
    "ssim_best": "SSIM of the best",
    "psnr_mean": "PSNR of all, dB",
    "ssim_mean": "SSIM of all",
    "energy_score": "energy score of the places, pixels",
    "identity": "digits read as themselves, share",
    "speed": "speed between walls, pixels a step",
    "speed_change": "its change from step to step",
    "lost": "digits not found, share",
    "reader_error": "the reader's error on real frames, pixels",
}
NAMES = {"psnr": "PSNR, dB", "ssim": "SSIM", "energy_score": "energy score, units"}


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def _short(entry: Entry) -> str:
    return "not measured" if entry.get("mean") is None else f"{entry['mean']:.3g}"


def _value(entry: Entry) -> str:
    if entry.get("mean") is None:
        return "not measured"
    mean, error = entry["mean"], entry.get("standard_error")
    digits = "10.1f" if abs(mean) >= 1000 else "10.4g"
    return f"{mean:{digits}}" + ("" if error is None else f" ± {error:.2g}")


def _interval(entry: Entry) -> str:
    if entry.get("interval") is None:
        return ""
    low, high = entry["interval"]
    digits = ".1f" if abs(low) >= 1000 else ".4g"
    return f"95 %: {low:{digits}} to {high:{digits}}"
