"""Settings at the top level of a config: video, data, optimization, length and hardware."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from sdevid import frame_size
from sdevid.objectives.registry import ModelType
from sdevid.settings.setting import Section, setting

Location = Annotated[str, BeforeValidator(lambda v: str(v) if isinstance(v, Path) else v)]


class VideoSettings(Section):
    """The kind of model and the size of its clips."""

    model_type: ModelType = setting("latent_sde", role="architecture", help="model and objective")
    size: Literal["S", "B", "L", "XL", "1B"] | None = setting(
        None,
        role="runtime",
        help="named model size; fills in what a file leaves out; an override replaces its networks",
    )
    sde_type: Literal["ito", "stratonovich"] = setting(
        "ito", role="architecture", help="calculus in which the drift is read"
    )
    frame_size: int = setting(
        64,
        ge=1,
        le=16_384,
        unit="pixels",
        role="architecture",
        help="side of a square frame, or the height of another; 96x64 is width and height",
    )
    frame_width: int | None = setting(
        None,
        ge=1,
        le=16_384,
        unit="pixels",
        role="architecture",
        help="width of a frame that is not square",
    )
    channels: int = setting(
        3,
        ge=1,
        le=64,
        role="architecture",
        help="of a frame: 1 grey, 3 RGB; where it is not given, those of the shards",
    )
    sequence_length: int = setting(
        16,
        ge=2,
        le=65_536,
        unit="frames",
        role="data",
        alters_loss=True,
        help="frames of a training clip",
    )

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Height and width of a frame, in pixels."""
        return self.frame_size, self.frame_width or self.frame_size

    @property
    def frame_text(self) -> str:
        """The size of a frame as it is given: the side, or width x height."""
        return frame_size.text(self.frame_shape)

    @model_validator(mode="before")
    @classmethod
    def _width_and_height(cls, settings: Any) -> Any:
        """Read `frame_size: 96x64`."""
        size = settings.get("frame_size") if isinstance(settings, dict) else None
        if not isinstance(size, str):
            return settings
        height, width = frame_size.parse(size)
        return settings | {"frame_size": height, "frame_width": None if width == height else width}

    def refuse_oblong(self, what: str) -> None:
        """Raise ValueError where frames are not square, which `what` needs."""
        height, width = self.frame_shape
        if height != width:
            raise ValueError(
                f"{what}, which takes square frames alone, but frame_size is {self.frame_text}; "
                f"cut with --frame_size {min(height, width)}, or take another model"
            )


class DataSettings(Section):
    """Where a run lies, what it reads, and how clips are drawn."""

    run_dir: Path = setting(Path("runs/default"), role="runtime", help="folder of the run")
    data: Location = setting(
        "data/shards", role="data", help="folder of shards: a path, s3://... or http(s)://..."
    )
    data_reader: Literal["index", "webdataset"] = setting(
        "index",
        role="data",
        help="index: by the shards' index, in an exact order; webdataset: as a stream of the tars "
        "in data, a folder or a list as s3://b/{000..999}.tar, without an index",
    )
    data_changed: bool = setting(
        False,
        role="runtime",
        help="carry on though the data are not those of the checkpoint; holds for one start",
    )
    data_cache: Path | None = setting(
        None, role="runtime", help="folder on a node's disk that keeps what was read by URL"
    )
    data_cache_gib: float = setting(
        64.0, gt=0, le=1e9, unit="GiB", role="runtime", help="size of data_cache"
    )
    data_timeout: float = setting(
        60.0,
        gt=0,
        le=1e6,
        unit="seconds",
        role="runtime",
        help="longest time without an answer from a URL",
    )
    split: str = setting("train", role="data", help="split of the shards to train on")
    seed: int = setting(
        0,
        ge=0,
        lt=2**63,
        role="objective",
        help="seed of weights, order of clips and noise",
    )
    frame_strides: tuple[int, ...] = setting(
        (1,),
        role="data",
        help="strides, one drawn a clip: every how many-th frame is taken",
    )
    irregular_fraction: float = setting(
        0.0, ge=0, le=1, role="data", help="share of clips taken at random times within that length"
    )
    data_workers: int = setting(
        0,
        ge=0,
        le=1024,
        role="runtime",
        help="decoding threads a rank; 0: in the training process",
    )
    data_max_damaged: float = setting(
        0.01, ge=0, le=1, role="runtime", help="share of damaged clips past which the run stops"
    )
    shuffle_window: int = setting(
        16,
        ge=1,
        le=10**9,
        unit="shards",
        role="data",
        help="shards within which clips are shuffled",
    )


