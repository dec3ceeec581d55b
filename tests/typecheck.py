"""Checks every annotation of shape and type in models, sde and objectives while the tests run."""

from collections.abc import Iterator
from contextlib import contextmanager

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

ROOMS = ("sdevid.models", "sdevid.objectives", "sdevid.sde")
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as mypy has it


def install() -> None:
    """Check what is imported from now on."""
    install_import_hook(ROOMS, "typecheck.checked")


@contextmanager
def paused() -> Iterator[None]:
    """Check nothing inside: torch.compile(fullgraph=True) cannot trace the checks."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
