"""The law fitted to recorded paths finds drift and diffusion that are known, and is kept."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from sdevid import config as configs
from sdevid import export, objectives
from sdevid.cli import law as command
from sdevid.cli import shards as cutting
from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.evaluate.particles import law_refit
from sdevid.evaluate.particles.law_refit import Steps, fit, log_density
from sdevid.models.particles.law import ParticleLaw
from sdevid.models.particles.state import Content


def things(data: Path, **sde: object) -> Config:
    return configs.parse(
        {
            "frame_size": 32,
            "channels": 1,
            "fps": 6,
            "sequence_length": 6,
            "data": str(data),
            "sde": {"latent": "particles", "noise": "diagonal", "order": 2, "steps_per_frame": 1}
            | sde,
            "particles": {"count": 2, "patch": 12, "appearance": 4, "hidden": 16, "painter": 8}
            | {"ground": "level", "memory": 3},
            "observation": {"max_context": 4, "min_context": 2},
            "text": {"encoder": "none"},
        }
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brownian")
    arguments = "--dataset brownian --num_clips 12 --fps 6 --clip_length 12 --frame_size 32"
    given = [*arguments.split(), "--workers", "0", "--output_dir", str(folder)]
    assert cutting.main(given) == 0
    return folder


def walked(count: int, pull: float, diffusion: float) -> Steps:
    """Steps of two things by v' = v - pull v + diffusion N(0, 1)."""
    place, velocity = 8 + 16 * torch.rand(count, 2, 2), 2 * torch.randn(count, 2, 2)
    after = (1 - pull) * velocity + diffusion * torch.randn_like(velocity)
    look = torch.randn(count, 2, 4)
    content = Content(torch.zeros(count, 2, 1), look, place, torch.zeros(count, 1, 1, 1))
    return Steps(
        torch.cat([place, velocity], dim=-1),
        torch.cat([place + after, after], dim=-1),
        torch.ones(count, 2, dtype=torch.bool),
        content,
        torch.ones(count, 1, 1),
    )


def test_known_drift_and_diffusion_are_found():
    torch.manual_seed(0)
    law = ParticleLaw(things(Path("data")))
    fit(law, walked(8_000, 0.3, 0.5), 0, 400)
    fresh = walked(2_000, 0.3, 0.5)
    with torch.no_grad():
        motion = law.motion(fresh.before, law.conditions(fresh.content))
        reached = float(log_density(law, fresh))
    assert float((motion.pull + 0.3 * fresh.before[..., 2:4]).square().mean().sqrt()) < 0.15
    assert float(motion.diffusion.mean()) == pytest.approx(0.5, rel=0.1)
    most = -2 * (0.5 * math.log(2 * math.pi) + math.log(0.5) + 0.5)
    assert reached == pytest.approx(most, abs=0.15)


def test_steps_of_what_is_not_seen_do_not_count():
    torch.manual_seed(0)
    law, steps = ParticleLaw(things(Path("data"))), walked(50, 0.3, 0.5)
    wild = steps.after.clone()
    wild[:, 1] += 100
    first = steps.seen.clone()
    first[:, 1] = False
    right, lost = (steps._replace(after=after, seen=first) for after in (steps.after, wild))
    assert_close(log_density(law, right), log_density(law, lost))
    counted = steps._replace(after=wild)
    assert log_density(law, counted).item() < -1000 < log_density(law, counted, 0.02).item()


def test_thing_is_seen_where_painting_it_helps():
    model = objectives.build_model(things(Path("data")))
    views = torch.ones(1, 2, 1, 2, 12, 12)
    ground = torch.zeros(1, 1, 32, 32)
    logit, look, born = torch.full((1, 2, 1), 12.0), torch.zeros(1, 2, 4), torch.zeros(1, 2, 2)
    content = Content(logit, look, born, ground, views)
    states = torch.tensor([[8.0, 8, 0, 0], [23.0, 20, 0, 0]]).expand(1, 3, 2, 4).clone()
    frames = model.decoder(states, content)
    states[0, 1, 0, 0] = -20  # left the picture
    states[0, 2, 1] = torch.tensor([8.0, 24, 0, 0])  # stands where nothing is
    there = law_refit.seen(model, states, content, frames)
    assert there[0].tolist() == [[True, True], [False, True], [True, False]]


def test_refitted_law_is_exported_alone(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(law_refit, "UPDATES", 100)
    config = things(shards)
    model = objectives.build_model(config)
    with torch.no_grad():
        model.law.drift[-1].bias.fill_(3.0)  # pixel/frame^2, against which its posterior decides
        model.control.correct[-1].bias[2:] = 3.0
        model.law.log_length.fill_(2.5)
    export.write(model, config, tmp_path / "model")
    argued = [str(tmp_path / "model"), "--data", str(shards)]
    argued += ["--refit", str(tmp_path / "refitted")]
    assert command.main(argued) == 0
    record = json.loads((tmp_path / "refitted/law.json").read_text())["refit"]
    assert record["after"] > record["before"]
    (one, _), (other, _) = (export.load(tmp_path / name) for name in ("model", "refitted"))
    changed = set()
    for (name, before), after in zip(one.named_parameters(), other.parameters(), strict=True):
        if not torch.equal(before, after):
            changed.add(name.split(".")[0])
    assert changed == {"law"}
    assert_close(other.law.log_length, one.law.log_length)


def test_fit_that_does_not_help_leaves_the_law(shards, monkeypatch):
    monkeypatch.setattr(law_refit, "UPDATES", 0)
    objective = objectives.build(things(shards))
    with torch.no_grad():
        objective.model.law.log_diffusion.fill_(-1.0)
    before = [p.clone() for p in objective.model.law.parameters()]
    index = command._shards(str(shards), "train", objective.config)
    with pytest.raises(UserError, match="less likely"):
        law_refit.refit(objective, index, range(10))
    for old, new in zip(before, objective.model.law.parameters(), strict=True):
        assert_close(new, old, rtol=0, atol=0)
    with pytest.raises(UserError, match="1 window"):
        law_refit.refit(objective, index, range(1))


def test_what_a_refit_does_not_know_is_refused(shards):
    objective = objectives.build(things(shards, steps_per_frame=2))
    index = command._shards(str(shards), "train", objective.config)
    with pytest.raises(UserError, match="steps_per_frame is 2"):
        law_refit.refit(objective, index, range(4))
    walking = things(shards).model_dump()
    walking["particles"]["jitter_start"] = 0.2
    with pytest.raises(UserError, match=r"jitter_start is 0\.2"):
        law_refit.refit(objectives.build(configs.parse(walking)), index, range(4))
