"""The recovery policy for steps whose loss or gradient is not finite, or whose loss spikes.

Skip the update; after several skips in a row return to the last good checkpoint and continue with
the data after the bad stretch; after several such returns stop. Every rank sees the same figures
and so reaches the same verdict. The state is saved with each checkpoint and restored on resume.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from enum import Enum
from typing import Any

from sdevid.config import FaultsConfig

_SD_OF_MAD = 1.4826  # standard deviations of a normal distribution in its MAD
_SAVES_KEPT = 16
_LEAST_SD = 1e-6  # of the median: where past losses are all equal


class Verdict(Enum):
    """What becomes of a step's update."""

    APPLY = "apply"
    SKIP = "skip"
    ROLL_BACK = "roll back"
    STOP = "stop"


class RecoveryPolicy:
    """The state of a run's recovery; `verdict` judges each step by the figures of all ranks.

    `fault` says what was wrong with the last step, None if nothing; `good_step` is the last step
    before any of the faults at hand.
    """

    def __init__(self, settings: FaultsConfig, state: Mapping[str, Any] | None = None) -> None:
        saved = dict(state or {})
        self.settings = settings
        self.in_a_row = int(saved.get("in_a_row", 0))  # faults since the last good step
        self.sound = int(saved.get("sound", 0))  # good steps since the last fault
        self.rollbacks = int(saved.get("rollbacks", 0))
        self.good_step = int(saved.get("good_step", 0))
        self.saves = [int(step) for step in saved.get("saves", [])]
        self.save_due = bool(saved.get("save_due", False))
        self.losses = deque((float(x) for x in saved.get("losses", [])), maxlen=settings.window)
        self.fault: str | None = None

    def state(self) -> dict[str, Any]:
        """Give what `RecoveryPolicy(settings, state)` carries on from, as JSON holds it."""
        return {
            "in_a_row": self.in_a_row,
            "sound": self.sound,
            "rollbacks": self.rollbacks,
            "good_step": self.good_step,
            "saves": list(self.saves),
            "save_due": self.save_due,
            "losses": list(self.losses),
        }

    def verdict(self, step: int, loss: float, grad_norm: float) -> Verdict:
        """Judge step `step`, counted from 1, by its loss and gradient norm over all ranks."""
        self.fault = self._fault(loss, grad_norm)
        if self.fault is None:
            self._count_good(step, loss)
            return Verdict.APPLY
        self.in_a_row, self.sound = self.in_a_row + 1, 0
        if self.in_a_row < self.settings.skips:
            return Verdict.SKIP
        self.in_a_row = 0
        if self.rollbacks >= self.settings.rollbacks:
            return Verdict.STOP
        self.rollbacks += 1
        return Verdict.ROLL_BACK

    def may_save(self, step: int, due: bool) -> bool:
        """Decide whether to save after the step just judged.

        A save that is due waits for a good step. Otherwise saves within a bad stretch could push
        the last good checkpoint out.
        """
        self.save_due = self.save_due or due
        if not self.save_due or self.fault:
            return False
        self.save_due = False
        self.saves = [*self.saves, step][-_SAVES_KEPT:]
        return True

    @property
    def return_point(self) -> int:
        """The newest step whose checkpoint may be returned to.

        One written because it was due, where there is one: those written on a signal would make
        the run depend on when it was interrupted.
        """
        return max((s for s in self.saves if s <= self.good_step), default=self.good_step)

    def returned_to(self, step: int) -> None:
        """Record a return; another one with no good step between goes further back."""
        self.good_step = step - 1

    def _count_good(self, step: int, loss: float) -> None:
        self.in_a_row, self.sound, self.good_step = 0, self.sound + 1, step
        if self.settings.spike:
            self.losses.append(loss)
        if self.sound >= self.settings.window:
            self.rollbacks = 0

    def _fault(self, loss: float, grad_norm: float) -> str | None:
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(grad_norm):
            return f"the gradient's norm is {grad_norm}"
        limit = self._limit()
        if loss > limit:
            return f"the loss is {loss:.6g}, a spike: faults.spike sets a limit of {limit:.6g} here"
        return None

    def _limit(self) -> float:
        """Add `spike` robust standard deviations to the median past loss; infinite until full."""
        if not self.settings.spike or len(self.losses) < self.settings.window:
            return math.inf
        middle = statistics.median(self.losses)
        mad = statistics.median(abs(loss - middle) for loss in self.losses)
        return middle + self.settings.spike * max(_SD_OF_MAD * mad, _LEAST_SD * abs(middle))
