"""Every setting of a run: typed, checked, one YAML file, `key=value` overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from sdevid import sizes
from sdevid.errors import UserError
from sdevid.explain import explain

Location = Annotated[str, BeforeValidator(lambda v: str(v) if isinstance(v, Path) else v)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SDEConfig(_Section):
    """The latent SDE and how it is solved."""

    latent: Literal["vector", "map"] = "vector"
    latent_size: PositiveInt = 64  # components of a vector latent, channels of a map latent
    order: Literal[1, 2] = 1  # 2: a state of positions, which are seen, and as many velocities
    start_components: PositiveInt = 1  # Gaussians that p(z_0 | c) is mixed of
    content_size: PositiveInt = 64  # components of the static content code w
    hidden: PositiveInt = 256  # width of drift, control and diffusion networks
    depth: PositiveInt = 2  # hidden layers of each, or a transformer's blocks
    backbone: Literal["plain", "transformer"] = "plain"  # plain: linear, or convolutions over a map
    heads: PositiveInt = 4  # of a transformer
    checkpoint: bool = False  # keep no activations within these networks: less memory, more time
    solver: Literal["euler_maruyama"] = "euler_maruyama"
    kernels: Literal["auto", "triton", "reference"] = "auto"  # auto: Triton's on CUDA
    capture: bool = False  # a map's solve in training as one CUDA graph: no Python between steps
    steps_per_frame: PositiveInt = 2  # solver steps between two frames
    noise: Literal["additive", "diagonal"] = "additive"  # diagonal: g may depend on z
    posterior_width: Literal["chain", "continuous"] = "chain"  # which bound
    posterior_drift: Literal["control", "own"] = "control"  # h + g u, or a drift f of its own
    diffusion_floor: PositiveFloat = 1e-2  # smallest |g|, latent units per sqrt(second)
    diffusion_start: PositiveFloat = 0.5  # |g| before training, latent units per sqrt(second)
    control_bound: PositiveFloat = 30.0  # most of |u|, per sqrt(second): 10 sd of a step of 1/8 s

    @property
    def state_size(self) -> int:
        """Components or channels of the whole state."""
        return self.order * self.latent_size


class EncoderConfig(_Section):
    """Frame encoder, decoder and temporal encoder."""

    channels: PositiveInt = 32  # of the first stage; doubled at each halving, up to 8 times
    map_size: PositiveInt = 8  # side of a map latent, in cells; frame_size / map_size is 2**k
    features: PositiveInt = 128  # width of a frame token
    layers: PositiveInt = 2  # temporal attention blocks
    heads: PositiveInt = 4
    attention: Literal["auto", "xformers", "sdpa"] = "auto"


class ObservationConfig(_Section):
    """p(x | D(w, z)): how a frame is scored against the decoded one."""

    likelihood: Literal["laplace", "gaussian"] = "gaussian"
    scale: PositiveFloat = 0.2  # of a pixel in [0, 1]
    max_context: NonNegativeInt = 5  # most frames that the prior may be shown in training
    free_fraction: float = 0.25  # share of clips for which the prior is shown none
    ends_fraction: float = 0.0  # of clips of which it is shown first and last frames
    keyframes_fraction: float = 0.0  # of clips of which it is shown scattered frames

    @property
    def ahead(self) -> bool:
        """Whether frames that lie ahead may be observed."""
        return self.ends_fraction + self.keyframes_fraction > 0

    @model_validator(mode="after")
    def _shares(self) -> ObservationConfig:
        shares = (self.free_fraction, self.ends_fraction, self.keyframes_fraction)
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(
                "free_fraction, ends_fraction and keyframes_fraction are "
                f"{', '.join(f'{share:g}' for share in shares)}, but they are shares of all clips: "
                "0 or more each, at most 1 together"
            )
        return self


class TextConfig(_Section):
    """How captions are read, and labels where there is no caption."""

    encoder: str = "bytes"  # learnt here; none; or the local folder of a Hugging Face T5 or CLIP
    length: PositiveInt = 128  # bytes or tokens of a caption that are read
    layers: PositiveInt = 2  # attention blocks over bytes
    drop: float = 0.1  # share of clips whose caption is withheld, for guidance


class MatchingConfig(_Section):
    """`model_type: sde_matching`: the bound without a solver."""

    times: PositiveInt = 8  # at which a clip's path KL is taken, one in each of equal parts
    frames: PositiveInt | None = None  # decoded a clip, drawn; None: all of them
    scale_floor: PositiveFloat = 1e-2  # smallest posterior scale s, latent units


class FollmerConfig(_Section):
    """`model_type: follmer`: bridges from each latent frame to the next."""

    noise: PositiveFloat = 2.0  # epsilon of a bridge of a second, latent units
    times: PositiveInt = 4  # in each bridge at which its drift is regressed
    steps: PositiveInt = 32  # of the solver a frame, in sampling
    drift_bound: PositiveFloat = 30.0  # most by which b leaves a still frame's, in eps
    diffusion: Literal["interpolant", "follmer"] = "interpolant"  # in sampling
    frame_divergence: NonNegativeFloat = 0.1  # weight of the frames' KL from N(0, 1)


class ConsistencyConfig(_Section):
    """Weights of the consistency module's terms; 0 switches a term off."""

    frame_difference: NonNegativeFloat = 0.0
    prior_consistency: NonNegativeFloat = 0.0  # the prior rolled on, against the posterior there
    prior_frames: PositiveInt = 4  # how many frames it is rolled on
    step_halving: NonNegativeFloat = 0.0  # one step of the prior against two of half its length
    warp: bool = False  # the warp-and-mask head: x_i = M warp(x_{i-1}, F) + (1 - M) I_i


