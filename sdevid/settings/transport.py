"""What keeps the last observed frame from being carried along a displacement."""

from __future__ import annotations

from collections.abc import Iterator

from sdevid.settings.encoder import EncoderConfig
from sdevid.settings.observation import ObservationConfig
from sdevid.settings.sde import SDEConfig


def unfit(
    sde: SDEConfig, encoder: EncoderConfig, observation: ObservationConfig, side: int
) -> Iterator[tuple[str, str]]:
    """Yield what `encoder.transport` cannot go with and its remedy; nothing where it is off.

    `side` is the shorter one of a frame, in pixels.
    """
    if not encoder.transport:
        return
    yield from _without_displacement(sde, encoder)
    if observation.keyframes_fraction:
        found = "observation.keyframes_fraction is above 0, whose clips may begin with no frame"
        yield found, "observation.keyframes_fraction=0"
    if encoder.frozen is not None:
        found = "encoder.frozen is set, and latents of an autoencoder are not carried"
        yield found, "encoder.frozen=null"
    if encoder.carried_layers:
        found = "encoder.carried_layers carries the frame in another way"
        yield found, "encoder.carried_layers=0"
    if 2 * encoder.map_size > side:
        found = f"encoder.map_size is {encoder.map_size}, as large as a frame"
        yield found, "a smaller encoder.map_size"


def unfit_layers(
    sde: SDEConfig, encoder: EncoderConfig, observation: ObservationConfig
) -> Iterator[tuple[str, str]]:
    """Yield what `encoder.carried_layers` cannot go with and its remedy; nothing where it is 0."""
    if not encoder.carried_layers:
        return
    yield from _without_displacement(sde, encoder)
    if observation.ahead:
        remedy = "observation.ends_fraction=0 and keyframes_fraction=0"
        yield "frames ahead may be observed, whose motion nothing reads", remedy
    if sde.anchor:
        yield "sde.anchor is true, where walls hold what moves already", "sde.anchor=false"


def _without_displacement(sde: SDEConfig, encoder: EncoderConfig) -> Iterator[tuple[str, str]]:
    if sde.latent != "map":
        yield f"sde.latent is {sde.latent}, without cells that move", "sde.latent=map"
    if sde.order != 2:
        yield "sde.order is 1, without a velocity that lasts", "sde.order=2"
    if sde.latent_size < 2:
        yield "sde.latent_size is 1, but a displacement has 2 channels", "sde.latent_size=2 or more"
    if not encoder.causal:
        found = "encoder.causal is false, so that a path does not start where the frame is"
        yield found, "encoder.causal=true"
