"""Settings of the encoders of frames, time and text."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from sdevid.settings.setting import Section, setting


class EncoderConfig(Section):
    """Frame encoder, decoder and temporal encoder."""

    frozen: str | None = setting(
        None,
        role="architecture",
        help="local folder of an autoencoder, on whose latents the model draws; null: on pixels",
    )
    frozen_fingerprint: str | None = setting(
        None,
        role="architecture",
        help="of that folder's weights and config; training fills it in",
    )
    channels: int = setting(
        32,
        ge=1,
        le=65_536,
        role="architecture",
        help="channels of the first stage; doubled at each halving, up to 8 times",
    )
    residual: int = setting(
        0,
        ge=0,
        le=1024,
        role="architecture",
        help="residual blocks at the latent map, in the frame encoder and in the decoder",
    )
    map_size: int = setting(
        8,
        ge=1,
        le=4096,
        unit="cells",
        role="architecture",
        help="side of a map latent; frame_size / map_size is a power of two",
    )
    features: int = setting(
        128, ge=1, le=65_536, role="architecture", help="width of a frame token"
    )
    layers: int = setting(
        2, ge=1, le=1024, role="architecture", help="attention blocks of the temporal encoder"
    )
    heads: int = setting(
        4, ge=1, le=4096, role="architecture", help="attention heads of the temporal encoder"
    )
    time_period: float = setting(
        64.0,
        gt=0,
        le=1e9,
        unit="frames",
        role="architecture",
        help="longest period of the time features; each is half the one before",
    )
    across_cells: bool = setting(
        False,
        role="architecture",
        help="each block also attends across the cells of a map, at each frame by itself",
    )
    causal: bool = setting(
        False,
        role="architecture",
        help="a frame's token sees no later frame, and z_0 comes from p(z_0 | c) after a seen one",
    )
    skip: bool = setting(
        False,
        role="architecture",
        help="the decoder keeps the last observed frame, and its features, as the state says",
    )
    carried_layers: int = setting(
        0,
        ge=0,
        le=64,
        role="architecture",
        help="layers in which the state moves the last observed frame, not drawing; 0: none",
    )
    transport: bool = setting(
        False,
        role="architecture",
        help="carry the last observed frame along a displacement, the state's first two channels",
    )
    differences: bool = setting(
        False,
        role="architecture",
        help="the frame encoder also sees the change from frame to frame",
    )
    pack: bool = setting(
        False,
        role="runtime",
        alters_loss=True,
        help="the prior's history is encoded of observed frames alone, clips packed end to end",
    )
    attention: Literal["auto", "xformers", "sdpa"] = setting(
        "auto",
        role="runtime",
        alters_loss=True,
        help="attention over packed clips; auto is xformers on CUDA where it is; others are sdpa",
    )

    @model_validator(mode="after")
    def _packed(self) -> EncoderConfig:
        if self.attention == "xformers" and not self.pack:
            raise ValueError(
                "attention is xformers, which serves packed clips alone; give pack=true beside it, "
                "or attention=auto"
            )
        if self.pack and self.causal:
            raise ValueError(
                "pack is true, but causal too: a causal pass encodes all frames at once for prior "
                "and posterior; give pack=false or causal=false"
            )
        return self

    @model_validator(mode="after")
    def _frame_is_there(self) -> EncoderConfig:
        if self.carried_layers and not self.skip:
            raise ValueError(
                f"carried_layers is {self.carried_layers}, but encoder.skip is false, so the "
                "decoder sees nothing of the last observed frame; set encoder.skip=true, or "
                "carried_layers=0"
            )
        return self


class TextConfig(Section):
    """How captions are read, and labels where there is no caption."""

    encoder: str = setting(
        "bytes",
        role="architecture",
        help="bytes or words: learnt here; none; or the local folder of a Hugging Face T5 or CLIP",
    )
    length: int = setting(
        128,
        ge=1,
        le=65_536,
        unit="bytes, words or tokens",
        role="architecture",
        help="longest caption that is read",
    )
    layers: int = setting(2, ge=1, le=1024, role="architecture", help="attention blocks over bytes")
    drop: float = setting(
        0.1,
        ge=0,
        le=1,
        role="objective",
        help="share of clips whose caption is withheld, for guidance",
    )
