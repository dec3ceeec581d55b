"""Shards behind URLs: a real web server with ranges, a real S3 server, and what goes wrong."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import urllib.request
from itertools import islice
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from sdevid.cli.shards import main as index_command
from sdevid.config import Config, parse
from sdevid.data import remote
from sdevid.data.cut.plan import Plan
from sdevid.data.cut.run import cut
from sdevid.data.cut.splits import assign
from sdevid.data.drawn import disc_artist, drawn_sources
from sdevid.data.folder import Access
from sdevid.data.open import open_folder
from sdevid.data.shards import DamagedClipError, open_shards
from sdevid.data.spec import CutSpec
from sdevid.data.stream import steps
from sdevid.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CLIPS, LENGTH = 12, 6


@pytest.fixture(scope="module")
def shards(request, tmp_path_factory) -> Path:
    """npy shards, or what a test asks for."""
    folder: Path = tmp_path_factory.mktemp("shards")
    shares = {"train": 1.0}
    drawn = drawn_sources("ou", {"train": disc_artist("ou", "none")}, 0, CLIPS, shares)
    spec = CutSpec(16, 8.0, LENGTH, LENGTH, "crop", getattr(request, "param", "npy"))
    plan = Plan("ou", assign(drawn, shares, 0), spec, 5, {})
    cut(plan, folder, workers=0, max_bad_fraction=0.0, overwrite=False)
    return folder


both_stores = pytest.mark.parametrize("shards", ["npy", "mp4"], indirect=True)


@pytest.fixture
def site(web, shards):
    """The web server, serving the shards."""
    shutil.copytree(shards, web.folder, dirs_exist_ok=True)
    return web


@pytest.fixture(scope="module")
def s3():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3, shards, monkeypatch):
    """A bucket of its own that holds the shards under `films/a`; its URL."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = boto3.client("s3")
    client.create_bucket(Bucket="clips")
    for path in shards.iterdir():
        if path.is_file():
            client.upload_file(str(path), "clips", f"films/a/{path.name}")
    yield "s3://clips/films/a"
    urllib.request.urlopen(urllib.request.Request(f"{s3}/moto-api/reset", method="POST"))


@pytest.fixture
def impatient(monkeypatch):
    """Pauses between tries of a hundredth."""
    monkeypatch.setattr(remote, "_PAUSE", 0.002)


def config(**changes: object) -> Config:
    settings = {"frame_size": 16, "channels": 1, "sequence_length": LENGTH, "batch_size": 4}
    return parse(settings | {"encoder": {"map_size": 4}} | changes)


def assert_the_same(location: str, shards: Path, access: Access | None = None) -> None:
    there, here = open_shards(location, "train", access), open_shards(shards, "train")
    assert list(there.clips) == list(here.clips)
    for rank in range(2):
        for world, workers in ((2, 3), (2, 0)):
            settings = config(data_workers=workers)
            got = islice(steps(there, settings, rank, world, 4), 5)
            want = islice(steps(here, config(), rank, world, 4), 5)
            for (one,), (other,) in zip(got, want, strict=True):
                assert one.keys == other.keys
                assert np.array_equal(one.video.numpy(), other.video.numpy())
                assert not one.damage


@both_stores
def test_web_server_gives_the_clips_by_ranges(site, shards):
    assert_the_same(site.url, shards)
    tars = [asked for asked in site.asked if asked[0].endswith(".tar")]
    assert tars
    assert all(asked[1] for asked in tars), "each read of a tar names its range"


@both_stores
def test_s3_server_gives_the_clips(bucket, shards):
    assert_the_same(bucket, shards)
    assert_the_same(bucket + "/", shards)
    assert "dataset.json" in (open_folder(bucket).names() or ())


