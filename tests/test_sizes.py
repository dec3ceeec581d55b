"""Named sizes with every packaged config: what they replace, what stays, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdevid.cli.run_config import PACKAGED
from sdevid.config import dump, load
from sdevid.errors import UserError
from sdevid.sizes import SIZES
from sdevid.train.summary.size_table import parameters, size_table, sized

CONFIGS = {path.stem: path for path in sorted(PACKAGED.glob("*.yaml"))}
PARTICLES = [name for name, path in CONFIGS.items() if load(path).sde.latent == "particles"]
MAPS = [name for name in CONFIGS if name not in PARTICLES]
LEAST = {"S": 2e6, "B": 2e7, "L": 8e7, "XL": 2.5e8, "1B": 6e8}  # of frames of 32 pixels


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("config", MAPS)
def test_size_on_the_command_line_replaces_the_config(config, size):
    sized_config = load(CONFIGS[config], [f"size={size}"])
    for section, values in SIZES[size].items():
        own = getattr(sized_config, section).model_dump()
        assert {key: own[key] for key in values} == values
    blocks = SIZES[size]["sde"]["depth"] * 18 * SIZES[size]["sde"]["hidden"] ** 2
    assert parameters(sized_config) > max(LEAST[size], 2 * blocks)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("config", PARTICLES)
def test_size_of_a_config_of_particles_is_refused(config, size):
    with pytest.raises(UserError, match=rf"size is {size}, .*sde.latent is particles"):
        load(CONFIGS[config], [f"size={size}"])
    overrides = [f"size={size}", "sde.latent=map", "sde.noise=additive"]
    assert parameters(load(CONFIGS[config], overrides)) > LEAST[size]


def test_override_beside_a_size_wins():
    notes: list[str] = []
    config = load(
        CONFIGS["default"], ["encoder.layers=3", "size=B", "sde.hidden=192"], notes.append
    )
    assert (config.sde.hidden, config.encoder.layers) == (192, 3)
    assert config.sde.depth == SIZES["B"]["sde"]["depth"]
    assert config.sde.start == "birth"
    assert parameters(config) > 0
    (note,) = notes
    assert note.startswith("size=B replaces the config's sde.content_size 128 by 256, ")
    assert "hidden" not in note
    assert "layers" not in note


def test_section_given_whole_beside_a_size_wins():
    config = load(CONFIGS["default"], ["size=B", "sde={hidden: 192}"])
    assert config.sde.hidden == 192
    assert config.sde.depth == SIZES["B"]["sde"]["depth"]


def test_size_in_a_file_keeps_its_settings(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("size: B\nsde: {hidden: 240}\n")
    notes: list[str] = []
    config = load(path, ["batch_size=4"], notes.append)
    assert (config.sde.hidden, config.sde.heads) == (240, SIZES["B"]["sde"]["heads"])
    with pytest.raises(UserError, match=r"sde.hidden is 240.*named size"):
        parameters(load(path, ["sde.heads=7"]))
    assert not notes


def test_size_given_again_replaces_nothing(tmp_path: Path):
    config = load(CONFIGS["default"], ["size=L"])
    (tmp_path / "config.yaml").write_text(dump(config))
    notes: list[str] = []
    assert load(tmp_path / "config.yaml", ["size=L"], notes.append) == config
    assert not notes


@pytest.mark.parametrize("config", MAPS)
def test_size_table_counts_what_the_command_line_makes(config):
    count = parameters(load(CONFIGS[config], ["size=S"]))
    assert parameters(sized(load(CONFIGS[config]), "S")) == count


def test_size_table_of_particles_says_why_there_is_none():
    (line,) = size_table(load(CONFIGS["brownian"]))
    assert "sde.latent is particles" in line
