"""What an index says of one clip."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from sdevid.data.payload import CONTAINERS, Shape
from sdevid.errors import UserError


@dataclass(frozen=True)
class Member:
    """Where one file of a clip lies in its tar, in bytes."""

    offset: int
    size: int
    sha256: str
    xxh3: str | None = None  # in indices since 0.2.0


class Kind(NamedTuple):
    """What a model must fit: length, rate and shape of a clip."""

    num_frames: int
    fps: float
    height: int
    width: int
    channels: int


@dataclass(frozen=True)
class ClipEntry:
    """What the index says of one clip."""

    shard: str  # the tar's name
    key: str
    source: str  # the video it was cut from
    label: str
    num_frames: int
    fps: float
    height: int
    width: int
    channels: int
    members: Mapping[str, Member]  # by extension: json, one of PAYLOADS, maybe text.npy

    @property
    def extension(self) -> str:
        """Extension of the payload: one of PAYLOADS."""
        return next(name for name in PAYLOADS if name in self.members)

    @property
    def shape(self) -> Shape:
        """Shape of the video: time, height, width, channels."""
        return self.num_frames, self.height, self.width, self.channels

    @property
    def kind(self) -> Kind:
        """Length, rate and shape."""
        return Kind(self.num_frames, self.fps, self.height, self.width, self.channels)

    def as_json(self) -> dict[str, Any]:
        """Convert to the entry of the JSON index beside the tar."""
        fields = asdict(self)
        del fields["shard"]
        for member in fields["members"].values():
            if member["xxh3"] is None:
                del member["xxh3"]
        return fields


class DamagedClipError(UserError):
    """A clip that its shard does not hold as the index says; `reason` without the place."""

    def __init__(self, location: str, shard: str, key: str, reason: str) -> None:
        self.shard, self.key, self.reason = shard, key, reason
        super().__init__(
            f"clip {key} of {location}/{shard} is damaged: {reason}; "
            f"`python tools/check_shards.py {location}` lists all that is damaged"
        )


PAYLOADS = ("npy", "jpg", *CONTAINERS)  # extensions of a clip's video
KEY_FORM = re.compile(r"[^\x00-\x1f\x7f]{1,1024}")
