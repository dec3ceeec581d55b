"""Damaged clips that a run has met: named once in quarantine.jsonl, counted, and bounded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict

from sdevid.atomic_file import replace_text
from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.train.world import World
from sdevid.types import Batch, Damage

_LEAST = 8  # damaged clips; below that a rate says nothing
_SAID = 3  # clips named on the screen at a time

Name = tuple[str, str]  # shard and key


class Quarantine:
    """Damaged clips that a run leaves out. Every rank reports its own, and all know the same."""

    def __init__(self, config: Config, world: World, clips: int) -> None:
        self._config, self._world, self._clips = config, world, clips
        self._path = config.run_dir / "quarantine.jsonl"
        self._named: set[Name] = world.gather(self._written() if world.main else set())[0]
        self._met: set[Name] = set()  # since this start
        self._taken = 0  # clips since this start, of all ranks
        self._new: list[Damage] = []

    def watching(self, steps: Iterable[list[Batch]]) -> Iterator[list[Batch]]:
        """Yield this rank's batches of each step, recording the damage they met."""
        for batches in steps:
            for batch in batches:
                self._taken += len(batch.serial) * self._world.size
                self._new += batch.damage
            yield batches

    def flush(self) -> dict[str, float]:
        """Write down the damage that any rank met; count it as `quarantined`. Every rank calls it.

        Raises UserError on every rank where the share of damaged clips is past `data_max_damaged`.
        """
        damages = sorted(
            (damage for part in self._world.gather(self._new) for damage in part),
            key=lambda damage: damage.serial,
        )
        self._new = []
        first = {(damage.shard, damage.key): damage for damage in reversed(damages)}
        unnamed = [first[name] for name in reversed(first) if name not in self._named]
        self._met.update(first)
        self._named.update(first)
        if unnamed and self._world.main:
            self._write(unnamed)
        self._bound(damages)
        return {"quarantined": float(len(self._named))}

    def _bound(self, damages: list[Damage]) -> None:
        read = min(self._taken, self._clips)
        rate, allowed = len(self._met) / max(read, 1), self._config.data_max_damaged
        if damages and len(self._met) >= _LEAST and rate > allowed:
            last = damages[-1]
            raise UserError(
                f"{len(self._met)} of the {read} clips read from {self._config.data} are damaged, "
                f"more than data_max_damaged allows ({allowed:g}); the last: {last.key} of "
                f"{last.shard}, {last.reason}. {self._path} names them; copy those shards again, "
                "or allow more"
            )

    def _written(self) -> set[Name]:
        """Read the clips that the file names; a torn or damaged line of it names none."""
        named: set[Name] = set()
        lines = self._path.read_bytes().splitlines() if self._path.is_file() else []
        for line in lines:
            with suppress(ValueError, KeyError, TypeError, RecursionError):
                entry = json.loads(line)
                named.add((str(entry["shard"]), str(entry["key"])))
        return named

    def _write(self, unnamed: list[Damage]) -> None:
        for damage in unnamed[:_SAID]:
            self._world.say(
                f"clip {damage.key} of {damage.shard} is damaged ({damage.reason}) and left out",
                "warning",
            )
        if len(unnamed) > _SAID:
            self._world.say(
                f"so are {len(unnamed) - _SAID} more; {self._path} names them", "warning"
            )
        lines = "".join(json.dumps(asdict(damage)) + "\n" for damage in unnamed)
        try:
            before = (
                self._path.read_text(encoding="utf-8", errors="replace")
                if self._path.exists()
                else ""
            )
            replace_text(self._path, before + lines)
        except OSError as error:
            self._world.say(f"{self._path} cannot be written: {error}", "warning")
