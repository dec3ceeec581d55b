"""A transformer over the cells of a map latent, told its condition by adaptive layer norms."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sdevid.config import SDEConfig
from sdevid.errors import UserError
from sdevid.models.attention import attend, heads

Cells = Float[Tensor, "batch cells hidden"]
Condition = Float[Tensor, "batch #cells hidden"]  # of each cell, or one for all


class Modulated(nn.Module):
    """Attention over the cells, then an MLP; the condition scales, shifts and gates both.

    The modulation starts at zero, so that a block begins as the identity (adaLN-zero, Peebles & Xie
    2023, section 3.2).
    """

    def __init__(self, config: SDEConfig) -> None:
        super().__init__()
        width = config.hidden
        self.heads = config.heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Cells, condition: Condition) -> Cells:
        """Mix the cells (batch, cells, features) under the condition of each."""
        modulation = self.modulation(functional.silu(condition)).chunk(6, dim=-1)
        query, key, value = (
            heads(part, self.heads)
            for part in self.qkv(self._modulated(x, *modulation[:2])).chunk(3, -1)
        )
        seen = attend(query, key, value, None).flatten(2)
        x = x + modulation[2] * self.out(seen)
        out: Tensor = x + modulation[5] * self.mlp(self._modulated(x, *modulation[3:5]))
        return out

    def _modulated(self, x: Cells, shift: Tensor, scale: Tensor) -> Cells:
        out: Tensor = self.norm(x) * (1 + scale) + shift
        return out


class StateTransformer(nn.Module):
    """Transformer over the cells of a map, their positions as sines; the last layer starts at zero.

    Has the interface of the convolutions of `backbone.StateNetwork`. With `sde.checkpoint` each
    block is computed again in the backward pass. Raises UserError where the latent is no map or the
    heads do not divide the width.
    """

    def __init__(self, config: SDEConfig, outputs: int, inputs: int | None = None) -> None:
        super().__init__()
        if config.latent != "map":
            raise UserError(
                f"sde.backbone is transformer, but sde.latent is {config.latent}; it takes a map "
                "(sde.latent=map), or set sde.backbone=plain"
            )
        if config.hidden % (4 * config.heads):
            raise UserError(
                f"sde.hidden is {config.hidden}, but a transformer of {config.heads} heads "
                f"(sde.heads) needs a multiple of {4 * config.heads}; give both, or leave both to "
                "the named size"
            )
        self.again = config.checkpoint
        self.first = nn.Linear(inputs or config.latent_size, config.hidden)
        self.blocks = nn.ModuleList(Modulated(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.hidden)
        self.last = nn.Linear(config.hidden, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self,
        z: Float[Tensor, "batch channels height width"],
        condition: Float[Tensor, "batch hidden rows columns"],
    ) -> Float[Tensor, "batch outputs height width"]:
        """Evaluate the blocks over the cells of `z`, each under its own `condition`."""
        height, width = z.shape[-2:]
        per_cell = condition.flatten(2).transpose(1, 2)
        x = self.first(rearrange(z, "b c h w -> b (h w) c"))
        x = x + cell_positions(height, width, x.shape[-1], z.device).to(x.dtype)
        for block in self.blocks:
            if self.again and torch.is_grad_enabled():
                x = checkpoint(block, x, per_cell, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, per_cell)
        out = self.last(self.norm(x)).float()
        return torch.unflatten(out.transpose(1, 2), -1, (height, width))


def cell_positions(
    height: int, width: int, features: int, device: torch.device
) -> Float[Tensor, "cells features"]:
    """Encode each cell's row and column by sines and cosines, a quarter of the features each."""
    rates = torch.arange(features // 4, device=device, dtype=torch.float32)
    rates = torch.exp(-math.log(1000.0) * rates / (features // 4))
    rows = torch.arange(height, device=device)[:, None, None] * rates
    columns = torch.arange(width, device=device)[None, :, None] * rates
    rows, columns = (part.expand(height, width, -1) for part in (rows, columns))
    waves = torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()], dim=-1)
    return waves.flatten(0, 1)
