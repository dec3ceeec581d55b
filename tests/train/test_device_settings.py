"""TF32, cuDNN and layout as the config says, and what stays float32 beside bf16 networks."""

from __future__ import annotations

import gc
import itertools

import factories
import pytest
import torch
from torch import nn

from sdevid import objectives
from sdevid.checkpoint import Progress
from sdevid.config import Config, parse
from sdevid.data import stream
from sdevid.models import trajectory
from sdevid.train import loop, run
from sdevid.train.device_settings import backend_flags, is_channels_last, set_channels_last
from sdevid.train.engine import Engine


def flags() -> tuple[bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("benchmark", [False, True])
def test_flags_are_set_and_restored(tf32, benchmark):
    before = flags()
    with backend_flags(parse(factories.settings(tf32=tf32, cudnn_benchmark=benchmark))):
        assert flags() == (tf32, tf32, benchmark)
    assert flags() == before


@pytest.mark.parametrize(
    ("settings", "device", "expected"),
    [
        ({}, "cpu", False),
        ({"precision": "bf16"}, "cpu", False),
        ({}, "cuda", False),
        ({"precision": "bf16"}, "cuda", True),
        ({"precision": "bf16", "channels_last": "off"}, "cuda", False),
        ({"channels_last": "on"}, "cpu", True),
    ],
)
def test_channels_last_by_itself_is_bf16_on_cuda(settings, device, expected):
    config = parse(factories.settings(**settings))
    assert is_channels_last(config, torch.device(device)) is expected


def first_loss(config: Config, index) -> tuple[float, set[bool]]:
    """The loss of a batch, and whether convolutions took channels last."""
    torch.manual_seed(0)
    objective = objectives.build(config)
    if is_channels_last(config, torch.device("cpu")):
        set_channels_last(objective.model)
    layouts: set[bool] = set()
    for part in objective.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(
                lambda _part, inputs, _out: layouts.add(
                    inputs[0].is_contiguous(memory_format=torch.channels_last)
                )
            )
    (batch,) = next(stream.steps(index, config, 0, 1, 0))
    terms = objective(batch.video, batch.ticks, batch.serial, 1.0)
    terms["loss"].backward()
    return terms["loss"].item(), layouts


def test_channels_last_gives_the_same_loss_in_another_layout(make_config, index):
    plain, layouts = first_loss(make_config(), index)
    moved, moved_layouts = first_loss(make_config(channels_last="on"), index)
    assert False in layouts
    assert moved_layouts == {True}
    assert moved == pytest.approx(plain, rel=1e-4)


def test_training_steps_run_with_flags_and_a_frozen_heap(make_config, world, monkeypatch):
    config = make_config(max_clips=8, tf32=True, channels_last="on", preflight=False)
    config.run_dir.mkdir()
    seen, steps, before = [], loop._steps, flags()

    def watched(*arguments):
        seen.append((flags()[:2], gc.get_freeze_count() > 0))
        return steps(*arguments)

    monkeypatch.setattr(loop, "_steps", watched)
    assert run._train(config, world, Progress(), trust_checkpoint=False) == "done"
    assert seen == [((True, True), True)]
    assert flags() == before
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("latent", ["vector", "map"])
def test_bf16_keeps_state_noise_and_sums_in_float32(latent, make_config, index, world, monkeypatch):
    """A network computes in bf16; the problem that is solved, its path and the loss do not."""
    sde = {"latent": latent, "latent_size": 2, "content_size": 3, "hidden": 8, "depth": 1}
    config = make_config(precision="bf16", sde=sde)
    objective = objectives.build(config)
    types: dict[str, set[torch.dtype]] = {
        name: set() for name in ("network", "start", "noise", "path")
    }
    solve = trajectory.solve.solve

    def watched(problem):
        path = solve(problem)
        types["start"].add(problem.start.dtype)
        types["path"] |= {part.dtype for part in path}
        types["noise"].add(problem.noise.increments(problem.ticks).dtype)
        return path

    monkeypatch.setattr(trajectory.solve, "solve", watched)
    for part in objective.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(lambda _p, _i, out: types["network"].add(out.dtype))
    engine = Engine(objective, config, world)
    batches = next(itertools.islice(stream.steps(index, config, 0, 1, 0), 1))
    terms = engine.step(batches, 1.0, 1e-3)
    assert types["network"] == {torch.bfloat16}
    assert types["start"] == types["noise"] == types["path"] == {torch.float32}
    assert {term.dtype for term in terms.values()} == {torch.float32}
