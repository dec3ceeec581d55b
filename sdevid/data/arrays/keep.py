"""Which clips are kept: a rule such as `std > 0.02 and nan < 0.5`, read without running it."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdevid.errors import UserError

STATISTICS: dict[str, Callable[[NDArray[Any]], float]] = {
    "mean": lambda values: float(np.nanmean(values)),
    "std": lambda values: float(np.nanstd(values)),
    "min": lambda values: float(np.nanmin(values)),
    "max": lambda values: float(np.nanmax(values)),
    "nonzero": lambda values: float((np.nan_to_num(values) != 0).mean()),
    "nan": lambda values: float(np.isnan(values).mean()),
}
_ORDER: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
}
Rule = Callable[[NDArray[Any]], bool]


def parse(text: str) -> Rule:
    """Read a rule: statistics compared with numbers, joined by and, or, not.

    Statistics are of a clip's values, in the source's units; integers as shares of the type's
    largest. Raises UserError where `text` is no such rule.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        _check(tree)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UserError(
            f"--keep_if is {text!r}, but must compare {', '.join(STATISTICS)} with numbers, e.g. "
            f"'std > 0.02 and nan < 0.5' ({error})"
        ) from error
    return lambda values: bool(_value(tree, as_shares(values)))


def as_shares(values: NDArray[Any]) -> NDArray[np.float64]:
    """Convert values to float64, integers as shares of the largest of their type."""
    if values.dtype.kind in "ui":
        return values.astype(np.float64) / np.iinfo(values.dtype).max
    return values.astype(np.float64)


def _check(node: ast.AST) -> None:
    if isinstance(node, ast.BoolOp):
        parts: list[ast.expr] = node.values
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        parts = [node.operand]
    elif isinstance(node, ast.Compare):
        if any(type(op) not in _ORDER for op in node.ops):
            raise ValueError("only <, <=, > and >= compare")
        for part in (node.left, *node.comparators):
            _check_term(part)
        return
    else:
        raise ValueError(f"{ast.unparse(node)!r} is no comparison")  # noqa: TRY004
    for part in parts:
        _check(part)


def _check_term(node: ast.AST) -> None:
    if isinstance(node, ast.Name) and node.id in STATISTICS:
        return
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return
    raise ValueError(f"{ast.unparse(node)!r} is no statistic and no number")


def _value(node: ast.expr, values: NDArray[Any]) -> float | bool:
    if isinstance(node, ast.BoolOp):
        every = all if isinstance(node.op, ast.And) else any
        return every(_value(part, values) for part in node.values)
    if isinstance(node, ast.Compare):
        terms = [_value(part, values) for part in (node.left, *node.comparators)]
        pairs = zip(node.ops, terms, terms[1:], strict=False)
        return all(_ORDER[type(op)](left, right) for op, left, right in pairs)
    if isinstance(node, ast.UnaryOp):
        inner = _value(node.operand, values)
        return not inner if isinstance(node.op, ast.Not) else -inner
    if isinstance(node, ast.Name):
        return STATISTICS[node.id](values) if np.isfinite(values).any() else float("nan")
    assert isinstance(node, ast.Constant)
    return float(node.value)  # type: ignore[arg-type]
