"""Where figures go beside metrics.jsonl: TensorBoard and Weights & Biases."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

import yaml

from sdevid.checkpoint import Progress
from sdevid.config import Config, record

Figures = dict[str, float]
_REACH_SECONDS = 5.0  # for the server to take a connection
_INIT_SECONDS = 30.0  # for it to begin a run


class Sink(Protocol):
    """A destination of the metrics beside metrics.jsonl."""

    def write(self, clips: int, figures: Figures) -> None:
        """Write the figures after `clips` clips."""
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
    """One wandb run for a run folder, continued on resume; offline where no key is set."""

    def __init__(self, config: Config, progress: Progress) -> None:
        import wandb

        name_file = config.run_dir / "wandb_run_id"
        if not name_file.exists():
            name_file.write_text(secrets.token_hex(4), encoding="utf-8")
        self._run: Any = wandb.init(
            project=config.metrics.wandb_project,
            id=name_file.read_text(encoding="utf-8").strip(),
            name=config.run_dir.name,
            dir=str(config.run_dir),
            mode=wandb_mode(),  # type: ignore[arg-type]
            resume="allow" if progress.clips else None,
            config=yaml.safe_load(record(config)),
            settings=wandb.Settings(silent=True, init_timeout=_INIT_SECONDS),
        )
        self._run.define_metric("*", step_metric="clips")

    def write(self, clips: int, figures: Figures) -> None:
        self._run.log({"clips": clips, **figures})

    def close(self) -> None:
        self._run.finish()


def wandb_mode() -> str:
    """Choose WANDB_MODE if set; online with a key and a server that answers; else offline."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    if not os.environ.get("WANDB_API_KEY"):
        return "offline"
    server = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    port = server.port or (443 if server.scheme == "https" else 80)
    try:
        socket.create_connection((server.hostname or "", port), _REACH_SECONDS).close()
    except OSError as error:
        print(f"wandb: {server.hostname} does not answer ({error}); logging offline", flush=True)
        return "offline"
    return "online"


class _Guarded:
    """A sink that is dropped, with a line, at its first failure: metrics.jsonl is the record."""

    def __init__(self, name: str, open_sink: Callable[[], Sink]) -> None:
        self._name = name
        self._sink: Sink | None = None
        with self._guard("cannot be opened"):
            self._sink = open_sink()

    def write(self, clips: int, figures: Figures) -> None:
        with self._guard("takes no more"):
            if self._sink:
                self._sink.write(clips, figures)

    def close(self) -> None:
        with self._guard("did not close"):
            if self._sink:
                self._sink.close()

    @contextmanager
    def _guard(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of a library that is free to raise anything
            self._sink = None
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            print(f"{self._name} {what} ({reason}); going on without it", flush=True)


def open_sinks(config: Config, progress: Progress) -> list[Sink]:
    """Open the sinks that the config asks for; one that fails is reported and left out."""
    chosen: list[Sink] = []
    if config.metrics.tensorboard:
        chosen.append(_Guarded("TensorBoard", lambda: _TensorBoard(config, progress)))
    if config.metrics.wandb:
        chosen.append(_Guarded("wandb", lambda: _Wandb(config, progress)))
    return chosen
