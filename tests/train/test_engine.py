"""The engine takes the steps that plain torch takes, under every stage of ZeRO."""

from __future__ import annotations

import importlib
import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from sdevid import objectives
from sdevid.config import Config
from sdevid.data import stream
from sdevid.errors import UserError
from sdevid.train.ema import EMA
from sdevid.train.engine import Engine, parameter_groups

STEPS, RATE = 4, 1e-2


def batches(config: Config, index):
    return list(itertools.islice(stream.steps(index, config, 0, 1, 0), STEPS))


def plain(config: Config, index):
    """Losses, gradient norms and weights of the steps in plain torch."""
    torch.manual_seed(0)
    objective = objectives.build(config)
    groups = parameter_groups(objective, config)
    for group in groups:
        group["lr"] = RATE * group.pop("ratio")
    optimizer = torch.optim.AdamW(groups, eps=config.adam_epsilon, fused=True)
    losses, norms = [], []
    for step in batches(config, index):
        loss = torch.stack(
            [objective(b.video, b.ticks, b.serial, 0.5)["loss"] for b in step]
        ).mean()
        (loss / config.values_per_clip).backward()
        norms.append(nn.utils.clip_grad_norm_(objective.parameters(), config.gradient_clip).item())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, norms, dict(objective.named_parameters())


def engined(config: Config, index, world):
    torch.manual_seed(0)
    engine = Engine(objectives.build(config), config, world)
    terms = [engine.step(step, 0.5, RATE) for step in batches(config, index)]
    return engine, [t["loss"].item() for t in terms], [t["grad_norm"].item() for t in terms]


def weights_of(engine: Engine) -> dict[str, torch.Tensor]:
    flat = {name: torch.full(shape, torch.nan).flatten() for name, shape in engine.shapes.items()}
    for shard in engine.parameter_shards():
        for s in shard.slices:
            part = shard.tensor.detach().flatten()[s.in_shard : s.in_shard + s.count]
            flat[s.name][s.in_parameter : s.in_parameter + s.count] = part
    return {name: flat[name].view(shape) for name, shape in engine.shapes.items()}


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_each_stage_takes_the_steps_of_plain_torch(stage, make_config, index, world):
    config = make_config(zero_stage=stage, weight_decay=0.1)
    losses, norms, weights = plain(config, index)
    engine, got_losses, got_norms = engined(config, index, world)
    torch.testing.assert_close(got_losses, losses, rtol=1e-4, atol=0)
    torch.testing.assert_close(got_norms, norms, rtol=1e-3, atol=0)
    got = weights_of(engine)
    assert got.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(got[name], weight.detach(), rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(("limit", "clipped"), [(1e-6, 1.0), (1e6, 0.0)])
def test_step_says_whether_its_gradient_was_clipped(limit, clipped, make_config, index, world):
    config = make_config(gradient_clip=limit)
    engine = Engine(objectives.build(config), config, world)
    terms = engine.step(batches(config, index)[0], 0.5, RATE)
    assert float(terms["clipped"]) == clipped
    assert 1e-6 < float(terms["grad_norm"]) < 1e6  # of the loss per value, so of order 1


def test_accumulated_passes_make_the_step_of_the_whole_batch(make_config, index, world):
    _, whole, norm = engined(make_config(), index, world)
    _, parts, norm_of_parts = engined(make_config(micro_batch_size=1), index, world)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=0)
    torch.testing.assert_close(norm_of_parts, norm, rtol=1e-3, atol=0)


@pytest.mark.parametrize("stage", [0, 2])
def test_bf16_keeps_float32_weights_and_comes_near_float32(stage, make_config, index, world):
    _, exact, _ = engined(make_config(zero_stage=stage), index, world)
    engine, rough, _ = engined(make_config(zero_stage=stage, precision="bf16"), index, world)
    assert {shard.tensor.dtype for shard in engine.parameter_shards()} == {torch.float32}
    assert rough != exact
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0)


