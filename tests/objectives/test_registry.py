"""Every objective's entry holds what it says, and sampling imports no objective."""

import inspect
import subprocess
import sys
from typing import get_args

import pytest
import torch

from sdevid import objectives
from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.models.video_model import VideoModel
from sdevid.objectives.clip_objective import ClipObjective
from sdevid.objectives.registry import ENTRIES, ModelType, takers_of
from sdevid.sde.solvers import SOLVERS
from sdevid.types import frame_ticks

TINY = {
    "frame_size": 8,
    "channels": 1,
    "sequence_length": 3,
    "observation": {"max_context": 1},
    "encoder": {"channels": 4, "map_size": 4, "features": 8, "layers": 1, "heads": 2},
    "text": {"encoder": "none"},
    "sde": {"latent_size": 2, "content_size": 2, "hidden": 8},
}


def test_registry_names_are_the_settings():
    assert set(get_args(ModelType)) == set(ENTRIES)


@pytest.mark.parametrize("name", ENTRIES)
def test_entry_classes_are_a_model_and_its_objective(name):
    entry, config = ENTRIES[name], parse(TINY | {"model_type": name})
    assert issubclass(entry.model_class(), VideoModel)
    assert issubclass(entry.objective_class(), ClipObjective)
    model = objectives.build_model(config)
    assert objectives.build(config, model).model is model


@pytest.mark.parametrize("name", ENTRIES)
def test_entry_with_a_bound_has_an_elbo_and_no_other(name):
    config = parse(TINY | {"model_type": name})
    video = torch.zeros(2, 3, 8, 8, 1, dtype=torch.uint8)
    terms = objectives.build(config).terms(video, frame_ticks(3).expand(2, -1), torch.arange(2))
    assert ("elbo" in terms) == config.capabilities.has_bound
    if config.capabilities.has_bound:
        kls = sum(terms[term] for term in terms if term.startswith("kl_"))
        torch.testing.assert_close(terms["elbo"], terms["reconstruction"] - kls)


@pytest.mark.parametrize("name", ENTRIES)
def test_entry_schemes_are_solvers(name):
    assert set(ENTRIES[name].capabilities.schemes or ()) <= set(SOLVERS)


@pytest.mark.parametrize(
    ("name", "need"),
    [(name, need) for name, entry in ENTRIES.items() for need in entry.capabilities.needs],
)
def test_setting_against_a_need_is_named(name, need):
    section, setting = need.setting.split(".")
    contrary = True if need.value is False else 2
    config = TINY | {"model_type": name, section: {**TINY.get(section, {}), setting: contrary}}
    with pytest.raises(
        UserError, match=f"{need.setting} is {contrary:g}, but model_type is {name}, which"
    ):
        parse(config)


def test_takers_of_an_option_are_those_that_declare_it():
    assert takers_of("bridge_diffusion") == ("follmer",)
    assert takers_of("no_such_option") == ()


def test_sampling_imports_no_objective():
    heavy = [inspect.getmodule(entry.objective_class()).__name__ for entry in ENTRIES.values()]
    start = "import sys; from sdevid.sample import sampler; from sdevid import objectives\n"
    start += "from sdevid.config import Config; objectives.build_model(Config())\n"
    start += f"found = sorted(set({heavy}) & sys.modules.keys()); assert not found, found"
    done = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
