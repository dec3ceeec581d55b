"""A run that starts from the weights of another."""

import shutil

import factories
import pytest
import torch

from sdevid import objectives
from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.train.warm_start import start_from

PARTICLES = {"count": 16, "appearance": 3, "hidden": 16}


def particles(presence: str, **changes: int) -> dict:
    return factories.settings(
        frame_size=32,
        encoder={"map_size": 8},
        sde={"latent": "particles", "noise": "carried"},
        particles=PARTICLES | {"presence": presence} | changes,
        observation={"max_context": 1},
    )


def test_parts_that_fit_are_copied_and_others_stay(tmp_path):
    source = factories.save_model(tmp_path / "source", particles("static"))
    model = objectives.build_model(parse(particles("depth")))
    before = {name: p.clone() for name, p in model.named_parameters()}
    line = start_from(model, source)
    weights = dict(objectives.build_model(parse(particles("static"))).named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in weights), name
    assert "new: control.depth" in line
    assert "law.log_depth_rate" in line


def test_weights_of_one_shape_are_copied_to_the_bit(tmp_path):
    source = factories.save_model(tmp_path / "source", particles("static"))
    first, second = (objectives.build_model(parse(particles("static"))) for _ in range(2))
    for model in (first, second):
        assert "new" not in start_from(model, source)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_folder_without_a_model_is_named(tmp_path):
    model = objectives.build_model(parse(particles("static")))
    with pytest.raises(UserError, match=r"start_from: model_path .*nothing does not exist"):
        start_from(model, tmp_path / "nothing")


def test_model_of_which_nothing_fits_is_named(tmp_path):
    source = factories.save_model(tmp_path / "source", factories.settings())
    model = objectives.build_model(parse(particles("static")))
    with pytest.raises(UserError, match="none of its weights fits"):
        start_from(model, source)


def test_run_starts_from_a_model_once_and_says_so(tmp_path, make_config, train_here, capsys):
    train_here(make_config("first", max_clips=8))
    source = tmp_path / "first"
    train_here(make_config("second", max_clips=8, start_from=str(source)))
    assert f"start_from {source}: " in capsys.readouterr().out
    shutil.rmtree(source)
    train_here(make_config("second", max_clips=16, start_from=str(source)))
    assert "carries on from step 2" in capsys.readouterr().out
