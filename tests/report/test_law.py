"""The law's section of the page, from files as `sdevid law` writes them, and from strangers'."""

import json

import pytest

from sdevid.errors import UserError
from sdevid.report import law
from sdevid.report.record import Record, read

FIGURE = {"value": 3.1, "low": 3.0, "high": 3.2}
LAW = {
    "order": 1,
    "particles": 200,
    "clips": 64,
    "diffusion": FIGURE,
    "drift": [FIGURE, FIGURE],
    "length": 4.0,
    "posterior_step": FIGURE,
    "posterior_slope": FIGURE,
    "step_correlation": 0.05,
}


def blobs(diffusion: float) -> dict:
    return {
        "diffusion": diffusion,
        "low": diffusion - 0.1,
        "high": diffusion + 0.1,
        "counts": [4.0, 4.2, 4.1],
    }


def record(folder, content: dict | str) -> Record:
    (folder / "config.yaml").write_text("{}", encoding="utf-8")
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "law.json").write_text(text, encoding="utf-8")
    return read(folder)


def test_card_of_tracked_films_names_worst_rate(tmp_path):
    films = [
        {"fps": 6.0, "real": blobs(3.0), "futures": blobs(3.1)},
        {"fps": 12.0, "real": blobs(3.0), "futures": blobs(2.4)},
        {"fps": 3.0, "real": None, "futures": blobs(9.0)},
    ]
    name, value, sentence, wrong = law.card(record(tmp_path, {"law": LAW, "films": films}))
    assert (name, value, wrong) == ("Diffusion of futures", "2.40", True)
    assert "12 frames a second" in sentence
    assert "\u221220 %" in sentence.replace("-", "\u2212")


def test_section_shows_law_in_units_and_both_kinds_of_tracks(tmp_path):
    tracks = {
        "diffusion": {"mean": 2.5, "interval": [2.4, 2.6]},
        "count": {"first": 8.0, "last": 7.0},
    }
    run = record(
        tmp_path,
        {"law": LAW, "tracked": [{"fps": 24.0, "real": tracks, "generated": tracks}]},
    )
    text = law.section(run)
    assert "3.10 <small>[3.00, 3.20]</small>" in text
    assert "2.50 <small>[2.40, 2.60]</small>" in text
    assert "8.00 to 7.00" in text


@pytest.mark.parametrize(
    "content",
    [
        "{",
        {"law": LAW | {"diffusion": {"value": "<script>"}}},
        {"law": LAW | {"drift": [FIGURE]}},
        {"films": [{"fps": 0.0, "real": None, "futures": None}]},
        '{"law": {"order": NaN}}',
    ],
)
def test_law_file_out_of_form_is_named(tmp_path, content):
    with pytest.raises(UserError, match=r"law\.json is damaged"):
        record(tmp_path, content)


def test_run_of_particles_without_law_names_command(tmp_path):
    (tmp_path / "config.yaml").write_text("sde: {latent: particles}", encoding="utf-8")
    assert f"sdevid law {tmp_path}" in law.section(read(tmp_path))
