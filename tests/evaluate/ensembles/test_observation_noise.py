"""The predictive distribution of a frame: decoded frames and the noise around them."""

from pathlib import Path
from types import SimpleNamespace

import factories
import numpy as np
import pytest
import torch

from sdevid import objectives
from sdevid.config import parse
from sdevid.evaluate.context import EvalContext, EvalOptions
from sdevid.evaluate.ensembles import futures
from sdevid.evaluate.ensembles.observation_noise import observation_noise

SCALE, FRAMES, CLIPS, MEMBERS = 0.06, 5, 10, 30
LAWS = {"gaussian": "normal", "laplace": "laplace"}


@pytest.fixture
def context(monkeypatch):
    """A film of grey 0.5 and noise, and a model that draws grey 0.5, whatever its state."""

    def make(likelihood, **observation):
        config = parse(
            factories.settings(
                frame_size=16,
                sequence_length=FRAMES,
                sde=factories.VECTOR,
                observation={"likelihood": likelihood, "scale": 0.2, "max_context": 2}
                | observation,
            )
        )
        draw = getattr(np.random.default_rng(0), LAWS[likelihood])
        film = 0.5 + draw(scale=SCALE, size=(CLIPS, FRAMES, 16, 16, 1))
        videos = np.rint(255 * film.clip(0, 1)).astype(np.uint8)

        def fixed(_index, _config, part):
            return SimpleNamespace(
                video=torch.from_numpy(videos[part.start : part.stop].copy()),
                values=videos[part.start : part.stop],
                ticks=config.frame_ticks(FRAMES).expand(len(part), -1),
                serial=torch.tensor(part),
                keys=tuple(map(str, part)),
            )

        monkeypatch.setattr(futures.stream, "fixed", fixed)
        monkeypatch.setattr(futures.baselines, "past_clips", lambda _: videos)
        clips = [SimpleNamespace(source=f"film {k}") for k in range(CLIPS)]
        index = type("Index", (), {"dataset": {}, "clips": clips, "__len__": lambda _: CLIPS})()
        torch.manual_seed(0)
        model = objectives.build(config).model.eval()
        torch.nn.init.zeros_(model.decoder.image.weight)
        torch.nn.init.zeros_(model.decoder.image.bias)
        options = EvalOptions(Path("unused"), samples=MEMBERS, context=2)
        return EvalContext(model, config, index, index, range(CLIPS), options)

    return make


@pytest.mark.parametrize("likelihood", LAWS)
def test_noise_fitted_to_training_clips_calibrates_a_right_model(context, likelihood):
    subject = context(likelihood)
    own = subject.model.likelihood
    scores = futures.run(subject)["futures"]
    assert scores["observation_noise"]["fitted_by"] == "training clips"
    assert scores["observation_noise"]["scale"] == pytest.approx(SCALE, rel=0.03)
    assert subject.model.likelihood is own
    entries = {k: v["channels"][0] for k, v in scores["forecasts"].items()}
    model, decoded = entries["model"], entries["model_without_noise"]
    for level in ("0.5", "0.9"):
        assert model["coverage"][level]["mean"] == pytest.approx(float(level), abs=0.02)
    assert model["spread_over_error"]["mean"] == pytest.approx(1, abs=0.03)
    assert model["ranks"]["reliability_index"] < 0.03
    assert decoded["spread_over_error"]["mean"] < 0.01
    assert decoded["coverage"]["0.9"]["mean"] < 0.2
    # without spread the score is the mean error; of a calibrated Gaussian, that over sqrt(2)
    ratio = model["crps"]["1"]["mean"] / decoded["crps"]["1"]["mean"]
    want = {"gaussian": 0.5**0.5, "laplace": 0.75}[likelihood]
    assert ratio == pytest.approx(want, abs=0.02)


def test_scale_that_training_fits_is_taken_as_it_is(context):
    subject = context("gaussian", fit_scale=True)
    noise = observation_noise(subject)
    assert noise.likelihood is subject.model.likelihood
    assert noise.record == {"likelihood": "gaussian", "fitted_by": "training"}