class MetricsConfig(_Section):
    """Where figures go beside metrics.jsonl."""

    wandb: bool = False  # offline where WANDB_API_KEY is not set
    wandb_project: str = "sdevid"
    tensorboard: bool = False


class CheckpointConfig(_Section):
    """What is kept of a run's checkpoints."""

    keep: PositiveInt = 3  # newest ones kept, at least 2
    keep_every: PositiveInt | None = None  # clips; the first past each multiple stays for ever
    best: str | None = None  # a name in metrics.jsonl; the checkpoint with the best value stays
    best_is: Literal["lowest", "highest"] = "lowest"
    pin: tuple[PositiveInt, ...] = ()  # these steps stay, as does one that holds a file `pinned`
    asynchronous: bool = True  # training waits for the copy to host memory only
    on_failure: Literal["warn", "stop"] = "warn"  # where one cannot be written; the last one stops
    patience: PositiveInt = 1_500  # seconds that a write, or a conversion, may take

    @model_validator(mode="after")
    def _two(self) -> CheckpointConfig:
        if self.keep < 2:
            raise ValueError(
                f"keep is {self.keep}, but one damaged checkpoint must not end a run; "
                "give 2 or more"
            )
        return self


class OffloadConfig(_Section):
    """What ZeRO keeps outside the GPU: in the host's memory or on its NVMe disk."""

    optimizer: Literal["none", "cpu", "nvme"] = "none"  # and the update is computed on the CPU
    parameters: Literal["none", "cpu", "nvme"] = "none"  # between their uses; ZeRO 3
    nvme_path: Path | None = None  # folder on a disk of the node


class FaultsConfig(_Section):
    """What is done about a loss or gradient that is not finite, or a loss that jumps."""

    skips: PositiveInt = 3  # such steps in a row: the updates are skipped, at the last it returns
    rollbacks: NonNegativeInt = 3  # returns to a checkpoint, then it stops
    spike: NonNegativeFloat = 0.0  # robust sd (of the MAD) above the median of past losses; 0: off
    window: PositiveInt = 100  # past losses kept; as many good steps forgive former returns


class WatchdogConfig(_Section):
    """When a run counts as stalled and is ended, and when a rank counts as slow."""

    seconds: NonNegativeFloat = 900.0  # longest step; 0: no watchdog
    start_seconds: PositiveFloat = 3600.0  # up to the end of the first step, which may compile
    checkpoint_seconds: PositiveFloat = 3600.0  # a save, or a return to a checkpoint
    grace_seconds: PositiveFloat = 10.0  # for all ranks to write down where they stand
    slow_ratio: NonNegativeFloat = 1.5  # of the other ranks' time for their part of a step; 0: off


