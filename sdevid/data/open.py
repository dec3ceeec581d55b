"""Opens the folder of shards at a path or URL: local, remote, or remote through a cache."""

from __future__ import annotations

from pathlib import Path

from sdevid.data.cache import BlockCache, CachedFolder
from sdevid.data.folder import Access, Folder, LocalFolder
from sdevid.data.remote import RemoteFolder
from sdevid.data.tar_index import DATASET, IndexedFolder, cache_of, indexed
from sdevid.errors import UserError

_LOCAL = "file://"
_FIRST_PRINTED = 32


def open_folder(location: Path | str, access: Access | None = None) -> Folder:
    """Open the folder at `location`, a path or URL. UserError where it is missing or refused."""
    text = str(location)
    if text.startswith(_LOCAL):
        text = text.removeprefix(_LOCAL)
    if any(ord(letter) < _FIRST_PRINTED for letter in text):
        raise UserError(f"{text!r} is no path or URL: it holds a control character")
    if text.endswith(".tar"):
        kept = cache_of(text)
        if (kept / DATASET).is_file():
            return IndexedFolder(LocalFolder(kept), open_folder(text.rpartition("/")[0], access))
        raise UserError(
            f"{text} is a list of tars, not a folder of shards; sdevid shards --dataset "
            f"webdataset --input_dir '{text}' --output_dir O cuts them into one, sdevid shards "
            "index reads videos of one size as they are (evaluation needs either); training takes "
            "them without by data_reader=webdataset"
        )
    if "://" not in text:
        return LocalFolder(Path(text))
    tars = _remote(text.rstrip("/"), access or Access())
    return indexed(text, tars) or tars


def _remote(location: str, access: Access) -> Folder:
    remote = RemoteFolder(location, access.timeout)
    if access.cache is None:
        return remote
    return CachedFolder(remote, BlockCache(access.cache, access.cache_bytes))
