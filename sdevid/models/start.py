"""Where a path begins: the static content code and the first state, prior and posterior."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.encoder import lay_out
from sdevid.models.gaussian import Gaussian, GaussianHead, Mixture

Summary = Float[Tensor, "batch cells features"]


class PosteriorStart(nn.Module):
    """q(w | x) and q(z_0 | x) from the token of the frame at which the path begins."""

    def __init__(self, config: Config, side: int | None) -> None:
        super().__init__()
        self.side = side
        self.content = GaussianHead(config.encoder.features, config.sde.content_size)
        self.state = GaussianHead(config.encoder.features, config.sde.state_size)

    def forward(self, token: Summary) -> tuple[Gaussian, Gaussian]:
        state = self.state(token)
        laid = Gaussian(lay_out(state.mean, self.side), lay_out(state.scale, self.side))
        return self.content(token.mean(1)), laid


class PriorStart(nn.Module):
    """p(w | c), a Gaussian, and p(z_0 | c), a mixture, from the history's summary.

    What may begin in several ways, such as a disc in one of two wells, needs components; the
    Gaussian between them would lie where nothing is.
    """

    def __init__(self, config: Config, side: int | None) -> None:
        super().__init__()
        self.side, self.components = side, config.sde.start_components
        features, size = config.encoder.features, config.sde.state_size
        self.content = GaussianHead(features, config.sde.content_size)
        self.state = GaussianHead(features, self.components * size)
        self.weights = None
        if self.components > 1:
            nn.init.normal_(self.state.linear.bias[: self.components * size])
            self.weights = nn.Linear(features, self.components)
            nn.init.zeros_(self.weights.weight)
            nn.init.zeros_(self.weights.bias)

    def forward(self, summary: Summary) -> tuple[Gaussian, Mixture]:
        parts = Gaussian(*(self._components(part) for part in self.state(summary)))
        whole = summary.mean(1)
        if self.weights is None:
            return self.content(whole), Mixture(whole.new_zeros(len(whole), 1).float(), parts)
        return self.content(whole), Mixture(self.weights(whole).float(), parts)

    def _components(self, part: Float[Tensor, "batch cells all"]) -> Tensor:
        """(batch, components, *latent)"""
        split = torch.unflatten(part, -1, (self.components, -1)).transpose(1, 2)
        return lay_out(split, self.side)
