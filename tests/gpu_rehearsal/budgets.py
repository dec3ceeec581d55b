"""The table under test: what a training step and a window of sampled video may ask of a GPU.

Launches are those of Python for two clips; with `train_graph` a micro-step from the second of its
shape on is one. The named sizes are tested on clips of two frames, since 16 take minutes.
"""

from __future__ import annotations

from typing import NamedTuple


class Budget(NamedTuple):
    """Most launches of a case; it may wait once, and copy nothing that blocks."""

    name: str
    config: str
    overrides: tuple[str, ...]
    launches: int | None  # of a training step, where that is counted
    sampling: int | None = None  # of a window, where that is counted too
    is_quick: bool = False
    draws: int = 1  # launches of a training step that draw: particles draw their path besides


AHEAD = ("observation.ends_fraction=0.1", "observation.keyframes_fraction=0.1")
TWO = ("sequence_length=2", "observation.max_context=1")
FOUR = ("sequence_length=4", "observation.max_context=2")
CASES = (
    Budget("demo", "demo", (), 490, 140, is_quick=True),
    Budget("demo, order 2", "demo", ("sde.order=2",), 2_480),
    Budget("demo, text", "demo", ("text.encoder=bytes",), 600),
    Budget("demo, ZeRO 2", "demo", ("zero_stage=2",), 675, is_quick=True),
    Budget("demo, ZeRO 3", "demo", ("zero_stage=3",), 2_530),
    Budget("signs", "signs", (), 2_020, 4_180),
    Budget("signs, sde_matching", "signs", ("model_type=sde_matching",), 870),
    Budget("signs, follmer", "signs", ("model_type=follmer",), 766),
    Budget("signs, frames ahead", "signs", AHEAD, 2_250),
    Budget("smmnist", "smmnist", (), 7_190, 1_560),
    Budget("smmnist, nothing carried", "smmnist", ("encoder.carried_layers=0",), 2_940),
    Budget("smmnist-things", "smmnist-things", (), 6_450, 2_320, draws=2),
    Budget("sprites", "sprites", (), 5_710, 1_480, draws=2),
    Budget("brownian", "brownian", (), 3_746, 474, draws=2),
    Budget("brownian-film", "brownian-film", (), 4_636, 543, draws=2),
    Budget("rain", "docs/radar", (), 4_480, 735),
    Budget("default", "default", (), 4_950, 4_540),
    Budget("ucf101", "ucf101", (), 5_330, 5_310),
    Budget("kinetics", "kinetics", (), 6_970, 6_860),
)
SIZES = tuple(
    Budget(f"default, size {size}", "default", (f"size={size}", *TWO), most)
    for size, most in {"S": 2_680, "B": 3_220, "L": 3_910, "XL": 4_380, "1B": 5_010}.items()
)
SAMPLED_SIZES = tuple(
    Budget(f"default, size {size}", "default", (f"size={size}", *FOUR), None, most)
    for size, most in {"S": 4_330, "B": 4_450, "L": 4_590, "XL": 4_680, "1B": 4_770}.items()
)
