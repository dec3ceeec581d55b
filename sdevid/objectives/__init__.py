"""What is trained: an objective is a module that turns a batch of clips into a loss.

`registry` holds all of them by name; its classes are imported when one is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdevid.objectives.registry import entry_of

if TYPE_CHECKING:
    from sdevid.config import Config
    from sdevid.models.video_model import VideoModel
    from sdevid.objectives.clip_objective import ClipObjective


def build_model(config: Config) -> VideoModel:
    """Build the untrained model that `config.model_type` names."""
    return entry_of(config.model_type, config.sde.latent).model_class()(config)


def build(config: Config, model: VideoModel | None = None) -> ClipObjective:
    """Build the objective that `config.model_type` names, around `model` or an untrained one."""
    built = build_model(config) if model is None else model
    return entry_of(config.model_type, config.sde.latent).objective_class()(config, built)
