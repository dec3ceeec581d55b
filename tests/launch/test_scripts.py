"""What the launch scripts say to a user, where no Slurm is needed."""

from __future__ import annotations

import os
import socket
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
    ("arguments", "environment", "message"),
    [
        (("launch/train.sh", "c.yaml"), {}, "sbatch launch/train.sh"),
        (("launch/local.sh",), {}, "give a config"),
        (("launch/local.sh", "c.yaml"), {"RANKS": "none"}, "RANKS is none"),
        (("launch/local.sh", "c.yaml"), {"PYTHON": "/none/python"}, "PYTHON is /none/python, but"),
        (("launch/sample.sh",), {"PYTHON": "none-such"}, "PYTHON is none-such, but"),
        (("slurm/preflight.sh", "c.yaml"), {}, "sbatch slurm/preflight.sh"),
        (("launch/chain.sh", "launch/train.sh"), {}, "N is 'launch/train.sh'"),
        (("launch/chain.sh", "3"), {}, "before what sbatch takes"),
        (("launch/submit.sh",), {}, "give what sbatch takes"),
        (("launch/sample.sh",), {"RANKS": "0"}, "RANKS is 0"),
        (("slurm/cluster/up.sh", "/tmp"), {}, "/tmp exists"),
        (("slurm/cluster/up.sh", "/tmp/none-such", "many"), {}, "NODES is many"),
        (("slurm/cluster/down.sh", "/tmp"), {}, "stays as it is"),
    ],
)
def test_misuse_is_told(arguments, environment, message):
    if arguments[0].endswith("up.sh") and os.getuid() != 0:
        message = "needs root"
    done = bash(*arguments, **environment)
    assert done.returncode == 2
    assert message in done.stderr


def test_ending_a_cluster_that_is_not_there_is_no_error():
    assert bash("slurm/cluster/down.sh", "/tmp/none-such").returncode == 0


def test_node_that_cannot_reach_the_first_is_named():
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    where = {"SDEVID_ADDRESSES": "127.0.0.1 127.0.0.1", "SDEVID_PORT": str(port)}
    where |= {"SLURM_NODEID": "1", "SLURMD_NODENAME": "n7", "SDEVID_ATTEMPT": "1-0"}
    done = bash("launch/local.sh", "c.yaml", SDEVID_REACH_SECONDS="1", **where)
    assert done.returncode == 2
    assert f"node n7 cannot reach the first node, 127.0.0.1 port {port}, within 1 s" in done.stderr


def test_container_is_asked_of_srun_where_the_site_has_one():
    show = 'scontrol() { echo; }; source slurm/job.sh; printf "%s\n" "${on_each_node[@]}"'
    job = {"SLURM_JOB_ID": "12345", "SLURM_JOB_NODELIST": "n0"}
    image = {"SDEVID_CONTAINER_IMAGE": "/images/torch.sqsh"}
    assert "--container" not in bash("-euc", show, **job).stdout
    started = bash("-euc", show, **job, **image).stdout.splitlines()
    assert "--container-image=/images/torch.sqsh" in started
    assert f"--container-workdir={ROOT}" in started
    assert f"--container-mounts={ROOT}:{ROOT}" in started


def test_caches_are_private_and_at_no_name_that_can_be_foretold(tmp_path):
    planted = tmp_path / "sdevid-7-1-n0"
    (planted / "triton").mkdir(parents=True)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "precious").touch()
    (tmp_path / "sdevid-7-0-n0.aaaaaaaaaa").symlink_to(theirs)  # looks like a former attempt's
    former = tmp_path / "sdevid-7-0-n0.bbbbbbbbbb"
    former.mkdir()
    show = 'umask 002; source launch/node.sh; stat -c "%a %n" "$TRITON_CACHE_DIR" "$cache"'
    where = {"SDEVID_CACHE": str(tmp_path / "sdevid-7-1"), "SLURMD_NODENAME": "n0"}
    done = bash("-euc", show, **where)
    assert done.returncode == 0, done.stderr
    rights, folders = zip(*(line.split() for line in done.stdout.splitlines()), strict=True)
    assert set(rights) == {"700"}
    assert folders[1] != str(planted)
    assert folders[1].startswith(f"{planted}.")
    assert (theirs / "precious").exists()
    assert not former.exists()


def test_port_that_is_taken_is_passed_over():
    show = 'scontrol() { echo; }; source slurm/job.sh; echo "$SDEVID_PORT"'
    job = {"SLURM_JOB_ID": "12345", "SLURM_JOB_NODELIST": "n0"}
    first = int(bash("-euc", show, **job).stdout)
    with socket.create_server(("127.0.0.1", first)):
        done = bash("-euc", show, **job)
    assert int(done.stdout) != first
    assert f"port {first} is taken" in done.stderr


@pytest.mark.parametrize(
    ("left", "seconds"),
    [
        ("5:00", "300"),
        ("1-00:00:00", "86400"),
        ("2:03:04", "7384"),
        ("59", "59"),
        ("08:09", "489"),
        ("UNLIMITED", ""),
        ("NOT_SET", ""),
        ("", ""),
    ],
)
def test_time_left_is_read_as_slurm_writes_it(left, seconds):
    done = bash("-euc", 'source launch/time_limit.sh; seconds_of "$1"', "-", left)
    assert done.stdout.strip() == seconds


@pytest.mark.parametrize(("left", "refused"), [("5:00", True), ("5:01", False), ("59", True)])
def test_time_limit_not_above_the_grace_is_too_short(left, refused):
    done = bash("-euc", 'source launch/time_limit.sh; too_short "$1"', "-", left)
    assert ("submit with --time=15 or more" in done.stdout) == refused


def test_grace_is_what_the_job_asks_of_slurm():
    grace = bash("-euc", 'source launch/time_limit.sh; echo "$grace"').stdout.strip()
    script = (ROOT / "launch/train.sh").read_text(encoding="utf-8")
    assert f"#SBATCH --signal=B:USR2@{grace}\n" in script
