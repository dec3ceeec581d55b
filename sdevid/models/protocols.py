"""What a decoder and a likelihood offer, so that another of either is one file."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from sdevid.models.carried_frame import CarriedFrame
from sdevid.models.consistency import PreviousFrame
from sdevid.models.encoder import LastFrame
from sdevid.types import Frames


@runtime_checkable
class Decoder(Protocol):
    """Decodes frames from the latent path and the static content."""

    carried: CarriedFrame | None  # where the last observed frame is moved in layers

    def __call__(
        self,
        z: Float[Tensor, "batch time *latent"],
        w: Float[Tensor, "batch *content"],
        last: LastFrame | None = None,
    ) -> Frames:
        """Decode a whole clip; `last` is the last observed frame."""

    def carry_on(
        self,
        z: Float[Tensor, "batch time *latent"],
        w: Float[Tensor, "batch *content"],
        before: PreviousFrame | None,
        last: LastFrame | None = None,
    ) -> tuple[Frames, PreviousFrame | None]:
        """Decode frames that follow those whose last one is `before`; return them and their last.

        A decoder that draws each frame from its own state alone returns None for the last.
        """


@runtime_checkable
class Likelihood(Protocol):
    """p(x | decoded frames)."""

    def log_prob(self, decoded: Tensor, target: Tensor) -> Float[Tensor, "batch time"]:
        """Sum log p(target | decoded) over all but batch and time, in nats and float32."""

    def typical(self, decoded: Frames) -> Frames:
        """Compute the most likely frames, which sampling returns."""

    def quantile(self, decoded: Tensor, share: Tensor, factor: Tensor | float = 1.0) -> Tensor:
        """Compute the value below which a `share` in (0, 1) of p(x | decoded) lies, by value.

        The law is that with `factor` times its scale.
        """
