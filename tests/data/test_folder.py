"""Local folders: many threads, few open files."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sdevid.config import dump, parse
from sdevid.data.folder import FolderFile, LocalFolder
from sdevid.data.open import open_folder
from sdevid.errors import UserError


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_many_threads_read_more_files_than_stay_open(tmp_path):
    for number in range(300):
        (tmp_path / f"{number}.tar").write_bytes(number.to_bytes(2, "big") * 50)
    folder = LocalFolder(tmp_path)

    def read(k: int) -> bool:
        number = k * 7919 % 300
        return folder.read(f"{number}.tar", 2 * (k % 50), 2) == number.to_bytes(2, "big")

    before = open_files()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(4_000)))
    assert open_files() - before <= 64 + 8
    folder.close()
    assert open_files() <= before


def test_file_of_a_folder_reads_and_seeks_as_a_file(tmp_path):
    content = bytes(range(256)) * 9
    (tmp_path / "a").write_bytes(content)
    file = io.BufferedReader(FolderFile(LocalFolder(tmp_path), "a"), 100)
    assert file.read() == content
    assert file.seek(-10, os.SEEK_END) == len(content) - 10
    assert file.read(99) == content[-10:]
    assert file.seek(300) == 300
    assert file.read(5) == content[300:305]
    assert file.tell() == 305


@pytest.mark.parametrize("form", [str, lambda path: path, lambda path: f"file://{path}"])
def test_path_may_be_written_in_any_way(tmp_path, form):
    (tmp_path / "a").write_bytes(b"xyz")
    folder = open_folder(form(tmp_path))
    assert (folder.read("a", 1, 5), folder.whole("a", 9), folder.size("a")) == (b"yz", b"xyz", 3)
    assert folder.names() == ["a"]
    with pytest.raises(FileNotFoundError):
        folder.read("b", 0, 1)


def test_url_keeps_its_slashes_in_the_config(tmp_path):
    for location in ("s3://bucket/folder", "https://host:8000/a/b", "data/shards", str(tmp_path)):
        assert parse({"data": location}).data == location
        assert location in dump(parse({"data": location}))
    assert parse({"data": tmp_path}).data == str(tmp_path)


# fsspec's FTP has a destructor that fails where its constructor has.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("location", ["what://x/y", "ftp://x/y"])  # unknown; wants more than a URL
def test_protocol_that_is_not_read_is_told(location):
    with pytest.raises(UserError, match=rf"{location} is not read; a path, file://, s3://"):
        open_folder(location)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("pipe:touch x", "does not exist"),
        ("simplecache::file:///tmp", "is not read"),
        ("github://org:repo@main/x", "is not read"),
        ("s3://", "is not read"),
        ("http:///x", "is not read"),
        ("https://user:secret@host/x", "holds a user or password"),
        ("a\nb", "control character"),
        ("\0", "control character"),
    ],
)
def test_only_what_is_known_is_opened_and_no_password_is_told(location, message):
    with pytest.raises(UserError, match=message) as error:
        open_folder(location)
    assert "secret" not in str(error.value)


def test_a_file_stays_open_while_it_is_asked(tmp_path, monkeypatch):
    """Without a cache, as where another thread has just closed it, each call holds its own."""
    monkeypatch.setattr("sdevid.data.folder._OPEN", 0)
    (tmp_path / "a.tar").write_bytes(b"abc")
    local = LocalFolder(tmp_path)
    assert local.stamp("a.tar")[1] == 3
    assert local.read("a.tar", 1, 2) == b"bc"
