"""Names of 0.1.0 that programs may still use."""

from __future__ import annotations

import pytest

from sdevid.data import stream
from sdevid.models import text


@pytest.mark.parametrize(
    ("module", "former", "present"),
    [
        (text, "told", "text_inputs"),
        (text, "reader", "tokenizer"),
        (stream, "check", "check_clips"),
    ],
)
def test_former_name_is_the_present_function_and_warns(module, former, present):
    with pytest.warns(DeprecationWarning, match=f"{former} is {present} since 0.2.0"):
        assert getattr(module, former) is getattr(module, present)


def test_name_that_never_was_is_no_attribute():
    with pytest.raises(AttributeError, match=r"sdevid.models.text' has no attribute 'tellen'"):
        text.tellen  # noqa: B018
