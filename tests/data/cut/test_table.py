"""A csv is read by RFC 4180; what breaks it is named with its line, and the rest goes on."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdevid.data.cut.table import TableRow, read_table
from sdevid.errors import UserError


def rows(folder: Path, text: str) -> list[TableRow]:
    path = folder / "t.csv"
    path.write_bytes(text.encode())
    return read_table(path, ("path", "caption"))


FIELDS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r"), max_size=8)


@given(st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=5))
def test_csv_written_by_the_csv_module_is_read_back(tmp_path_factory, records):
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("path", "caption"), *records])
    read = rows(tmp_path_factory.mktemp("t"), buffer.getvalue())
    assert [(row.fields["path"], row.fields["caption"], row.fault) for row in read] == [
        (*record, None) for record in records
    ]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("1.mp4,walks, turns", "has 3 fields, more than the 2 of the header"),
        ("1.mp4", "has 1 fields, fewer than the 2 of the header"),
        ('1.mp4,"never ends', "opens a quote that never ends"),
        ('1.mp4,"ends" early', "holds 'early' after a closing quote"),
        ('1.mp4,five " inches', "holds a quote within a text that is not quoted"),
    ],
)
def test_faulty_row_is_named_and_the_next_is_read(tmp_path, line, fault):
    first, *_, last = rows(tmp_path, f"path,caption\r\n{line}\r\n\r\n2.mp4,next\r\n")
    assert first.line == 2
    assert fault in (first.fault or "")
    assert last == TableRow(4, {"path": "2.mp4", "caption": "next"})


def test_quoted_text_may_hold_lines_commas_and_quotes(tmp_path):
    (row,) = rows(tmp_path, '\ufeffpath,caption\n1.mp4, "a ""dog"",\nrunning"\n')
    assert row == TableRow(2, {"path": "1.mp4", "caption": 'a "dog",\nrunning'})


@pytest.mark.parametrize("text", ["file,text\n", "", "path,caption,path\n", 'path,"caption\n'])
def test_header_without_its_columns_is_an_error(tmp_path, text):
    with pytest.raises(UserError, match=r"t\.csv (has the columns|names the column)"):
        rows(tmp_path, text)
