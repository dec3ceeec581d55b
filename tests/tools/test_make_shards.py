"""The two commands as a user runs them."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

Tool = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[2]


def command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)]


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Tool:
    """Run a tool's `main` here; its exit code, and what it printed on stdout and stderr."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        capsys.readouterr()
        code = module.main(list(map(str, arguments)))
        return code, *capsys.readouterr()

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def film(path: Path, seed: int, frames: int = 40) -> None:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for image in rng.integers(0, 255, (frames, 6, 8, 3), dtype=np.uint8):
            big = image.repeat(8, 0).repeat(8, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(big, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("store", ["npy", "mp4", pytest.param("jpeg", marks=pytest.mark.slow)])
def test_films_become_shards_that_pass_the_check(tool, tmp_path, store):
    for seed in range(4):
        film(tmp_path / f"in/{'ab'[seed % 2]}/{seed}.avi", seed)
    (tmp_path / "in/a/broken.avi").write_bytes(b"RIFF")
    out = tmp_path / "out"
    options = ["--fps", 10, "--clip_length", 8, "--frame_size", 32, "--store", store]
    options += ["--workers", 2, "--max_bad_fraction", 0.3, "--splits", "train=0.75,val=0.25"]
    arguments = ["--dataset", "custom", "--input_dir", tmp_path / "in", *options]
    code, output, progress = tool("make_shards", *arguments, "--output_dir", out)
    assert code == 0, progress
    assert "1 bad videos" in output
    assert "cutting: 5 of 5 videos" in progress
    dataset = json.loads((out / "dataset.json").read_text())
    assert dataset["labels"] == ["a", "b"]
    assert sum(split["clips"] for split in dataset["splits"].values()) == 20
    code, output, _ = tool("check_shards", out, "--workers", 1)
    assert code == 0, output
    assert "20 clips: all as the index says" in output
    arguments[-1:] = ["train=0.75,val=0.25", "--workers", 0]
    assert tool("make_shards", *arguments, "--output_dir", tmp_path / "again")[0] == 0
    assert content(tmp_path / "again") == content(out)


@pytest.mark.slow
def test_killed_cut_carries_on_to_the_same_bytes(tool, tmp_path):
    arguments = ["--dataset", "double-well", "--frame_size", 32, "--num_clips", 600]
    arguments += ["--shard_size", 50, "--workers", 1, "--vertical", "ou"]
    assert tool("make_shards", *arguments, "--output_dir", tmp_path / "whole")[0] == 0
    arguments += ["--output_dir", tmp_path / "killed"]
    killed = subprocess.Popen(command("make_shards", *arguments), stderr=subprocess.DEVNULL)
    while len(list((tmp_path / "killed").glob("*.tar"))) < 3 and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed/dataset.json").exists()
    assert tool("make_shards", *arguments)[0] == 0
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert tool("check_shards", tmp_path / "killed", "--workers", 1)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "ucf101"], "needs --input_dir. Nothing is downloaded. UCF101: https://"),
        (["--dataset", "custom", "--input_dir", "missing"], "missing does not exist"),
        (
            ["--dataset", "ou", "--fit", "crop"],
            "--fit is for kinetics, ucf101, custom, webdataset, not for ou",
        ),
        (["--dataset", "ou", "--clip_length", "0"], "--clip_length is 0, but must be above 0"),
        (["--dataset", "ou", "--splits", "train=2"], "--splits holds"),
        (["--dataset", "ou", "--num_clips", "1"], "1 clips cannot fill 2 splits"),
        (["--dataset", "ou", "--text_length", "9"], "--text_length is for --text_encoder, which"),
        (["--dataset", "ou", "--text_encoder", "missing"], "missing: no Hugging Face model is"),
    ],
)
def test_tool_mistakes_are_named(tool, tmp_path, arguments, message):
    code, _, output = tool("make_shards", *arguments, "--output_dir", tmp_path / "out")
    assert code == 2
    assert message in output
    assert not (tmp_path / "out").exists()


def test_check_names_damage(tool, tmp_path):
    out = tmp_path / "out"
    arguments = ["--dataset", "ou", "--num_clips", 10, "--output_dir", out, "--workers", 0]
    assert tool("make_shards", *arguments)[0] == 0
    path = out / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:5000])
    code, output, _ = tool("check_shards", out, "--workers", 1)
    assert code == 1
    assert "train-000000.tar" in output
    assert tool("check_shards", tmp_path / "nothing")[0] == 2


def test_mistake_ends_the_process_without_a_traceback(tmp_path):
    arguments = ["--dataset", "kinetics", "--output_dir", tmp_path / "out"]
    done = subprocess.run(
        command("make_shards", *arguments), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
