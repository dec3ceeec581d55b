"""Sphinx builds the site from these pages and the docstrings: `make docs`.

Sphinx, not MkDocs: it checks every cross-reference, and both it and furo are released several times
a year, while MkDocs and Material are in maintenance.
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "kernels")]

from sdevid import __version__  # noqa: E402
from sdevid.cli.settings import main as settings  # noqa: E402

project, release, author = "sdevid", __version__, "the sdevid authors"
copyright = "the sdevid authors, Apache-2.0"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
]
exclude_patterns = ["generated/README.md"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"sdevid {release}"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
suppress_warnings = ["myst.xref_missing", "myst.header"]
nitpicky = False


def _write_settings() -> None:
    """Write the page of settings from the schema, so that it cannot fall behind."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        settings(["--markdown"])
    folder = HERE / "generated"
    folder.mkdir(exist_ok=True)
    (folder / "settings.md").write_text(printed.getvalue(), encoding="utf-8")


_write_settings()


def setup(app):
    """Let docstrings be read as the plain text that they are: |u| is no reST substitution."""

    def literal(app, what, name, obj, options, lines):  # noqa: ARG001
        lines[:] = [line.replace("|", r"\|").replace("*", r"\*") for line in lines]

    app.connect("autodoc-process-docstring", literal)
