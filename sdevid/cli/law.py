"""`sdevid law`: the law of motion that a model has learnt, in pixels and seconds."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdevid.atomic_file import written_aside
from sdevid.command_line import MOST_COUNT, command_parser
from sdevid.console import say
from sdevid.errors import UserError

if TYPE_CHECKING:
    from sdevid.config import Config
    from sdevid.data.shards import ShardIndex
    from sdevid.evaluate.blobs import Tracker
    from sdevid.evaluate.particles.film_law import FilmComparison
    from sdevid.evaluate.particles.model_law import Bounds, ModelLaw
    from sdevid.models.particles.model import ParticleSDE
    from sdevid.models.video_model import VideoModel
    from sdevid.objectives.particles import ParticleObjective


# Said where films show no diffusion: the model's g^2/2 cannot be 0.
_STILL = (
    "nothing is seen to diffuse: the interval of that slope holds 0, and g^2/2 is what training "
    "has left of its start"
)
_MOST_FIGURE = 1e6  # pixels, contrast or frames a second


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the law, write RUN/law.json, and export a calibrated or refitted model where asked.

    A particle model's law is read off its state; any other model's, or with --tracked, is estimated
    from positions tracked in generated film. Raises UserError where nothing is tracked.
    """
    options = _parser().parse_args(arguments)
    _check(options)
    from sdevid import export, objectives
    from sdevid.data import times
    from sdevid.evaluate.blobs import Tracker
    from sdevid.evaluate.particles import model_law
    from sdevid.evaluate.progress import evenly
    from sdevid.models.particles.model import ParticleSDE
    from sdevid.objectives.particles import ParticleObjective

    model, config = export.load(options.model_path, options.weights)
    if not isinstance(model, ParticleSDE) or options.tracked:
        return _tracked(model, options)
    index = _shards(options.data or config.data, options.split, times.every_frame(config))
    objective = objectives.build(config, model).eval()
    assert isinstance(objective, ParticleObjective)
    clips = evenly(options.num_clips, len(index))
    if options.refit is not None:
        _refit(objective, index, clips, options)
        return 0
    tracker = Tracker(options.threshold, options.reach, options.sign)
    law = model_law.model_law(objective, index, clips, tracker, options.seed)
    say(law_text(law, config.fps))
    if law.posterior_slope.low <= 0:
        say(_STILL, "warning")
    record: dict[str, Any] = {"law": law.as_json()}
    if options.calibrate is not None:
        record["calibrated"] = _calibrate(model, law, options.calibrate)
    if options.films is not None:
        record["films"] = _films(model, tracker, options)
    output = options.output or Path(options.calibrate or options.model_path) / "law.json"
    _write(output, record)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Raise UserError for an option out of range, or an output that cannot be written."""
    for name, most in (("num_clips", MOST_COUNT), ("seeds", 1_000), ("context", MOST_COUNT)):
        count = getattr(options, name)
        if not 1 <= count <= most:
            raise UserError(f"--{name} is {count}, but must be from 1 to {most:,}")
    if not 0 <= options.seed < 2**63 - options.seeds:
        raise UserError(f"--seed is {options.seed}, but must be from 0 to 2**63 - 1 - --seeds")
    figures = {"threshold": [options.threshold], "reach": [options.reach]}
    for name, values in (figures | {"rates": options.rates or []}).items():
        for value in values:
            if not 0 < value <= _MOST_FIGURE:
                raise UserError(
                    f"--{name} has {value:g}, but must be above 0 and at most {_MOST_FIGURE:g}"
                )
    if options.output is not None and (
        options.output.is_dir() or not options.output.absolute().parent.is_dir()
    ):
        raise UserError(f"--output is {options.output}, but must be a file in a folder that exists")


def _tracked(model: VideoModel, options: argparse.Namespace) -> int:
    """Track generated beside real film at several rates; write law.json and law.png."""
    from sdevid.evaluate.law import films, present, tracking
    from sdevid.evaluate.progress import evenly

    for name in ("calibrate", "refit"):
        if getattr(options, name) is not None:
            raise UserError(
                f"--{name} changes the law of a model of particles, read off it; this run's state "
                "is no place, or --tracked is given"
            )
    config = model.config
    folder = options.films or options.data or config.data
    index = _film_shards(folder, options.film_split, config)
    clips = evenly(options.num_clips, len(index))
    tracker = tracking.build_tracker(
        options.tracker, options.threshold, options.reach, options.sign
    )
    rates = options.rates or [config.fps * factor for factor in (0.5, 1, 2, 4)]
    seeds = range(options.seed, options.seed + options.seeds)
    context = min(options.context, config.observation.max_context)
    laws = films.compare(model, index, clips, tracker, context, rates, seeds)
    say(present.text(laws, options.sign).rstrip())
    output = options.output or options.model_path / "law.json"
    _write(output, {"tracked": laws})
    with written_aside(output.with_suffix(".png")) as aside:
        present.picture(laws, aside)
    say(f"{output} and {output.with_suffix('.png').name}")
    return 0


def _write(output: Path, record: dict[str, Any]) -> None:
    with written_aside(output) as aside:
        aside.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _shards(folder: str, split: str, config: Config) -> ShardIndex:
    """Open shards whose clips fit `config`. Raises UserError where one does not."""
    from sdevid.data import stream
    from sdevid.data.folder import Access
    from sdevid.data.shards import open_shards

    index = open_shards(folder, split, Access.of(config))
    stream.check_clips(index, config)
    return index


def _film_shards(folder: str, split: str, config: Config) -> ShardIndex:
    """Open shards of films, which may be at another rate and longer than those of training."""
    from sdevid.data.folder import Access
    from sdevid.data.shards import open_shards

    first = open_shards(folder, split, Access.of(config)).clips[0]
    whole = {"fps": first.fps, "sequence_length": first.num_frames, "frame_strides": (1,)}
    return _shards(folder, split, config.model_copy(update=whole))


def _calibrate(model: ParticleSDE, law: ModelLaw, folder: Path) -> dict[str, float]:
    """Set g^2 by the posterior's displacement, export the model, and say what was changed."""
    from sdevid import export
    from sdevid.evaluate.particles.model_law import calibrate

    factor, diffusion = calibrate(model, law), law.posterior_slope.value
    export.write(model, model.config, folder)
    say(f"calibrated: g^2 x {factor:.3f}, D {diffusion:.3g} pixel^2/s: {folder}")
    return {"factor": factor, "diffusion": diffusion}


