"""The tutorial's commands as they are written, and the notebook from top to bottom."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def commands(page: str) -> list[str]:
    text = (ROOT / page).read_text()
    return [line for block in BLOCK.findall(text) for line in block.splitlines() if line.strip()]


@pytest.mark.slow
def test_tutorial_commands_run_as_written(tmp_path):
    for command in commands("docs/tutorial.md"):
        name, *arguments = shlex.split(command)
        assert name == "sdevid"
        done = subprocess.run(
            [sys.executable, "-m", "sdevid", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert (tmp_path / "runs" / "ou" / "report.html").is_file()
    assert (tmp_path / "runs" / "ou" / "exported" / "README.md").is_file()


@pytest.mark.slow
def test_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "kernels")]))
    notebook = json.loads((ROOT / "docs" / "notebooks" / "first-look.ipynb").read_text())
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert names["model"]._repr_html_().count("<video") == 1
    assert names["slow"].shape[1] == 8
    assert (tmp_path / "first-look" / "run" / "report.html").is_file()


@pytest.mark.slow
def test_site_builds_without_a_warning(tmp_path):
    builder = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*builder, ROOT / "docs", tmp_path / "site"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "sde.hidden" in (tmp_path / "site" / "generated" / "settings.html").read_text()
