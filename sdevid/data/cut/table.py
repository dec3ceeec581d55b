"""Rows of a csv as RFC 4180 has it; what breaks its rules is named with its line, not guessed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdevid.errors import UserError


@dataclass(frozen=True)
class TableRow:
    """One record: its fields by column, or the fault that makes it useless."""

    line: int  # on which it begins, from 1
    fields: dict[str, str]
    fault: str | None = None


def read_table(path: Path, columns: tuple[str, ...]) -> list[TableRow]:
    """Read the records of a csv with a header, skipping empty lines.

    Raises UserError where it does not read, lacks a column or names one twice.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path} does not read as a csv in UTF-8: line {line} holds the byte "
            f"{content[error.start]:#04x} ({error.reason}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise UserError(f"{path} does not read as a csv in UTF-8: {error}") from error
    records = _records(text)
    _, header, fault = next(records, (1, [], None))
    header = [name.strip() for name in header]
    missing = [column for column in columns if column not in header]
    if missing or fault:
        raise UserError(
            f"{path} has the columns {', '.join(header) or 'none'}, but must begin with a header "
            f"that names {', '.join(columns)}{_other_separator(header, columns)}"
        )
    twice = [name for name in columns if header.count(name) > 1]
    if twice:
        raise UserError(f"{path} names the column {twice[0]} twice; leave one")
    return [_row(line, header, fields, fault) for line, fields, fault in records]


def _other_separator(header: Sequence[str], columns: Sequence[str]) -> str:
    """Say that the header would be right with another separator, or nothing."""
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if set(columns) <= {part.strip() for part in ",".join(header).split(separator)}:
            return f"; its columns are parted by {name}: save it with commas"
    return ""


def _row(line: int, header: list[str], fields: list[str], fault: str | None) -> TableRow:
    if fault is None and len(fields) != len(header):
        more = len(fields) > len(header)
        advice = "; put a text that holds commas in quotes" if more else ""
        fault = (
            f"has {len(fields)} fields, {'more' if more else 'fewer'} than the {len(header)} of "
            f"the header{advice}"
        )
    return TableRow(line, dict(zip(header, fields, strict=False)), fault)


def _records(text: str) -> Iterator[tuple[int, list[str], str | None]]:
    """Yield line, fields and fault of each record; after a fault, the next line begins a record."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    number = 0
    while number < len(lines):
        if lines[number].strip():
            fields, taken, fault = _record(lines, number)
            yield number + 1, fields, fault
            number += 1 if fault else taken
        else:
            number += 1


def _record(lines: list[str], first: int) -> tuple[list[str], int, str | None]:
    """Read the record that begins on line `first`: its fields, its number of lines, its fault."""
    fields: list[str] = []
    number, place = first, 0
    while True:
        line = lines[number]
        start = place + len(line[place:]) - len(line[place:].lstrip(" "))
        if line[start : start + 1] != '"':
            end = line.find(",", place)
            fields.append(line[place:] if end < 0 else line[place:end])
            if '"' in fields[-1]:
                return fields, 1, "holds a quote within a text that is not quoted"
            place = end
        else:
            quoted, number, place = _quoted(lines, number, start + 1)
            if quoted is None:
                return fields, 1, "opens a quote that never ends"
            fields.append(quoted)
            rest = lines[number][place:].lstrip(" ")
            if rest and not rest.startswith(","):
                return fields, 1, f"holds {rest[:20]!r} after a closing quote"
            place = lines[number].find(",", place) if rest else -1
        if place < 0:
            return fields, number - first + 1, None
        place += 1


def _quoted(lines: list[str], number: int, place: int) -> tuple[str | None, int, int]:
    """Read quoted text from `place` on: the text (None where it never ends) and where it ends."""
    parts: list[str] = []
    while number < len(lines):
        end = lines[number].find('"', place)
        if end < 0:
            parts += [lines[number][place:], "\n"]
            number, place = number + 1, 0
        elif lines[number].startswith('""', end):
            parts += [lines[number][place:end], '"']
            place = end + 2
        else:
            return "".join([*parts, lines[number][place:end]]), number, end + 1
    return None, number, 0
