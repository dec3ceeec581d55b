"""The latent SDE whose posterior is a chain with given marginals (after Bartosh et al. 2025)."""

from __future__ import annotations

from sdevid.config import Config
from sdevid.models.backbone import Prior
from sdevid.models.encoder import Tokens
from sdevid.models.frame_posterior import FramePosterior
from sdevid.models.gaussian import Gaussian
from sdevid.models.latent_sde import SDEModel


class MatchedSDE(SDEModel):
    """A latent SDE on video trained without solving it; sampling solves it as any other."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        calculus = config.sde_type == "stratonovich"
        with self.named("posterior"):
            self.posterior = FramePosterior(config, self.sides)
        with self.named("prior"):
            features = config.encoder.features
            self.prior = Prior(config.sde, features, sides=self.sides, stratonovich=calculus)

    def posterior_at_frames(self, tokens: Tokens) -> tuple[Gaussian, Gaussian]:
        """Compute q(w | x), and q(z | x) at every frame."""
        marginals: tuple[Gaussian, Gaussian] = self.posterior(tokens)
        return marginals
