"""What is trained: each objective is a module that turns a batch of clips into a loss."""

from sdevid.config import Config
from sdevid.objectives.latent_sde import LatentSDEObjective


def build(config: Config) -> LatentSDEObjective:
    """The objective that `config.model_type` names."""
    return LatentSDEObjective(config)
