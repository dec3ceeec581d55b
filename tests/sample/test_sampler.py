"""Sampling from the command line: the same seed, the same files; and what is asked for wrongly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import factories
import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch._C._distributed_c10d import HashStore

from sdevid import export
from sdevid.sample import processes as launch
from sdevid.sample import sampler
from sdevid.sample.__main__ import main
from sdevid.sample.job import SamplingJob

SMALL = factories.settings(
    sde={"latent_size": 3, "content_size": 4, "hidden": 16, "steps_per_frame": 1}
)


def save_model(folder: Path, **settings) -> Path:
    return factories.save_model(folder, SMALL | settings)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "small")


def sample(model: Path, output: Path, *arguments: str) -> dict:
    options = ["--model_path", str(model), "--output_dir", str(output), *arguments]
    assert main(options) == 0
    return json.loads((output / "samples.json").read_text())


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def video(folder: Path, number: int = 0) -> np.ndarray:
    return np.load(folder / f"sample_{number:05d}.npz")["video"]


def test_writes_videos_grids_and_a_record(model, tmp_path):
    record = sample(model, tmp_path, "--num_samples", "2", "--seed", "3")
    assert sorted(files(tmp_path)) == [
        "grid.png",
        *(f"sample_0000{i}.{kind}" for i in (0, 1) for kind in ("json", "mp4", "npz")),
        "samples.json",
    ]
    assert record["seed"] == 3
    assert record["samples"][1]["files"][0] == "sample_00001.mp4"
    assert video(tmp_path).shape == (6, 16, 16, 1)
    assert not np.array_equal(video(tmp_path, 0), video(tmp_path, 1))


@pytest.mark.parametrize("kind", ["sde_matching", "follmer"])
def test_every_kind_of_model_is_sampled_alike(tmp_path, kind):
    other = save_model(tmp_path / "model", model_type=kind)
    for i in range(2):
        Image.new("L", (16, 16), 90 * i).save(tmp_path / f"{i}.png")
        sample(other, tmp_path / str(i), "--initial_frames", str(tmp_path / "0.png"))
    assert video(tmp_path / "0").shape == (6, 16, 16, 1)
    assert files(tmp_path / "0") == files(tmp_path / "1")


@pytest.mark.parametrize("batch_size", ["1", "4"])
def test_sample_does_not_depend_on_how_many_are_made(model, tmp_path, batch_size):
    for number in ("3", "6"):
        arguments = ("--num_samples", number, "--batch_size", batch_size)
        sample(model, tmp_path / number, *arguments)
    few, many = files(tmp_path / "3"), files(tmp_path / "6")
    for name in few:
        if name.startswith("sample_"):
            assert few[name] == many[name], name


def test_seed_changes_videos_and_temperature_0_removes_noise(model, tmp_path):
    for seed in ("0", "1"):
        sample(model, tmp_path / seed, "--seed", seed, "--num_samples", "1")
    assert not np.array_equal(video(tmp_path / "0"), video(tmp_path / "1"))
    sample(model, tmp_path / "calm", "--temperature", "0", "--num_samples", "1")
    assert not np.array_equal(video(tmp_path / "0"), video(tmp_path / "calm"))


@pytest.fixture
def own_group():
    """A process group of the program; the rest of the session keeps the one it has."""
    began = not dist.is_initialized()
    if began:
        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    if began:
        dist.destroy_process_group()


@pytest.mark.usefixtures("own_group")
def test_sample_in_a_program_leaves_its_group_and_threads(model, tmp_path):
    threads, group = torch.get_num_threads(), dist.group.WORLD
    loaded, _ = export.load(model)
    job = SamplingJob(num_samples=2, num_frames=3, fps=8.0, batch_size=1)
    for name in ("a", "b"):
        with launch.processes() as state:
            sampler.sample(loaded, job, tmp_path / name, state)
        assert dist.group.WORLD is group
        assert torch.get_num_threads() == threads
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert main(["--model_path", str(model), "--output_dir", str(tmp_path / "c")]) == 0
    assert dist.group.WORLD is group


@pytest.mark.parametrize("threads", [1, 2])
def test_command_line_sets_the_threads_back(model, tmp_path, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        sample(model, tmp_path, "--num_samples", "1")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_local_rank_without_a_launcher_is_not_believed(model, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert sample(model, tmp_path, "--num_samples", "1")["samples"][0]["number"] == 0
    assert os.environ["LOCAL_RANK"] == "0"


@pytest.mark.slow
def test_two_processes_write_the_same_files_as_one(model, tmp_path):
    arguments = ["--model_path", str(model), "--num_samples", "5", "--seed", "7"]
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    for processes in ("1", "2"):
        several = ["--multi_gpu"] if processes == "2" else []
        where = ["-m", "sdevid.sample", *arguments, "--output_dir", str(tmp_path / processes)]
        port = ["--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"]
        count = ["--num_processes", processes, "--num_machines", "1"]
        done = subprocess.run(
            [*launcher, *several, *count, *port, *where],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert f"made by {processes} process" in done.stderr
    one, two = files(tmp_path / "1"), files(tmp_path / "2")
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []


def test_video_begins_with_its_initial_frames(model, tmp_path, capsys):
    for i in range(4):
        frame = np.full((20, 16, 3), 40 * i, np.uint8)
        (tmp_path / "given").mkdir(exist_ok=True)
        Image.fromarray(frame).save(tmp_path / "given" / f"{i}.png")
    record = sample(
        model, tmp_path / "out", "--initial_frames", str(tmp_path / "given"), "--num_frames", "9"
    )
    samples = video(tmp_path / "out")
    assert samples.shape == (9, 16, 16, 1)
    assert samples[:3, 0, 0, 0].tolist() == [0, 40, 80]
    assert record["num_initial_frames"] == 3
    assert "16x20" in capsys.readouterr().err


def test_frame_rate_and_steps_reach_the_solver(model, tmp_path):
    sample(model, tmp_path / "a", "--fps", "16", "--num_frames", "11", "--num_samples", "1")
    held = np.load(tmp_path / "a" / "sample_00000.npz")
    assert np.diff(held["ticks"]).tolist() == [4800] * 10
    sample(model, tmp_path / "b", "--steps_per_frame", "4", "--num_samples", "1")
    sample(model, tmp_path / "c", "--num_samples", "1")
    assert not np.array_equal(video(tmp_path / "b"), video(tmp_path / "c"))


def test_second_run_removes_only_what_the_first_wrote(model, tmp_path):
    sample(model, tmp_path, "--num_samples", "4")
    (tmp_path / "mine.mp4").write_bytes(b"keep")
    sample(model, tmp_path, "--num_samples", "1")
    assert not (tmp_path / "sample_00003.mp4").exists()
    assert (tmp_path / "mine.mp4").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--fps", "0"], "--fps is '0'"),
        (["--fps", "nan"], "--fps is 'nan'"),
        (["--interval", "2 parsecs"], "--interval is '2 parsecs'"),
        (["--fps", "1e6"], "--fps is 1000000.0"),
        (["--fps", "1e-300"], "--fps is 1e-300, but must be at least"),
        (["--interval", "10000week"], "but must be at least"),
        (["--num_samples", "0"], "--num_samples is 0"),
        (["--num_frames", "-1"], "--num_frames is -1"),
        (["--steps_per_frame", "0"], "--steps_per_frame is 0"),
        (["--temperature", "-1"], "--temperature is -1.0"),
        (["--seed", "-5"], "--seed is -5"),
        (["--num_initial_frames", "2"], "without --initial_frames"),
        (["--initial_frames", "nowhere.mp4"], "nowhere.mp4 does not exist"),
        (["--initial_frames", ".", "--num_initial_frames", "4"], "takes 1 to 3"),
    ],
)
def test_wrong_settings_end_with_a_word_and_code_2(model, tmp_path, capsys, arguments, named):
    options = ["--model_path", str(model), "--output_dir", str(tmp_path / "out"), *arguments]
    assert main(options) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_frame_left_to_generate_is_an_error(model, tmp_path, capsys):
    Image.new("L", (16, 16)).save(tmp_path / "a.png")
    arguments = ["--initial_frames", str(tmp_path / "a.png"), "--num_frames", "1"]
    where = ["--model_path", str(model), "--output_dir", str(tmp_path / "out")]
    assert main([*where, *arguments]) == 2
    assert "at least one must be generated" in capsys.readouterr().err


def test_model_that_takes_no_frames_says_so(tmp_path, capsys):
    blind = save_model(tmp_path / "blind", observation={"max_context": 0})
    where = ["--model_path", str(blind), "--output_dir", str(tmp_path / "out")]
    assert main([*where, "--initial_frames", str(tmp_path)]) == 2
    assert "max_context is 0" in capsys.readouterr().err


def test_folder_that_cannot_be_written_is_named(model, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    where = ["--model_path", str(model), "--output_dir", str(tmp_path / "file" / "out")]
    assert main(where) == 2
    assert "cannot be written" in capsys.readouterr().err
