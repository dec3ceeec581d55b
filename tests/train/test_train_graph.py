"""A replayed micro-step is the step: its gradients add up, at every stage of ZeRO."""

from __future__ import annotations

import pytest
import torch
from recorded_graphs import RecordedGraphs

from sdevid import objectives
from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.sde import noise
from sdevid.train.engine import Engine
from sdevid.train.graph import train_graph
from sdevid.types import Batch, frame_ticks

FRAMES, SIZE = 4, 16
SHORT = {"sequence_length": FRAMES}
MAP = {"latent": "map", "latent_size": 2, "hidden": 8}


@pytest.fixture
def drawn_as_on_a_device(monkeypatch):
    """Random numbers come from torch's operations, not from numpy, which no graph would see."""
    monkeypatch.setattr(noise, "on_host", lambda _serial: False)


def batch(first: int, clips: int, stride: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(first)
    shape = (clips, FRAMES, SIZE, SIZE, 1)
    return Batch(
        video=torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        ticks=(stride * frame_ticks(FRAMES)).expand(clips, -1).contiguous(),
        serial=torch.arange(first, first + clips),
        keys=("key",) * clips,
        captions=("",) * clips,
    )


def gradients(config: Config, world, recorder: RecordedGraphs | None):
    """Norms of each step's gradient and the weights after the last, and the terms."""
    torch.manual_seed(0)
    engine = Engine(objectives.build(config), config, world, recorder=recorder)
    micro = config.micro_batch_size or config.batch_size
    results = []
    for step in range(2):
        first = range(step * config.batch_size, (step + 1) * config.batch_size, micro)
        terms = engine.step([batch(place, micro) for place in first], 0.3 + 0.1 * step, 1e-3)
        results.append({name: float(value) for name, value in terms.items()})
    return results, [shard.tensor.detach().clone() for shard in engine.parameter_shards()]


@pytest.mark.usefixtures("drawn_as_on_a_device")
@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("micro", [4, 2, 1])
def test_replayed_micro_batches_are_the_plain_step(stage, micro, make_config, world):
    config = make_config(zero_stage=stage, micro_batch_size=micro, sde=MAP, **SHORT)
    recorder = RecordedGraphs()
    plain, weights = gradients(config, world, None)
    replayed, got = gradients(config, world, recorder)
    assert recorder.recorded == 1
    assert recorder.replayed == 2 * 4 // micro - 1
    for one, other in zip(plain, replayed, strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-6)
    torch.testing.assert_close(got, weights, rtol=1e-4, atol=1e-5)


KINDS = {
    "ahead": {"observation": {"ends_fraction": 0.3, "keyframes_fraction": 0.3}, "sde": MAP},
    "text": {"text": {"encoder": "bytes", "length": 8}, "sde": MAP},
    "bf16": {"precision": "bf16", "sde": MAP},
    "birth": {"sde": MAP | {"start": "birth"}, "birth": {"hidden": 16, "drawn": 2}},
    "matching": {"model_type": "sde_matching", "sde": MAP},
    "follmer": {"model_type": "follmer", "sde": MAP},
    "consistency": {"sde": MAP, "consistency": {"prior_consistency": 1.0, "prior_frames": 2}},
    "particles": {
        "sde": {"latent": "particles", "hidden": 8, "noise": "carried"},
        "particles": {"count": 4, "hidden": 8},
    },
    "order 2": {"sde": MAP | {"order": 2}},
    "checkpoint": {"sde": MAP | {"gradient": "checkpoint"}},
}


@pytest.mark.usefixtures("drawn_as_on_a_device")
@pytest.mark.parametrize("kind", KINDS)
def test_every_objective_replays_on_other_clips(kind, make_config, world):
    config = make_config(zero_stage=0, micro_batch_size=2, **SHORT | KINDS[kind])
    plain, weights = gradients(config, world, None)
    replayed, got = gradients(config, world, RecordedGraphs())
    for one, other in zip(plain, replayed, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-5)
    torch.testing.assert_close(got, weights, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("drawn_as_on_a_device")
def test_shapes_that_do_not_come_again_run_plain(make_config, world, capsys):
    config = make_config(zero_stage=0, sde=MAP, **SHORT)
    recorder = RecordedGraphs()
    engine = Engine(objectives.build(config), config, world, recorder=recorder)
    for stride in (1, 2, 3):
        engine.step([batch(0, 4, stride)], 1.0, 1e-3)
    assert recorder.recorded == 0
    for stride in (1, 2, 3, 4, 4, 5, 5):
        engine.step([batch(0, 4, stride)], 1.0, 1e-3)
    assert recorder.recorded == 4
    assert "more than 4 shapes" in capsys.readouterr().out


@pytest.mark.usefixtures("drawn_as_on_a_device")
def test_second_replay_before_the_backward_is_refused(make_config, world):
    config = make_config(zero_stage=0, sde=MAP, **SHORT)
    engine = Engine(objectives.build(config), config, world, recorder=RecordedGraphs())
    for _ in range(2):
        engine.step([batch(0, 4)], 1.0, 1e-3)
    first = engine._forward(batch(4, 4), 1.0)
    engine._forward(batch(8, 4), 1.0)
    with pytest.raises(RuntimeError, match="replayed before the backward"):
        engine._engine.backward(first["loss"])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"zero_stage": 0}, "training is on cpu"),
        ({"zero_stage": 3}, "ZeRO 3 gathers"),
        ({"sde": {"solver": "heun"}}, "heun looks at its coefficients"),
    ],
    ids=str,
)
def test_graph_that_cannot_be_had_is_named(settings, reason, make_config, world):
    config = make_config(train_graph="on", **settings)
    with pytest.raises(UserError, match=reason):
        Engine(objectives.build(config), config, world)
    auto = config.model_copy(update={"train_graph": "auto"})
    assert reason in train_graph.describe(auto, world.device)
