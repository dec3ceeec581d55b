"""results.json of strangers: what is out of form is named, and no text reaches the page as HTML."""

from __future__ import annotations

import copy
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from sdevid.errors import UserError
from sdevid.report.page import page
from sdevid.report.record import read

SCRIPT = "<script>alert(1)</script>"
RESULTS: dict[str, Any] = {
    "protocol": {
        "clips": 3,
        "split": "val",
        "context": 2,
        "samples": 2,
        "checkpoint": "step_6",
        "weights": "ema",
        "seed": 0,
    },
    "provenance": {
        "command": "sdevid evaluate",
        "machine": {"gpus": [], "processor": "x", "cores": 2, "memory_gib": 4.0, "system": "y"},
        "versions": {"torch": "2"},
        "seconds": 3.0,
    },
    "elbo": {"elbo": {"mean": -1.0, "standard_error": 0.1, "interval": [-1.2, -0.8]}},
}


def written(folder: Path, place: tuple[str, ...], value: Any) -> Path:
    """A run folder whose results hold `value` at `place`."""
    results = copy.deepcopy(RESULTS)
    within = results
    for name in place[:-1]:
        within = within.setdefault(name, {})
    within[place[-1]] = value
    (folder / "config.yaml").write_text("{}\n", encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


def test_results_as_evaluate_writes_them_make_a_page(tmp_path):
    assert "3 clips of val" in page(read(written(tmp_path, ("more",), 1)))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("protocol", "split"), SCRIPT),
        (("protocol", "clips"), SCRIPT),
        (("futures", "members"), SCRIPT),
        (("protocol",), [1]),
        (("provenance",), None),
        (("elbo", "elbo", "mean"), "1"),
        (("elbo", "elbo", "standard_error"), -1.0),
        (("elbo", "elbo", "interval"), [1.0]),
        (("elbo",), {}),
        (("prediction",), {"psnr": 3}),
        (("more",), "x" * 10**5),
        (("more",), 2**80),
        (("more",), [[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]),
    ],
)
def test_results_out_of_form_are_named(tmp_path, place, value):
    with pytest.raises(UserError, match=r"results\.json"):
        page(read(written(tmp_path, place, value)))


@pytest.mark.parametrize("name", ["weights", "checkpoint"])
def test_text_of_results_is_escaped(tmp_path, name):
    assert SCRIPT not in page(read(written(tmp_path, ("protocol", name), SCRIPT)))


@pytest.mark.parametrize("text", ["{", "[]", "null", "[" * 10**5, '{"protocol": NaN}', "\xff"])
def test_results_that_are_no_object_are_named(tmp_path, text):
    folder = written(tmp_path, ("more",), 1)
    (folder / "results.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"results\.json is damaged"):
        read(folder)


def test_pictures_that_open_to_gigabytes_are_not_opened(tmp_path):
    folder = written(tmp_path, ("more",), 1)
    with zipfile.ZipFile(folder / "results.npz", "w") as archive:
        archive.writestr("a.npy", b"")
        archive.filelist[0].file_size = 2**31  # as its directory says; nothing is opened to see it
    with pytest.raises(UserError, match=r"results\.npz is damaged \(it opens to more than"):
        read(folder)


def test_metrics_that_are_no_text_cost_their_lines_alone(tmp_path):
    folder = written(tmp_path, ("more",), 1)
    lines = [b'{"clips": 4}', b"\xff\xfe", b"[" * 10**5, b"[1]", b'{"clips": "x"}', b'{"clips": 8}']
    (folder / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert [line["clips"] for line in read(folder).metrics] == [4, 8]
