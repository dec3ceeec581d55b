"""The trainer with faults made in it on purpose, so that the product holds no scaffolding for them.

    python tests/drills/faulty.py '{"lose": {"serials": [7]}}' train --config C.yaml [key=value ...]

Each fault is a function here; its arguments are in the JSON. Ranks are those of torchrun.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Collection
from typing import Any

import torch

from sdevid.objectives.latent_sde import LatentSDEObjective

RANK = int(os.environ.get("RANK", "0"))


def lose(serials: Collection[int], what: str = "loss", by: float = math.nan) -> None:
    """Make what any clip with one of these serials adds to its batch not finite, or add `by`.

    `what` is loss (the gradient stays finite), or gradient (the loss does).
    """
    forward = LatentSDEObjective.forward

    def lossy(self: LatentSDEObjective, video: Any, ticks: Any, serial: Any, weight: float) -> Any:
        terms = forward(self, video, ticks, serial, weight)
        if not set(serial.tolist()) & set(serials):
            return terms
        loss = terms["loss"]
        nothing = loss - loss  # the slope of its root, at 0, is infinite
        return terms | {"loss": loss + (by if what == "loss" else nothing.sqrt())}

    LatentSDEObjective.forward = lossy  # type: ignore[method-assign]


FAULTS: dict[str, Callable[..., None]] = {"lose": lose}


def main(faults: str, *arguments: str) -> int:
    from sdevid.__main__ import main as sdevid

    for name, settings in json.loads(faults).items():
        FAULTS[name](**settings)
    return sdevid(arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(*sys.argv[1:]))
