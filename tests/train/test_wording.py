"""What a run is told in words, and what it says of that."""

from __future__ import annotations

import torch

from sdevid import objectives
from sdevid.config import parse
from sdevid.data.stream import fixed
from sdevid.models import text

BYTES = {"encoder": "bytes", "layers": 1, "length": 12}


def test_captions_are_read_by_default():
    assert parse({}).text.encoder == "bytes"


def test_clips_of_which_nothing_is_said_are_trained_without_and_the_run_says_so(
    make_config, train_here, index, capsys
):
    config = make_config(text=BYTES, max_clips=8)
    assert train_here(config) == "done"
    assert f"no clip of {config.data} has a caption or label" in capsys.readouterr().out
    torch.manual_seed(0)
    objective = objectives.build(config)
    batch = fixed(index, config, range(4))
    told = text.told(text.reader(config), batch.captions, torch.device("cpu"))
    loss = objective(batch.video, batch.ticks, batch.serial, 1.0, **told)["loss"]
    loss.backward()
    moved = {
        name
        for name, weight in objective.model.text.named_parameters()
        if weight.grad is not None and weight.grad.abs().max() > 0
    }
    assert moved == {"null"}


def test_a_run_without_text_says_so(make_config, train_here, capsys):
    assert train_here(make_config(max_clips=4)) == "done"
    assert "text none\n" in capsys.readouterr().out
