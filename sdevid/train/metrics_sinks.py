"""Where figures go beside metrics.jsonl: TensorBoard and Weights & Biases."""

from __future__ import annotations

import os
import secrets
from typing import Any, Protocol

from sdevid.checkpoint import Progress
from sdevid.config import Config

Figures = dict[str, float]


class Sink(Protocol):
    """A place that takes the figures of a line."""

    def write(self, clips: int, figures: Figures) -> None:
        """Take the figures after `clips` clips."""
        ...

    def close(self) -> None:
        """Finish what is under way."""
        ...


class _TensorBoard:
    def __init__(self, config: Config, progress: Progress) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = config.run_dir / "tensorboard"
        self._writer = SummaryWriter(str(folder), purge_step=progress.clips + 1)

    def write(self, clips: int, figures: Figures) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, clips)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """One wandb run for a run folder, carried on at a resume; offline where no key is set."""

    def __init__(self, config: Config, progress: Progress) -> None:
        import wandb

        name_file = config.run_dir / "wandb_run_id"
        if not name_file.exists():
            name_file.write_text(secrets.token_hex(4))
        offline = "offline" if not os.environ.get("WANDB_API_KEY") else "online"
        self._run: Any = wandb.init(
            project=config.metrics.wandb_project,
            id=name_file.read_text().strip(),
            name=config.run_dir.name,
            dir=str(config.run_dir),
            mode=os.environ.get("WANDB_MODE", offline),  # type: ignore[arg-type]
            resume="allow" if progress.clips else None,
            config=config.model_dump(mode="json"),
            settings=wandb.Settings(silent=True),
        )
        self._run.define_metric("*", step_metric="clips")

    def write(self, clips: int, figures: Figures) -> None:
        self._run.log({"clips": clips, **figures})

    def close(self) -> None:
        self._run.finish()


def open_sinks(config: Config, progress: Progress) -> list[Sink]:
    chosen: list[Sink] = []
    if config.metrics.tensorboard:
        chosen.append(_TensorBoard(config, progress))
    if config.metrics.wandb:
        chosen.append(_Wandb(config, progress))
    return chosen
