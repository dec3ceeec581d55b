"""The config of a run: typed and checked settings, one YAML file, `key=value` overrides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, model_validator

from sdevid import clock, sizes
from sdevid.autoencoder.folder import PictureShape, latent_shape
from sdevid.clock import Clock
from sdevid.console import redacted
from sdevid.errors import UserError
from sdevid.explain import explain
from sdevid.objectives.registry import Capabilities, entry_of
from sdevid.settings import transport
from sdevid.settings.birth import BirthConfig
from sdevid.settings.checkpoint import CheckpointConfig, MetricsConfig, OffloadConfig
from sdevid.settings.encoder import EncoderConfig, TextConfig
from sdevid.settings.health import FaultsConfig, WatchdogConfig
from sdevid.settings.objectives import ConsistencyConfig, FollmerConfig, MatchingConfig
from sdevid.settings.observation import ObservationConfig
from sdevid.settings.particles import ParticlesConfig
from sdevid.settings.particles_fit import check_particles
from sdevid.settings.run import (
    DataSettings,
    Location,
    OptimizationSettings,
    RuntimeSettings,
    VideoSettings,
)
from sdevid.settings.sde import SDEConfig
from sdevid.settings.setting import Setting, all_settings
from sdevid.settings.shards import told_by_shards
from sdevid.settings.source import SourceConfig
from sdevid.settings.yaml_file import read_settings

__all__ = [
    "BirthConfig",
    "CheckpointConfig",
    "Config",
    "ConsistencyConfig",
    "EncoderConfig",
    "FaultsConfig",
    "FollmerConfig",
    "Location",
    "MatchingConfig",
    "MetricsConfig",
    "ObservationConfig",
    "OffloadConfig",
    "ParticlesConfig",
    "SDEConfig",
    "Setting",
    "SourceConfig",
    "TextConfig",
    "WatchdogConfig",
    "dump",
    "load",
    "parse",
    "record",
    "settings_by_path",
]


class Config(RuntimeSettings, OptimizationSettings, DataSettings, Clock, VideoSettings):
    """A run. Lengths of training are in clips, whatever the number of GPUs."""

    sde: SDEConfig = SDEConfig()
    birth: BirthConfig = BirthConfig()
    particles: ParticlesConfig = ParticlesConfig()
    encoder: EncoderConfig = EncoderConfig()
    observation: ObservationConfig = ObservationConfig()
    source: SourceConfig = SourceConfig()
    text: TextConfig = TextConfig()
    matching: MatchingConfig = MatchingConfig()
    follmer: FollmerConfig = FollmerConfig()
    consistency: ConsistencyConfig = ConsistencyConfig()
    metrics: MetricsConfig = MetricsConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    faults: FaultsConfig = FaultsConfig()
    watchdog: WatchdogConfig = WatchdogConfig()
    offload: OffloadConfig = OffloadConfig()

    @property
    def capabilities(self) -> Capabilities:
        """What the objective that `model_type` names can do."""
        return entry_of(self.model_type, self.sde.latent).capabilities

    @property
    def values_per_clip(self) -> int:
        """Numbers that a clip's loss is divided by, so that gradients are of order 1."""
        return self.sequence_length * math.prod(self.picture)

    @property
    def map_shape(self) -> tuple[int, int]:
        """Rows and columns of a map latent, whose shorter side has `encoder.map_size` cells."""
        height, width = self.picture[1:]
        ratio = min(height, width) // self.encoder.map_size
        return height // ratio, width // ratio

    @property
    def picture(self) -> PictureShape:
        """Shape of what the model sees and draws for a frame: its pixels, or frozen latents.

        Raises UserError where `encoder.frozen` names no autoencoder, or one of other frames.
        """
        frozen, cells = self.encoder.frozen, self.encoder.map_size
        if frozen is None:
            return PictureShape(self.channels, *self.frame_shape)
        self.refuse_oblong(f"encoder.frozen is {frozen}")
        return latent_shape(Path(frozen), self.channels, self.frame_size, cells)

    @model_validator(mode="after")
    def _objective_fits(self) -> Config:
        for need in self.capabilities.needs:
            value = attrgetter(need.setting)(self)
            if value != need.value:
                raise ValueError(
                    f"{need.setting} is {value:g}, but model_type is {self.model_type}, which "
                    f"{need.reason}; set {need.setting}={need.value:g}, or another model_type"
                )
        schemes = self.capabilities.schemes
        if schemes is not None and self.sde.solver not in schemes:
            raise ValueError(
                f"sde.solver is {self.sde.solver}, but model_type {self.model_type} takes "
                f"{', '.join(schemes)} alone"
            )
        return self

    @model_validator(mode="after")
    def _map_fits(self) -> Config:
        ratio, rest = divmod(min(self.frame_shape), self.encoder.map_size)
        if rest or ratio & (ratio - 1) or max(self.frame_shape) % ratio:
            raise ValueError(
                f"encoder.map_size is {self.encoder.map_size}, but of frame_size {self.frame_text} "
                "the shorter side must be it times a power of two, and the other (frame_size or "
                "frame_width) a multiple of that power; e.g. 4 or 8 for frames of 32, 64 or 96x64"
            )
        return self

    @model_validator(mode="after")
    def _birth_fits(self) -> Config:
        unit = 4 * self.birth.heads
        if self.sde.start == "birth" and self.sde.latent == "map" and self.birth.hidden % unit:
            raise ValueError(
                f"birth.hidden is {self.birth.hidden}, but a transformer of {self.birth.heads} "
                f"heads (birth.heads) needs a multiple of {unit}"
            )
        return self

    @model_validator(mode="after")
    def _encoder_fits(self) -> Config:
        if self.encoder.causal and self.sde.start_components > 1:
            raise ValueError(
                f"sde.start_components is {self.sde.start_components}, but with encoder.causal "
                "z_0 is drawn from p(z_0 | c), whose choice of a component has no gradient; set "
                "sde.start_components=1, or encoder.causal=false"
            )
        if self.sde.content == "map" and not self.encoder.causal:
            raise ValueError(
                "sde.content is map, but encoder.causal is false, so that a content map would cost "
                "a KL in each cell even where frames are observed; set encoder.causal=true, or "
                "sde.content=vector"
            )
        if self.encoder.across_cells and self.sde.latent != "map":
            raise ValueError(
                f"encoder.across_cells is true, but sde.latent is {self.sde.latent}, which has no "
                "cells; set sde.latent=map, or encoder.across_cells=false"
            )
        if self.encoder.pack and self.sde.latent == "particles":
            raise ValueError(
                "encoder.pack is true, but sde.latent is particles, which no temporal encoder "
                "reads; set encoder.pack=false"
            )
        if self.encoder.differences and self.observation.ahead:
            raise ValueError(
                "encoder.differences is true, but with observation.ends_fraction or "
                "keyframes_fraction above 0 the change at an observed frame would show one that is "
                "not; set both to 0, or encoder.differences=false"
            )
        return self

    @model_validator(mode="after")
    def _transport_fits(self) -> Config:
        side = min(self.frame_shape)
        for found, remedy in transport.unfit(self.sde, self.encoder, self.observation, side):
            raise ValueError(
                f"encoder.transport is true, but {found}; set {remedy}, or encoder.transport=false"
            )
        for found, remedy in transport.unfit_layers(self.sde, self.encoder, self.observation):
            raise ValueError(
                f"encoder.carried_layers is {self.encoder.carried_layers}, but {found}; set "
                f"{remedy}, or encoder.carried_layers=0"
            )
        return self

    @model_validator(mode="after")
    def _futures_fit(self) -> Config:
        consistency = self.consistency
        if not consistency.futures:
            return self
        if not self.encoder.causal:
            raise ValueError(
                f"consistency.futures is {consistency.futures:g}, but encoder.causal is false, so "
                "that training does not draw a start from p(z_0 | c); set encoder.causal=true, or "
                "consistency.futures=0"
            )
        if consistency.futures_frames >= self.sequence_length:
            raise ValueError(
                f"consistency.futures_frames is {consistency.futures_frames}, but a clip has "
                f"{self.sequence_length} frames (sequence_length); give fewer"
            )
        return self

    @model_validator(mode="after")
    def _memory_fits(self) -> Config:
        for name, every in (("follmer", self.follmer.anchor_every), ("sde", self.sde.anchor_every)):
            if (every or 0) >= self.sequence_length:
                raise ValueError(
                    f"{name}.anchor_every is {every}, but a clip has {self.sequence_length} frames "
                    "(sequence_length), and training has seen no anchor further back; give fewer"
                )
        return self

    @model_validator(mode="after")
    def _context_fits(self) -> Config:
        if self.observation.max_context >= self.sequence_length:
            raise ValueError(
                f"observation.max_context is {self.observation.max_context}, but a clip has "
                f"{self.sequence_length} frames (sequence_length) and one must be left to predict"
            )
        if self.observation.min_context > max(1, self.observation.max_context):
            raise ValueError(
                f"observation.min_context is {self.observation.min_context}, but max_context is "
                f"{self.observation.max_context}; give a fewest that is not above the most"
            )
        return self

    @model_validator(mode="after")
    def _times_are_there(self) -> Config:
        if not self.frame_strides:
            raise ValueError("frame_strides is empty; give [1] for every frame")
        if min(self.frame_strides) < 1:
            raise ValueError(f"frame_strides is {list(self.frame_strides)}, but each is 1 or more")
        if self.irregular_fraction and max(self.frame_strides) == 1:
            raise ValueError(
                f"irregular_fraction is {self.irregular_fraction:g}, but with frame_strides "
                "[1] there are no times between to choose from; add a stride of 2 or more"
            )
        return self

    @model_validator(mode="after")
    def _offload_fits(self) -> Config:
        stage, offload = self.zero_stage, self.offload
        for name, place in (("optimizer", offload.optimizer), ("parameters", offload.parameters)):
            least = 3 if name == "parameters" or place == "nvme" else 1
            if place != "none" and stage < least:
                raise ValueError(
                    f"offload.{name} is {place}, but zero_stage is {stage} and that needs "
                    f"{least}{' or more' if least < 3 else ''}; set zero_stage={least}"
                )
            if place == "nvme" and offload.nvme_path is None:
                raise ValueError(
                    f"offload.{name} is nvme, but offload.nvme_path is not set; give a folder on "
                    "a disk of the node, the same on every node"
                )
        return self

    @model_validator(mode="after")
    def _drift_slope_fits(self) -> Config:
        if self.matching.drift_slope == "network" and self.sde.latent != "vector":
            raise ValueError(
                f"matching.drift_slope is network, but sde.latent is {self.sde.latent}, where each "
                "component's slope would take a backward pass; set matching.drift_slope=zero"
            )
        return self

    @model_validator(mode="after")
    def _gradient_fits(self) -> Config:
        if self.sde.gradient != "reversible":
            return self
        way = "which needs the parameters of the whole solve at hand"
        if self.zero_stage == 3:
            raise ValueError(
                f"sde.gradient is reversible, {way}, but zero_stage is 3; set "
                "sde.gradient=checkpoint, or a lower zero_stage"
            )
        if self.observation.ahead:
            raise ValueError(
                f"sde.gradient is reversible, {way}, but observation.ends_fraction or "
                "keyframes_fraction is above 0; set sde.gradient=checkpoint"
            )
        return self

    @model_validator(mode="after")
    def _particles_fit(self) -> Config:
        check_particles(self)
        return self

    @model_validator(mode="after")
    def _prior_frames_fit(self) -> Config:
        if self.consistency.prior_consistency and (
            self.consistency.prior_frames >= self.sequence_length
        ):
            raise ValueError(
                f"consistency.prior_frames is {self.consistency.prior_frames}, but a clip has "
                f"{self.sequence_length} frames (sequence_length); give fewer"
            )
        return self

    @model_validator(mode="after")
    def _second_order_fits(self) -> Config:
        if self.sde.order == 1:
            return self
        if self.observation.ahead and not self.encoder.transport:
            raise ValueError(
                "sde.order is 2, but observation.ends_fraction or keyframes_fraction is above 0, "
                "and what draws a path to a frame ahead pulls a state of order 1; set both to 0, "
                "or sde.order=1"
            )
        return self

    @model_validator(mode="after")
    def _frames_in_order(self) -> Config:
        uses = self.consistency.warp or self.consistency.frame_difference > 0
        if self.matching.frames is not None and uses:
            raise ValueError(
                f"matching.frames is {self.matching.frames}, but consistency.warp and "
                "consistency.frame_difference need every frame; leave matching.frames out"
            )
        return self


