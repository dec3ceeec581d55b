"""What dataset.json says of a split: counted shard by shard, from the indices."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdevid.data.columns import columns_name
from sdevid.data.entry import ClipEntry, Kind


class SplitTally:
    """Counts the clips of a split, and names the indices of its shards."""

    def __init__(self) -> None:
        self.clips = 0
        self.kinds: set[Kind] = set()
        self.labels: set[str] = set()
        self._sources: set[str] = set()
        self._members: Counter[str] = Counter()
        self._indices: dict[str, dict[str, Any]] = {}

    def add(self, folder: Path, shard: str, clips: Sequence[ClipEntry]) -> None:
        """Count the clips of a tar whose indices lie in `folder`."""
        content = (folder / columns_name(shard)).read_bytes()
        self._indices[shard] = {
            "clips": len(clips),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        self.clips += len(clips)
        self.kinds |= {clip.kind for clip in clips}
        self.labels |= {clip.label for clip in clips if clip.label}
        self._sources |= {clip.source for clip in clips}
        self._members.update(name for clip in clips for name in clip.members)

    def as_json(self) -> dict[str, Any]:
        """Convert to the entry of this split in dataset.json."""
        return {
            "clips": self.clips,
            "videos": len(self._sources),
            "shards": list(self._indices),
            "indices": self._indices,
            "kinds": [kind._asdict() for kind in sorted(self.kinds)],
            "members": dict(self._members),
        }
