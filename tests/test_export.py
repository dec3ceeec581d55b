"""A trained model out of a run, without the trainer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import factories
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from sdevid import checkpoint, console, export
from sdevid.checkpoint import Manifest, ParameterShard, Slice
from sdevid.cli.main import main
from sdevid.config import Config, dump, parse
from sdevid.errors import UserError
from sdevid.objectives import build
from sdevid.owner import OwnedError, own

SMALL = factories.settings(
    sde={"latent_size": 2, "content_size": 3, "hidden": 8, "depth": 1},
    encoder={"channels": 4, "features": 8},
    observation={"max_context": 5},
    sequence_length=16,
)


@pytest.fixture(scope="module")
def config() -> Config:
    return parse(SMALL)


@pytest.fixture
def run_dir(tmp_path: Path, config: Config) -> Path:
    """A run with checkpoints of steps 1 and 2; averages are the weights plus the step."""
    for step in (1, 2):
        torch.manual_seed(step)
        objective = build(config)
        partial = tmp_path / "checkpoints" / ".partial"
        partial.mkdir(parents=True)
        parameters = dict(objective.named_parameters())
        shards = [
            ParameterShard(p.data, [Slice(n, 0, 0, p.numel())]) for n, p in parameters.items()
        ]
        average = [p.tensor + step for p in shards]
        checkpoint.write_rank(partial, 0, shards, average, checkpoint.random_state())
        buffers = {n: b for n, b in objective.state_dict().items() if n not in parameters}
        save_file(buffers, partial / "buffers.safetensors")
        (partial / "config.yaml").write_text(dump(config))
        files = {
            p.name: (p.stat().st_size, checkpoint.digest(p)) for p in checkpoint.files_of(partial)
        }
        shapes = {n: list(p.shape) for n, p in parameters.items()}
        manifest = Manifest(checkpoint.FORMAT, 4 * step, step, 1, 0, shapes, files)
        checkpoint.publish(partial, checkpoint.folder_of(tmp_path, step), manifest)
    return tmp_path


def model_of(config: Config, step: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(step)
    return build(config).model.state_dict()


def test_run_gives_the_average_of_its_newest_checkpoint(run_dir, config):
    model, loaded = export.load(run_dir)
    assert loaded == config
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    raw = model_of(config, 2)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, raw[name] + 2)


def test_raw_weights_and_an_older_checkpoint_can_be_asked_for(run_dir, config):
    model, _ = export.load(checkpoint.folder_of(run_dir, 1), weights="raw")
    expected = model_of(config, 1)
    assert all(torch.equal(t, expected[name]) for name, t in model.state_dict().items())


def test_export_of_a_damaged_checkpoint_takes_the_one_before(run_dir):
    (checkpoint.folder_of(run_dir, 2) / "ema-00000.safetensors").unlink()
    assert export.find(run_dir) == checkpoint.folder_of(run_dir, 1)


def test_exported_model_is_the_run_s(run_dir, config, tmp_path):
    written = export.export(run_dir, tmp_path / "out")
    names = sorted(p.name for p in written.parent.iterdir())
    assert names == ["README.md", "config.yaml", "model.safetensors"]
    model, loaded = export.load(tmp_path / "out")
    expected, _ = export.load(run_dir)
    assert loaded == config  # which has the default of every path
    for a, b in zip(model.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_quiet_export_says_nothing(run_dir, tmp_path, capsys):
    words = ["export", "--model_path", str(run_dir), "--output_dir", str(tmp_path / "out")]
    assert main([*words, "--quiet"]) == 0
    console.set_level("info")
    assert capsys.readouterr() == ("", "")
    assert main(words) == 0
    assert "model.safetensors (" in capsys.readouterr().out


def test_export_carries_nothing_of_the_site(run_dir, tmp_path):
    site = {
        "run_dir": "/site/runs/x",
        "data": "s3://KEY:SECRET@bucket/set",
        "data_cache": "/site/cache",
        "text": {"encoder": "none"},
        "metrics": {"wandb": True, "wandb_project": "our-project"},
        "offload": {"nvme_path": "/site/nvme"},
        "learning_rate": 7e-4,
    }
    for folder in (checkpoint.folder_of(run_dir, step) for step in (1, 2)):
        (folder / "config.yaml").write_text(dump(parse(SMALL | site)), encoding="utf-8")
        manifest = checkpoint.read_manifest(folder)
        path = folder / "config.yaml"
        entry = {path.name: (path.stat().st_size, checkpoint.digest(path))}
        signed = checkpoint.signed(replace(manifest, files=manifest.files | entry))
        (folder / "manifest.json").write_text(json.dumps(asdict(signed)), encoding="utf-8")
    before = os.umask(0o022)
    try:
        export.export(run_dir, tmp_path / "out")
    finally:
        os.umask(before)
    paths = [tmp_path / "out" / name for name in ("config.yaml", "README.md")]
    text = "".join(path.read_text(encoding="utf-8") for path in paths)
    for secret in ("site", "KEY", "SECRET", "bucket", "our-project"):
        assert secret not in text
    assert "learning_rate: 0.0007" in text  # how it was trained stays
    rights = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "out").iterdir()}
    assert set(rights.values()) == {0o644}


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 999, (1 << 62).to_bytes(8, "little") + b"{}", b"\x80\x04cos\nsystem\n"]
)
def test_weights_that_are_no_safetensors_are_one_sentence(run_dir, tmp_path, content):
    export.export(run_dir, tmp_path / "out")
    (tmp_path / "out" / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors is no whole safetensors file"):
        export.load(tmp_path / "out")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("encoder.layers", 10**6),
        ("sde.hidden", 10**7),
        ("frame_size", 2**20),
        ("sde.steps_per_frame", 10**9),
        ("fps", 1e-300),
    ],
)
def test_monstrous_export_is_refused_before_anything_is_built(run_dir, tmp_path, setting, value):
    export.export(run_dir, tmp_path / "out")
    path = tmp_path / "out" / "config.yaml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    *sections, name = setting.split(".")
    place = settings
    for section in sections:
        place = place[section]
    place[name] = value
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with pytest.raises(UserError, match=setting):
        export.load(tmp_path / "out")


def test_loading_imports_no_trainer_deepspeed_or_torch_load(run_dir):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "import torch\n"
        "torch.load = None\n"
        "from sdevid import export\n"
        "export.load(Path(sys.argv[1]))\n"
        "assert not {'deepspeed', 'sdevid.train'} & set(sys.modules), sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(run_dir)], check=True)


def test_export_of_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"model_path .*nowhere does not exist"):
        export.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds neither model.safetensors nor a whole checkpoint"):
        export.load(tmp_path)


def test_weights_of_another_config_are_refused_by_tensor(run_dir, tmp_path):
    export.export(run_dir, tmp_path / "out")
    other = parse(SMALL | {"sde": SMALL["sde"] | {"hidden": 16}})
    (tmp_path / "out" / "config.yaml").write_text(dump(other))
    with pytest.raises(UserError, match=r"does not fit its config.yaml: \S+ has shape"):
        export.load(tmp_path / "out")


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.complex64])
def test_weights_that_are_no_reals_are_refused_by_tensor(run_dir, tmp_path, kind):
    path = export.export(run_dir, tmp_path / "out")
    save_file({name: t.to(kind) for name, t in load_file(path).items()}, path)
    with pytest.raises(UserError, match=r"does not fit .*: \S+ holds .* takes float32"):
        export.load(tmp_path / "out")


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_weights_of_another_precision_are_read_in_the_models(run_dir, tmp_path, kind):
    path = export.export(run_dir, tmp_path / "out")
    save_file({name: t.to(kind) for name, t in load_file(path).items()}, path)
    model, _ = export.load(tmp_path / "out")
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32}


def test_output_folder_that_cannot_be_written_is_told(run_dir, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"output_dir .* cannot be written"):
        export.export(run_dir, tmp_path / "file" / "out")


def test_export_carries_a_card_with_its_figures_and_no_path(run_dir, config, tmp_path):
    target = export.export(run_dir, tmp_path / "out")
    card = (target.parent / "README.md").read_text()
    assert config.model_type in card
    assert "Nothing was measured" in card
    assert str(run_dir) not in card


def test_card_escapes_the_names_in_a_strangers_results(run_dir, tmp_path):
    name = "<script>alert(1)</script> | [x](y)\n# big"
    results = {"protocol": {"clips": 4}, "provenance": {}, name: {"a": {"mean": 1.0}}}
    (run_dir / "results.json").write_text(json.dumps(results))
    card = (export.export(run_dir, tmp_path / "out").parent / "README.md").read_text()
    assert "<script>" not in card
    assert "| &lt;script&gt;alert(1)&lt;/script&gt; &#124; [x](y) # big, a | 1 |  |" in card


@pytest.mark.parametrize("content", ["{", '{"a":' * 200_000, "[]", '{"protocol": {"clips": NaN}}'])
def test_export_names_results_that_do_not_read(run_dir, tmp_path, content):
    (run_dir / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results\.json is damaged"):
        export.export(run_dir, tmp_path / "out")


def test_export_into_a_folder_that_another_process_writes_is_refused(run_dir, tmp_path):
    out = tmp_path / "out"
    with own(out, "output_dir", print), pytest.raises(OwnedError, match=r"output_dir .* is in use"):
        export.export(run_dir, out)
    assert not (out / "model.safetensors").exists()
    export.export(run_dir, out)
    assert {path.name for path in out.iterdir()} == {
        "model.safetensors",
        "config.yaml",
        "README.md",
    }
