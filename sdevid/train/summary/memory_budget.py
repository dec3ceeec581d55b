"""Memory that weights, gradients, optimizer and EMA need under each ZeRO stage."""

from __future__ import annotations

from collections.abc import Iterator

from sdevid.config import OffloadConfig

GIB = 2**30
NOTHING = OffloadConfig()  # offloaded


def memory_bytes(
    parameters: int, ranks: int, stage: int, offload: OffloadConfig = NOTHING
) -> float:
    """Compute bytes a rank holds on its device between two steps, and gradients at their peak.

    float32 throughout, 4 bytes each: weights, gradients, and split over the ranks the master
    weights (under stage 3 they are the weights), Adam's two moments and the EMA. An optimizer that
    is offloaded takes master weights, moments, EMA and the gradients' split with it. Activations,
    communication buffers, weights gathered for use and the framework are left out. After
    Rajbhandari et al. 2020, section 5.
    """
    whole, share = 4.0 * parameters, 4.0 * parameters / ranks
    if stage == 0:
        return whole * 5  # weights, gradients, two moments, EMA
    weights = whole if stage < 3 else share * (offload.parameters == "none")
    if offload.optimizer != "none":
        return weights + (whole if stage == 1 else 0)
    if stage == 1:
        return whole * 2 + share * 4
    if stage == 2:
        return whole + share * 5
    return share * 5


def host_bytes(parameters: int, ranks: int, stage: int, offload: OffloadConfig) -> float:
    """Compute bytes a rank holds in the host's memory or on its NVMe disk, by what is offloaded."""
    share = 4.0 * parameters / ranks
    copies = 5 if stage and offload.optimizer != "none" else 0
    return share * (copies + (stage == 3 and offload.parameters != "none"))


def memory_table(parameters: int, size: int, offload: OffloadConfig) -> Iterator[str]:
    """Yield a table of memory a rank under ZeRO 1, 2 and 3, for this world and a few others."""
    yield (
        "GiB a rank for weights, gradients, optimizer and EMA, all float32; not counted: "
        "activations, communication buffers, weights that ZeRO 3 gathers for use, the framework"
    )
    offloaded = offload.optimizer != "none" or offload.parameters != "none"
    if offloaded:
        yield (
            f"offloaded: optimizer to {offload.optimizer}, parameters to {offload.parameters} "
            "(ZeRO 3); on the device + beside it"
        )
    yield "  ranks" + "".join(
        f"{f'ZeRO {stage}':>{18 if offloaded else 11}}" for stage in (1, 2, 3)
    )
    for ranks in sorted({size, 1, 8, 64}):
        row = f"  {ranks:<5}"
        for stage in (1, 2, 3):
            row += f"{memory_bytes(parameters, ranks, stage, offload) / GIB:>11.3f}"
            if offloaded:
                row += f" +{host_bytes(parameters, ranks, stage, offload) / GIB:>5.2f}"
        yield row