def test_check_shards_reads_urls(site, bucket, capsys):
    spec = importlib.util.spec_from_file_location("check_shards", ROOT / "tools/check_shards.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    for location in (site.url, bucket):
        assert tool.main([location, "--workers", "0"]) == 0
        assert f"{location}: 3 shards, {CLIPS} clips: all as" in capsys.readouterr().out


@pytest.mark.slow
def test_check_shards_finds_damage_behind_a_url(site):
    tar = site.folder / "train-000001.tar"
    tar.write_bytes(tar.read_bytes()[:-3000])
    command = [sys.executable, "tools/check_shards.py", site.url, "--workers", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "train-000001.tar" in done.stdout


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("protocol", ["http", "s3"])
def test_index_of_tars_behind_a_url_is_kept_and_found(
    request, protocol, shards, tmp_path, monkeypatch, capsys
):
    """A brace list of tars of any maker: indexed through the URL, then read by offset."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if protocol == "http":
        place = request.getfixturevalue("site")
        for path in place.folder.glob("*.json"):
            path.unlink()  # the tars alone are served
        url = place.url
    else:
        url = request.getfixturevalue("bucket")
    last = len(list(shards.glob("*.tar"))) - 1
    tars = f"{url}/train-{{000000..{last:06d}}}.tar"
    with pytest.raises(UserError, match="is a list of tars, not a folder of shards"):
        open_shards(tars, "train")
    assert index_command(["index", tars]) == 0
    assert f"{CLIPS} clips, 0 samples left out" in capsys.readouterr().out
    there, here = open_shards(tars, "train"), open_shards(shards, "train")
    for number in range(CLIPS):
        assert np.array_equal(there.read(number).video, here.read(number).video)
    assert there.folder.location == url


def test_faults_that_pass_are_tried_again(site, shards):
    site.faults["dataset.json"] = [503, "break", 429, 500]
    site.faults["train-000000.tar"] = [500, "break", 503]
    assert_the_same(site.url, shards)
    assert not site.faults["train-000000.tar"]


@pytest.mark.usefixtures("impatient")
def test_lasting_error_ends_after_a_few_tries(site):
    index = open_shards(site.url, "train")
    site.faults["train-000000.tar"] = [503] * 50
    with pytest.raises(UserError, match=r"train-000000.tar could not be read in 5 tries .* 503"):
        index.read(0)
    assert len(site.faults["train-000000.tar"]) == 45


@pytest.mark.usefixtures("impatient")
def test_silent_server_is_left(site):
    site.faults["dataset.json"] = ["hang"] * 50
    message = r"could not be read in 5 tries of at most 0.05 s: .*data_timeout higher"
    with pytest.raises(UserError, match=message):
        open_shards(site.url, "train", Access(timeout=0.05))


@pytest.mark.usefixtures("impatient")
def test_no_server_is_told():
    with pytest.raises(UserError, match=r"127.0.0.1:9/dataset.json could not be read in 5 tries"):
        open_shards("http://127.0.0.1:9", "train")


@pytest.mark.parametrize("status", [401, 403])
def test_refusal_is_told_at_once(site, status):
    site.faults["dataset.json"] = [status] * 9
    with pytest.raises(UserError, match=r"dataset.json is refused .*; see that your credentials"):
        open_shards(site.url, "train")
    assert len(site.faults["dataset.json"]) == 8


def test_another_status_is_told_at_once(site):
    site.faults["dataset.json"] = [400]
    with pytest.raises(UserError, match=r"dataset.json cannot be read: .*400.*check the address"):
        open_shards(site.url, "train")


def test_server_without_ranges_is_told(site):
    index = open_shards(site.url, "train")
    site.faults["train-000000.tar"] = ["whole"]
    with pytest.raises(UserError, match="does not answer range requests"):
        index.read(0)


def test_empty_site_is_told(web):
    with pytest.raises(UserError, match=r"shard folder http://.* holds no dataset.json; .*address"):
        open_shards(web.url, "train")


@pytest.mark.usefixtures("bucket")
def test_missing_bucket_and_folder_are_told():
    for location in ("s3://nothing-here/films", "s3://clips/nothing"):
        with pytest.raises(UserError, match=f"shard folder {location} .*check the address"):
            open_shards(location, "train")


def after_calls(s3: str, calls: bytes) -> None:
    """Let the server look at keys after so many calls."""
    kind = {"Content-Type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(f"{s3}/moto-api/reset-auth", calls, kind))


def test_s3_without_the_right_keys_is_told(bucket, s3):
    after_calls(s3, b"0")
    try:
        with pytest.raises(UserError, match=r"dataset.json is refused .*AWS_ACCESS_KEY_ID"):
            open_shards(bucket, "train")
    finally:
        after_calls(s3, b"inf")


def test_s3_without_any_keys_is_told(bucket, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"AWS_ACCESS_KEY_ID"):
        open_shards(bucket, "train")


@pytest.mark.parametrize("cached", [False, True])
def test_damage_at_a_url_is_damage_here(site, cached, tmp_path):
    entries = open_shards(site.folder, "train").clips
    (site.folder / "train-000002.tar").unlink()
    tar = site.folder / "train-000000.tar"
    content = bytearray(tar.read_bytes())
    content[entries[1].members["json"].offset + 3] ^= 1
    tar.write_bytes(content[: entries[3].members["json"].offset])
    access = Access(cache=tmp_path / "cache") if cached else None
    index = open_shards(site.url, "train", access)
    reasons = {}
    for i in range(CLIPS):
        try:
            index.read(i)
        except DamagedClipError as error:
            reasons[i] = error.reason
    assert reasons.keys() == {1, 3, 4, *(range(10, 12))}
    assert "xxh3" in reasons[1]
    assert "bytes too early" in reasons[3]
    assert "bytes too early" in reasons[4]
    assert reasons[10] == "the shard is missing"


SMALL = """
sde: {latent_size: 2, content_size: 3, hidden: 8, depth: 1, steps_per_frame: 1}
encoder: {channels: 4, features: 8, layers: 1, heads: 2, map_size: 4}
observation: {max_context: 2}
text: {encoder: none}
"""


@pytest.mark.slow
def test_run_and_evaluation_from_s3_read_through_the_cache(bucket, shards, tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL)
    shape = ["frame_size=16", "channels=1", f"sequence_length={LENGTH}", "batch_size=4"]
    shape += ["max_clips=24", "log_every=4", "preflight=true", "data_workers=1"]
    losses = []
    for name, location in (("here", str(shards)), ("there", bucket)):
        arguments = [*shape, f"run_dir={tmp_path / name}", f"data={location}"]
        cached = [f"data_cache={tmp_path / 'cache'}"]
        run("train", "--config", str(tmp_path / "small.yaml"), *arguments, *cached)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[0] == losses[1]
    assert list((tmp_path / "cache/blocks").glob("*/*"))
    few = ["--num_clips", "2", "--samples", "2", "--context", "2", "--rollouts", "2"]
    where = ["--model_path", str(tmp_path / "there"), "--split", "train"]
    run("evaluate", *where, *few, "--output", str(tmp_path / "results.json"))
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["protocol"]["data"] == bucket


def run(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sdevid", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
