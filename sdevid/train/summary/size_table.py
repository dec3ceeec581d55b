"""The named sizes and their arithmetic, for `--dry-run`."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from sdevid import objectives
from sdevid.config import Config, parse
from sdevid.errors import UserError
from sdevid.models.initial_weights import no_weights
from sdevid.models.transformer import StateTransformer
from sdevid.sizes import SIZES, over_file
from sdevid.train.summary.memory_budget import GIB


def size_table(config: Config) -> Iterator[str]:
    """Yield a line a size: the parameters that `size=NAME` beside this config makes, or why not.

    A transformer block has 18 hidden^2 (attention 4, MLP 8, modulation 6), a temporal layer 8
    features^2; bytes are of float32 weights, gradients, two moments and the EMA.
    """
    try:
        networks = _transformers(sized(config, "S"))  # prior and control; or one alone
    except UserError as error:
        yield f"sizes (size=NAME): none with this config: {error}"
        return
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
    """Set `config` to a named size. Raises UserError where the two do not go together."""
    settings = over_file(config.model_dump(mode="json"), [f"size={name}"])
    return parse(settings | {"size": name})


def parameters(config: Config) -> int:
    """Count the model's parameters, without memory for them."""
    return sum(parameter.numel() for parameter in model_on_meta(config).parameters())


def model_on_meta(config: Config) -> nn.Module:
    """Build the objective without memory behind its parameters."""
    with no_weights():
        return objectives.build(config)


def _transformers(config: Config) -> int:
    """Count the transformers over the state that have the size's width: the birth has its own."""
    parts: dict[str, nn.Module] = model_on_meta(config).model.parts()  # type: ignore[operator,union-attr]
    sized_parts = (part for name, part in parts.items() if name != "start_prior")
    return sum(isinstance(m, StateTransformer) for part in sized_parts for m in part.modules())
