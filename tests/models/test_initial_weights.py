"""A part's initial weights depend on its name and the seed, and on no other part."""

import subprocess
import sys

import factories
import pytest
import torch

from sdevid import objectives
from sdevid.config import parse
from sdevid.models.encoder import Residual
from sdevid.models.initial_weights import initial_weights, no_weights

SMALL = factories.settings(
    seed=3,
    sequence_length=4,
    observation={"max_context": 1},
    sde={"latent_size": 2, "content_size": 2, "hidden": 8},
)
ADDITIONS = {
    "text": {"text": {"encoder": "bytes", "layers": 1}},
    "guide": {"observation": {"max_context": 1, "keyframes_fraction": 0.5}},
    "warp": {"consistency": {"warp": True}},
}


def _weights(**settings):
    return objectives.build_model(parse(SMALL | settings)).state_dict()


@pytest.mark.parametrize("model_type", ["latent_sde", "sde_matching", "follmer"])
@pytest.mark.parametrize("part", ADDITIONS)
def test_adding_a_part_leaves_the_others_as_they_were(model_type, part):
    plain = _weights(model_type=model_type)
    more = _weights(model_type=model_type, **ADDITIONS[part])
    assert more.keys() > plain.keys()
    assert all(torch.equal(more[name], weight) for name, weight in plain.items())


def test_parts_of_two_objectives_with_one_name_start_alike():
    chain, matched = _weights(), _weights(model_type="sde_matching")
    shared = [name for name in chain if name in matched]
    assert any(name.startswith("prior.") for name in shared)
    assert all(torch.equal(chain[name], matched[name]) for name in shared)


def test_weights_are_the_seeds_and_leave_the_generator_alone():
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = _weights()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    again, other = _weights(), _weights(seed=4)
    name = "encoder.token.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_parts_of_one_shape_and_two_names_differ():
    draws = []
    for name in ("prior", "control"):
        with initial_weights(0, name):
            draws.append(torch.randn(4))
    assert not torch.equal(*draws)


def test_residual_blocks_start_as_the_identity():
    block = Residual(16)
    x = torch.randn(2, 16, 4, 4)
    torch.testing.assert_close(block(x), x)
    block(x).square().sum().backward()
    assert float(block.layers[-1].weight.grad.abs().sum()) > 0


def test_no_weights_have_the_shapes_of_weights():
    config = parse(SMALL)
    with no_weights():
        empty = objectives.build_model(config).state_dict()
    drawn = objectives.build_model(config).state_dict()
    assert {name: x.shape for name, x in empty.items()} == {n: x.shape for n, x in drawn.items()}
    assert all(x.is_meta for x in empty.values())


@pytest.mark.slow
def test_no_weights_are_drawn_without_the_compiler():
    """Of every packaged config: importing it takes longer than loading a model."""
    code = "import sys\n" + "\n".join(
        [
            "from sdevid.cli.run_config import PACKAGED",
            "from sdevid.config import load",
            "from sdevid.models.initial_weights import no_weights",
            "from sdevid.objectives import build_model",
            "for path in PACKAGED.glob('*.yaml'):",
            "    with no_weights():",
            "        build_model(load(path))",
            "    assert not {'torch._dynamo', 'sympy'} & set(sys.modules), path",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
