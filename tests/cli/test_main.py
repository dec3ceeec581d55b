"""The command line: what it says, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sdevid import console
from sdevid.cli.main import COMMANDS, main
from sdevid.config import OffloadConfig, load
from sdevid.objectives import build
from sdevid.train.summary.flops import count_flops
from sdevid.train.summary.memory_budget import host_bytes, memory_bytes

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = "frame_size: 16\nencoder: {map_size: 4, channels: 8}\n"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"{SETTINGS}run_dir: {tmp_path / 'run'}\n")
    return str(path)


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    message = capsys.readouterr().out
    assert all(f"\n  {name} " in message for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_then_one_usage_line(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    example, usage, *_ = capsys.readouterr().out.split("\n\n")
    title, *lines = example.splitlines()
    assert title == "example:"
    assert any(f"sdevid {name} " in f"{line} " for line in lines)
    assert usage.startswith(f"usage: sdevid {name} ")
    assert "\n" not in usage
    assert "[options]" in usage


@pytest.mark.parametrize("name", COMMANDS)
def test_option_that_is_none_ends_every_command_with_code_2(name, capsys):
    try:
        code = main([name, "--no_such_option"])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    message = capsys.readouterr()
    assert message.out == ""
    assert "no_such_option" in message.err or "required" in message.err


LONG_JOBS = ["shards", "check-shards", "train-autoencoder", "train", "sample", "evaluate", "law"]


@pytest.mark.parametrize("name", [*LONG_JOBS, "export", "preflight"])
def test_what_a_job_says_can_be_set(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    options = capsys.readouterr().out.partition("options:")[2]
    assert "--quiet" in options
    assert "--log_level {debug,info,warning,error}" in options


def test_help_tells_each_default_once(capsys):
    for name in ("shards", "sample", "evaluate", "law"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        options = " ".join(capsys.readouterr().out.partition("options:")[2].split())
        for text in options.split(" --"):
            assert text.count("(default: ") <= 1, text
        assert "(default: 0)" in options.split(" --seed SEED ")[1].split(" --")[0]


def test_quiet_training_says_warnings_alone(config, capsys, tmp_path):
    assert main(["train", "--config", config, f"data={tmp_path / 'none'}", "--quiet"]) == 2
    console.set_level("info")
    message = capsys.readouterr()
    assert message.out == ""
    assert "none" in message.err


def test_no_command_is_a_mistake_with_a_usage_line(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_misspelt_command_is_answered_with_the_nearest(capsys):
    assert main(["trian"]) == 2
    assert "did you mean train?" in capsys.readouterr().err


def test_setting_given_as_an_option_is_answered_as_a_setting(config, capsys):
    assert main(["train", "--config", config, "--batch_size", "4"]) == 2
    assert "batch_size=4" in capsys.readouterr().err


def test_config_stands_first_without_an_option(config, capsys):
    assert main(["train", config, "seed=7", "--dry-run"]) == 0
    assert "seed: 7" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["watch", "studio"])
@pytest.mark.parametrize("port", ["-1", "65536", "http", "8 0"])
def test_a_port_that_is_none_is_named_with_its_range(name, port, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "runs", f"--port={port}"])
    assert ended.value.code == 2
    assert f"is {port}, but must be a number from 0 to 65535" in capsys.readouterr().err


def test_settings_may_stand_before_and_after_an_option(config, capsys):
    assert main(["train", config, "seed=7", "--dry-run", "batch_size=8", "--quiet"]) == 0
    console.set_level("info")
    message = capsys.readouterr().out
    assert "seed: 7" in message
    assert "batch_size: 8" in message


def test_packaged_config_is_found_by_name_anywhere(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", "demo", "--dry-run"]) == 0
    assert "model_type: latent_sde" in capsys.readouterr().out
    assert main(["train", "--config", "dem"]) == 2
    assert "demo" in capsys.readouterr().err


def test_doctor_reports_what_is_installed(capsys):
    assert main(["doctor"]) == 0
    message = capsys.readouterr().out
    assert f"torch {torch.__version__}" in " ".join(message.split())


def test_slurm_scripts_are_laid_and_never_overwritten(tmp_path, capsys):
    assert main(["slurm-scripts", str(tmp_path)]) == 0
    laid = tmp_path / "launch" / "train.sh"
    assert laid.read_bytes() == (ROOT / "launch" / "train.sh").read_bytes()
    laid.write_text("mine")
    assert main(["slurm-scripts", str(tmp_path)]) == 2
    assert str(laid) in capsys.readouterr().err
    assert laid.read_text() == "mine"


def test_misspelt_setting_is_one_message_and_exit_code_2(config, capsys):
    assert main(["train", "--config", config, "sde.hiden=4"]) == 2
    message = capsys.readouterr().err
    assert "sde.hiden is not a setting; did you mean sde.hidden?" in message


def test_missing_shards_are_one_message_and_exit_code_2(config, capsys, tmp_path):
    assert main(["train", "--config", config, f"data={tmp_path / 'none'}"]) == 2
    assert "none" in capsys.readouterr().err
    ending = json.loads((tmp_path / "run" / "exit.json").read_text())
    assert (ending["reason"], ending["retry"]) == ("failed", False)


def test_missing_model_is_one_message_and_exit_code_2(capsys, tmp_path):
    arguments = ["export", "--model_path", str(tmp_path / "no"), "--output_dir", str(tmp_path)]
    assert main(arguments) == 2
    assert "does not exist" in capsys.readouterr().err


def test_only_the_first_rank_speaks_without_a_prefix(config, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "--config", config, "nonsense=1"]) == 2
    assert capsys.readouterr().err.startswith("rank 1: ")


def test_dry_run_counts_parameters_by_part_and_memory_by_stage(config, capsys):
    assert main(["train", "--config", config, "--dry-run", "seed=7", "batch_size=8"]) == 0
    message = capsys.readouterr().out
    assert "seed: 7" in message
    parts = build(load(Path(config))).model.parts()
    for name, part in parts.items():
        assert f"{sum(p.numel() for p in part.parameters()):,}" in message
        assert name in message
    assert "8 clips a step = 1 ranks x 8 clips x 1 passes" in message
    assert "ZeRO 1     ZeRO 2     ZeRO 3" in message


def test_dry_run_counts_operations_where_asked(config, capsys):
    assert main(["train", "--config", config, "--dry-run", "--flops"]) == 0
    message = capsys.readouterr().out
    assert f"operations a clip: {sum(count_flops(load(Path(config)))) / 1e9:,.4g} " in message
    assert main(["train", "--config", config, "--flops"]) == 2
    assert "give --dry-run beside it" in capsys.readouterr().err


def test_memory_is_the_arithmetic_of_bytes_a_parameter():
    assert [memory_bytes(1_000, 1, stage) for stage in (0, 1, 2, 3)] == [20e3, 24e3, 24e3, 20e3]
    assert memory_bytes(1_000, 10, 1) == 2 * 4_000 + 4 * 400
    assert memory_bytes(1_000, 10, 2) == 4_000 + 5 * 400
    assert memory_bytes(1_000, 10, 3) == 5 * 400


def test_memory_that_is_offloaded_lies_beside_the_device():
    away, both = OffloadConfig(optimizer="cpu"), OffloadConfig(optimizer="cpu", parameters="cpu")
    device = [memory_bytes(1_000, 10, stage, away) for stage in (1, 2, 3)]
    assert device == [2 * 4_000, 4_000, 400]  # gradients stay whole under 1; 2 and 3: the weights
    assert [host_bytes(1_000, 10, stage, away) for stage in (0, 1, 2, 3)] == [0, 2e3, 2e3, 2e3]
    assert memory_bytes(1_000, 10, 3, both) == 0
    assert host_bytes(1_000, 10, 3, both) == 6 * 400


def test_dry_run_heeds_what_is_offloaded(config, capsys):
    offload = ["zero_stage=3", "offload.optimizer=cpu", "offload.parameters=cpu"]
    assert main(["train", "--config", config, "--dry-run", *offload]) == 0
    assert "offloaded: optimizer to cpu, parameters to cpu" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["zero_stage=0", "offload.optimizer=cpu"], "zero_stage is 0 and that needs 1 or more"),
        (["zero_stage=2", "offload.parameters=cpu"], "zero_stage is 2 and that needs 3; set zero"),
        (["zero_stage=2", "offload.optimizer=nvme"], "zero_stage is 2 and that needs 3"),
        (["zero_stage=3", "offload.parameters=nvme"], "offload.nvme_path is not set"),
    ],
)
def test_offload_that_the_stage_cannot_do_is_refused(settings, message, config, capsys):
    assert main(["train", "--config", config, *settings]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "pixels",
    [
        ("num_clips", "0"),
        ("num_clips", "1" * 30),
        ("seeds", "0"),
        ("context", "-1"),
        ("seed", "-1"),
        ("threshold", "nan"),
        ("reach", "inf"),
        ("rates", "8,0"),
        ("rates", "1e300"),
        ("output", "/none/such/law.json"),
    ],
)
def test_law_option_out_of_range_is_named_before_reading(pixels, tmp_path, capsys):
    name, value = pixels
    assert main(["law", str(tmp_path / "no model"), f"--{name}={value}"]) == 2
    assert capsys.readouterr().err.startswith(f"sdevid: --{name} ")
