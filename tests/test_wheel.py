"""The wheel in an empty environment, away from the checkout: cut, train, sample."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: object, cwd: Path, **environment: str) -> str:
    outside = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=outside | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source") / "sdevid"
    run("git", "clone", "-q", ROOT, source, cwd=ROOT)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    run(sys.executable, "-m", "pip", "wheel", *options, source, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_wheel_holds_configs_scripts_types_and_licence(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    configs = {path.name for path in (ROOT / "configs").glob("*.yaml")}
    assert configs == {name[15:] for name in names if name.startswith("sdevid/configs/")}
    for name in ("sdevid/py.typed", "sdevid/scripts/launch/train.sh", "sdevid_kernels/__init__.py"):
        assert name in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_wheel_away_from_the_checkout_cuts_trains_and_samples(wheel, tmp_path):
    """The environment holds the wheel alone; its dependencies are lent by path, after it."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    lent = sysconfig.get_paths()["purelib"]
    (site / "lent.pth").write_text(f"{lent}\n")
    where = run(python, "-c", "import sdevid; print(sdevid.__file__)", cwd=tmp_path)
    assert where.startswith(str(tmp_path))
    drawn = ["--dataset", "double-well", "--num_clips", "12", "--clip_length", "16"]
    run(python, "-m", "sdevid", "shards", *drawn, "--output_dir", "shards", cwd=tmp_path)
    few = ["data=shards", "run_dir=run", "max_clips=32", "save_every=32", "batch_size=16"]
    run(python, "-m", "sdevid", "train", "--config", "demo", *few, cwd=tmp_path)
    out = ["--model_path", "run", "--output_dir", "out", "--num_frames", "4"]
    run(python, "-m", "sdevid", "sample", *out, cwd=tmp_path)
    assert list((tmp_path / "out").glob("*.mp4"))
