"""A model that has learnt two captions shows what it is told; an untrained one does not."""

from dataclasses import dataclass
from pathlib import Path

import factories
import numpy as np
import pytest
import torch

from sdevid.config import parse
from sdevid.data import stream
from sdevid.data.cut.plan import Plan
from sdevid.data.cut.run import cut
from sdevid.data.shards import open_shards
from sdevid.data.spec import CutClip, CutSpec
from sdevid.errors import UserError
from sdevid.evaluate import registry, table
from sdevid.evaluate.context import EvalContext, EvalOptions
from sdevid.evaluate.metrics import prompts
from sdevid.models import text
from sdevid.objectives import build

SMALL = factories.settings(
    frame_size=8,
    sequence_length=4,
    sde={"latent_size": 2, "content_size": 2, "hidden": 16, "steps_per_frame": 1},
    observation={"max_context": 1, "free_fraction": 1.0},
    text={"encoder": "bytes", "layers": 1, "length": 8, "drop": 0.1},
)


@dataclass(frozen=True)
class Light:
    """A source of clips that are light on one side."""

    name: str
    label: str
    caption: str = ""
    split: str | None = None

    @property
    def group(self):
        return self.name

    def identity(self):
        return [self.name, self.label]

    def clips(self, spec):
        for k in range(6):
            shape = (spec.clip_length, spec.frame_size, spec.frame_size, 1)
            video = np.full(shape, 40 + k, np.uint8)
            half = slice(0, 4) if self.label == "left" else slice(4, 8)
            video[:, :, half] = 200 + k
            yield CutClip(self.name, float(k), video)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    lights = [Light("a.mp4", "left"), Light("b.mp4", "right")]
    spec = CutSpec(8, 8.0, 4, 4, "crop", "npy")
    plan = Plan("custom", [("train", light) for light in lights], spec, 64, {})
    cut(plan, folder, workers=0, max_bad_fraction=0.0, overwrite=False)
    return open_shards(folder, "train")


def trained(shards, steps, latent="vector"):
    config = parse(SMALL | {"sde": SMALL["sde"] | {"latent": latent}})
    torch.manual_seed(0)
    objective = build(config)
    read = text.tokenizer(config)
    batch = stream.fixed(shards, config, range(len(shards)))
    adam = torch.optim.Adam(objective.parameters(), 1e-2)
    for step in range(steps):
        inputs = text.text_inputs(read, batch, torch.device("cpu"))
        serial = batch.serial + step * len(shards)
        adam.zero_grad()
        objective(batch.video, batch.ticks, serial, 1.0, None, **inputs)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        adam.step()
    return context(objective.model, config, shards)


def context(model, config, shards):
    options = EvalOptions(Path("unused"))
    return EvalContext(model.eval(), config, shards, shards, range(len(shards)), options)


@pytest.mark.parametrize("latent", ["vector", pytest.param("map", marks=pytest.mark.slow)])
def test_model_that_has_learnt_its_captions_follows_them(shards, latent):
    """Light on the left or on the right: a map's cells must know their places to begin so."""
    estimate = prompts.followed(trained(shards, 150, latent))
    assert estimate["prompts"] == ["left", "right"]
    assert estimate["chance"] == 0.5
    plain, guided = estimate["scales"]["1"], estimate["scales"]["3"]
    assert plain["share"]["mean"] == 1
    assert plain["nats"]["mean"] == 0
    assert guided["nats"]["mean"] >= 0
    assert "by chance 0.5" in table.text(prompts.rows({"prompts": estimate}))


def test_untrained_model_follows_them_by_chance(shards):
    share = prompts.followed(trained(shards, 0))["scales"]["1"]["share"]["mean"]
    assert 0.2 < share < 0.8


def test_model_without_text_is_refused_with_the_reason(shards):
    config = parse(SMALL | {"text": {"encoder": "none"}})
    untold = context(build(config).model, config, shards)
    with pytest.raises(UserError, match="prompts, but the model was trained without text"):
        registry.choose("prompts", untold)
