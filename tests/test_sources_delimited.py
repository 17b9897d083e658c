"""CSV records have the fields of their header, or are bad lines in words."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.errors import InputError
from runner.sources.delimited import header, records
from runner.sources.lines import Record, Span


def read(path: Path, data: bytes) -> tuple[Span, list[Record]]:
    path.write_bytes(data)
    found = header(Span(path, "t.csv", 0, len(data)))
    return found, list(records(found))


@pytest.mark.parametrize(
    ("data", "columns", "rows"),
    [
        (b"a,b\n1,2\n", ("a", "b"), [(4, 2, {"a": "1", "b": "2"})]),
        (b"a,b\n1,2", ("a", "b"), [(4, 2, {"a": "1", "b": "2"})]),
        (b"a,b\n", ("a", "b"), []),
        (b"a,b", ("a", "b"), []),
        (b"\xef\xbb\xbfa,b\r\n1,2\r\n", ("a", "b"), [(8, 2, {"a": "1", "b": "2"})]),
        (b'\xef\xbb\xbf"a",b\n1,2\n', ("a", "b"), [(9, 2, {"a": "1", "b": "2"})]),
        (b'a,b\n"x\ny",2\n3,4\n', ("a", "b"), [(4, 2, {"a": "x\ny", "b": "2"}), (12, 4, {"a": "3", "b": "4"})]),
        (b'a,b\n"x\n\ny",2\n', ("a", "b"), [(4, 2, {"a": "x\n\ny", "b": "2"})]),
        (b'a,b\n"x ""y"", z",\n', ("a", "b"), [(4, 2, {"a": 'x "y", z', "b": ""})]),
        (b"a,b\n\n\r\n1,2\n\n", ("a", "b"), [(7, 4, {"a": "1", "b": "2"})]),
        (b'"a\nb",c\n1,2\n', ("a\nb", "c"), [(8, 3, {"a\nb": "1", "c": "2"})]),
        (b'a\n""\n', ("a",), [(2, 2, {"a": ""})]),
        ("a\nx\u2028y\n".encode(), ("a",), [(2, 2, {"a": "x\u2028y"})]),
        ("a\n\ufffd\n".encode(), ("a",), [(2, 2, {"a": "\ufffd"})]),
        (b"a\n\x00\n", ("a",), [(2, 2, {"a": "\0"})]),
        (b"\n\na,b\n1,2\n", ("a", "b"), [(6, 4, {"a": "1", "b": "2"})]),
    ],
)
def test_records_are_read_where_they_stand(
    tmp_path: Path, data: bytes, columns: tuple[str, ...], rows: list[tuple[int, int, dict[str, str]]]
) -> None:
    span, found = read(tmp_path / "t.csv", data)
    assert span.header == columns
    assert [(offset, line, row) for offset, line, _, row, _ in found] == rows
    assert [data[offset : offset + len(raw)] for offset, _, raw, _, _ in found] == [raw for _, _, raw, _, _ in found]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (b"1", "has 1 field, the header has 2"),
        (b"1,2,3", "has 3 fields, the header has 2"),
        (b'"1"x,2', "text follows a closing quote; a quote inside a field is written twice"),
        (b"1,\xff", "is not UTF-8: byte 0xff at byte 2 of the record"),
        (b"1\r2,3", "a carriage return stands inside a field without quotes"),
    ],
)
def test_a_bad_record_is_told_and_the_next_one_is_read(tmp_path: Path, line: bytes, wrong: str) -> None:
    _, found = read(tmp_path / "t.csv", b"a,b\n" + line + b"\n5,6\n")
    assert [(row, error) for _, _, _, row, error in found] == [
        (None, f"t.csv:2 (byte 4): {wrong}"),
        ({"a": "5", "b": "6"}, None),
    ]


def test_a_quote_that_is_never_closed_is_told_where_it_opens(tmp_path: Path) -> None:
    _, found = read(tmp_path / "t.csv", b'a,b\n1,2\n3,"4\n5,6\n')
    assert [error for *_, error in found] == [
        None,
        "t.csv:3 (byte 8): a quote opened in this record is never closed",
    ]


def test_a_field_of_a_megabyte_is_ordinary(tmp_path: Path) -> None:
    text = "x" * (1 << 20)
    _, found = read(tmp_path / "t.csv", b"a\n" + text.encode() + b"\n")
    assert [row for _, _, _, row, _ in found] == [{"a": text}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "t.csv is empty; a CSV file begins with a header line"),
        (b"\n\n", "t.csv is empty; a CSV file begins with a header line"),
        (b"a,b,a\n", "t.csv:1 (byte 0): the header names the column `a` twice"),
        (b"a,,b\n", "t.csv:1 (byte 0): the header has a column without a name"),
        (b"a,,\n", "t.csv:1 (byte 0): the header has a column without a name"),
        (b"a, \n", "t.csv:1 (byte 0): the header has a column without a name"),
        (b"a,\xff\n", "t.csv:1 (byte 0): the header is not UTF-8: byte 0xff at byte 2 of the record"),
    ],
)
def test_a_header_that_names_no_columns_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path / "t.csv", data)
    assert caught.value.message == message
    assert caught.value.hint


FIELD = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('",\n\r '), max_size=12)


@settings(deadline=None, max_examples=EXAMPLES)
@given(
    rows=st.lists(st.tuples(FIELD, FIELD, FIELD), max_size=8),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
    terminator=st.sampled_from(["\n", "\r\n"]),
)
def test_whatever_csv_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], quoting: int, terminator: str
) -> None:
    if quoting == csv.QUOTE_MINIMAL:  # before Python 3.13 csv leaves a carriage return without quotes
        rows = [tuple(field.replace("\r", "") for field in row) for row in rows]
    text = io.StringIO()
    writer = csv.writer(text, quoting=quoting, lineterminator=terminator)  # type: ignore[arg-type]  # a constant of csv
    writer.writerows([("a", "b", "c"), *rows])
    data = text.getvalue().encode()
    _, found = read(tmp_path_factory.getbasetemp() / "written.csv", data)
    assert [tuple((row or {}).values()) for _, _, _, row, _ in found] == rows
    assert [data[offset : offset + len(raw)] for offset, _, raw, _, _ in found] == [raw for _, _, raw, _, _ in found]
