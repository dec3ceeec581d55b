"""A few things read from the frames before a path begins, or born where none is observed."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from sdevid.config import Config
from sdevid.models.particles.matching import match
from sdevid.models.particles.middles import different, middle, middles
from sdevid.models.particles.patches import PatchPainter
from sdevid.models.particles.placing import Patches, composed, crops, relative
from sdevid.models.particles.reader import STEEP, Birth, Code, Ground, ParticleBirth
from sdevid.models.particles.state import (
    Content,
    ParticleState,
    Positions,
    centred,
    conv,
    layout_of,
    median,
    scaled,
)
from sdevid.types import Frames

VISIBLE, ALWAYS = 4.0, 12.0  # logit of presence where its code is 0, and where it is not read
CONTRAST = 3.0  # of the crops that are read
CLEAR = 3.0  # scales of the observation by which a pixel's colours differ from the ground's
FASTEST = 4.0  # pixels a frame of a velocity's code of 1
AGREED = 1.0  # pixels a frame by which a step may differ from the last one and still count

Centred = Float[Tensor, "frames channels side side"]  # frames less their ground's level


class Glimpse(NamedTuple):
    """What crops of frames say of the things in them."""

    offset: Float[Tensor, "frames particles 2"]  # of the thing's middle from the crop's, pixels
    present: Float[Tensor, "frames particles 1"]  # code of presence
    weight: Float[Tensor, "frames particles 1"]  # logit of this frame's say on the appearance
    look: Float[Tensor, "frames particles appearance"]


class Sighting(NamedTuple):
    """Things found in single frames."""

    place: Float[Tensor, "frames particles 2"]
    patches: Patches  # colours relative to the ground's level
    unexplained: Float[Tensor, " frames"]  # mean squared difference from what they paint


class ThingReader(Birth):
    """p(w, z_0 | c) and q(w, z_0 | x): a few things that may stand anywhere.

    Things are peeled off a frame: the middle of what is not yet explained, a crop there, the patch
    that its code paints, and so on to the next. Of the last `memory` observed frames, the one that
    the things explain best is peeled, for there they overlap least; from it their patches are
    looked for in the other frames. With `sought: middle` nothing is peeled: a thing is where the
    middle of what differs from the ground is. All crops, less what other things paint there, then
    say how each thing looks; the steps since its last turn say how fast it moves. Where the first
    frame is observed, prior and posterior are this same reading and cost nothing. Else the
    posterior is a Gaussian around the reading of the frames that follow, in reverse, and the prior
    one that the text may tell.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        settings, self.layout = config.particles, layout_of(config)
        self.memory, self.count, self.patch = settings.memory, settings.count, settings.patch
        self.side, self.look = config.frame_size, settings.appearance
        self.by_middle, self.clear = settings.sought == "middle", CLEAR * config.observation.scale
        self.painter = PatchPainter(config)
        width, cells = settings.painter, math.ceil(settings.patch / 8)
        self.glimpse = nn.Sequential(
            conv(3 * config.channels, width, 5, 2),
            nn.SiLU(),
            conv(width, 2 * width, 3, 2),
            nn.SiLU(),
            conv(2 * width, 2 * width, 3, 2),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(2 * width * cells**2, 2 * settings.hidden),
            nn.SiLU(),
            scaled(nn.Linear(2 * settings.hidden, 4 + self.look), 1.0),
        )
        self.direct = None  # of the crop, where it is centred from the start
        if self.by_middle:
            self.direct = nn.Linear(config.channels * settings.patch**2, self.look)
        self.always = settings.presence == "always"
        self.painted = settings.ground == "painted"
        if self.painted:
            self.ground = Ground(config.channels)
        size = 5 + self.look
        self._add_birth(config.channels, self.count, size)
        if self.by_middle:  # its first step would else make up for a place that was misread
            off = 1 / (math.sqrt(settings.precision_start) * self.side / 2)
            nn.init.constant_(self.log_scale[:2], math.log(off))
        if config.text.encoder != "none":
            features = config.encoder.features
            self.text = nn.Sequential(
                nn.Linear(features, 2 * features),
                nn.SiLU(),
                scaled(nn.Linear(2 * features, size), 0.0),
            )

    def forward(
        self,
        frames: Frames,
        is_free: Bool[Tensor, " batch"],
        eps: Code,
        text: Float[Tensor, "batch features"] | None,
        detail: float | Tensor = 1.0,
    ) -> ParticleBirth:
        """Read the posterior's start from `frames`, of which the last is the path's first.

        Those of a free clip are given in reverse. It is drawn by `eps`. `detail` weights the
        ground's fine part, and what is read of presence: at 0 every thing is there.
        """
        level = median(frames[:, -1])
        sign = torch.where(is_free, -1.0, 1.0)[:, None, None]
        code, unexplained = self._read(frames, level, sign, detail)
        drawn, spent = self._drawn(code, is_free, eps, text)
        ground = self._ground(frames[:, -1], level, detail)
        ground = torch.where(is_free[:, None, None, None], self._bare(ground), ground)
        state, content = self._born(drawn, ground)
        return ParticleBirth(state, content, spent, unexplained, self._untold(code, text))

    def observed(self, frames: Frames) -> tuple[ParticleState, Content]:
        """Read the prior's start from observed `frames`; the path begins at the last one."""
        level = median(frames[:, -1])
        sign = torch.ones(len(frames), 1, 1, device=frames.device)
        code, _ = self._read(frames, level, sign, 1.0)
        return self._born(code, self._ground(frames[:, -1], level, 1.0))

    def _ground(self, frame: Tensor, level: Tensor, detail: float | Tensor) -> Tensor:
        if not self.painted:
            return level.expand_as(frame).float()
        ground: Tensor = self.ground(centred(frame, level), detail) + level
        return ground

    def _born(self, code: Code, ground: Tensor) -> tuple[ParticleState, Content]:
        """Turn the code into things: place, velocity, presence and appearance."""
        place = (self.side - 1) / 2 + self.side / 2 * code[..., :2]
        velocity = FASTEST * code[..., 2:4] if self.layout.order == 2 else None
        logit, look = self._logit(code[..., 4:5]), code[..., 5:]
        content = Content(logit, look, place, ground, self.painter(look))
        pose = torch.zeros_like(place[..., :1]) if self.layout.has_pose else None
        return self.layout.join(place, velocity, None, pose), content

    def _read(
        self, frames: Frames, level: Tensor, sign: Tensor, detail: float | Tensor
    ) -> tuple[Code, Float[Tensor, " batch"] | None]:
        """Read the code and, if a frame is peeled, the mean square of what is not explained."""
        seen = self._seen(frames, level)
        if self.by_middle:
            return self._look(seen, self._middles(seen), None, sign, detail).float(), None
        bare = level[:, :, 0, 0]
        with torch.no_grad():
            each = self.peel(seen.flatten(0, 1), bare.repeat_interleave(self.memory, 0), detail)
            best = torch.unflatten(each.unexplained, 0, (-1, self.memory)).flip(1).argmin(1)
            best = self.memory - 1 - best  # the latest of equals
        rows = torch.arange(len(frames), device=frames.device)
        sighting = self.peel(seen[rows, best], bare, detail)
        places = self._track(seen, sighting, best)
        code = self._look(seen, places, sighting.patches, sign, detail).float()
        return code, sighting.unexplained

    def _seen(self, frames: Frames, level: Tensor) -> Frames:
        """Take the last `memory` frames less `level`; the first one stands for those before it."""
        first = frames[:, :1].expand(-1, max(0, self.memory - frames.shape[1]), -1, -1, -1)
        return centred(torch.cat([first, frames[:, -self.memory :]], dim=1), level[:, None])

    def middled(self, frames: Frames) -> tuple[Frames, Float[Tensor, "batch memory particles 2"]]:
        """Find things by their middles in the last `memory` of `frames`; return those, centred."""
        seen = self._seen(frames, median(frames[:, -1]))
        return seen, self._middles(seen)

    def peel(
        self,
        seen: Centred,
        bare: Float[Tensor, "frames channels"],
        detail: float | Tensor = 1.0,
    ) -> Sighting:
        """Find the things of single frames one after the other; `bare` is the ground's colour."""
        places, patches, left = [], [], seen
        for _ in range(self.count):
            start = salient(left, self.patch)
            glimpse = self._glimpse(left, seen, None, start)
            places.append(start + glimpse.offset)
            patches.append(self._relative(glimpse.look, detail * glimpse.present, bare))
            left = seen - composed(
                torch.zeros_like(seen), torch.cat(patches, 1), torch.cat(places, 1)
            )
        return Sighting(torch.cat(places, 1), torch.cat(patches, 1), left.square().mean((1, 2, 3)))

    def _logit(self, present: Tensor) -> Tensor:
        return torch.full_like(present, ALWAYS) if self.always else VISIBLE + STEEP * present

    def _relative(self, look: Tensor, present: Tensor, bare: Tensor) -> Patches:
        """Paint the mean of a thing's views, its colours relative to the level of the ground."""
        mean = self.painter(look).mean(2) * self._logit(present).sigmoid()[..., None, None]
        return relative(mean, bare)

    def _glimpse(
        self, left: Centred, seen: Centred, own: Tensor | None, place: Positions
    ) -> Glimpse:
        """Read crops of what is unexplained (plus a thing's `own` part of it) and of the frame."""
        around, whole = crops(left, place, self.patch), crops(seen, place, self.patch)
        own = torch.zeros_like(around) if own is None else own
        inputs = CONTRAST * torch.cat([around + own, whole, own], dim=2)
        raw = torch.unflatten(self.glimpse(inputs.flatten(0, 1)), 0, place.shape[:2]).float()
        offset, look = self.patch / 4 * raw[..., :2].tanh(), raw[..., 4:]
        if self.direct is not None:
            look = look + self.direct(CONTRAST * whole.flatten(2)).float()
        return Glimpse(offset, raw[..., 2:3], raw[..., 3:4], look)

    def _track(
        self, seen: Frames, sighting: Sighting, best: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch memory particles 2"]:
        """Follow the sighted patches from each clip's `best` frame to the others, both ways."""
        rows = torch.arange(len(seen), device=seen.device)
        places = sighting.place[:, None].expand(-1, self.memory, -1, -1)
        index = torch.arange(self.memory, device=seen.device)
        for way in (1, -1):
            place, velocity = sighting.place, torch.zeros_like(sighting.place)
            for away in range(1, self.memory):
                at = best + way * away
                recorded = ((at >= 0) & (at < self.memory))[:, None, None]
                frame = seen[rows, at.clamp(0, self.memory - 1)]
                within = (place + velocity).clamp(0, self.side - 1)  # what is seen did not leave
                found = within + match(frame, sighting.patches, within).shift
                place, velocity = found, found - place
                here = (index == at[:, None])[..., None, None] & recorded[..., None]
                places = torch.where(here, place[:, None], places)
        return places

    def _middles(self, seen: Frames) -> Float[Tensor, "batch memory particles 2"]:
        """Find the things of the last frame, and follow them back in time."""
        apart = torch.unflatten(different(seen.flatten(0, 1), self.clear), 0, (-1, self.memory))
        places = [middles(apart[:, -1], self.count, self.patch)]
        back = torch.zeros_like(places[0])
        for away in range(2, self.memory + 1):
            places.append(middle(apart[:, -away], places[-1] + back, self.patch).place)
            back = places[-1] - places[-2]
        return torch.stack(places[::-1], dim=1)

    def _look(
        self,
        seen: Frames,
        places: Tensor,
        patches: Patches | None,
        sign: Tensor,
        detail: float | Tensor,
    ) -> Code:
        """Read every frame's crops, less what the other things paint there, and join them."""
        many = self.memory
        flat, at = seen.flatten(0, 1), places.flatten(0, 1)
        if patches is None:
            glimpse = self._glimpse(flat, flat, None, at)
        else:
            every = patches.repeat_interleave(many, 0)
            left = flat - composed(torch.zeros_like(flat), every, at)
            glimpse = self._glimpse(left, flat, every[:, :, :-1], at)
        by_frame = [torch.unflatten(part, 0, (-1, many)) for part in glimpse]
        offset, present, weight, look = by_frame
        share = weight.softmax(1)
        places = places if patches is None else places + offset
        velocity = sign * steady(places.diff(dim=1)) / FASTEST
        middle, half = (self.side - 1) / 2, self.side / 2
        parts = [
            (places[:, -1] - middle) / half,
            velocity,
            detail * (share * present).sum(1),
            (share * look).sum(1),
        ]
        return torch.cat(parts, dim=-1)


def steady(
    steps: Float[Tensor, "batch steps particles 2"],
) -> Float[Tensor, "batch particles 2"]:
    """Average the steps that agree with the last one, so that what came before a turn is left out.

    A step weighs exp(-|s - s_last|^2 / 2 `AGREED`^2), and no gradient passes through the weight.
    """
    apart = (steps - steps[:, -1:]).detach().square().sum(-1, keepdim=True)
    weight = (-0.5 * apart / AGREED**2).exp()
    return (weight * steps).sum(1) / weight.sum(1)


@torch.no_grad()
def salient(left: Centred, patch: int) -> Float[Tensor, "frames 1 2"]:
    """Find the middle of the patch-sized part of each frame in which most is unexplained."""
    energy = left.square().sum(1, keepdim=True)
    window = patch // 4 * 2 + 1
    pooled = functional.avg_pool2d(energy, window, 2, window // 2)
    best = pooled.flatten(1).argmax(1)
    columns = pooled.shape[-1]
    place = 2.0 * torch.stack([best % columns, best // columns], dim=-1)[:, None]
    axis = torch.arange(patch, device=left.device) - (patch - 1) / 2
    bell = (-0.5 * (axis / (0.2 * patch)).square()).exp()
    for _ in range(4):
        near = crops(energy, place, patch)[:, 0, 0] * bell * bell[:, None]
        total = near.sum((1, 2)).clamp(min=1e-8)
        across = (near.sum(1) * axis).sum(1) / total
        down = (near.sum(2) * axis).sum(1) / total
        place = place + torch.stack([across, down], dim=-1)[:, None]
    return place.clamp(0, left.shape[-1] - 1)
