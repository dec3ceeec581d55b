"""A small latent of particles."""

from collections.abc import Callable

import pytest

from sdevid import config as configs
from sdevid.config import Config


def _small(order: int = 1, noise: str = "carried", **particles: object) -> Config:
    return configs.parse(
        {
            "frame_size": 32,
            "channels": 1,
            "sequence_length": 6,
            "encoder": {"map_size": 8},
            "sde": {"latent": "particles", "noise": noise, "order": order, "steps_per_frame": 1},
            "particles": {"count": 16, "appearance": 3, "hidden": 16} | particles,
            "observation": {"max_context": 1},
            "text": {"encoder": "none"},
        }
    )


@pytest.fixture
def small() -> Callable[..., Config]:
    """Config of 16 particles in frames of 32 pixels: (order, noise, **particles)."""
    return _small
