"""Gradients of captured micro-steps add up as those of plain ones: emulated, and on a GPU."""

from collections.abc import Callable

import pytest
import torch
from recorded_graphs import RecordedGraphs
from torch import Tensor

from sdevid import objectives
from sdevid.config import parse
from sdevid.sde import noise
from sdevid.train.graph.cuda_graph import CudaGraphs
from sdevid.train.graph.train_graph import Recorder, TrainGraph
from sdevid.types import frame_ticks

FRAMES, SIZE, CLIPS = 4, 16, 2
CONFIG = {
    "frame_size": SIZE,
    "channels": 1,
    "sequence_length": FRAMES,
    "encoder": {"channels": 8, "map_size": 4, "features": 16, "layers": 1, "heads": 2},
    "observation": {"max_context": 2},
    "text": {"encoder": "none"},
    "sde": {"latent": "map", "latent_size": 2, "hidden": 8},
}


def summed_gradients(device: str, recorder: Recorder | None, micro_batches: int) -> list[Tensor]:
    """Return the gradients of `micro_batches` passes over other clips, added up."""
    torch.manual_seed(0)
    objective = objectives.build(parse(CONFIG)).to(device)
    forward: Callable[..., dict[str, Tensor]] = objective.forward
    if recorder is not None:
        forward = TrainGraph(objective, recorder, print)
    ticks = frame_ticks(FRAMES).expand(CLIPS, -1).contiguous()
    for number in range(micro_batches):
        generator = torch.Generator().manual_seed(number)
        shape = (CLIPS, FRAMES, SIZE, SIZE, 1)
        video = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        serial = torch.arange(CLIPS) + number * CLIPS
        inputs = {"video": video, "ticks": ticks, "serial": serial}
        with objective.model.reading(ticks):
            terms = forward(
                **{name: tensor.to(device) for name, tensor in inputs.items()},
                kl_weight=torch.full((), 0.5, device=device),
            )
        terms["loss"].backward()
    return [p.grad.cpu() for p in objective.parameters() if p.grad is not None]


@pytest.mark.parametrize("micro_batches", [2, 4])
@pytest.mark.parametrize(
    ("device", "recorder"),
    [("cpu", RecordedGraphs), pytest.param("cuda", CudaGraphs, marks=pytest.mark.gpu)],
    ids=["emulated", "cuda"],
)
def test_captured_micro_steps_sum_to_plain_gradients(device, recorder, micro_batches, monkeypatch):
    if device == "cpu":  # as on a device, random numbers come from torch's operations
        monkeypatch.setattr(noise, "on_host", lambda _serial: False)
    plain = summed_gradients(device, None, micro_batches)
    captured = summed_gradients(device, recorder(), micro_batches)
    torch.testing.assert_close(captured, plain, rtol=1e-3, atol=1e-4)
