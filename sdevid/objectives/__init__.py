"""What is trained: each objective is a module that turns a batch of clips into a loss."""

from sdevid.config import Config
from sdevid.objectives.clip_objective import ClipObjective
from sdevid.objectives.follmer import FollmerObjective
from sdevid.objectives.latent_sde import LatentSDEObjective
from sdevid.objectives.sde_matching import SDEMatchingObjective

OBJECTIVES: dict[str, type[ClipObjective]] = {
    "latent_sde": LatentSDEObjective,
    "sde_matching": SDEMatchingObjective,
    "follmer": FollmerObjective,
}


def build(config: Config) -> ClipObjective:
    """The objective that `config.model_type` names."""
    return OBJECTIVES[config.model_type](config)
