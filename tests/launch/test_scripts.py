"""What the launch scripts say to a user, where no Slurm is needed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for top in ("launch", "slurm")
    for path in (ROOT / top).rglob("*.sh")
)


def bash(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    return subprocess.run(
        ["bash", *arguments],
        cwd=ROOT,
        env=outside | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_parses(script):
    done = bash("-n", script)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (("launch/train.sh", "c.yaml"), {}, "sbatch launch/train.sh"),
        (("launch/local.sh",), {}, "give a config"),
        (("launch/local.sh", "c.yaml"), {"RANKS": "none"}, "RANKS is none"),
        (("launch/sample.sh",), {"RANKS": "0"}, "RANKS is 0"),
        (("slurm/cluster/up.sh", "/tmp"), {}, "/tmp exists"),
        (("slurm/cluster/up.sh", "/tmp/none-such", "many"), {}, "NODES is many"),
        (("slurm/cluster/down.sh", "/tmp"), {}, "stays as it is"),
    ],
)
def test_misuse_is_told(arguments, environment, said):
    if arguments[0].endswith("up.sh") and os.getuid() != 0:
        said = "needs root"
    done = bash(*arguments, **environment)
    assert done.returncode == 2
    assert said in done.stderr


def test_ending_a_cluster_that_is_not_there_is_no_error():
    assert bash("slurm/cluster/down.sh", "/tmp/none-such").returncode == 0
