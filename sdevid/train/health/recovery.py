"""What the recovery policy does to a running training: skips, returns, the end."""

from __future__ import annotations

from sdevid.checkpoint import Progress
from sdevid.errors import NonFiniteError
from sdevid.train.checkpointing import restore
from sdevid.train.checkpointing.saver import Saver
from sdevid.train.health.recovery_policy import RecoveryPolicy, Verdict


class Recovery:
    """Applies a run's recovery policy to its engine; keeps its state in `progress.faults`.

    A return takes weights, optimizer, average and random state from a checkpoint. Clips and steps
    go on counting from where they are: the clips of the bad stretch count as consumed, so the
    schedules go on as well, and the data goes on after that stretch.
    """

    def __init__(self, saver: Saver, progress: Progress) -> None:
        self._saver, self._engine, self._progress = saver, saver.engine, progress
        unknown = {"good_step": progress.step}  # resumed from a checkpoint that does not say
        self._policy = RecoveryPolicy(self._engine.config.faults, progress.faults or unknown)
        self._verdict = Verdict.APPLY

    @property
    def good(self) -> bool:
        """Whether the last step's update was applied."""
        return self._verdict is Verdict.APPLY

    def approves(self, loss: float, grad_norm: float) -> bool:
        """Judge the step under way, before its update."""
        self._verdict = self._policy.verdict(self._progress.step + 1, loss, grad_norm)
        return self.good

    def may_save(self, due: bool) -> bool:
        """Decide whether to save after this step; `due` says whether its clips call for a save."""
        saves = self._policy.may_save(self._progress.step, due)
        self._progress.faults = self._policy.state()
        return saves

    def apply(self) -> None:
        """Carry out the verdict on the step that has just been counted. Every rank calls it.

        Raises NonFiniteError where the policy allows no more returns, or there is no checkpoint for
        one.
        """
        step, fault = self._progress.step, self._policy.fault
        if self._verdict is Verdict.SKIP:
            self._engine.world.say(f"step {step}: {fault}; its update is skipped", "warning")
        elif self._verdict is Verdict.ROLL_BACK:
            self._roll_back(f"step {step}: {fault}, as {self._policy.settings.skips} in a row")
        elif self._verdict is Verdict.STOP:
            raise NonFiniteError(
                f"step {step}: {fault}, after {self._policy.rollbacks} returns to a checkpoint "
                "(faults.rollbacks); look at the learning rate and at the data of these steps"
            )

    def _roll_back(self, why: str) -> None:
        at_most = self._policy.return_point
        with self._engine.world.heartbeat.phase("checkpoint"):
            self._saver.wait()
            progress = restore.resume(self._engine, self._saver.ema, self._engine.config, at_most)
        if progress is None:
            raise NonFiniteError(f"{why}, and there is no checkpoint from before them")
        self._policy.returned_to(progress.step)
        self._engine.world.say(
            f"{why}: back to the weights of step {progress.step}, and on with the data from clip "
            f"{self._progress.clips:,}",
            "warning",
        )
