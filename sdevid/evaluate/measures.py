"""Which measures there are, and which of them are taken of what data unless others are asked for.

What is cheap is always taken; what the data's truth makes possible is taken where it is known.
"""

from __future__ import annotations

from typing import Any

from sdevid.config import Config
from sdevid.errors import UserError

ALWAYS = ("bound", "prediction", "refinement")
KNOWN_SDE = ("motion", "rates", "futures")  # drawn video with its SDE in dataset.json
EXTRA = ("iwae", "warping", "kid", "digits", "prompts")  # where they are named: they take long
GIVEN = ("fvd", "lpips")  # taken where the network is given
OPTIONS = {"fvd": "fvd_i3d", "lpips": "lpips"}
NAMES = (*ALWAYS, *KNOWN_SDE, *EXTRA, *GIVEN)


def chosen(
    asked: str | None, dataset: dict[str, Any], config: Config, networks: frozenset[str]
) -> tuple[str, ...]:
    """The measures to take: `auto`, names after it or alone, or all that the data allow.

    `asked` is a list with commas; `networks` are those of `GIVEN` whose network is there. UserError
    for a name that is none, or that data or model cannot give.
    """
    unfit = _unfit(dataset, config) | {
        name: f"no network is given for it by --{OPTIONS[name]}"
        for name in GIVEN
        if name not in networks
    }
    fitting = set(NAMES) - set(unfit)
    usual = [name for name in (*ALWAYS, *KNOWN_SDE, *GIVEN) if name in fitting]
    found: set[str] = set()
    for name in (part.strip() for part in (asked or "auto").split(",")):
        if name == "auto":
            found.update(usual)
        elif name == "all":
            found.update(fitting)
        elif name not in NAMES:
            raise UserError(f"--measures names {name!r}, but there are auto, all, {_list(NAMES)}")
        elif name not in fitting:
            raise UserError(f"--measures names {name}, but {unfit[name]}; leave {name} out")
        else:
            found.add(name)
    return tuple(name for name in NAMES if name in found)


def _unfit(dataset: dict[str, Any], config: Config) -> dict[str, str]:
    """Measures that cannot be taken, each with the reason."""
    found: dict[str, str] = {}
    if not known_sde(dataset):
        why = f"no SDE is known that moves what the shards of {dataset.get('dataset')} show"
        found |= dict.fromkeys(KNOWN_SDE, why)
    if "generator" not in (dataset.get("truth") or {}):
        found["digits"] = f"the shards are of {dataset.get('dataset')}, not of smmnist"
    if config.model_type != "latent_sde":
        found["iwae"] = f"model_type {config.model_type} has no posterior path that can be weighted"
    if config.text.encoder == "none":
        found["prompts"] = "the model was trained without text (text.encoder is none)"
    return found


def known_sde(dataset: dict[str, Any]) -> bool:
    """Whether dataset.json names the SDE of what moves."""
    return "axes" in (dataset.get("truth") or {})


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1]
