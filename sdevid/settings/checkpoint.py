"""Settings of checkpoints and of what is written beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from sdevid.settings.setting import Section, setting


class CheckpointConfig(Section):
    """What is kept of a run's checkpoints."""

    keep: int = setting(3, ge=2, role="runtime", help="newest checkpoints kept")
    keep_every: int | None = setting(
        None,
        ge=1,
        unit="clips",
        role="runtime",
        help="the first checkpoint past each multiple is kept for ever",
    )
    best: str | None = setting(
        None,
        role="runtime",
        help="name in metrics.jsonl; the checkpoint with the best value is kept",
    )
    best_is: Literal["lowest", "highest"] = setting(
        "lowest", role="runtime", help="which value of `best` is the best"
    )
    pin: tuple[int, ...] = setting(
        (),
        role="runtime",
        help="steps whose checkpoints are kept, as is one that holds a file `pinned`",
    )
    asynchronous: bool = setting(
        True, role="runtime", help="training waits only for the copy to host memory"
    )
    on_failure: Literal["stop_repeated", "warn", "stop"] = setting(
        "stop_repeated",
        role="runtime",
        help="stop_repeated: a first save that fails, or two in a row, end the run; warn: only the "
        "last save does; stop: any",
    )
    patience: int = setting(
        1_500,
        ge=1,
        le=10**7,
        unit="seconds",
        role="runtime",
        help="longest time of a write or a conversion",
    )

    @model_validator(mode="after")
    def _steps_are_positive(self) -> CheckpointConfig:
        if any(step < 1 for step in self.pin):
            raise ValueError(f"pin is {list(self.pin)}, but a step is 1 or more; remove the others")
        return self


class OffloadConfig(Section):
    """What ZeRO keeps outside the GPU: in the host's memory or on its NVMe disk."""

    optimizer: Literal["none", "cpu", "nvme"] = setting(
        "none", role="runtime", help="where optimizer states lie; its update runs on the CPU"
    )
    parameters: Literal["none", "cpu", "nvme"] = setting(
        "none", role="runtime", help="where parameters lie between their uses (ZeRO 3)"
    )
    nvme_path: Path | None = setting(None, role="runtime", help="folder on a disk of the node")


class MetricsConfig(Section):
    """Where figures go beside metrics.jsonl."""

    wandb: bool = setting(
        False, role="runtime", help="log to Weights & Biases; offline without WANDB_API_KEY"
    )
    wandb_project: str = setting("sdevid", role="runtime", help="project in Weights & Biases")
    tensorboard: bool = setting(False, role="runtime", help="write TensorBoard event files")
