"""The work of `evaluate`: held-out bound, prediction, and motion against its known SDE."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from sdevid import checkpoint, export, objectives
from sdevid.config import Config
from sdevid.data import stream
from sdevid.errors import UserError
from sdevid.evaluate import (
    elbo,
    futures,
    judged,
    measures,
    motion,
    prediction,
    provenance,
    rates,
    refinement,
    tables,
)
from sdevid.evaluate.prediction import Shown
from sdevid.evaluate.progress import evenly
from sdevid.evaluate.reference import training_mean
from sdevid.evaluate.subject import Subject, open_subject
from sdevid.objectives.clip_objective import ClipObjective
from sdevid.objectives.latent_sde import LatentSDEObjective
from sdevid.sample.write import Pixels

SHOWN = 16  # generated and real videos kept for the run page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `evaluate`."""
    add = parser.add_argument
    add("--model_path", type=Path, required=True, help="a run, a checkpoint or an exported model")
    add("--data", help="folder of shards, a path or URL (default: that of the training)")
    add("--output", type=Path, help="default: results.json in the folder of the model")
    add("--split", default="val", help="held-out split (default: val)")
    add("--measures", help=f"auto (by the data), all, or of {', '.join(measures.NAMES)}")
    add("--num_clips", type=int, default=256, help="held-out clips, at most (default: 256)")
    add("--samples", type=int, default=32, help="futures of each clip (default: 32)")
    add("--context", type=int, default=5, help="frames that a prediction sees (default: 5)")
    add("--rollouts", type=int, default=128, help="free videos to track (default: 128)")
    add("--rollout_frames", type=int, default=motion.WINDOW, help="frames of each (default: 64)")
    add("--draws", type=int, default=64, help="of the posterior, for the IWAE bound (default: 64)")
    add("--best_of", type=int, default=100, help="futures of a clip of digits (default: 100)")
    add("--fvd_i3d", type=Path, help="a TorchScript I3D, for FVD")
    add("--lpips", type=Path, help="a TorchScript LPIPS")
    add("--set_size", type=int, help="videos of a set, for FVD and KID (default: 2048 at most)")
    add(
        "--set_context",
        choices=("none", "in", "out"),
        default="none",
        help="sets generated freely, or predicted with observed frames in or left out",
    )
    add("--seed", type=int, default=0, help="of the samples (default: 0)")
    add("--weights", choices=("ema", "raw"), default="ema", help="averaged or last weights")


def run(args: argparse.Namespace) -> int:
    """Measure; write results.json, the same as a table, and the page's pictures as npz."""
    started = time.perf_counter()
    output: Path = args.output or args.model_path / "results.json"
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: the folder {output.parent} does not exist; make it")
    subject = open_subject(
        args.model_path, args.data, args.split, args.weights, args.num_clips, args.seed
    )
    _check(args, subject.config)
    given = frozenset(name for name, option in measures.OPTIONS.items() if getattr(args, option))
    taken = measures.chosen(args.measures, subject.index.dataset, subject.config, given)
    networks = judged.networks(subject, args, taken)
    results, pictures = measure(subject, args, taken)
    results |= judged.measure(subject, args, taken, networks)
    results["provenance"] = {
        "command": provenance.command("evaluate"),
        "seconds": round(time.perf_counter() - started, 1),
        "machine": provenance.machine(),
        "versions": provenance.versions(),
    }
    table = tables.text(results)
    try:
        np.savez_compressed(output.with_suffix(".npz"), allow_pickle=False, **pictures)
        output.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")
        output.with_suffix(".txt").write_text(table)
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error}") from error
    print(table, end="")
    return 0


def _check(args: argparse.Namespace, config: Config) -> None:
    least_of = {
        "samples": 2,
        "context": 1,
        "rollouts": 2,
        "rollout_frames": 3,
        "draws": 1,
        "best_of": 2,
    }
    for name, least in least_of.items():
        if getattr(args, name) < least:
            raise UserError(f"--{name} is {getattr(args, name)}, but must be {least} or more")
    if args.set_size is not None and args.set_size < 2:
        raise UserError(f"--set_size is {args.set_size}, but must be 2 or more")
    if not 0 <= args.seed < 2**63:
        raise UserError(f"--seed is {args.seed}, but must be from 0 to 2**63 - 1")
    most = min(config.observation.max_context, config.sequence_length - 1)
    if args.context > most:
        raise UserError(
            f"--context is {args.context}, but the model takes at most {most} frames "
            "(observation.max_context in its config)"
        )


