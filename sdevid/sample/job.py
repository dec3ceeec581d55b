"""A job of sampling: which videos to generate, checked against the model's config."""

from __future__ import annotations

from dataclasses import dataclass, field

from sdevid.command_line import MOST_COUNT
from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.models.sampling import SamplerConfig
from sdevid.models.solver_grid import solver_grid
from sdevid.objectives.registry import takers_of
from sdevid.sample.formats import DEFAULT_FORMATS
from sdevid.sample.write import Frames
from sdevid.types import TICKS_PER_UNIT

_MOST_APART = 1_000_000  # units of time between two frames


@dataclass(frozen=True)
class ObservedFrames:
    """Frames to condition on and where they stand in the video."""

    frames: Frames  # number, height, width, channels: uint8, or in the transform's range
    indices: tuple[int, ...]  # rising
    leading: int  # frames at the start of the video that are not generated
    notes: tuple[str, ...] = ()  # what was done to them to fit the model


@dataclass(frozen=True)
class SamplingJob:
    """Videos to generate. Sample i is keyed by the sampler's seed and i alone."""

    num_samples: int  # of each prompt
    num_frames: int  # of a written video, the observed ones among them
    fps: float  # frames a second
    batch_size: int  # videos at once
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    prompts: tuple[str, ...] = ()
    negative_prompt: str | None = None
    observed: ObservedFrames | None = None
    formats: tuple[str, ...] = DEFAULT_FORMATS
    colormap: str | None = None  # of one channel in mp4 and GIF; None: grey

    @property
    def futures(self) -> bool:
        """Whether samples are futures of the same given frames, members of an ensemble."""
        return self.observed is not None

    @property
    def total(self) -> int:
        """Number of videos in all."""
        return self.num_samples * max(1, len(self.prompts))

    @property
    def has_text(self) -> bool:
        """Whether a sample has a prompt."""
        return bool(self.prompts) or self.negative_prompt is not None

    def prompt(self, sample: int) -> str | None:
        """Return the prompt of this sample; the last one for what only fills a batch."""
        if not self.prompts:
            return None
        return self.prompts[min(sample // self.num_samples, len(self.prompts) - 1)]

    def batches(self) -> list[range]:
        """Divide the samples' numbers into batches of one size; the last may go past `total`."""
        size = self.batch_size
        return [range(first, first + size) for first in range(0, self.total, size)]


def check_job(job: SamplingJob, config: Config) -> None:
    """Raise UserError naming the option that is out of range or does not fit the model."""
    sampler = job.sampler
    counts = {name: getattr(job, name) for name in ("num_samples", "num_frames", "batch_size")}
    for name, count in (counts | {"steps_per_frame": sampler.steps_per_frame}).items():
        if count is not None and not 1 <= count <= MOST_COUNT:
            raise UserError(f"--{name} is {count}, but must be from 1 to {MOST_COUNT:,}")
    if not 0 <= sampler.seed < 2**63:
        raise UserError(f"--seed is {sampler.seed}, but must be from 0 to 2**63 - 1")
    if not 0 <= sampler.temperature < float("inf"):
        raise UserError(
            f"--temperature is {sampler.temperature}, but must be 0 or more; 1 is usual"
        )
    steps = sampler.steps_per_frame or 1
    most = TICKS_PER_UNIT / steps / config.time_unit
    if not 0 < job.fps <= most:
        raise UserError(
            f"--fps is {job.fps}, but must be above 0 and at most {most:g} "
            f"with {steps} solver steps a frame; the model was trained at {config.fps}"
        )
    least = 1 / config.time_unit / _MOST_APART
    if job.fps < least:
        raise UserError(
            f"--fps is {job.fps:g}, but must be at least {least:g}: frames may be {_MOST_APART:,} "
            f"units of time apart, of {config.time_unit:g} s each"
        )
    _check_text(job, config)
    _check_solver(job, config)


def _check_text(job: SamplingJob, config: Config) -> None:
    scale = job.sampler.guidance_scale
    if not 0 <= scale < float("inf"):
        raise UserError(f"--guidance_scale is {scale}, but must be 0 or more; 1 is no guidance")
    if config.text.encoder != "none":
        if job.negative_prompt is not None and scale == 1:
            raise UserError(
                "--negative_prompt does nothing at --guidance_scale 1; give a larger one, e.g. 3"
            )
        return
    text_options = [
        name
        for name, there in (
            ("--prompt", bool(job.prompts)),
            ("--negative_prompt", job.negative_prompt is not None),
            ("--guidance_scale", scale != 1),
        )
        if there
    ]
    if text_options:
        raise UserError(
            f"{text_options[0]} is given, but this model was trained without text (text.encoder is "
            "none in its config); leave it out, or train with text.encoder=bytes"
        )


def _check_solver(job: SamplingJob, config: Config) -> None:
    sampler, can = job.sampler, config.capabilities
    name = sampler.solver or config.sde.solver
    if sampler.bridge_diffusion is not None and "bridge_diffusion" not in can.sampling_options:
        raise UserError(
            f"--bridge_diffusion is given, but this model's model_type is {config.model_type}; it "
            f"is for {', '.join(takers_of('bridge_diffusion'))}"
        )
    if can.schemes is not None and name not in can.schemes:
        raise UserError(
            f"--solver is {name}, but model_type {config.model_type} takes "
            f"{', '.join(can.schemes)} alone"
        )
    if sampler.tolerance is not None:
        _check_adaptive(name, sampler.tolerance)
    if name == "euler_maruyama":
        return
    reason = config.sde.unfit(name)
    if reason is not None:
        raise UserError(f"--solver is {name}, but {reason}")
    if sampler.temperature == 0:
        raise UserError(f"--solver is {name}, but --temperature 0 needs euler_maruyama")
    if name.endswith("srk") and sampler.tolerance is None:
        _check_whole_cells(job, name, config)


def _check_adaptive(solver: str, tolerance: float) -> None:
    if not solver.startswith("torchsde/"):
        raise UserError(
            f"--adaptive is given, but --solver is {solver}, whose steps are of one length; "
            "give --solver torchsde/srk"
        )
    if not tolerance > 0:
        raise UserError(f"--tolerance is {tolerance:g}, but must be above 0; 1e-3 is usual")


def _check_whole_cells(job: SamplingJob, solver: str, config: Config) -> None:
    cell = config.step_ticks(config.sde.steps_per_frame)
    steps, rate = job.sampler.steps_per_frame, config.fps * config.sde.steps_per_frame
    times = config.frame_ticks(job.num_frames, job.fps)[None]
    if bool((solver_grid(times, cell, steps)[0] % cell).any()):
        raise UserError(
            f"--solver is {solver}, whose steps must be whole ones of the training's "
            f"({1 / rate:g} s); leave out --steps_per_frame and take an --fps that divides {rate:g}"
        )
