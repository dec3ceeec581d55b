"""What dataset.json, an index and KEY.json may hold: one schema for shards of any origin.

Shards may come from strangers. Each file has a limit of bytes and depth, each number a range, each
name a form; what does not fit is named, never believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json

from sdevid.data.entry import PAYLOADS

MOST_BYTES = {"dataset.json": 64 * 2**20, "index": 256 * 2**20, "KEY.json": 4 * 2**20}
MOST_CLIP_BYTES = 8 * 2**30  # pixels of one clip
METADATA = ("json", "txt", "cls")  # members that say what a clip shows
MOST_TOKENS = 4_096  # of one caption's embedding
MOST_TAR = 2**50  # bytes
MOST_TEXT = 65_536  # letters
LIMITS = {  # of a clip's numbers
    "num_frames": (1, 2**20),
    "fps": (0, 1e9),
    "height": (1, 2**16),
    "width": (1, 2**16),
    "channels": (1, 64),
}

_PLAIN = r"[^/\\\x00-\x1f\x7f]"  # no slash, no control character
ShardName = Annotated[
    str, StringConstraints(max_length=255, pattern=rf"^[^./\\\x00-\x1f\x7f]{_PLAIN}*\.tar$")
]
Key = Annotated[str, StringConstraints(max_length=1_024, pattern=r"^[^\x00-\x1f\x7f]+$")]
Text = Annotated[str, StringConstraints(max_length=MOST_TEXT)]
SourceName = Annotated[str, StringConstraints(max_length=8_192)]
Fps = Annotated[float, Field(gt=0, le=LIMITS["fps"][1], allow_inf_nan=False)]
Frames = Annotated[int, Field(ge=1, le=LIMITS["num_frames"][1])]
Side = Annotated[int, Field(ge=1, le=LIMITS["height"][1])]
Channels = Annotated[int, Field(ge=1, le=LIMITS["channels"][1])]
Offset = Annotated[int, Field(ge=0, le=MOST_TAR)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Xxh3 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    """Base of all parts: strict and frozen; unknown fields are kept."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")


class MemberFields(_Part):
    """Where one file of a clip lies in its tar."""

    offset: Offset
    size: Offset
    sha256: Sha256
    xxh3: Xxh3 | None = None  # xxh3_128, quicker to check; not in older indices


class ClipFields(_Part):
    """One clip of an index."""

    key: Key
    source: SourceName
    label: Text
    num_frames: Frames
    fps: Fps
    height: Side
    width: Side
    channels: Channels
    members: Annotated[dict[str, MemberFields], Field(max_length=64)]

    @model_validator(mode="after")
    def _holds_a_clip(self) -> ClipFields:
        payloads = set(PAYLOADS) & self.members.keys()
        if len(payloads) != 1:
            raise ValueError(f"members must name one of {', '.join(PAYLOADS)}")
        if self.num_frames * self.height * self.width * self.channels > MOST_CLIP_BYTES:
            raise ValueError(f"a clip may hold at most {MOST_CLIP_BYTES >> 30} GiB of pixels")
        return self


class IndexFields(_Part):
    """The index beside a tar."""

    size: Offset = MOST_TAR  # bytes of the tar
    clips: list[ClipFields]

    @model_validator(mode="after")
    def _lies_in_the_tar(self) -> IndexFields:
        for clip in self.clips:
            for name, member in clip.members.items():
                if member.offset + member.size > self.size:
                    raise ValueError(f"{clip.key}.{name} lies beyond the tar's {self.size} bytes")
        return self


class ColumnsFields(_Part):
    """The binary index of one shard, as dataset.json names it."""

    clips: Annotated[int, Field(ge=1, le=2**31)]
    sha256: Sha256


class KindFields(_Part):
    """Length, rate and shape that clips of a split have."""

    num_frames: Frames
    fps: Fps
    height: Side
    width: Side
    channels: Channels