def _refit(
    objective: ParticleObjective, index: ShardIndex, clips: range, options: argparse.Namespace
) -> None:
    """Fit the law to the posterior's paths, export the model, and say what was gained."""
    from sdevid import export
    from sdevid.evaluate.particles.law_refit import refit

    fit = refit(objective, index, clips, options.seed)
    export.write(objective.model, objective.config, options.refit)
    say(
        f"refitted to {fit.steps:,} steps in {fit.windows:,} windows, {fit.seen:.0%} of them seen: "
        f"held-out paths, nats a step, {fit.before:.3g} to {fit.after:.3g}: {options.refit}"
    )
    _write(options.output or options.refit / "law.json", {"refit": fit.as_json()})


def _films(
    model: ParticleSDE, tracker: Tracker, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Track held-out films beside futures of their first frames."""
    from sdevid.evaluate.particles import film_law
    from sdevid.evaluate.progress import evenly

    index = _film_shards(options.films, options.film_split, model.config)
    clips = evenly(options.num_clips, len(index))
    compared = film_law.compare(model, index, clips, tracker, options.seed)
    say(films_text(compared).rstrip())
    return [entry.as_json() for entry in compared]


def law_text(law: ModelLaw, fps: float) -> str:
    """Format the law in a few lines."""
    unit = "pixel^2/s" if law.order == 1 else "pixel^2/s^3, of velocities"
    speed = "pixel/s" if law.order == 1 else "pixel/s^2"
    rate = "1/s" if law.order == 1 else "1/s^2"
    low, middle, high = law.diffusion_spread
    length = "independent" if law.length is None else f"carried over {law.length:.1f} pixels"
    return (
        f"{law.particles} particles in {law.windows} windows of {law.clips} clips, "
        f"{fps:g} frames a second\n"
        f"  diffusion D = g^2/2    {_shown(law.diffusion)} {unit}\n"
        f"    over the particles   {low:.3g} to {high:.3g}, median {middle:.3g}\n"
        f"  drift                  x {_shown(law.drift[0])}, y {_shown(law.drift[1])} {speed}\n"
        f"    slope on the place   x {_shown(law.pull[0])}, y {_shown(law.pull[1])} {rate}\n"
        f"  noise                  {length}\n"
        f"{_walls(law)}"
        "the posterior's own motion in these clips\n"
        f"  D                      {_shown(law.posterior_step)} pixel^2/s by one step\n"
        f"                         {_shown(law.posterior_slope)} by the slope over lags 2 to 6,"
        f" {law.factor:.2f} of g^2/2\n"
        f"  drift                  x {_shown(law.posterior_drift[0])}, "
        f"y {_shown(law.posterior_drift[1])} pixel/s\n"
        f"    slope on the place   x {_shown(law.posterior_pull[0])}, "
        f"y {_shown(law.posterior_pull[1])} 1/s\n"
        f"  successive steps       correlate at {law.step_correlation:.2f} (0: white)"
    )


def _walls(law: ModelLaw) -> str:
    """Format the walls in a line; nothing where there are none."""
    if law.walls is None:
        return ""
    x, y = (f"{low:.1f} to {high:.1f}" for low, high in law.walls)
    return f"  walls                  x {x}, y {y} pixels\n"


def films_text(compared: list[FilmComparison]) -> str:
    """Format the tracked films' laws: real beside futures."""
    lines = ["tracked films              real                     futures of their first frame\n"]
    for entry in compared:
        sides = []
        for law in (entry.real, entry.futures):
            sides.append(
                "no tracks"
                if law is None
                else f"D {law.diffusion:.2f} [{law.low:.2f}, {law.high:.2f}], "
                f"{law.counts[0]:.1f} -> {law.counts[-1]:.1f} blobs"
            )
        lines.append(f"  {entry.fps:>5.3g} frames a second   {sides[0]}   {sides[1]}\n")
    return "".join(lines)


def _shown(figure: Bounds) -> str:
    return f"{figure.value:.3g} [{figure.low:.3g}, {figure.high:.3g}]"


def _rates(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "law",
        "The law of motion, in pixels and seconds. Of particles it is read off the model:\n"
        "diffusion, drift and length, beside the motion of its posterior. Of any other state\n"
        "it is found along tracks in generated film, by the estimator of real film.",
        "sdevid law runs/brownian --films data/brownian --calibrate runs/brownian/calibrated",
    )
    add = parser.add_argument
    add("model_path", type=Path, help="run, checkpoint or export")
    add("--data", help="folder of shards to follow particles in (default: that of the training)")
    add("--split", default="train", help="of that folder")
    add("--num_clips", type=int, default=64, help="clips, at most")
    add("--threshold", type=float, default=0.09, help="least contrast of a blob")
    add("--reach", type=float, default=5.0, help="most pixels a frame of a blob")
    add("--sign", choices=["dark", "bright"], default="dark", help="of the blobs")
    add("--calibrate", type=Path, metavar="FOLDER", help="export the model with g^2 calibrated")
    add(
        "--refit",
        type=Path,
        metavar="FOLDER",
        help="export the model with drift and g fitted to its posterior's paths, and end",
    )
    add("--films", help="folder of held-out shards to track beside futures of their first frames")
    add("--film_split", default="val", help="of that folder")
    add("--tracked", action="store_true", help="track generated film, also of particles")
    add("--tracker", choices=["centroids", "trackpy"], default="centroids", help="what finds them")
    add("--rates", type=_rates, help="frames a second (default: 1/2, 1, 2, 4 times the training's)")
    add("--seeds", type=int, default=3, help="futures of each film")
    add("--context", type=int, default=5, help="frames given of each film")
    add("--weights", choices=["ema", "raw"], default="ema", help="averaged or raw")
    add("--seed", type=int, default=0, help="of the futures (default: 0)")
    add("--output", type=Path, help="file to write (default: law.json in the run, or the export)")
    parser.add_output_arguments()
    return parser
