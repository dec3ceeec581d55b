"""`sdevid settings`: every setting with type, unit, default, role and meaning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sdevid.command_line import command_parser
from sdevid.errors import UserError
from sdevid.settings.setting import Setting

ROLE = {
    "architecture": "fixed by the checkpoint",
    "objective": "what is minimised",
    "runtime": "free to change on resume",
    "data": "what is read",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the settings whose name contains PART. Raises UserError where there is none."""
    parser = command_parser(
        "settings", "List the settings of a run, as YAML keys and overrides.", "sdevid settings sde"
    )
    parser.add_argument(
        "part", nargs="?", metavar="PART", default="", help="show names that contain this"
    )
    parser.add_argument("--markdown", action="store_true", help="as the page docs/settings.md")
    options = parser.parse_args(arguments)
    from sdevid.config import Config
    from sdevid.settings.setting import all_settings

    chosen = [one for one in all_settings(Config) if options.part in one.path]
    if not chosen:
        raise UserError(f"no setting has {options.part!r} in its name; `sdevid settings` lists all")
    print("\n".join(_markdown(chosen) if options.markdown else _plain(chosen)))
    return 0


def _default(one: Setting) -> str:
    if one.default is None:
        return "null"
    if isinstance(one.default, bool):
        return str(one.default).lower()
    return str(list(one.default) if isinstance(one.default, tuple) else one.default)


def _kind(one: Setting) -> str:
    return f"{one.type} {one.limits}".strip() + (f", {one.unit}" if one.unit else "")


def _plain(chosen: Sequence[Setting]) -> Iterator[str]:
    for one in chosen:
        yield f"{one.path}={_default(one)}"
        yield f"    {one.help}"
        yield f"    {_kind(one)}; {one.role}: {ROLE[one.role]}"


def _markdown(chosen: Sequence[Setting]) -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield "Written by `sdevid settings --markdown`. Each is a key of a config's YAML file and, with"
    yield "dots for sections, an override: `sdevid train --config signs sde.hidden=128`. The role"
    yield "says what a resumed run does with a change: " + "; ".join(
        f"{name}, {meaning}" for name, meaning in ROLE.items()
    )
    yield ""
    yield "| setting | default | type, range, unit | role | meaning |"
    yield "| --- | --- | --- | --- | --- |"
    for one in chosen:
        cells = (f"`{one.path}`", f"`{_default(one)}`", _kind(one), one.role, one.help)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
