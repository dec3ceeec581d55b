"""The work of `evaluate`: held-out bound, prediction, and motion against its known SDE."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdevid import checkpoint, export, objectives
from sdevid.config import Config
from sdevid.data import stream, synthetic
from sdevid.data.folder import Access
from sdevid.data.shards import ShardIndex, open_shards
from sdevid.errors import UserError
from sdevid.evaluate import elbo, motion, prediction, provenance
from sdevid.evaluate.measured import Floats
from sdevid.evaluate.prediction import Shown
from sdevid.evaluate.progress import batches, evenly
from sdevid.evaluate.reference import training_mean
from sdevid.evaluate.track import positions
from sdevid.models.video_model import VideoModel
from sdevid.objectives.clip_objective import ClipObjective
from sdevid.sample.sampler import as_pixels
from sdevid.sample.write import Pixels
from sdevid.types import frame_ticks

NO_BOUND = "not defined: model_type follmer has no bound on the likelihood"
SHOWN = 16  # generated and real videos kept for the run page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `evaluate`."""
    add = parser.add_argument
    add("--model_path", type=Path, required=True, help="a run, a checkpoint or an exported model")
    add("--data", help="folder of shards, a path or URL (default: that of the training)")
    add("--output", type=Path, help="default: results.json in the folder of the model")
    add("--split", default="val", help="held-out split (default: val)")
    add("--num_clips", type=int, default=256, help="held-out clips, at most (default: 256)")
    add("--samples", type=int, default=32, help="futures of each clip (default: 32)")
    add("--context", type=int, default=5, help="frames that a prediction sees (default: 5)")
    add("--rollouts", type=int, default=128, help="free videos to track (default: 128)")
    add("--rollout_frames", type=int, default=motion.WINDOW, help="frames of each (default: 64)")
    add("--seed", type=int, default=0, help="of the samples (default: 0)")
    add("--weights", choices=("ema", "raw"), default="ema", help="averaged or last weights")


@dataclass(frozen=True)
class Subject:
    """What is evaluated, on what."""

    model: VideoModel
    config: Config
    index: ShardIndex
    clips: range  # numbers in the index
    seed: int

    @property
    def truth(self) -> dict[str, Any] | None:
        """Of drawn video: its SDE and units."""
        return self.index.dataset.get("truth")

    @property
    def half_width(self) -> float | None:
        """Units from the middle of a frame to its side, in drawn video."""
        return None if self.truth is None else float(self.truth["units"]["half_width"])


def run(args: argparse.Namespace) -> int:
    """Measure and write results.json, and beside it results.npz with pictures for the run page."""
    started = time.perf_counter()
    output: Path = args.output or args.model_path / "results.json"
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: the folder {output.parent} does not exist; make it")
    subject, training = _open(args)
    _check(args, subject.config)
    results, pictures = measure(subject, training, args)
    results["provenance"] = {
        "command": provenance.command("evaluate"),
        "seconds": round(time.perf_counter() - started, 1),
        "machine": provenance.machine(),
        "versions": provenance.versions(),
    }
    try:
        np.savez_compressed(output.with_suffix(".npz"), allow_pickle=False, **pictures)
        output.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error}") from error
    print(summary(results), end="")
    return 0


def _open(args: argparse.Namespace) -> tuple[Subject, ShardIndex]:
    if args.num_clips < 1:
        raise UserError(f"--num_clips is {args.num_clips}, but must be 1 or more")
    model, config = export.load(args.model_path, args.weights)
    folder = args.data or config.data
    access = Access.of(config)
    held_out = open_shards(folder, args.split, access)
    training = open_shards(folder, config.split, access)
    stream.check(held_out, config)
    stream.check(training, config)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    clips = evenly(args.num_clips, len(held_out))
    return Subject(model, config, held_out, clips, args.seed), training


def _check(args: argparse.Namespace, config: Config) -> None:
    for name, least in (("samples", 2), ("context", 1), ("rollouts", 2), ("rollout_frames", 2)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} is {getattr(args, name)}, but must be {least} or more")
    if not 0 <= args.seed < 2**63:
        raise UserError(f"--seed is {args.seed}, but must be from 0 to 2**63 - 1")
    most = min(config.observation.max_context, config.sequence_length - 1)
    if args.context > most:
        raise UserError(
            f"--context is {args.context}, but the model takes at most {most} frames "
            "(observation.max_context in its config)"
        )