class SplitFields(_Part):
    """One split of dataset.json."""

    shards: list[ShardName]
    clips: Annotated[int, Field(ge=0)] = 0
    indices: dict[ShardName, ColumnsFields] = {}
    kinds: Annotated[list[KindFields], Field(max_length=2**20)] = []
    members: dict[Text, Annotated[int, Field(ge=0)]] | None = None  # clips that have each


class TextEncoderFields(_Part):
    """The encoder of the embeddings that shards hold."""

    width: Annotated[int, Field(ge=1, le=2**16)]


class AutoencoderFields(_Part):
    """The autoencoder of the latents that shards hold."""

    kind: Annotated[str, StringConstraints(max_length=64)]
    channels: Channels
    latent_channels: Annotated[int, Field(ge=1, le=4_096)]
    stored_channels: Annotated[int, Field(ge=1, le=8_192)]
    factor: Annotated[int, Field(ge=1, le=4_096)]
    fingerprint: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


class TransformFields(_Part):
    """A transform from the source's values to a model's."""

    name: Literal["range", "percentile", "log", "sqrt", "standardise"]
    low: Finite
    high: Finite
    eps: Finite = 0.0
    unit: Annotated[str, StringConstraints(max_length=64)] = ""

    @model_validator(mode="after")
    def _has_a_range(self) -> TransformFields:
        if not self.low < self.high or (self.name == "log" and self.eps <= 0):
            raise ValueError("low must be below high, and eps of log above 0")
        return self


class TimesFields(_Part):
    """When each frame was, where frames are not evenly apart."""

    ticks: Annotated[list[Offset], Field(max_length=2**20)]
    per_second: Annotated[int, Field(ge=1, le=10**12)]

    @model_validator(mode="after")
    def _rise(self) -> TimesFields:
        if any(after <= before for before, after in pairwise(self.ticks)):
            raise ValueError("ticks must rise")
        return self


class DatasetFields(_Part):
    """dataset.json."""

    dtype: Literal["uint8", "uint16", "float16", "float32"] = "uint8"
    transform: TransformFields | None = None
    channel_names: Annotated[list[Text], Field(max_length=64)] = []

    splits: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")], SplitFields]
    text_encoder: TextEncoderFields | None = None
    autoencoder: AutoencoderFields | None = None
    truth: dict[str, Any] | None = None


class MetaFields(_Part):
    """KEY.json of one clip."""

    model_config = ConfigDict(extra="ignore")

    caption: Text | None = None
    captions: Annotated[list[Text], Field(max_length=10_000, default_factory=list)]
    label: Text | None = None
    source: SourceName | None = None
    times: TimesFields | None = None


_META = TypeAdapter(MetaFields)


def parse_json(content: bytes, limit: int) -> dict[str, Any]:
    """Parse a JSON object of at most `limit` bytes and 200 levels. ValueError otherwise."""
    if len(content) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    parsed = from_json(content, allow_inf_nan=False)
    if not isinstance(parsed, dict):
        raise ValueError(  # noqa: TRY004
            f"it must hold a JSON object, not a {type(parsed).__name__}"
        )
    return parsed


def parse_meta(content: bytes) -> dict[str, Any]:
    """Parse the fields of a KEY.json. ValueError where it does not read or one is out of form."""
    parsed = parse_json(content, MOST_BYTES["KEY.json"])
    try:
        _META.validator.validate_python(parsed)
    except ValidationError as error:
        raise ValueError(f"its KEY.json is out of form: {first_fault(error)}") from error
    return parsed


def parse_metadata(members: Mapping[str, bytes]) -> dict[str, Any]:
    """Parse a clip's json and, in tars of other makers, its caption (txt) and label (cls).

    ValueError where they do not read.
    """
    meta = parse_meta(members["json"]) if "json" in members else {}
    for name, of in (("txt", "caption"), ("cls", "label")):
        if name in members:
            meta[of] = members[name].decode().strip()
    return meta


def first_fault(error: ValidationError) -> str:
    """Describe the first fault: field, value, rule."""
    fault = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in fault["loc"]) or "the whole"
    return f"{place} is {str(fault['input'])[:60]!r}: {fault['msg']}"
