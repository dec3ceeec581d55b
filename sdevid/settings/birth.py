"""Settings of the birth: (w, z_0) as the end of an SDE from nothing."""

from __future__ import annotations

from sdevid.settings.setting import Section, setting


class BirthConfig(Section):
    """`sde.start: birth`: the chain from nothing to (w, z_0), and its network."""

    steps: int = setting(
        32, ge=1, le=65_536, role="objective", help="steps of the chain, in evaluation and sampling"
    )
    drawn: int = setting(
        2,
        ge=1,
        le=65_536,
        role="objective",
        help="steps of the chain drawn for each clip and training pass; all in evaluation",
    )
    last: float = setting(
        0.02,
        gt=0,
        lt=1,
        role="objective",
        help="share of the birth's time that is left before its last step",
    )
    hidden: int = setting(
        64, ge=4, le=65_536, role="architecture", help="width of the network over (w, z_0)"
    )
    depth: int = setting(
        3, ge=1, le=1024, role="architecture", help="its transformer blocks, or hidden layers"
    )
    heads: int = setting(
        4, ge=1, le=4096, role="architecture", help="attention heads of its transformer"
    )
