"""The model that a config names."""

from __future__ import annotations

from sdevid.config import Config
from sdevid.models.follmer import Follmer
from sdevid.models.latent_sde import LatentSDE
from sdevid.models.matched_sde import MatchedSDE
from sdevid.models.video_model import VideoModel

MODELS: dict[str, type[VideoModel]] = {
    "latent_sde": LatentSDE,
    "sde_matching": MatchedSDE,
    "follmer": Follmer,
}


def build_model(config: Config) -> VideoModel:
    """The model that `config.model_type` names, untrained."""
    return MODELS[config.model_type](config)
