"""One self-contained HTML document: contents, style, embedded uPlot, and no other script."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable
from importlib import resources

_HEADING = re.compile(r"<h2>(.*?)</h2>", re.DOTALL)
_TAG = re.compile(r"<[^>]+>")


def document(title: str, head: str, sections: Iterable[str], *, refreshed: bool = False) -> str:
    """Lay `sections` of HTML under `head`, with a table of their headings.

    `refreshed`: the page looks for a newer one, as `sdevid watch` serves it.

    The content security policy lets no script run but those that are embedded here (named by
    their hash) and lets nothing be fetched: a file of a run can bring neither.
    """
    body, contents = _with_contents("\n".join(part for part in sections if part))
    names = ["uPlot.iife.min.js", "page.js", *(["refresh.js"] if refreshed else [])]
    scripts = [_asset(name) for name in names]
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    connect = "connect-src 'self'; " if refreshed else ""
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; {connect}"
        f"script-src {hashes}"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title>"
        f"<style>{_asset('uPlot.min.css')}{_asset('page.css')}</style></head><body>\n"
        f"{head}{contents}<main>{body}</main>"
        + "".join(f"<script>{script}</script>" for script in scripts)
        + "\n</body></html>\n"
    )


def _with_contents(body: str) -> tuple[str, str]:
    entries: list[str] = []

    def anchored(match: re.Match[str]) -> str:
        entries.append(match[1])
        return f'<h2 id="section-{len(entries)}">{match[1]}</h2>'

    body = _HEADING.sub(anchored, body)
    listed = "".join(
        f'<li><a href="#section-{number}">{_TAG.sub("", text)}</a></li>'
        for number, text in enumerate(entries, start=1)
    )
    return body, f'<nav aria-label="Contents"><ul class="toc">{listed}</ul></nav>'


def _asset(name: str) -> str:
    text = (resources.files("sdevid.report") / "assets" / name).read_text(encoding="utf-8")
    assert "</script" not in text
    return text


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
