"""Which source goes to which split: by what was filmed in one go, so that no split leaks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sdevid.data.spec import ClipSource
from sdevid.errors import UserError

_Source = TypeVar("_Source", bound=ClipSource)
_USUAL = ("train", "val", "test")


def parse_splits(text: str) -> dict[str, float]:
    """Read `train=0.9,val=0.1` as shares by name. UserError where they do not add up to 1."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.strip().partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            shares[name] = 0.0
        if not re.fullmatch(r"[A-Za-z0-9_]+", name) or not 0 < shares[name] <= 1:
            raise UserError(
                f"--splits holds {part!r}, but each part must read name=share with a share "
                "above 0; e.g. train=0.9,val=0.1"
            )
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise UserError(
            f"--splits {text} sums to {sum(shares.values()):g}, but the shares must sum to 1"
        )
    return shares


def by_name(sources: Sequence[Any]) -> list[Any]:
    """Assign the split named by each source's first folder, or by the first word of its name.

    Raises UserError for a source that names none of train, val and test.
    """
    matches = []
    for source in sources:
        words = re.split(r"[/_:.@-]", source.name.rpartition(":")[2])
        split = next((word for word in words[:1] if word in _USUAL), None)
        if split is None:
            raise UserError(
                f"--splits names takes the split from the first word of each name, but "
                f"{source.name} begins with none of {', '.join(_USUAL)}; give shares instead"
            )
        matches.append(replace(source, split=split))
    return matches


def counts(total: int, shares: Mapping[str, float], of: str) -> dict[str, int]:
    """Divide `total` things by `shares`, at least one each. UserError where there are too few."""
    if total < len(shares):
        raise UserError(
            f"{total} {of} cannot fill {len(shares)} splits ({', '.join(shares)}); "
            "give more, or e.g. --splits train=1"
        )
    exact = {name: share * total for name, share in shares.items()}
    amounts = {name: max(1, int(amount)) for name, amount in exact.items()}
    while sum(amounts.values()) != total:
        lacking = sum(amounts.values()) < total
        by_need = sorted(amounts, key=lambda name: amounts[name] - exact[name], reverse=not lacking)
        name = next(name for name in by_need if lacking or amounts[name] > 1)
        amounts[name] += 1 if lacking else -1
    return amounts


def assign(
    sources: Sequence[_Source], shares: Mapping[str, float], seed: int
) -> list[tuple[str, _Source]]:
    """Assign each source to a split; return (split, source) pairs, split after split.

    An official split is kept. Other sources are shared out by group, in the given shares of
    groups, by a hash of (seed, group). Within a split a hash of the name mixes the classes.
    """
    groups = sorted({s.group for s in sources if s.split is None}, key=lambda g: _hash(seed, g))
    number = counts(len(groups), shares, "source videos") if groups else {}
    names = [name for name, count in number.items() for _ in range(count)]
    split_of = dict(zip(groups, names, strict=True))
    pairs = [(source.split or split_of[source.group], source) for source in sources]

    def rank(pair: tuple[str, _Source]) -> tuple[int, str, str]:
        usual = _USUAL.index(pair[0]) if pair[0] in _USUAL else len(_USUAL)
        return usual, pair[0], _hash(0, pair[1].name)

    return sorted(pairs, key=rank)


def _hash(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}/{text}".encode()).hexdigest()
