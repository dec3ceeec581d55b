"""Several runs on one page, and what is said of a run that went wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

from sdevid.config import dump, parse
from sdevid.report.__main__ import main
from sdevid.report.page import page
from sdevid.report.record import read

SETTINGS = {"frame_size": 16, "channels": 1, "encoder": {"map_size": 4}}


def run(folder: Path, steps: list[int], **settings: object) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(dump(parse(SETTINGS | settings)))
    lines = [{"clips": 8 * s, "step": s, "time": 1e9 + 10 * s, "loss": 1.0 / s} for s in steps]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_two_runs_are_overlaid_with_settings_that_differ(tmp_path):
    first = run(tmp_path / "first", [1, 2, 3])
    second = run(tmp_path / "second <script>", [1, 2, 3], seed=7)
    assert main([str(first), str(second)]) == 0
    text = (first / "compare.html").read_text()
    assert "<td>seed</td><td>0</td><td>7</td>" in text
    assert "second &lt;script&gt;" in text
    assert "second <script>" not in text


def test_fifty_runs_have_a_colour_each_on_one_page(tmp_path):
    folders = [run(tmp_path / f"run-{k:02d}", [1, 2, 3], seed=k) for k in range(50)]
    assert main([*map(str, folders), "--output", str(tmp_path / "all.html")]) == 0
    text = (tmp_path / "all.html").read_text()
    assert "<h1>50 runs</h1>" in text
    assert len(set(re.findall(r'"colour":"(hsl[^"]*)"', text))) == 50
    assert len(text) < 2**20


def test_steps_that_run_backwards_are_said_first(tmp_path):
    text = page(read(run(tmp_path / "torn", [1, 2, 3, 2, 3, 4])))
    assert "Steps run out of order 1 times (first: 3, then 2)" in text
    assert text.index("Steps run out of order") < text.index("<h2")
    assert "went back, and on from there" in text


def test_failed_ending_is_said_and_escaped(tmp_path):
    folder = run(tmp_path / "failed", [1])
    (folder / "exit.json").write_text('{"reason": "nan", "message": "<b>lost</b>", "step": 1}')
    text = page(read(folder))
    assert "Training ended: nan. &lt;b&gt;lost&lt;/b&gt;" in text


def test_page_allows_its_own_scripts_by_hash_alone(tmp_path):
    text = page(read(run(tmp_path / "safe", [1])))
    policy = text.split('http-equiv="Content-Security-Policy" content="')[1].split('"')[0]
    assert policy.count("sha256-") == text.count("<script>") == 2
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
