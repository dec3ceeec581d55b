"""Compiled parts: the same losses, and a clear word where there is no compiler."""

import json

import pytest
import torch
from torch._dynamo.utils import counters

from sdevid import objectives
from sdevid.errors import UserError
from sdevid.train import compiled


def test_eager_run_needs_no_compiler(make_config, monkeypatch):
    monkeypatch.setenv("PATH", "")
    compiled.check_compiler(make_config(), torch.device("cpu"))
    assert compiled.compiled_summary(make_config()) == ""


@pytest.mark.parametrize(("device", "named"), [("cpu", r"g\+\+"), ("cuda", "gcc or clang")])
def test_machine_without_a_compiler_is_told_so(make_config, monkeypatch, device, named):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(UserError, match=f"needs {named}, which PATH does not have"):
        compiled.check_compiler(make_config(compile=True), torch.device(device))


def test_compiler_that_is_named_must_be_there(make_config, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="needs no-such-compiler"):
        compiled.check_compiler(make_config(compile=True), torch.device("cpu"))


def test_weights_that_come_and_go_are_not_compiled(make_config):
    with pytest.raises(UserError, match="zero_stage is 3"):
        compiled.check_compiler(make_config(compile=True, zero_stage=3), torch.device("cpu"))


@pytest.mark.parametrize("kind", ["latent_sde", "sde_matching", "follmer"])
def test_names_of_parameters_stay(make_config, kind):
    config = make_config(model_type=kind)
    plain, other = objectives.build(config), objectives.build(config)
    compiled.compile_parts(other.model)
    assert list(other.state_dict()) == list(plain.state_dict())


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "sde": {"latent": "map", "checkpoint": True},
            "consistency": {"warp": True},
            "precision": "bf16",
        },
    ],
    ids=["vector", "map, warped, bf16"],
)
def test_compiled_run_has_the_same_losses(make_config, train_here, capsys, settings):
    """Adam turns the rounding of small gradients into moves of up to the rate a step."""
    torch.compiler.reset()  # else a part compiled for another case is used again, and not counted
    graphs, rows = counters["stats"], []
    graphs.clear()
    for compile_ in (False, True):
        config = make_config(f"run-{compile_}", max_clips=12, compile=compile_, **settings)
        compiled.check_compiler(config, torch.device("cpu"))
        assert train_here(config) == "done"
        assert ("decoder compiled" in capsys.readouterr().out) == compile_
        assert (graphs["unique_graphs"] >= len(compiled.PARTS)) == compile_
        text = (config.run_dir / "metrics.jsonl").read_text()
        rows.append([json.loads(line) for line in text.splitlines()])
    near = 2.0**-7 if settings else 1e-4
    for plain, other in zip(*rows, strict=True):
        for name in ("loss", "reconstruction", "grad_norm"):
            assert other[name] == pytest.approx(plain[name], rel=near)
