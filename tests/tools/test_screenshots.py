"""The tool that takes the documentation's pictures, where it cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_missing_browser_is_named_with_its_packages(tmp_path):
    command = [sys.executable, "tools/screenshots.py", str(tmp_path), "--output_dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        "screenshots: chromium and chromedriver not found; on Debian: apt-get install chromium "
        "chromium-driver\n"
    )
    assert list(tmp_path.iterdir()) == []
