"""Every command of the README, in its order, in a clone of the checkout.

What is appended here cuts training and measuring short; what needs a cluster, or
is run elsewhere, says so.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sdevid.sample import write

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
SHORT = {  # beginning of a command -> what makes it short
    "sdevid train": "max_clips=16 save_every=8 batch_size=8 sequence_length=8",
    "bash launch/local.sh": "max_clips=16 save_every=8 batch_size=8 sequence_length=8",
    "sdevid evaluate": "--num_clips 2 --samples 2 --rollouts 2 --rollout_frames 8 --draws 2",
    "sdevid sample": "--num_samples 1 --num_frames 8",
    "accelerate launch": "--num_samples 2 --num_frames 8",
    "sdevid law": "--num_clips 2 --seeds 1",
}
SERVERS = {"sdevid watch": "--port 0", "sdevid studio": "--port 0"}
ELSEWHERE = {  # beginning of a command -> where it runs
    "make demo": "a step of .ci/run",
    "make test": "a step of .ci/run",
    "bash launch/submit.sh": "queues on a cluster; tests/launch/test_slurm.py",
    "sbatch": "needs a cluster; tests/launch/test_slurm.py queues it on one",
    "squeue": "needs a cluster; tests/launch/test_slurm.py",
    "eval": "starts Slurm as root; tests/launch/test_slurm.py does",
    "bash slurm/cluster/down.sh": "ends that Slurm; tests/launch/test_slurm.py does",
}


def commands() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [
        line.partition("  #")[0] for block in BLOCK.findall(text) for line in block.splitlines()
    ]
    return [line.strip() for line in lines if line.strip()]


def beginning(command: str, table: dict[str, str]) -> str | None:
    return next((start for start in table if command.startswith(start)), None)


def test_every_way_of_running_is_used():
    for table in (SHORT, SERVERS, ELSEWHERE):
        for start in table:
            assert any(command.startswith(start) for command in commands()), start


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone with ten small videos in two folders, a clip, and `sdevid` on the PATH."""
    folder = tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    for number in range(10):
        place = folder / "my_videos" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        write.mp4(place / f"{number}.mp4", moving(number), 8.0)
    write.mp4(folder / "clip.mp4", moving(10), 8.0)
    program = tmp_path / "bin" / "sdevid"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m sdevid "$@"\n')
    program.chmod(0o755)
    return folder


def moving(number: int) -> np.ndarray:
    """A dark blob that wanders over a light ground, as under a microscope."""
    random = np.random.default_rng(number)
    positions = 32 + np.cumsum(random.normal(0, 0.7, (40, 2)), axis=0)
    y, x = np.mgrid[:64, :64]
    squared = np.square(x - positions[:, 0, None, None]) + np.square(
        y - positions[:, 1, None, None]
    )
    grey = 190 - 150 * np.exp(-squared / (2 * 2.5**2))
    return np.repeat(grey[..., None].astype(np.uint8), 3, axis=-1)


def environment(checkout: Path) -> dict[str, str]:
    here = os.pathsep.join([str(checkout), str(checkout / "kernels")])
    path = [str(checkout.parent / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    return os.environ | {
        "PYTHONPATH": here,
        "PATH": os.pathsep.join(path),
        "ACCELERATE_USE_CPU": "true",
        "PYTHONUNBUFFERED": "1",
    }


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_commands_of_the_readme_run_in_order(checkout):
    for command in commands():
        if beginning(command, ELSEWHERE) is not None:
            continue
        server = beginning(command, SERVERS)
        if server is not None:
            serve(f"{command} {SERVERS[server]}", checkout)
            continue
        more = SHORT.get(beginning(command, SHORT) or "", "")
        done = subprocess.run(
            ["bash", "-c", f"{command} {more}"],
            cwd=checkout,
            env=environment(checkout),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command} {more}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    run = checkout / "runs" / "mine"
    assert (run / "report.html").is_file()
    assert (run / "exported" / "README.md").is_file()
    assert list((run / "samples").glob("*.mp4"))


def serve(command: str, checkout: Path) -> None:
    """Start a server, wait until it says where it listens, and end it as Ctrl-C does."""
    with subprocess.Popen(
        shlex.split(command),
        cwd=checkout,
        env=environment(checkout),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as served:
        assert served.stdout is not None
        until = time.monotonic() + 120
        output = ""
        while "http://127.0.0.1:" not in output and time.monotonic() < until:
            output += served.stdout.readline()
        assert "http://127.0.0.1:" in output, output
        os.killpg(served.pid, signal.SIGINT)
        assert served.wait(timeout=60) == 0, output


@pytest.mark.slow
def test_python_of_the_readme_predicts(tmp_path, monkeypatch):
    """The block of Python, with the run and frames that it names at hand."""
    import factories
    from safetensors.torch import save_file

    from sdevid.config import dump, parse
    from sdevid.objectives import build_model

    config = parse(factories.settings(sequence_length=8))
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    save_file(build_model(config).state_dict(), folder / "model.safetensors")
    (folder / "config.yaml").write_text(dump(config))
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    frames = np.zeros((2, config.frame_size, config.frame_size, config.channels), np.uint8)
    names: dict[str, object] = {"frames": frames}
    exec(compile(source, "README.md", "exec"), names)
    future = names["future"]
    assert isinstance(future, np.ndarray)
    assert future.shape == (1, 32, *frames.shape[1:])
