"""The clock: rates as people write them, and training that does not depend on them."""

import argparse
from fractions import Fraction

import factories
import pytest
import torch
import yaml

from sdevid import clock, objectives
from sdevid.config import dump, load, parse
from sdevid.errors import UserError
from sdevid.types import TICKS_PER_UNIT, units

SMALL = factories.settings(
    frame_size=8,
    sequence_length=5,
    sde={"latent_size": 2, "content_size": 2, "hidden": 8, "depth": 1},
    encoder={"channels": 4, "features": 8},
    observation={"max_context": 2},
)


@pytest.mark.parametrize(
    ("written", "rate"),
    [
        ("8", 8),
        (12.5, 12.5),
        ("1/120", Fraction(1, 120)),
        ("30000/1001", Fraction(30000, 1001)),
        ("1e3", 1000),
    ],
)
def test_frame_rate_is_read_as_an_exact_fraction(written, rate):
    assert clock.rational(clock.frame_rate(written)) == Fraction(rate)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("2min", 120),
        ("2 minutes", 120),
        ("40ms", 0.04),
        ("1/25 s", 0.04),
        ("0.5", 0.5),
        (3, 3),
        ("1 day", 86_400),
        ("6 hours", 21_600),
        ("250 µs", 250e-6),
        ("1 week", 604_800),
    ],
)
def test_interval_is_read_in_any_unit(written, seconds):
    assert clock.interval(written) == pytest.approx(seconds, rel=1e-15)


@pytest.mark.parametrize(
    "written", ["0", "-1", "nan", "fast", "1/0", "", True, None, "8 fps", "1.2.3"]
)
def test_invalid_frame_rate_is_refused_with_the_rule(written):
    with pytest.raises(ValueError, match=r"fps is .* give frames a second|fps is .* must be"):
        clock.frame_rate(written)


def test_unknown_unit_is_told_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"'parsec' is no unit of time here; give one of .*min"):
        clock.interval("2parsec")


@pytest.mark.parametrize(("unit", "fps"), [(1e-300, 8), (1e-9, 1e-9), (1e9, 1e9)])
def test_unit_that_holds_no_countable_part_of_a_frame_is_refused(unit, fps):
    with pytest.raises(UserError, match=r"time_unit is .* leave it out"):
        parse(factories.settings(time_unit=unit, fps=fps))


def test_both_options_end_in_fps_and_exclude_each_other():
    parser = argparse.ArgumentParser(exit_on_error=False)
    clock.add_arguments(parser, 8.0, "8")
    assert parser.parse_args(["--interval", "2min"]).fps == 1 / 120
    assert parser.parse_args(["--fps", "1/120"]).fps == 1 / 120
    assert parser.parse_args([]).fps == 8
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        parser.parse_args(["--interval", "2min", "--fps", "8"])
    with pytest.raises(UserError, match="--fps is 'x'"):
        parser.parse_args(["--fps", "x"])


def test_config_takes_either_and_writes_its_unit_down(tmp_path):
    result = parse(SMALL | {"interval": "2min"})
    assert result == parse(SMALL | {"fps": "1/120"})
    assert result.time_unit == 120
    assert parse(yaml.safe_load(dump(result))) == result
    with pytest.raises(UserError, match="interval 2min, but they say the same"):
        parse(SMALL | {"interval": "2min", "fps": 8})
    path = tmp_path / "c.yaml"
    path.write_text("fps: 8\n")
    assert load(path, ["interval=2min"]).fps == 1 / 120


def losses(fps, **more):
    """Of four steps of training on the same pictures, and every parameter after them."""
    torch.manual_seed(0)
    config = parse(SMALL | {"fps": fps} | more)
    clip_objective = objectives.build(config)
    optimizer = torch.optim.Adam(clip_objective.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(3)
    video = torch.randint(0, 256, (4, 5, 8, 8, 1), dtype=torch.uint8, generator=generator)
    results = []
    for step in range(4):
        optimizer.zero_grad()
        serial = torch.arange(4) + 4 * step
        loss = clip_objective(video, config.frame_ticks(5).expand(4, -1), serial, 1.0)["loss"]
        loss.backward()
        optimizer.step()
        results.append(loss.item())
    return results, [parameter.detach() for parameter in clip_objective.parameters()]


@pytest.mark.parametrize("kind", ["latent_sde", "sde_matching", "follmer"])
def test_training_is_bit_equal_at_any_declared_frame_rate(kind):
    ahead = {"observation": {"max_context": 2, "ends_fraction": 0.3}}
    first, weights = losses(8, model_type=kind, **ahead)
    for fps in ("1/120", 1000, "30000/1001", 29.97):
        again, theirs = losses(fps, model_type=kind, **ahead)
        assert again == first
        assert all(torch.equal(a, b) for a, b in zip(weights, theirs, strict=True))


def test_reported_diffusion_is_per_root_second():
    video = torch.zeros(2, 5, 8, 8, 1, dtype=torch.uint8)
    results = {}
    for fps in (4, 16):
        torch.manual_seed(0)
        config = parse(SMALL | {"fps": fps})
        terms = objectives.build(config)(
            video, config.frame_ticks(5).expand(2, -1), torch.arange(2), 1.0
        )
        results[fps] = terms["g_q50"].item()
    assert results[16] == pytest.approx(2 * results[4])
    assert results[4] == pytest.approx(config.sde.diffusion_start * 2, rel=1e-3)


def test_twice_the_rate_of_sampling_is_half_a_unit():
    config = parse(SMALL | {"fps": "30000/1001"})
    slow, fast = config.frame_ticks(5), config.frame_ticks(9, 60000 / 1001)
    assert torch.equal(slow, fast[::2])
    assert units(slow).tolist() == [0, 1, 2, 3, 4]
    assert config.step_ticks(4) == TICKS_PER_UNIT // 4


def test_run_saved_without_a_unit_counts_in_seconds(tmp_path):
    old = parse(SMALL).model_dump(mode="json")
    del old["time_unit"], old["encoder"]["time_period"]
    old["sde"] |= {"diffusion_start": 0.5, "control_bound": 28.0}
    again = parse(clock.of_saved(old))
    assert again.time_unit == 1
    assert again.step_ticks(2) == TICKS_PER_UNIT // 16
    assert again.sde.control_bound == 28
    assert again.encoder.time_period == 8
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(SMALL | {"run_dir": str(tmp_path)}))
    assert load(path).time_unit == 0.125
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    assert load(path).model_dump(exclude={"run_dir"}) == again.model_dump(exclude={"run_dir"})
    assert load(path, ["sde.diffusion_start=0.25"]).sde.diffusion_start == 0.25


def test_run_of_0_1_0_loads_without_removed_settings():
    saved = {"fps": 8.0, "matching": {"times": 8, "frames": None, "scale_floor": 0.01}}
    config = parse(clock.of_saved(saved))
    assert config.time_unit == 1.0
    assert saved["matching"]["times"] == 8
