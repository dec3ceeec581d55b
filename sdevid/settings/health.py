"""Settings of what a run does about lost steps, stalls and slow ranks."""

from __future__ import annotations

from sdevid.settings.setting import Section, setting


class FaultsConfig(Section):
    """What is done about a loss or gradient that is not finite, or a loss that jumps."""

    skips: int = setting(
        3,
        ge=1,
        unit="steps",
        role="runtime",
        help="bad steps in a row: their updates are skipped, at the last the run rolls back",
    )
    rollbacks: int = setting(
        3, ge=0, role="runtime", help="returns to a checkpoint before training counts as lost"
    )
    spike: float = setting(
        0.0,
        ge=0,
        le=1e6,
        unit="robust sd (of the MAD)",
        role="runtime",
        help="loss above the median of past ones that counts as bad; 0: off",
    )
    window: int = setting(
        100,
        ge=1,
        le=10**6,
        unit="steps",
        role="runtime",
        help="past losses kept; as many good steps forgive former returns",
    )


class WatchdogConfig(Section):
    """When a run counts as stalled and is ended, and when a rank counts as slow."""

    seconds: float = setting(
        900.0, ge=0, le=1e7, unit="seconds", role="runtime", help="longest step; 0: no watchdog"
    )
    start_seconds: float = setting(
        3600.0,
        gt=0,
        le=1e7,
        unit="seconds",
        role="runtime",
        help="longest time to the end of the first step, which may compile",
    )
    checkpoint_seconds: float = setting(
        3600.0,
        gt=0,
        le=1e7,
        unit="seconds",
        role="runtime",
        help="longest save or return to a checkpoint",
    )
    grace_seconds: float = setting(
        10.0,
        gt=0,
        le=1e7,
        unit="seconds",
        role="runtime",
        help="time for all ranks to write down where they stand",
    )
    slow_ratio: float = setting(
        1.5,
        ge=0,
        le=1e6,
        role="runtime",
        help="a rank counts as slow past this many times the others' time; 0: off",
    )