class OptimizationSettings(Section):
    """Optimizer and schedules. None of them changes the loss of given weights."""

    start_from: Path | None = setting(
        None,
        role="objective",
        alters_loss=False,
        help="run, checkpoint or export whose weights a new run starts from, where they fit",
    )
    learning_rate: float = setting(
        3e-4, gt=0, le=1e6, role="objective", alters_loss=False, help="peak of Adam's learning rate"
    )
    prior_learning_rate_ratio: float = setting(
        4.0,
        gt=0,
        le=1e6,
        role="objective",
        alters_loss=False,
        help="learning rate of the prior, which learns only through the KL, over the others'",
    )
    warmup_clips: int = setting(
        0,
        ge=0,
        le=10**15,
        unit="clips",
        role="objective",
        alters_loss=False,
        help="clips over which the learning rate rises from 0",
    )
    final_learning_rate_ratio: float = setting(
        0.1,
        ge=0,
        le=1e6,
        role="objective",
        alters_loss=False,
        help="end of the cosine decay, over the peak",
    )
    weight_decay: float = setting(
        0.0, ge=0, le=1e6, role="objective", alters_loss=False, help="AdamW's weight decay"
    )
    gradient_clip: float = setting(
        1.0,
        gt=0,
        le=1e12,
        role="objective",
        alters_loss=False,
        help="largest gradient norm, of the loss per value of a clip",
    )
    kl_warmup_fraction: float = setting(
        0.2,
        ge=0,
        le=1,
        role="objective",
        alters_loss=False,
        help="share of the run over which the KL weight rises; it ends at exactly 1",
    )
    kl_weight_start: float = setting(
        0.01, ge=0, le=1, role="objective", alters_loss=False, help="KL weight of the first step"
    )
    adam_beta2: float = setting(
        0.999,
        ge=0,
        lt=1,
        unit="per step",
        role="objective",
        alters_loss=False,
        help="decay of AdamW's mean squared gradient; lower for runs of few steps",
    )
    adam_epsilon: float = setting(
        1e-8,
        gt=0,
        le=1,
        role="objective",
        alters_loss=False,
        help="AdamW's floor of a root mean squared gradient; well below that of the smallest part",
    )
    ema_decay: float = setting(
        0.999,
        ge=0,
        lt=1,
        unit="per step",
        role="objective",
        alters_loss=False,
        help="decay of the exponential moving average of the weights",
    )
    batch_size: int = setting(
        32,
        ge=1,
        le=10**7,
        unit="clips",
        role="objective",
        alters_loss=False,
        help="clips an optimizer step, over all ranks",
    )
    num_epochs: int = setting(
        100, ge=1, le=10**9, role="objective", alters_loss=False, help="length of the run"
    )
    max_clips: int | None = setting(
        None,
        ge=1,
        le=10**15,
        unit="clips",
        role="objective",
        alters_loss=False,
        help="end of the run, whatever num_epochs",
    )


class RuntimeSettings(Section):
    """What a run may change at any start without another result, up to rounding."""

    micro_batch_size: int | None = setting(
        None,
        ge=1,
        le=10**7,
        unit="clips",
        role="runtime",
        help="clips a rank and pass; null: all at once",
    )
    save_every: int = setting(
        100_000, ge=1, le=10**15, unit="clips", role="runtime", help="interval of checkpoints"
    )
    sample_every: int = setting(
        1,
        ge=0,
        le=10**6,
        unit="checkpoints",
        role="runtime",
        help="a few samples are made of every how many-th checkpoint, for the page; 0: none",
    )
    profile_steps: int = setting(
        0,
        ge=0,
        le=1_000,
        unit="steps",
        role="runtime",
        help="steps recorded by torch.profiler into run_dir/profile, from the sixth on; 0: none",
    )
    log_every: int = setting(
        1_000,
        ge=1,
        le=10**15,
        unit="clips",
        role="runtime",
        help="interval of lines in metrics.jsonl",
    )
    zero_stage: Literal[0, 1, 2, 3] = setting(
        2, role="runtime", help="DeepSpeed ZeRO stage: what the ranks share out"
    )
    precision: Literal["fp32", "bf16"] = setting(
        "fp32", role="runtime", alters_loss=True, help="of the networks; state and sums stay fp32"
    )
    tf32: bool = setting(
        False,
        role="runtime",
        alters_loss=True,
        help="products and convolutions of float32 on CUDA in TF32, which has 10 bits of fraction",
    )
    cudnn_benchmark: bool = setting(
        False,
        role="runtime",
        alters_loss=True,
        help="cuDNN tries its algorithms out; a resumed run may then differ by rounding",
    )
    channels_last: Literal["auto", "on", "off"] = setting(
        "auto",
        role="runtime",
        alters_loss=True,
        help="convolutions with channels last in memory; auto: on CUDA where precision is bf16",
    )
    compile: bool = setting(
        False,
        role="runtime",
        alters_loss=True,
        help="compile encoder, temporal encoder and decoder for training",
    )
    train_graph: Literal["auto", "on", "off"] = setting(
        "auto",
        role="runtime",
        alters_loss=True,
        help="replay each micro-step as one CUDA graph; auto: where it can be, and it says why not",
    )
    preflight: bool = setting(
        True, role="runtime", help="check every node before training, and name a bad one"
    )