class Config(_Section):
    """A run. Lengths of training are in clips, whatever the number of GPUs."""

    model_type: Literal["latent_sde", "sde_matching", "follmer"] = "latent_sde"
    size: Literal["S", "B", "L", "XL", "1B"] | None = None  # settings at once: sdevid/sizes.py
    sde_type: Literal["ito", "stratonovich"] = "ito"
    frame_size: PositiveInt = 64  # pixels, square
    channels: Literal[1, 3] = 3
    sequence_length: PositiveInt = 16  # frames a clip
    fps: PositiveFloat = 8.0  # frames a second; also sets the cell of the Brownian path

    run_dir: Path = Path("runs/default")
    data: Location = "data/shards"  # folder of shards: a path, s3://..., http(s)://...
    data_cache: Path | None = None  # folder on a node's disk that keeps what was read by URL
    data_cache_gib: PositiveFloat = 64.0
    data_timeout: PositiveFloat = 60.0  # seconds without an answer from a URL
    split: str = "train"
    seed: NonNegativeInt = 0

    learning_rate: PositiveFloat = 3e-4
    prior_learning_rate_ratio: PositiveFloat = 4.0  # the prior learns only through the KL
    warmup_clips: NonNegativeInt = 0  # learning rate rises from 0
    final_learning_rate_ratio: float = 0.1  # cosine decay ends here
    weight_decay: NonNegativeFloat = 0.0
    gradient_clip: PositiveFloat = 1.0
    kl_warmup_fraction: float = 0.2  # of the run; the KL weight ends at exactly 1
    kl_weight_start: float = 0.01
    ema_decay: float = 0.999  # a step

    batch_size: PositiveInt = 32  # clips an optimizer step, over all ranks
    micro_batch_size: PositiveInt | None = None  # clips a rank and pass; None: all at once
    num_epochs: PositiveInt = 100
    max_clips: PositiveInt | None = None  # stop there, whatever the epochs
    save_every: PositiveInt = 100_000  # clips
    log_every: PositiveInt = 1_000  # clips
    zero_stage: Literal[0, 1, 2, 3] = 2
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False  # encoder, temporal encoder and decoder in training: faster after minutes
    preflight: bool = True  # look at every node before training, and name a bad one
    frame_strides: tuple[PositiveInt, ...] = (1,)  # drawn a clip: every how many-th frame is taken
    irregular_fraction: float = 0.0  # share of clips taken at random times within that length
    data_workers: NonNegativeInt = 0  # decoding threads a rank; 0: in the training process
    data_max_damaged: float = Field(0.01, ge=0, le=1)  # share of clips; past it the run stops
    shuffle_window: PositiveInt = 16  # shards; clips are shuffled within so many, to read locally

    sde: SDEConfig = SDEConfig()
    encoder: EncoderConfig = EncoderConfig()
    observation: ObservationConfig = ObservationConfig()
    text: TextConfig = TextConfig()
    matching: MatchingConfig = MatchingConfig()
    follmer: FollmerConfig = FollmerConfig()
    consistency: ConsistencyConfig = ConsistencyConfig()
    metrics: MetricsConfig = MetricsConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    faults: FaultsConfig = FaultsConfig()
    watchdog: WatchdogConfig = WatchdogConfig()
    offload: OffloadConfig = OffloadConfig()

    @model_validator(mode="after")
    def _map_fits(self) -> Config:
        ratio, rest = divmod(self.frame_size, self.encoder.map_size)
        if rest or ratio & (ratio - 1):
            raise ValueError(
                f"encoder.map_size is {self.encoder.map_size}, but frame_size {self.frame_size} "
                "must be it times a power of two; e.g. 4 or 8 for frames of 32 or 64"
            )
        return self

    @model_validator(mode="after")
    def _context_fits(self) -> Config:
        if self.observation.max_context >= self.sequence_length:
            raise ValueError(
                f"observation.max_context is {self.observation.max_context}, but a clip has "
                f"{self.sequence_length} frames (sequence_length) and one must be left to predict"
            )
        return self

    @model_validator(mode="after")
    def _times_are_there(self) -> Config:
        if not self.frame_strides:
            raise ValueError("frame_strides is empty; give [1] for every frame")
        if self.irregular_fraction and max(self.frame_strides) == 1:
            raise ValueError(
                f"irregular_fraction is {self.irregular_fraction:g}, but with frame_strides "
                "[1] there are no times between to choose from; add a stride of 2 or more"
            )
        return self

    @model_validator(mode="after")
    def _offload_fits(self) -> Config:
        stage, offload = self.zero_stage, self.offload
        for name, place in (("optimizer", offload.optimizer), ("parameters", offload.parameters)):
            least = 3 if name == "parameters" or place == "nvme" else 1
            if place != "none" and stage < least:
                raise ValueError(
                    f"offload.{name} is {place}, but zero_stage is {stage} and that needs "
                    f"{least}{' or more' if least < 3 else ''}; set zero_stage={least}"
                )
            if place == "nvme" and offload.nvme_path is None:
                raise ValueError(
                    f"offload.{name} is nvme, but offload.nvme_path is not set; give a folder on "
                    "a disk of the node, the same on every node"
                )
        return self

    @model_validator(mode="after")
    def _terms_have_a_prior(self) -> Config:
        for name in ("prior_consistency", "step_halving"):
            if self.model_type == "follmer" and getattr(self.consistency, name):
                raise ValueError(
                    f"consistency.{name} is {getattr(self.consistency, name):g}, but model_type "
                    "follmer has no prior SDE to step; set it to 0"
                )
        if self.consistency.prior_consistency and (
            self.consistency.prior_frames >= self.sequence_length
        ):
            raise ValueError(
                f"consistency.prior_frames is {self.consistency.prior_frames}, but a clip has "
                f"{self.sequence_length} frames (sequence_length); give fewer"
            )
        return self

    @model_validator(mode="after")
    def _second_order_fits(self) -> Config:
        if self.sde.order == 1:
            return self
        if self.model_type != "latent_sde":
            raise ValueError(
                f"sde.order is 2, but model_type is {self.model_type}, whose paths do not have "
                "positions that are their velocities' integral; it takes model_type=latent_sde, "
                "or set sde.order=1"
            )
        if self.observation.ahead:
            raise ValueError(
                "sde.order is 2, but observation.ends_fraction or keyframes_fraction is above 0, "
                "and what draws a path to a frame ahead pulls a state of order 1; set both to 0, "
                "or sde.order=1"
            )
        return self

    @model_validator(mode="after")
    def _frames_in_order(self) -> Config:
        uses = self.consistency.warp or self.consistency.frame_difference > 0
        if self.matching.frames is not None and uses:
            raise ValueError(
                f"matching.frames is {self.matching.frames}, but consistency.warp and "
                "consistency.frame_difference need every frame; leave matching.frames out"
            )
        return self


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The config in the YAML file `path`, with `key=value` overrides (dots reach into sections).

    Raises UserError where the file is missing or no YAML, or a setting is unknown or ill-typed.
    """
    if not path.is_file():
        raise UserError(f"config {path} does not exist; configs/ holds ready ones")
    try:
        settings = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise UserError(f"config {path} is not valid YAML: {error}") from error
    if not isinstance(settings, dict):
        raise UserError(
            f"config {path} must hold `key: value` lines, not a {type(settings).__name__}"
        )
    for override in overrides:
        _apply(settings, override)
    return parse(settings)


def parse(settings: dict[str, Any]) -> Config:
    """`settings` as a checked Config. Raises UserError that names every setting at fault."""
    try:
        return Config(**sizes.applied(settings))
    except ValidationError as error:
        raise UserError("\n".join(explain(error, Config))) from error


def dump(config: Config) -> str:
    """The whole config as YAML that `load` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _apply(settings: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"override {override!r} must read key=value, e.g. batch_size=16")
    *sections, name = key.split(".")
    place = settings
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise UserError(f"override {override!r}: {section} is one setting, not a section")
    try:
        place[name] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"override {override!r}: the value is not valid YAML: {error}") from error