def measure(
    subject: Subject, training: ShardIndex, args: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Pixels]]:
    """All results, ready for JSON, and the pictures of the run page."""
    objective = objectives.build(subject.config)
    objective.model = subject.model
    bound = _bound(objective.eval(), subject)
    mean = training_mean(training, subject.config, subject.half_width)
    scores, shown = prediction.predict(
        subject.model,
        subject.index,
        subject.clips,
        args.context,
        args.samples,
        args.seed,
        mean,
        subject.half_width,
    )
    free = _free(subject, args)
    history = _history(subject, args) if objective.bound else []
    results = {
        "protocol": _protocol(subject, args),
        "elbo": bound,
        "elbo_over_time": history,
        "prediction": {
            measure: {name: score.as_json() for name, score in forecasts.items()}
            for measure, forecasts in scores.items()
        },
        "motion": _motion(subject, free) if subject.truth else None,
    }
    return results, _pictures(subject, free, shown, args.context)


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
        objective.model = model.to(next(subject.model.parameters()).device)
        title = f"held-out ELBO, step {step}"
        terms = elbo.held_out(objective.eval(), subject.index, subject.clips, title)
        told = {name: value.as_json() for name, value in terms.items()}
        found.append({"clips": clips, "step": step, **told})
    return found


def _protocol(subject: Subject, args: argparse.Namespace) -> dict[str, Any]:
    return {
        "model_path": str(args.model_path),
        "checkpoint": export.find(args.model_path).name,
        "weights": args.weights,
        "data": subject.index.folder.location,
        "split": args.split,
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


@torch.no_grad()
def _free(subject: Subject, args: argparse.Namespace) -> Pixels:
    """Videos generated from nothing at the training frame rate; short ones without a truth."""
    config = subject.config
    drawn = subject.truth is not None
    frames = args.rollout_frames if drawn else config.sequence_length
    device = next(subject.model.parameters()).device
    ticks = frame_ticks(frames, config.fps).to(device)
    made = []
    for part in batches(range(args.rollouts if drawn else SHOWN), 32, "free videos"):
        serial = torch.tensor(part, device=device)
        video = subject.model.sample(ticks.expand(len(part), -1), seed=subject.seed, serial=serial)
        made.append(as_pixels(video))
    return np.concatenate(made)


def _motion(subject: Subject, free: Pixels) -> dict[str, Any]:
    assert subject.truth is not None
    assert subject.half_width is not None
    moves = synthetic.from_truth(subject.truth)
    generated = positions(free, subject.half_width)
    real = _real_positions(subject, subject.half_width)
    interval = 1 / subject.config.fps
    return {
        name: motion.compare(generated[..., axis], real[..., axis], interval, sde, subject.seed)
        for axis, (name, sde) in enumerate((("x", moves.x), ("y", moves.y)))
        if sde is not None
    }


def _real_positions(subject: Subject, half_width: float) -> Floats:
    everything = range(len(subject.index))
    return np.concatenate(
        [
            positions(stream.fixed(subject.index, subject.config, part).video.numpy(), half_width)
            for part in batches(everything, 64, "tracking real clips")
        ]
    )


def _pictures(
    subject: Subject, free: Pixels, shown: list[Shown], context: int
) -> dict[str, Pixels]:
    clips = evenly(SHOWN, len(subject.index))
    real = stream.fixed(subject.index, subject.config, clips).video.numpy()
    return {
        "generated": free[: len(real), : subject.config.sequence_length],
        "real": real,
        "clips": np.stack([one.clip for one in shown]),
        "means": np.stack([one.mean for one in shown]),
        "samples": np.stack([one.samples for one in shown]),
        "context": np.array(context, np.uint8),
        "fps": np.array(subject.config.fps),
    }


def summary(results: dict[str, Any]) -> str:
    """The results in a few lines."""
    bound = results["elbo"]
    told = f"{_told(bound['elbo'])} nats a clip" if bound else NO_BOUND
    lines = [f"held-out ELBO {told}"]
    for measure, forecasts in results["prediction"].items():
        told = ", ".join(
            f"{name.replace('_', ' ')} {_told(value)}" for name, value in forecasts.items()
        )
        lines.append(f"{measure.replace('_', ' ')}: {told}")
    for axis, entry in (results["motion"] or {}).items():
        told = ", ".join(
            f"{name.replace('_', ' ')} {value:.2f}"
            for name, value in entry["ratio_to_truth"]["generated"].items()
            if value is not None
        )
        lines.append(f"generated motion along {axis}, ratio to truth: {told}")
    return "\n".join(lines) + "\n"


def _told(entry: dict[str, Any]) -> str:
    mean, error = entry["mean"], entry["standard_error"]
    if mean is None:
        return "not measured"
    return f"{mean:.4g}" + ("" if error is None else f" ± {error:.2g}")