@cache
def settings_by_path() -> dict[str, Setting]:
    """Map every setting's dotted path to it, in the order of a dumped config."""
    return {setting.path: setting for setting in all_settings(Config)}


def load(
    path: Path, overrides: Sequence[str] = (), note: Callable[[str], None] = sizes.ignore
) -> Config:
    """Read the config in the YAML file `path`, with `key=value` overrides by dotted path.

    A `size` among them replaces the file's architecture, which `note` reports. Raises UserError
    where the file is missing or no YAML, or a setting is unknown or ill-typed.
    """
    if not path.is_file():
        raise UserError(f"config {path} does not exist; configs/ holds ready ones")
    settings = sizes.over_file(read_settings(path), overrides, note)
    for override in overrides:
        _apply(settings, override)
    run_dir = Path(settings.get("run_dir") or Config.model_fields["run_dir"].default)
    return parse(told_by_shards(clock.of_run(settings, run_dir / "config.yaml")))


def parse(settings: dict[str, Any]) -> Config:
    """Build a checked Config of `settings`. Raises UserError that names every setting at fault."""
    try:
        return Config.model_validate(sizes.applied(settings))
    except ValidationError as error:
        raise UserError("\n".join(explain(error, Config))) from error


def dump(config: Config) -> str:
    """Format the whole config as YAML that `load` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def record(config: Config) -> str:
    """Dump the config as a run's files keep it: without credentials, and without `data_changed`."""
    kept = {"data": redacted(config.data), "data_changed": False}
    return dump(config.model_copy(update=kept))


def _apply(settings: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"override {override!r} must read key=value, e.g. batch_size=16")
    *sections, name = key.split(".")
    if key in ("fps", "interval"):  # either takes the place of both
        settings.pop("fps", None)
        settings.pop("interval", None)
    place = settings
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise UserError(f"override {override!r}: {section} is one setting, not a section")
    try:
        place[name] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"override {override!r}: the value is not valid YAML: {error}") from error
