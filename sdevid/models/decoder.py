"""Latent path and static content to frames."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.models.carried_frame import CarriedFrame
from sdevid.models.consistency import PreviousFrame, WarpHead
from sdevid.models.encoder import LastFrame, Maps, Residual, norm, widths
from sdevid.models.initial_weights import initial_weights
from sdevid.models.kept_frame import KeptLast, keep_at_first
from sdevid.models.keyframes import CarriedPair, TwoEnds
from sdevid.models.protocols import Decoder
from sdevid.models.transport import AXES, CarriedLast, Transport
from sdevid.types import Frames


class Unfold(nn.Module):
    """Maps a vector latent and the content code to the decoder's first feature map.

    The weights on the state start large: a path's noise is small beside the state, and the picture
    must follow it.
    """

    def __init__(self, config: Config, channels: int) -> None:
        super().__init__()
        self.sides, hidden = config.map_shape, config.sde.hidden
        self.state = nn.Linear(config.sde.latent_size, hidden)
        nn.init.normal_(self.state.weight, std=4 * config.sde.latent_size**-0.5)
        self.content = nn.Linear(config.sde.content_size, hidden, bias=False)
        self.cells = nn.Sequential(
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, channels * math.prod(self.sides)),
        )

    def forward(
        self, z: Float[Tensor, "frames latent"], w: Float[Tensor, "frames content"]
    ) -> Float[Tensor, "frames channels rows columns"]:
        """Map the latent and the content of each frame to its first feature map."""
        flat: Tensor = self.cells(self.state(z) + self.content(w))
        return torch.unflatten(flat, 1, (*self.sides, -1)).permute(0, 3, 1, 2)


class Blend(nn.Module):
    """Mixes a map latent and the content by a convolution; a content vector goes to every cell."""

    def __init__(self, config: Config, channels: int) -> None:
        super().__init__()
        self.state = nn.Conv2d(config.sde.latent_size, channels, 3, padding=1)
        self.content: nn.Conv2d | nn.Linear
        if config.sde.content == "map":
            self.content = nn.Conv2d(config.sde.content_size, channels, 3, padding=1, bias=False)
        else:
            self.content = nn.Linear(config.sde.content_size, channels, bias=False)

    def forward(
        self,
        z: Float[Tensor, "frames latent rows columns"],
        w: Float[Tensor, "frames content *cells"],
    ) -> Float[Tensor, "frames channels rows columns"]:
        """Mix the latent and the content of each frame into its first feature map."""
        content = self.content(w)
        mixed: Tensor = self.state(z) + content.view(
            *content.shape[:2], *(content.shape[2:] or (1, 1))
        )
        return mixed.contiguous(memory_format=torch.channels_last)


class SkipConnection(nn.Module):
    """x + gate(x) skip: an observed frame's features at each place, gated by the state."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 1)
        self.skip = nn.Conv2d(channels, channels, 1, bias=False)  # of no frame, 0

    def forward(
        self,
        x: Float[Tensor, "frames channels height width"],
        skip: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, "frames channels height width"]:
        """Add observed features to `x`, which holds as many frames of each clip, clip by clip."""
        observed = self.skip(skip).repeat_interleave(len(x) // len(skip), 0)
        out: Tensor = x + self.gate(x).sigmoid() * observed
        return out


class FrameDecoder(nn.Module):
    """D(w, z): each frame's mean from its latent, or from it and the frame before.

    Of pixels the mean is in [0, 1]; a frozen autoencoder's latents have no bound.
    Of a state of second order it sees the positions alone. With `encoder.skip` it also sees the
    encoder's feature maps of the last observed frame, each at its own scale, and keeps that frame
    by place, as far as the state says. With `encoder.transport` it shifts the log odds of that
    frame, carried along the state's displacement as its features are. With `encoder.carried_layers`
    the frame is moved in layers, and nothing else is drawn after it.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.size = config.sde.latent_size
        channels = widths(config)[:0:-1] or [config.encoder.channels]
        first = Blend if config.sde.latent == "map" else Unfold
        self.seed = first(config, channels[0])
        layers: list[nn.Module] = [Residual(channels[0]) for _ in range(config.encoder.residual)]
        layers += [norm(channels[0]), nn.SiLU()]
        for before, after in pairwise(channels):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), norm(after), nn.SiLU()]
        self.grow = nn.Sequential(*layers)
        self.transport = Transport() if config.encoder.transport else None
        is_between = config.encoder.transport and config.observation.ahead
        self.ends = TwoEnds() if is_between else None
        self.channels = config.picture.channels
        is_carried = config.encoder.carried_layers > 0  # then nothing else draws observed clips
        is_skipped = config.encoder.skip and not is_carried
        self.keeps = is_skipped and self.transport is None
        self.is_pixels = config.encoder.frozen is None
        self.image = self._image(config, channels[-1])
        with initial_weights(config.seed, "decoder.skip"):
            self.skips = nn.ModuleList(
                SkipConnection(each) for each in (channels if is_skipped else ())
            )
        with initial_weights(config.seed, "decoder.carried"):
            self.carried = _carried(config) if is_carried else None
        with initial_weights(config.seed, "decoder.warp"):
            head = self._last(config, 2 * channels[-1], 3) if config.consistency.warp else None
        self.warp = None if head is None else WarpHead(head)

    def _image(self, config: Config, inputs: int) -> nn.ConvTranspose2d | nn.Conv2d:
        """Build the last layer: at first an observed frame is as it was, or the mean is drawn."""
        is_mixed = self.ends is not None or self.keeps
        image, mean = self._last(config, inputs, self.channels + is_mixed), config.observation.mean
        assert image.bias is not None
        if self.transport is not None or self.keeps:
            nn.init.zeros_(image.weight)
            nn.init.zeros_(image.bias)
        elif self.is_pixels and mean != 0.5:
            nn.init.constant_(image.bias, math.log(1 / (1 / mean - 1)))
        if self.keeps:
            keep_at_first(image.bias)
        return image

    @staticmethod
    def _last(config: Config, inputs: int, outputs: int) -> nn.ConvTranspose2d | nn.Conv2d:
        """Build the last layer, which doubles the size unless frames are as small as the map."""
        if config.map_shape == config.picture[1:]:
            return nn.Conv2d(inputs, outputs, 3, padding=1)
        return nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)

    def forward(
        self,
        z: Float[Tensor, "batch time *latent"],
        w: Float[Tensor, "batch content *cells"],
        last: LastFrame | None = None,
    ) -> Frames:
        """Decode the frames of `z`; `last` is what the encoder keeps of the last observed frame."""
        return self.carry_on(z, w, None, last)[0]

    def carry_on(
        self,
        z: Float[Tensor, "batch time *latent"],
        w: Float[Tensor, "batch content *cells"],
        before: PreviousFrame | None,
        last: LastFrame | None = None,
    ) -> tuple[Frames, PreviousFrame | None]:
        """Decode the frames of `z`, which follow the frame `before`; also return their last."""
        if self.carried is not None and last is not None:
            return self._with_carried(self.carried, z, w, last.maps), None
        batch, time = z.shape[:2]
        content = w.repeat_interleave(time, 0)
        state = z[:, :, : self.size].flatten(0, 1)
        observed, skip = self._observed(state, last)
        features = self._grown(self.seed(state, content), skip)
        images: Tensor = self.image(features).float()
        images = images[:, : self.channels] if observed is None else observed.changed(images)
        images = torch.unflatten(images, 0, (batch, time))
        if self.is_pixels:
            images = images.sigmoid()
        if self.warp is None:
            return images, None
        features = torch.unflatten(features, 0, (batch, time))
        images = self.warp(features, images, before)
        return images, PreviousFrame(features[:, -1:], images[:, -1:])

    def _observed(
        self, state: Float[Tensor, "frames channels *cells"], last: LastFrame | None
    ) -> tuple[CarriedLast | CarriedPair | KeptLast | None, Maps | None]:
        """Carry what was observed, and its features, to each of the frames of `state`."""
        if last is None:
            return None, None
        if self.transport is None or last.moving is None:
            return self._kept(len(state), last), last.maps or None
        cells, frame = state[:, :AXES], last.moving.frame
        if self.ends is not None and last.gap is not None:
            pair = self.ends(cells, last.gap, frame.shape[-1])
            return pair, pair.features() or None
        carried = self.transport(cells, (frame, *last.maps), frame.shape[-1])
        return CarriedLast(carried[0]), carried[1:] or None

    def _kept(self, frames: int, last: LastFrame) -> KeptLast | None:
        if not self.keeps or last.frame is None:
            return None
        times = frames // len(last.frame)
        return KeptLast.beside(times, last.frame, is_pixels=self.is_pixels)

    def _with_carried(
        self,
        carried: CarriedFrame,
        z: Float[Tensor, "batch time *latent"],
        w: Float[Tensor, "batch content *cells"],
        skip: Maps,
    ) -> Frames:
        """Carry the observed frame of each clip; draw the frames of clips that have none.

        A GPU draws those of all clips, since it would have to wait to know which have none.
        """
        is_free = skip[0][:, -1, 0, 0] == 0
        moved = carried(z[:, :, : self.size].flatten(0, 1), skip)
        frames = torch.unflatten(moved, 0, (z.shape[0], z.shape[1]))
        if z.device.type != "cpu":
            return torch.where(is_free.view(-1, 1, 1, 1, 1), self.carry_on(z, w, None)[0], frames)
        drawn = self.carry_on(z[is_free], w[is_free], None)[0]
        return frames.index_put((is_free.nonzero()[:, 0],), drawn)

    def _grown(
        self, x: Float[Tensor, "frames channels height width"], skip: Maps | None
    ) -> Float[Tensor, "frames features rows columns"]:
        if skip is None or not self.skips:
            grown: Tensor = self.grow(x)
            return grown
        connections = zip(self.skips, reversed(skip), strict=True)
        for layer in self.grow:
            x = layer(x)
            if isinstance(layer, nn.SiLU):
                connect, maps = next(connections)
                x = connect(x, maps)
        return x


def _carried(config: Config) -> CarriedFrame:
    if config.consistency.warp:
        raise UserError(
            f"encoder.carried_layers is {config.encoder.carried_layers} and consistency.warp is "
            "true, but a carried frame is not made of the one before it; set one of them to 0 "
            "or false"
        )
    return CarriedFrame(config)


DECODERS: dict[str, Callable[[Config], Decoder]] = {"vector": FrameDecoder, "map": FrameDecoder}


def build_decoder(config: Config) -> Decoder:
    """Build the decoder of the latent that `sde.latent` names."""
    return DECODERS[config.sde.latent](config)
