"""Files by which a user steers a run from outside: `STOP` and `SAVE` in its folder."""

from __future__ import annotations

import time
from pathlib import Path

from sdevid.train.world import Asked, World

_SECONDS_BETWEEN_LOOKS = 1.0  # a shared file system should not feel them


class ControlFiles:
    """`touch RUN/STOP` saves and ends the run, `touch RUN/SAVE` saves and lets it go on.

    The main rank looks, all ranks agree, and a file is removed once what it asks for is done: a
    run that dies before that finds it again.
    """

    def __init__(self, run_dir: Path, world: World) -> None:
        self._stop, self._save = run_dir / "STOP", run_dir / "SAVE"
        self._world = world
        self._heeded: set[Path] = set()
        self._looked = float("-inf")

    def asked(self) -> Asked:
        """Check, once a step on every rank, for a file or signal that asks to stop or save."""
        if self._world.main and time.monotonic() - self._looked >= _SECONDS_BETWEEN_LOOKS:
            self._looked = time.monotonic()
            if self._new(self._stop):
                self._world.ask_to_stop("stopped")
            if self._new(self._save):
                self._world.ask_to_save()
        return self._world.asked()

    def answered(self, asked: Asked) -> None:
        """Remove the files whose request was carried out: the run is saved."""
        if not self._world.main:
            return
        if asked.stop == "stopped":
            self._consume(self._stop)
        if asked.save or asked.stop:
            self._consume(self._save)

    def _new(self, path: Path) -> bool:
        if path in self._heeded or not path.is_file():
            return False
        self._heeded.add(path)
        return True

    def _consume(self, path: Path) -> None:
        if path in self._heeded:
            path.unlink(missing_ok=True)
            self._heeded.discard(path)
