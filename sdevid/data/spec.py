"""What is cut, and how: the settings of a cut and what anything that gives clips looks like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from sdevid.data.mask import Mask
from sdevid.data.payload import ClipVideo, Store


@dataclass(frozen=True)
class CutSpec:
    """How a video becomes clips."""

    frame_size: int  # pixels; the height, where frames are not square
    fps: float  # frames a second
    clip_length: int  # frames
    clip_stride: int  # frames from the start of one clip to that of the next
    fit: Literal["crop", "letterbox"]  # what becomes of frames that are not square
    store: Store
    channels: Literal["grey", "rgb", "keep"] = "rgb"  # of filmed frames
    frame_width: int | None = None  # where frames are not square
    shots: bool = False  # whether a clip ends at a cut between shots

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Height and width of a frame."""
        return self.frame_size, self.frame_width or self.frame_size


@dataclass(frozen=True)
class CutClip:
    """One clip, cut and not yet stored."""

    source: str  # the video it comes from
    start: float  # seconds from the first frame of that video
    video: ClipVideo
    extra: dict[str, Any] = field(default_factory=dict)  # further fields of KEY.json
    mask: Mask | None = None  # of what was not observed, where the video's type has no NaN


class ClipSource(Protocol):
    """One video on disk, or one block of drawn ones."""

    @property
    def name(self) -> str:
        """Name, unique in a data set: a path relative to the input folder where there is one."""
        ...

    @property
    def group(self) -> str:
        """What was filmed in one take; a split never cuts through it."""
        ...

    @property
    def split(self) -> str | None:
        """The official split, or None where the data set has none."""
        ...

    @property
    def label(self) -> str:
        """The class, or an empty text."""
        ...

    @property
    def caption(self) -> str:
        """What is to be seen, in words, or an empty text."""
        ...

    def identity(self) -> list[Any]:
        """List, as JSON, what must not change for a cut to be resumed."""
        ...

    def clips(self, spec: CutSpec) -> Iterator[CutClip]:
        """Yield its clips in order of time. BadVideoError if it does not decode or gives none."""
        ...


def words(meta: Mapping[str, Any], draw: float = 0.0) -> str:
    """Pick the text of a clip from its KEY.json: a caption, or else the label.

    Of several captions, `draw` in [0, 1) picks one; 0 is the first.
    """
    captions = meta.get("captions") or [meta.get("caption") or meta.get("label") or ""]
    return str(captions[int(draw * len(captions))])


class BadVideoError(Exception):
    """A damaged video; the message is the reason for the quarantine list."""


class LeftOutError(Exception):
    """A whole file that gives no clip, e.g. one that is too short; the message says why."""
