"""Small settings, models and clips that many tests build on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sdevid import objectives
from sdevid.config import dump, parse
from sdevid.data.cut.tally import SplitTally
from sdevid.data.folder import LocalFolder
from sdevid.data.index import read_index
from sdevid.data.shard_file import write_indices, write_json
from sdevid.data.shards import read_dataset
from sdevid.types import frame_ticks

_SMALL: dict[str, Any] = {
    "frame_size": 16,
    "channels": 1,
    "sequence_length": 6,
    "encoder": {"channels": 8, "map_size": 4, "features": 16, "layers": 1, "heads": 2},
    "observation": {"max_context": 3},
    "text": {"encoder": "none"},
}
VECTOR = {"latent_size": 3, "content_size": 2, "hidden": 16}  # sde: of a vector latent
MAP = VECTOR | {"latent": "map"}  # sde: of a map of 4 x 4 cells


def settings(**changes: Any) -> dict[str, Any]:
    """Settings of a small model of grey 16 x 16 frames; a section is merged into its own."""
    merged = {
        key: dict(value) if isinstance(value, dict) else value for key, value in _SMALL.items()
    }
    for name, value in changes.items():
        own = merged.get(name)
        merged[name] = own | value if isinstance(own, dict) else value
    return merged


def shake(module: nn.Module, scale: float = 0.05) -> nn.Module:
    """Move every parameter off its start, at which many are 0; drawn from torch's generator."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return module


def save_model(folder: Path, small: dict[str, Any]) -> Path:
    """Write an exported model with shaken weights into the new `folder`."""
    config = parse(small)
    torch.manual_seed(0)
    model = shake(objectives.build_model(config), 0.1)
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.yaml").write_text(dump(config))
    return folder


def drop_last_clip(folder: Path) -> None:
    """Take the last clip of the train split out of the indices of the shards in `folder`."""
    local, tally = LocalFolder(folder), SplitTally()
    dataset = read_dataset(local)
    shards = dataset["splits"]["train"]["shards"]
    for shard in shards:
        entries = read_index(local, shard)[: -1 if shard == shards[-1] else None]
        write_indices(folder, shard, entries, local.size(shard))
        tally.add(folder, shard, entries)
    dataset["splits"]["train"] = tally.as_json()
    write_json(folder / "dataset.json", dataset)


def clips(count: int, frames: int = 6, side: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """Noise as video (count, frames, side, side, 1), its ticks and serials."""
    torch.manual_seed(1)
    video = torch.randint(0, 256, (count, frames, side, side, 1), dtype=torch.uint8)
    return video, frame_ticks(frames).expand(count, -1), torch.arange(count)
