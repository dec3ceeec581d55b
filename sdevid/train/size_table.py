"""The named sizes and their arithmetic, for `--dry-run`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from sdevid import objectives
from sdevid.config import Config, parse
from sdevid.models.transformer import StateTransformer
from sdevid.sizes import SIZES
from sdevid.train.memory_budget import GIB


def size_table(config: Config) -> Iterator[str]:
    """Yield a line a size: its parameters, as this config's frames and objective make them.

    A transformer block has 18 hidden^2 (attention 4, MLP 8, modulation 6), a temporal layer
    8 features^2; bytes are of float32 weights, gradients, two moments and the EMA.
    """
    networks = _transformers(sized(config, "S"))  # prior and control; or one alone
    yield "sizes (size=NAME): blocks over the state, temporal layers, the rest; GiB on one rank"
    for name, values in SIZES.items():
        sde, encoder = values["sde"], values["encoder"]
        count = parameters(sized(config, name))
        blocks = networks * sde["depth"] * 18 * sde["hidden"] ** 2
        layers = encoder["layers"] * 8 * encoder["features"] ** 2
        formula = f"{networks} x {sde['depth']} x 18 x {sde['hidden']}^2"
        yield (
            f"  {name:<3}{count:>14,} = {blocks:,} ({formula})"
            f" + {layers:,} ({encoder['layers']} x 8 x {encoder['features']}^2)"
            f" + {count - blocks - layers:,};{20 * count / GIB:>7.2f}"
        )


def sized(config: Config, name: str) -> Config:
    """Return `config` at a named size: its frames, objective and text, the size's networks."""
    entry = {
        "size": name,
        "model_type": config.model_type,
        "frame_size": config.frame_text,
        "channels": config.channels,
        "encoder": {"map_size": config.encoder.map_size},
        "text": {"encoder": config.text.encoder, "layers": config.text.layers},
    }
    return parse(entry)


def parameters(config: Config) -> int:
    """Of the model, without memory for them."""
    with torch.device("meta"):
        objective: nn.Module = objectives.build(config)
    return sum(parameter.numel() for parameter in objective.parameters())


def _transformers(config: Config) -> int:
    """Count the transformers over the state."""
    with torch.device("meta"):
        objective: nn.Module = objectives.build(config)
    return sum(isinstance(module, StateTransformer) for module in objective.modules())
