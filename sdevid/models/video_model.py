"""What every model of video offers to training, sampling, export and evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.initial_weights import initial_weights
from sdevid.models.likelihood import build_likelihood, draw
from sdevid.models.pictures import build_pictures
from sdevid.models.sampling import CHUNK_FRAMES, Chunk, Conditioning, SamplerConfig, join
from sdevid.models.solver_grid import solver_grid
from sdevid.models.text import Text, TextEncoder
from sdevid.sde.noise import Brownian
from sdevid.sde.rhythm import Rhythm, rhythm_of
from sdevid.types import Frames, Serial, Ticks


class VideoModel(nn.Module, ABC):
    """A latent path, generated and decoded: given frames, text, or nothing.

    A subclass builds its parts inside `named`, and sets `text` by `build_text`.
    """

    text: TextEncoder | None
    prior_parts: tuple[str, ...]  # parameters by prefix that learn through a divergence alone

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.pictures = build_pictures(config)
        latents = None if config.encoder.frozen is None else config.picture.channels
        self.likelihood = build_likelihood(config.observation, latents)
        self.rhythm: Rhythm | None = None  # of the times on a device; None: they are read for it

    @property
    @abstractmethod
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of what the noise acts on."""

    @abstractmethod
    def _chunks(
        self, ticks: Ticks, sampler: SamplerConfig, conditioning: Conditioning, size: int
    ) -> Iterator[Chunk]:
        """Generate as `chunks` does, frames as `pictures` encodes them; gradients are off."""

    def chunks(
        self,
        ticks: Ticks,
        sampler: SamplerConfig,
        conditioning: Conditioning | None = None,
        size: int = CHUNK_FRAMES,
    ) -> Iterator[Chunk]:
        """Generate video at `ticks`, `size` frames at a time, without gradients.

        The state is carried on from chunk to chunk, so that there is no seam. It starts at the last
        observed frame that does not lie after the first of `ticks`, or there.
        """
        conditioning = conditioning or Conditioning()
        if conditioning.frames is not None:
            seen = self.pictures.encode(conditioning.frames)
            conditioning = conditioning._replace(frames=seen)
        chunks, done = self._chunks(ticks, sampler, conditioning, size), 0
        while True:
            with torch.no_grad():  # not across a yield: the caller's gradients are its own
                chunk = next(chunks, None)
                if chunk is None:
                    return
                at = ticks[:, done : done + chunk.frames.shape[1]]
                done += at.shape[1]
                chunk = self._shown(chunk, at, sampler, conditioning.frame_ticks)
            yield chunk

    def _shown(
        self,
        chunk: Chunk,
        ticks: Ticks,
        sampler: SamplerConfig,
        given: Int64[Tensor, "batch observed"] | None,
    ) -> Chunk:
        """Turn decoded frames into the most likely ones, beside a draw around them if asked."""
        decoded, observed = chunk.frames, None
        if sampler.observation is not None:
            serial = sampler.serials(decoded)
            noisy = draw(sampler.observation, decoded, sampler.seed, serial, ticks, given)
            observed = self.pictures.decode(noisy)
        typical = self.pictures.decode(self.likelihood.typical(decoded))
        return chunk._replace(frames=typical, observed=observed)

    def notes(self) -> tuple[str, ...]:
        """List what a user who samples should know, such as a change made after training."""
        return ()

    def named(self, part: str) -> AbstractContextManager[None]:
        """Draw the initial weights of the part built inside from its name and the seed alone."""
        return initial_weights(self.config.seed, part)

    @property
    def cell(self) -> int:
        """Ticks of a solver step at the training frame rate; also the Brownian path's cell."""
        return self.config.step_ticks(self.config.sde.steps_per_frame)

    def build_text(self) -> TextEncoder | None:
        """Build the text encoder; None for a model without text."""
        with self.named("text"):
            return TextEncoder(self.config) if self.config.text.encoder != "none" else None

    def parts(self) -> dict[str, nn.Module]:
        """Name the model's parts, for counting parameters."""
        return dict(self.named_children())

    def prior_parameter_names(self) -> set[str]:
        """Name the parameters that learn through a divergence alone."""
        chosen = tuple(f"{part}." for part in self.prior_parts)
        return {name for name, _ in self.named_parameters() if f"{name}.".startswith(chosen)}

    def brownian(self, seed: int, serial: Serial) -> Brownian:
        """Build the Brownian path that drives the clip of each serial."""
        return Brownian(seed, serial, self.noise_shape, self.cell, self.rhythm)

    @contextmanager
    def reading(self, ticks: Ticks) -> Iterator[None]:
        """Use, inside, the rhythm of training's solver grid read from `ticks` on the host."""
        grid = solver_grid(ticks, self.cell, self.config.sde.steps_per_frame)[0]
        self.rhythm = rhythm_of(grid, self.cell)
        try:
            yield
        finally:
            self.rhythm = None

    def sample(
        self,
        ticks: Ticks,
        *,
        seed: int,
        serial: Serial,
        context: Float[Tensor, "batch observed channels height width"] | None = None,
        context_ticks: Int64[Tensor, "batch observed"] | None = None,
        steps_per_frame: int | None = None,
        temperature: float = 1.0,
    ) -> Frames:
        """Generate video at `ticks`, freely or carried on from `context`: its frames alone.

        `steps_per_frame` solver steps lie between two frames; without it, steps are as long as in
        training, at most. `temperature` scales the noise of a birth and along the path. The same
        seed and serial give the same video, whatever the batch around it.
        """
        sampler = SamplerConfig(seed, serial, steps_per_frame, temperature)
        return self.generate(ticks, sampler, Conditioning(context, context_ticks)).frames

    def generate(
        self, ticks: Ticks, sampler: SamplerConfig, conditioning: Conditioning | None = None
    ) -> Chunk:
        """Generate whole videos at `ticks`."""
        return join(self.chunks(ticks, sampler, conditioning))

    def embedding(self, text: Text | None, count: int) -> Float[Tensor, "batch features"] | None:
        """Encode the captions, blank ones without `text`; None for a model without text."""
        if self.text is None:
            return None
        if text is None:
            return self.text.null.expand(count, -1)
        embedded: Tensor = self.text(text)
        return embedded
