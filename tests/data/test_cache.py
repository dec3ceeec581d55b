"""The node's cache: each block is fetched once, the cap holds, and nothing wrong is trusted."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sdevid.data.cache import BlockCache
from sdevid.data.folder import Access
from sdevid.data.open import open_folder
from sdevid.data.payload import encode
from sdevid.data.shard_file import ShardFile, write_json
from sdevid.data.shards import DamagedClipError, open_shards
from sdevid.errors import UserError

BLOCK = 4 * 2**20
SHARDS, CLIPS, SHAPE = 4, 10, (4, 256, 256, 3)  # 768 KiB a clip, so two blocks a shard


@pytest.fixture
def site(web):
    rng = np.random.default_rng(0)
    names = [f"train-{number:06d}.tar" for number in range(SHARDS)]
    for number, name in enumerate(names):
        shard = ShardFile(web.folder, name)
        for k in range(CLIPS):
            buffer = rng.integers(0, 255, SHAPE, np.uint8)
            meta = {"source": f"{number}.mp4", "label": "", "caption": "", "fps": 8.0}
            meta |= {"num_frames": 4, "height": 256, "width": 256, "channels": 3}
            shard.add(f"clip-{number}-{k}", meta, {"npy": encode("npy", buffer, 8.0)})
        shard.close()
    splits = {"train": {"clips": SHARDS * CLIPS, "videos": SHARDS, "shards": names}}
    write_json(web.folder / "dataset.json", {"format": 1, "splits": splits})
    return web


def read_all(url: str, cache: Path, capacity: int = 2**30, start: int = 0) -> list[bytes]:
    """The pixels of all clips, read in another order in each process."""
    index = open_shards(url, "train", Access(cache=cache, cache_bytes=capacity))
    count = len(index)
    numbers = [(start + 7 * k) % count for k in range(count)]
    result = {number: index.read(number).video.tobytes() for number in numbers}
    return [result[number] for number in range(count)]


def blocks(cache: Path) -> list[Path]:
    return sorted((cache / "blocks").glob("*/*"))


def tar_requests(site) -> list[int]:
    return [times for (name, _), times in site.asked.items() if name.endswith(".tar")]


def test_each_block_is_fetched_once(site, tmp_path):
    here = [open_shards(site.folder, "train").read(i).video.tobytes() for i in range(40)]
    assert read_all(site.url, tmp_path / "cache") == here
    assert read_all(site.url, tmp_path / "cache", start=3) == here
    assert tar_requests(site) == [1] * (2 * SHARDS)
    assert len(blocks(tmp_path / "cache")) == 2 * SHARDS


@pytest.mark.slow
def test_processes_of_a_node_share_what_they_fetch(site, tmp_path):
    here = [open_shards(site.folder, "train").read(i).video.tobytes() for i in range(40)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, context) as pool:
        work = [
            pool.submit(_read_all_hashed, site.url, str(tmp_path / "cache"), 13 * k)
            for k in range(3)
        ]
        assert [part.result() for part in work] == [hash_of(here)] * 3
    assert tar_requests(site) == [1] * (2 * SHARDS)


def test_cap_holds_and_the_oldest_go_first(tmp_path):
    cache = BlockCache(tmp_path, 5 * BLOCK)
    whole = slice(0, BLOCK)
    for number in range(12):
        cache.read_slice("a", number, whole, lambda n=number: bytes([n]) * BLOCK)
        cache.read_slice("a", 0, slice(0, 10), lambda: bytes(BLOCK))  # in use all the time
        time.sleep(0.01)  # times of files have a grain
        assert sum(path.stat().st_size for path in blocks(tmp_path)) <= 5 * BLOCK
    kept = {int(path.name) for path in blocks(tmp_path)}
    assert {0, 10, 11} <= kept
    assert kept <= {0, 8, 9, 10, 11}


def test_cap_holds_over_reads(site, tmp_path):
    cap = 3 * BLOCK
    here = read_all(site.url, tmp_path / "whole")
    assert read_all(site.url, tmp_path / "cache", cap) == here
    assert sum(path.stat().st_size for path in blocks(tmp_path / "cache")) <= cap


@pytest.mark.parametrize("spoil", ["flip", "tear", "empty"])
def test_block_that_went_wrong_is_fetched_again(site, tmp_path, spoil):
    here = read_all(site.url, tmp_path / "cache")
    for path in blocks(tmp_path / "cache"):
        content = bytearray(path.read_bytes())
        if spoil == "flip":
            content[5000] ^= 1
        path.write_bytes(content[: {"flip": None, "tear": 70_000, "empty": 0}[spoil]])
    assert read_all(site.url, tmp_path / "cache") == here
    assert set(tar_requests(site)) <= {2, 3}  # a clip on the border drops both its blocks


def test_new_shards_at_an_old_address_read_no_old_block(site, tmp_path):
    read_all(site.url, tmp_path / "cache")
    one, two = site.folder / "train-000000.tar", site.folder / "train-000001.tar"
    for ending in ("tar", "index.json"):
        first, second = one.with_suffix(f".{ending}"), two.with_suffix(f".{ending}")
        content, other = first.read_bytes(), second.read_bytes()
        first.write_bytes(other.replace(b"train-000001.tar", b"train-000000.tar"))
        second.write_bytes(content.replace(b"train-000000.tar", b"train-000001.tar"))
    here = [open_shards(site.folder, "train").read(i).video.tobytes() for i in range(40)]
    assert read_all(site.url, tmp_path / "cache") == here


def test_damage_at_its_source_stays_damage_in_the_cache(site, tmp_path):
    tar = site.folder / "train-000002.tar"
    content = bytearray(tar.read_bytes())
    content[BLOCK] ^= 1
    tar.write_bytes(content)
    index = open_shards(site.url, "train", Access(cache=tmp_path / "cache"))
    damaged = []
    for i in range(len(index)):
        try:
            index.read(i)
        except DamagedClipError as error:
            damaged.append((i, error.reason))
    assert damaged == [(25, "its npy has another xxh3 than the index says")]


def test_killed_process_leaves_no_lock_and_no_half_block(tmp_path):
    """It holds every lock and has written half a block aside."""
    cache = tmp_path / "cache"
    BlockCache(cache, 2 * BLOCK)
    script = (
        "import sys; from sdevid.data.cache import BlockCache\n"
        "def fetch():\n"
        "    path = cache.block_path('a', 0); path.parent.mkdir()\n"
        "    path.with_name('.0.1.part').write_bytes(b'half')\n"
        "    print('in', flush=True); sys.stdin.read()\n"
        f"cache = BlockCache(__import__('pathlib').Path({str(cache)!r}), {2 * BLOCK})\n"
        "cache.read_slice('a', 0, slice(0, 4), fetch)\n"
    )
    killed = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert killed.stdout.read(2) == b"in"
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    result = BlockCache(cache, 2 * BLOCK).read_slice("a", 0, slice(1, 3), lambda: b"abcd")
    assert result == b"bc"


def test_write_that_fails_half_way_costs_time_alone(tmp_path):
    cache = BlockCache(tmp_path, 4 * BLOCK)
    content = bytes(range(256)) * 4_096
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.warns(UserWarning, match="takes no more"):
            assert cache.read_slice("a", 0, slice(1, 3), lambda: content) == content[1:3]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not blocks(tmp_path)
    assert cache.read_slice("a", 0, slice(1, 3), lambda: content) == content[1:3]
    assert len(blocks(tmp_path)) == 1


def test_cache_that_cannot_be_is_told(site, tmp_path):
    (tmp_path / "file").write_text("")
    for access in (Access(cache=tmp_path / "file"), Access(cache=tmp_path / "c", cache_bytes=9)):
        with pytest.raises(UserError, match=r"data_cache(_gib)? is"):
            open_folder(site.url, access)


def _read_all_hashed(url: str, cache: str, start: int) -> str:
    return hash_of(read_all(url, Path(cache), start=start))


def hash_of(videos: list[bytes]) -> str:
    return hashlib.sha256(b"".join(videos)).hexdigest()


def test_cache_that_was_removed_is_made_again_and_said_so(site, tmp_path):
    index = open_shards(site.url, "train", Access(cache=tmp_path / "cache"))
    before = [index.read(k).video.tobytes() for k in range(len(index))]
    shutil.rmtree(tmp_path / "cache")
    with pytest.warns(UserWarning, match=r"data_cache .*cache was removed; made again"):
        assert [index.read(k).video.tobytes() for k in range(len(index))] == before
    assert blocks(tmp_path / "cache")