def test_prior_has_its_own_rate_and_only_matrices_decay(make_config):
    config = make_config(weight_decay=0.1, prior_learning_rate_ratio=4.0)
    objective = objectives.build(config)
    prior = objective.prior_parameter_names()
    place = {
        id(p): (group["ratio"], group["weight_decay"])
        for group in parameter_groups(objective, config)
        for p in group["params"]
    }
    for name, parameter in objective.named_parameters():
        assert place[id(parameter)] == (4.0 if name in prior else 1.0, 0.1 * (parameter.ndim > 1))


@pytest.mark.parametrize("stage", [1, 3])
def test_average_of_pieces_is_the_average_of_parameters(stage, make_config, index, world):
    config = make_config(zero_stage=stage)
    torch.manual_seed(0)
    engine = Engine(objectives.build(config), config, world)
    shards = engine.parameter_shards()
    ema = EMA([shard.tensor for shard in shards], 0.9)
    by_name = weights_of(engine)
    whole = EMA([w.clone() for w in by_name.values()], 0.9)
    for number, step in enumerate(batches(config, index), start=1):
        engine.step(step, 0.5, RATE)
        ema.update(number)
        for kept, new in zip(whole.weights, weights_of(engine).values(), strict=True):
            kept.copy_(new)
        whole.update(number)
    averages = dict(zip(by_name, whole.average, strict=True))
    for shard, average in zip(shards, ema.average, strict=True):
        for s in shard.slices:
            part = averages[s.name].flatten()[s.in_parameter : s.in_parameter + s.count]
            assert torch.equal(average.flatten()[s.in_shard : s.in_shard + s.count], part)


def test_batch_that_the_ranks_cannot_share_is_refused(make_config, world):
    config = make_config(micro_batch_size=3)
    with pytest.raises(UserError, match=r"batch_size is 4.*set batch_size=3 or 6"):
        Engine(objectives.build(config), config, world)


OFFLOADED = [
    (1, {"optimizer": "cpu"}),
    (2, {"optimizer": "cpu"}),
    (3, {"optimizer": "cpu"}),
    (3, {"optimizer": "cpu", "parameters": "cpu"}),
    (3, {"parameters": "cpu"}),
]


@pytest.mark.parametrize(("stage", "offload"), OFFLOADED)
def test_offloaded_engine_takes_the_same_steps(stage, offload, make_config, index, world):
    losses, norms, weights = plain(make_config(zero_stage=stage), index)
    engine, got_losses, got_norms = engined(
        make_config(zero_stage=stage, offload=offload), index, world
    )
    torch.testing.assert_close(got_losses, losses, rtol=1e-4, atol=0)
    torch.testing.assert_close(got_norms, norms, rtol=1e-3, atol=0)
    for name, weight in weights_of(engine).items():
        torch.testing.assert_close(weight, weights[name].detach(), rtol=1e-3, atol=2e-4)


def test_disk_that_is_not_there_is_named(make_config, world, tmp_path):
    offload = {"parameters": "nvme", "nvme_path": str(tmp_path / "none")}
    config = make_config(zero_stage=3, offload=offload)
    with pytest.raises(UserError, match=r"offload.nvme_path is .*none, but there is no such"):
        Engine(objectives.build(config), config, world)


def test_nvme_without_the_library_that_reads_it_is_refused(
    make_config, world, tmp_path, monkeypatch
):
    builder = importlib.import_module("deepspeed.ops.op_builder").AsyncIOBuilder
    monkeypatch.setattr(builder, "is_compatible", lambda _self, **_told: False)
    offload = {"parameters": "nvme", "nvme_path": str(tmp_path)}
    config = make_config(zero_stage=3, offload=offload)
    with pytest.raises(UserError, match="needs the library libaio on every node"):
        Engine(objectives.build(config), config, world)


def test_weights_that_are_put_away_are_refused(make_config, world, monkeypatch):
    config = make_config(zero_stage=3)
    engine = Engine(objectives.build(config), config, world)
    engine.check_resident()
    first, *others = engine.parameter_shards()
    away = [replace(first, tensor=torch.empty(0)), *others]
    monkeypatch.setattr(engine, "parameter_shards", lambda: away)
    with pytest.raises(UserError, match=r"need them in memory: set offload\.optimizer=cpu"):
        engine.check_resident()
