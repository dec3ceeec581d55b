"""Every setting states its role, type and help once, and readers find them there."""

from __future__ import annotations

import pytest
import yaml
from pydantic import BaseModel

from sdevid.config import Config, dump, parse, settings_by_path
from sdevid.errors import UserError
from sdevid.settings.setting import ROLES, Section, all_settings, setting


def test_every_setting_has_role_and_help():
    known = settings_by_path()
    assert len(known) > 100
    for path, field in known.items():
        assert field.role in ROLES, path
        assert len(field.help) > 5, path
        assert field.type, path


def test_settings_are_those_of_a_dumped_config():
    def leaves(values, prefix=""):
        for name, value in values.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}"

    assert list(leaves(yaml.safe_load(dump(Config())))) == list(settings_by_path())


def test_walk_describes_type_unit_limits_and_default():
    class Part(Section):
        width: int | None = setting(3, ge=1, le=1024, unit="cells", role="runtime", help="a width")

    assert [(s.path, s.type, s.unit, s.default, s.limits) for s in all_settings(Part, "part.")] == [
        ("part.width", "integer | null", "cells", 3, ">= 1, <= 1,024")
    ]


def test_walk_refuses_a_field_without_role():
    class Part(BaseModel):
        width: int = 3

    with pytest.raises(TypeError, match="width has no role"):
        list(all_settings(Part))


@pytest.mark.parametrize("role", ROLES)
def test_loss_depends_on_architecture_and_objective_settings(role):
    class Part(Section):
        width: int = setting(3, role=role, help="a width")
        other: int = setting(3, role=role, alters_loss=True, help="another width")

    width, other = all_settings(Part)
    assert width.alters_loss == (role in ("architecture", "objective"))
    assert other.alters_loss


def test_number_settings_have_finite_limits():
    shares = {  # bounded together by ObservationConfig's own rule
        "observation.free_fraction",
        "observation.ends_fraction",
        "observation.keyframes_fraction",
    }
    for field in settings_by_path().values():
        if field.type.startswith("number") and field.path not in shares:
            assert ">" in field.limits, f"{field.path} has no lower limit"
            assert "<" in field.limits, f"{field.path} has no upper limit"


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize(
    "path", [p for p, s in settings_by_path().items() if s.type.startswith("number")]
)
def test_setting_that_is_not_finite_is_refused_by_name(path, value):
    *sections, name = path.split(".")
    arguments = {name: value}
    for section in reversed(sections):
        arguments = {section: arguments}
    with pytest.raises(UserError, match=rf"^{path} is (inf|nan)"):
        parse(arguments)


@pytest.mark.parametrize(("word", "read"), [("on", "on"), ("off", "off"), ("auto", "auto")])
def test_switch_is_read_as_the_word_that_yaml_takes_for_a_boolean(word, read):
    settings = yaml.safe_load(f"train_graph: {word}\nchannels_last: {word}")
    config = parse(settings)
    assert (config.train_graph, config.channels_last) == (read, read)
