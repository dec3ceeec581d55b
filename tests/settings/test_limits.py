"""At and beyond the limits of every setting: a config, or a UserError that names it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sdevid.config import Config, dump, load, parse, settings_by_path
from sdevid.errors import UserError

STRANGE: list[Any] = [
    *(0, 1, 2, -1, 10**6, 10**30, -(10**30), 0.5, 1e-300, 1e300, -1e-300),
    *(math.inf, -math.inf, math.nan, True, False, None),
    *("", "x", "0", "1e3", "inf", "\0", "\ud800", "a" * 10_000, "../..", "s3://u:p@b/x"),
    *([], [[]], [1], [0], [-1], [10**30], [math.inf], {}, {"a": 1}, {"latent": {}}),
]


def nested(path: str, value: Any) -> dict[str, Any]:
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def try_all(settings: dict[str, Any], path: str) -> None:
    """Parse; where it is refused, the message names the setting, and it is short."""
    try:
        config = parse(settings)
    except UserError as error:
        message = str(error)
        assert path.rpartition(".")[2] in message, (path, message)
        assert len(message) < 2_000
    else:
        assert isinstance(config, Config)
        dump(config)


@pytest.mark.parametrize("path", settings_by_path())
def test_any_value_of_a_setting_is_taken_or_refused_by_name(path):
    for value in STRANGE:
        try_all(nested(path, value), path)


@pytest.mark.parametrize("section", ["sde", "encoder", "observation", "checkpoint"])
def test_section_that_is_no_section_is_refused_by_name(section):
    for value in [v for v in STRANGE if not isinstance(v, dict)]:
        with pytest.raises(UserError, match=section):
            parse({section: value})


@given(
    st.dictionaries(
        st.sampled_from(list(settings_by_path())),
        st.one_of(st.integers(), st.floats(), st.text(max_size=5), st.booleans(), st.none()),
        min_size=1,
        max_size=4,
    )
)
def test_any_few_values_together_are_taken_or_refused(values):
    settings: dict[str, Any] = {}
    for path, value in values.items():
        *sections, name = path.split(".")
        place = settings
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    text, refusal = "", ""
    try:
        text = dump(parse(settings))
    except UserError as error:
        refusal = str(error)
    if refusal:
        assert any(path.split(".")[-1] in refusal for path in values)
    else:
        assert dump(parse(yaml.safe_load(text))) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(
                f"b{i}: &b{i} [{','.join(['*a' if not i else f'*b{i - 1}'] * 9)}]\n"
                for i in range(9)
            ),
            "aliases",
        ),
        ("a: &a [*a]\n", "aliases|not valid YAML"),
        ("[" * 100_000, "nested too deeply"),
        ("- 1\n", "`key: value` lines, not a list"),
        ("text\n", "not a str"),
        ("1: 2\n", "`key: value` lines"),
        ("a: b: c\n", "not valid YAML"),
        (
            "fps: 8\nsde:\n  hidden: 8\n  hidden: 9\n",
            "hidden twice, in the lines 3 and 4; leave one",
        ),
        ("x" * 2**21, "more than 1,048,576 bytes"),
        (b"fps: \xff\n", "not UTF-8 at byte 5"),
        ("fps: 2000-13-45\n", "not valid YAML"),
        ("sde: {hidden: 1_0:99}\n", "hidden"),
    ],
)
def test_config_file_that_is_none_is_one_sentence(text, message, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as raised:
        load(path)
    assert len(str(raised.value)) < 1_000


@pytest.mark.parametrize(
    "text", ["sde", "=1", "sde.=1", "a=[", "seed=2000-13-45", "sde.hidden.x=3", "x=" + "[" * 9_000]
)
def test_override_that_is_none_is_one_sentence(text, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("fps: 8\n", encoding="utf-8")
    with pytest.raises(UserError):
        load(path, [text])
