"""Transformers over the cells of a map: what they are told, what is kept, and the named sizes."""

import factories
import pytest
import torch

from sdevid.config import dump, load, parse
from sdevid.errors import UserError
from sdevid.models.backbone import state_network
from sdevid.objectives import build, build_model
from sdevid.sizes import SIZES
from sdevid.train.summary.size_table import parameters, size_table, sized
from sdevid.types import frame_ticks

SDE = {"latent": "map", "latent_size": 3, "hidden": 32, "depth": 2, "backbone": "transformer"}
SMALL = factories.settings(sde=SDE | {"content_size": 4})


def network(**more):
    torch.manual_seed(0)
    transformer = state_network(parse({"sde": SDE | more}).sde, 5)
    for parameter in transformer.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return transformer


def test_transformer_starts_at_zero_with_any_condition():
    config = parse({"sde": SDE}).sde
    z, one = torch.randn(2, 3, 4, 4), torch.randn(2, 32, 1, 1)
    assert state_network(config, 5)(z, one).abs().max() == 0
    transformer = network()
    assert transformer(z, one).shape == (2, 5, 4, 4)
    torch.testing.assert_close(transformer(z, one), transformer(z, one.expand(-1, -1, 4, 4)))


def test_every_cell_sees_every_other_and_where_it_lies():
    transformer, z, condition = network(), torch.randn(1, 3, 4, 4), torch.randn(1, 32, 1, 1)
    shifted = z.clone()
    shifted[:, :, 0, 0] += 1
    assert (
        (transformer(shifted, condition) - transformer(z, condition)).abs().amax((0, 1)) > 1e-6
    ).all()
    turned = transformer(z.flip(-1), condition).flip(-1)
    assert (turned - transformer(z, condition)).abs().max() > 1e-3


@pytest.mark.parametrize("settings", [{}, {"backbone": "plain"}])
def test_checkpointing_keeps_less_and_changes_no_gradient(settings):
    results, kept = [], []
    for again in (False, True):
        transformer = network(checkpoint=again, **settings)
        z = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
        size = 0

        def count(tensor):
            nonlocal size
            size += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            out = transformer(z, torch.ones(2, 32, 1, 1))
        out.square().sum().backward()
        results.append([z.grad, *(p.grad for p in transformer.parameters())])
        kept.append(size)
    torch.testing.assert_close(results[0], results[1])
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.parametrize("kind", ["latent_sde", "sde_matching", "follmer"])
def test_every_kind_learns_and_samples_with_a_transformer(kind):
    torch.manual_seed(0)
    clip_objective = build(parse(SMALL | {"model_type": kind}))
    for parameter in clip_objective.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    video = torch.randint(0, 256, (8, 6, 16, 16, 1), dtype=torch.uint8)
    ticks, serial = frame_ticks(6).expand(8, -1), torch.arange(8)
    clip_objective(video, ticks, serial, 1.0)["loss"].backward()
    still = [n for n, p in clip_objective.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []
    result = clip_objective.model.sample(ticks[:2], seed=0, serial=serial[:2])
    assert result.shape == (2, 6, 1, 16, 16)


@pytest.mark.parametrize(
    ("sde", "named"),
    [({"latent": "vector"}, "sde.latent is vector"), ({"hidden": 36}, "sde.hidden is 36")],
)
def test_transformer_refuses_unsupported_settings(sde, named):
    with pytest.raises(UserError, match=named):
        build(parse(SMALL | {"sde": SDE | sde}))


def test_sizes_are_what_their_names_say():
    about = {"S": 5.6e6, "B": 33e6, "L": 120e6, "XL": 380e6, "1B": 1e9}
    config = parse({"text": {"encoder": "none"}})
    for name in SIZES:
        assert parameters(sized(config, name)) == pytest.approx(about[name], rel=0.05), name
    lines = list(size_table(config))
    assert len(lines) == 1 + len(SIZES)
    assert f"{parameters(sized(config, 'B')):,} = " in lines[2]


@pytest.mark.parametrize("name", SIZES)
def test_fifth_of_a_size_draws(name):
    config = sized(parse({}), name)
    with torch.device("meta"):
        model = build_model(config)
    counts = {n: sum(p.numel() for p in part.parameters()) for n, part in model.parts().items()}
    assert counts["decoder"] >= 0.2 * sum(counts.values())


def test_size_holds_where_the_config_says_nothing(tmp_path):
    config = parse({"size": "B", "sde": {"depth": 2}, "encoder": {"map_size": 4}})
    assert (config.sde.hidden, config.sde.depth, config.encoder.map_size) == (384, 2, 4)
    (tmp_path / "a.yaml").write_text(dump(config))
    assert load(tmp_path / "a.yaml") == config
    with pytest.raises(UserError, match="size is 'M'"):
        parse({"size": "M"})
