"""The registry: what is documented, chosen and shown is what is registered."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from sdevid.errors import UserError
from sdevid.evaluate import registry
from sdevid.evaluate.metric import Metric, Row

ROOT = Path(__file__).resolve().parents[2]


def metric(name, reason=None, automatic=True):
    return Metric(
        name=name,
        summary=f"measures {name}",
        run=lambda context: {name: {"mean": context.value}},
        rows=lambda results: [Row(name, "value", results[name])] if name in results else [],
        needs=lambda _: reason,
        automatic=automatic,
    )


@pytest.fixture
def three(monkeypatch):
    metrics = (metric("first"), metric("second", "it needs film"), metric("third", None, False))
    monkeypatch.setattr(registry, "METRICS", metrics)
    monkeypatch.setattr(registry, "NAMES", tuple(one.name for one in metrics))
    return SimpleNamespace(value=3.0)


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (None, ["first"]),
        ("auto", ["first"]),
        ("all", ["first", "third"]),
        ("third,auto", ["first", "third"]),
        ("third", ["third"]),
    ],
)
def test_choice_follows_needs_and_registry_order(three, asked, chosen):
    assert [one.name for one in registry.choose(asked, three)] == chosen


def test_unmet_metric_is_refused_with_its_reason(three):
    with pytest.raises(UserError, match="names second, but it needs film; leave second out"):
        registry.choose("first,second", three)


def test_unknown_metric_is_refused_with_all_names(three):
    with pytest.raises(UserError, match="there are auto, all, first, second and third"):
        registry.choose("fourth", three)


def test_rows_of_missing_results_are_none(three):
    results = registry.METRICS[2].run(three)
    assert [row.section for row in registry.rows(results)] == ["third"]
    assert registry.rows({}) == []


def test_documentation_lists_the_registry():
    page = (ROOT / "docs" / "evaluation.md").read_text()
    assert registry.documentation() in page, (
        "docs/evaluation.md: replace the table by sdevid.evaluate.registry.documentation()"
    )


def test_every_registered_metric_yields_no_row_without_results():
    assert registry.rows({"protocol": {"context": 5, "samples": 32, "model_type": "any"}}) == []
