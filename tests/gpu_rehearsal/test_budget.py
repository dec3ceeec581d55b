"""What a training step may ask of a GPU, for each config: counted on a pretended one.

Launches are those of Python; with `train_graph` a step from the second of its shape on is one.
"""

from __future__ import annotations

import pytest
import torch
from pretended_cuda import CUDA, MixedDevicesError, OnDevice, pretended_cuda
from rehearsal import train

slow = pytest.mark.slow
AHEAD = ("observation.ends_fraction=0.1", "observation.keyframes_fraction=0.1")
BUDGETS = [  # config, overrides, most launches
    pytest.param("demo", (), 510, id="demo"),
    pytest.param("demo", ("sde.order=2",), 2060, id="order 2", marks=slow),
    pytest.param("signs", (), 2080, id="signs", marks=slow),
    pytest.param("signs", ("model_type=sde_matching",), 930, id="matching", marks=slow),
    pytest.param("signs", ("model_type=follmer",), 850, id="follmer", marks=slow),
    pytest.param("smmnist", (), 2400, id="smmnist", marks=slow),
    pytest.param("brownian", (), 2930, id="particles", marks=slow),
    pytest.param("default", (), 4470, id="default", marks=slow),
    pytest.param("ucf101", (), 4750, id="ucf101", marks=slow),
    pytest.param("kinetics", (), 5490, id="kinetics", marks=slow),
    pytest.param("demo", ("text.encoder=bytes",), 655, id="text", marks=slow),
    pytest.param("signs", AHEAD, 2320, id="frames ahead", marks=slow),
    pytest.param("signs", ("size=S",), 6710, id="size S", marks=slow),
]


@pytest.mark.parametrize(("config", "overrides", "launches"), BUDGETS)
def test_a_training_step_keeps_its_budget(config, overrides, launches):
    asked = train(config, *overrides)
    assert not asked.waits
    assert not asked.copies
    assert asked.launches <= launches


def test_what_waits_copies_or_mixes_is_counted():
    with pretended_cuda() as device:
        made = torch.ones(3, device="cuda")
        assert isinstance(made, OnDevice)
        (made * 2).sum().item()
        torch.zeros(3).to(CUDA)
        made.cpu()
        with pytest.raises(MixedDevicesError):
            made + torch.zeros(3)
        assert sum(device.waits.values()) == 2
        assert sum(device.copies.values()) == 1
        assert device.launches["aten::mul"] == device.launches["aten::sum"] == 1