def measure(
    subject: Subject, args: argparse.Namespace, taken: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Pixels]]:
    """All results, ready for JSON, and the pictures of the run page."""
    objective = objectives.build(subject.config)
    objective.model = subject.model
    objective.eval()
    results: dict[str, Any] = {"protocol": _protocol(subject, args, taken)}
    if "bound" in taken:
        results["elbo"] = _bound(objective, subject)
        results["elbo_over_time"] = _history(subject, args) if objective.bound else []
    if "iwae" in taken:
        assert isinstance(objective, LatentSDEObjective)
        tight = elbo.importance_weighted(objective, subject.index, subject.clips, args.draws)
        told = {name: value.as_json() for name, value in tight.items()}
        results["iwae"] = {"draws": args.draws, **told}
    shown: list[Shown] = []
    if "prediction" in taken:
        results["prediction"], shown = _predict(subject, args)
    if "refinement" in taken:
        results["refinement"] = refinement.at_finer_rates(subject)
    free = _free(subject, args)
    results["motion"] = _motion(subject, free) if "motion" in taken else None
    if "rates" in taken:
        results["rates"] = rates.at_other_rates(subject, args.rollouts, args.rollout_frames)
    if "futures" in taken:
        results["futures"] = futures.many(subject, args.context)
    return results, _pictures(subject, free, shown, args.context)


def _predict(
    subject: Subject, args: argparse.Namespace
) -> tuple[dict[str, dict[str, Any]], list[Shown]]:
    scores, shown = prediction.predict(
        subject.model,
        subject.index,
        subject.clips,
        args.context,
        args.samples,
        args.seed,
        training_mean(subject.training, subject.config, subject.observer),
        subject.observer,
    )
    told = {
        measure: {name: score.as_json() for name, score in forecasts.items()}
        for measure, forecasts in scores.items()
    }
    return told, shown


def _bound(objective: ClipObjective, subject: Subject) -> dict[str, Any] | None:
    """The held-out bound and its terms; None where the objective has none."""
    if not objective.bound:
        return None
    found = elbo.held_out(objective, subject.index, subject.clips)
    return {name: value.as_json() for name, value in found.items()}


def _history(subject: Subject, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The held-out bound of every whole checkpoint that the run has kept, oldest first."""
    found = []
    for step in reversed(checkpoint.steps(args.model_path)):
        folder = checkpoint.folder_of(args.model_path, step)
        try:
            model, config = export.load(folder, args.weights)
            clips = checkpoint.read_manifest(folder).clips
        except UserError:  # a damaged one: the run's newest whole one is evaluated all the same
            continue
        objective = objectives.build(config)
        objective.model = model.to(subject.device)
        title = f"held-out ELBO, step {step}"
        terms = elbo.held_out(objective.eval(), subject.index, subject.clips, title)
        told = {name: value.as_json() for name, value in terms.items()}
        found.append({"clips": clips, "step": step, **told})
    return found


def _protocol(subject: Subject, args: argparse.Namespace, taken: tuple[str, ...]) -> dict[str, Any]:
    return {
        "model_path": str(args.model_path),
        "checkpoint": export.find(args.model_path).name,
        "weights": args.weights,
        "data": subject.index.folder.location,
        "split": args.split,
        "measures": list(taken),
        "clips": len(subject.clips),
        "clips_in_split": len(subject.index),
        "frames": subject.config.sequence_length,
        "fps": subject.config.fps,
        "context": args.context,
        "samples": args.samples,
        "rollouts": args.rollouts,
        "rollout_frames": args.rollout_frames,
        "seed": args.seed,
        "truth": subject.truth,
    }


def _free(subject: Subject, args: argparse.Namespace) -> Pixels:
    """Videos generated from nothing at the training frame rate; short ones without a truth."""
    config = subject.config
    drawn = subject.observer is not None
    frames = args.rollout_frames if drawn else config.sequence_length
    videos = range(args.rollouts if drawn else SHOWN)
    return subject.generate(videos, frames, config.fps, "free videos")


def _motion(subject: Subject, free: Pixels) -> dict[str, Any]:
    observer = subject.observer
    assert observer is not None
    generated = observer.paths(free)
    real = observer.paths(subject.real(range(len(subject.index)), "tracking real clips"))
    interval = 1 / subject.config.fps
    return {
        name: motion.compare(generated[name], real[name], interval, sde, subject.seed)
        for name, sde in observer.axes.items()
    }


def _pictures(
    subject: Subject, free: Pixels, shown: list[Shown], context: int
) -> dict[str, Pixels]:
    clips = evenly(SHOWN, len(subject.index))
    real = stream.fixed(subject.index, subject.config, clips).video.numpy()
    found = {
        "generated": free[: len(real), : subject.config.sequence_length],
        "real": real,
        "context": np.array(context, np.uint8),
        "fps": np.array(subject.config.fps),
    }
    if shown:
        found["clips"] = np.stack([one.clip for one in shown])
        found["means"] = np.stack([one.mean for one in shown])
        found["samples"] = np.stack([one.samples for one in shown])
    return found
