"""Which settings go with a latent of particles, blobs or things that paint patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdevid.config import Config


def check_particles(config: Config) -> None:
    """Raise ValueError where a setting does not go with `sde.latent: particles`, or needs it."""
    is_particles = config.sde.latent == "particles"
    if is_particles:
        config.refuse_oblong("sde.latent is particles")
    if config.sde.noise == "carried" and not is_particles:
        raise ValueError(
            f"sde.noise is carried, but sde.latent is {config.sde.latent}, and noise is carried "
            "by particles; set sde.latent=particles, or sde.noise=additive"
        )
    if not is_particles:
        return
    if config.encoder.frozen is not None:
        raise ValueError(
            f"encoder.frozen is {config.encoder.frozen}, but sde.latent is particles, which are "
            "smaller than one latent; set sde.latent=map, or leave encoder.frozen out"
        )
    if config.particles.friction_start and config.sde.order == 1:
        raise ValueError(
            f"particles.friction_start is {config.particles.friction_start:g}, but sde.order is 1, "
            "and particles without a velocity have no friction; set sde.order=2 or leave it out"
        )
    if config.particles.jitter_start and not (config.particles.patch and config.sde.order == 2):
        raise ValueError(
            f"particles.jitter_start is {config.particles.jitter_start:g}, but goes with things "
            "that have a patch and a velocity; set particles.patch and sde.order=2, or leave it out"
        )
    if config.particles.poses > 1 and (
        config.particles.sought != "middle" or config.sde.order == 1
    ):
        raise ValueError(
            f"particles.poses is {config.particles.poses}, but poses are read where things are "
            "sought by their middle and have a velocity; set particles.sought=middle and "
            "sde.order=2, or particles.poses=1"
        )
    _check_group(config)
    if config.particles.patch:
        check_things(config)
        return
    check_blobs(config)


def _check_group(config: Config) -> None:
    if config.particles.group and config.sde.noise != "carried":
        raise ValueError(
            f"particles.group is {config.particles.group:g}, but sde.noise is {config.sde.noise}, "
            "and a group shares carried noise; set sde.noise=carried, or leave particles.group out"
        )


def check_blobs(config: Config) -> None:
    """Refuse what does not go with particles that are blobs."""
    if config.particles.sought == "middle":
        raise ValueError(
            "particles.sought is middle, but particles.patch is 0, and blobs are born in every "
            "cell of the frame; give particles.patch, or set particles.sought=patch"
        )
    if config.particles.walls and config.particles.ring:
        raise ValueError(
            "particles.walls and particles.ring are true, but what walls reflect does not come in "
            "from outside; set one of them to false"
        )
    if config.particles.presence == "always":
        raise ValueError(
            "particles.presence is always, but particles.patch is 0, and not every cell of the "
            "grid holds a blob; set particles.presence=static or depth"
        )
    if config.sde.noise == "diagonal":
        raise ValueError(
            "sde.noise is diagonal, but sde.latent is particles, which take sde.noise=carried "
            "or additive; particles.patch above 0 takes diagonal"
        )
    if config.frame_size % (4 * config.particles.side):
        raise ValueError(
            f"particles.count is {config.particles.count}, born {config.particles.side} a side, "
            f"but frame_size {config.frame_size} is no multiple of 4 times that; for 64 pixels "
            "a count of 64, 16 or 256 fits"
        )


def check_things(config: Config) -> None:
    """Refuse what does not go with particles that paint patches."""
    settings = config.particles
    if settings.patch % 4 or settings.patch > config.frame_size:
        raise ValueError(
            f"particles.patch is {settings.patch}, but a patch is drawn from a quarter of its "
            f"side and lies within a frame of {config.frame_size} pixels (frame_size); give a "
            f"multiple of 4 up to {config.frame_size}"
        )
    if config.sde.noise == "carried":
        raise ValueError(
            f"sde.noise is carried, but particles.patch is {settings.patch}, and things that "
            "paint patches move on their own; set sde.noise=additive or diagonal"
        )
    if settings.drift_by_place:
        raise ValueError(
            f"particles.drift_by_place is true, but particles.patch is {settings.patch}, and the "
            "drift of things reads sines of the place with sde.noise=diagonal; leave it out"
        )
    if settings.presence == "depth" or settings.ring:
        what = "ring is true" if settings.ring else "presence is depth"
        raise ValueError(
            f"particles.{what}, but particles.patch is {settings.patch}, and things that paint "
            "patches are born in the picture and stay; set particles.ring=false and "
            "particles.presence=static or always"
        )
    if config.sde.order == 2 and config.observation.min_context < 2:
        raise ValueError(
            f"observation.min_context is {config.observation.min_context}, but sde.order is 2 "
            "and things that paint patches begin with a velocity, which one frame does not "
            "tell; set observation.min_context=2 or more"
        )
