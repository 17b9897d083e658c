"""A line is one JSON object, exactly as it was written, or a bad line in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.errors import InputError
from runner.sources import lines
from runner.sources.jsonl import MAX_DEPTH, parse, records
from runner.sources.lines import BLOCK_BYTES, Span


def span(path: Path, data: bytes) -> Span:
    path.write_bytes(data)
    return Span(path, "t.jsonl", 0, len(data))


def nested(levels: int) -> bytes:
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b'{"a":1}', {"a": 1}),
        (b' {"a":1}\r', {"a": 1}),
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        ('{"a":"\u2028é漢😀"}'.encode(), {"a": "\u2028é漢😀"}),
        (b'{"a":18446744073709551615}', {"a": 2**64 - 1}),
        (b'{"a":18446744073709551616}', {"a": 2**64}),
        (b'{"a":-9223372036854775809}', {"a": -(2**63) - 1}),
        (b'{"a":[{"b":123456789012345678901234567890}]}', {"a": [{"b": 123456789012345678901234567890}]}),
        (b'{"a":"123456789012345678901234567890"}', {"a": "123456789012345678901234567890"}),
        (b'{"a":0.1234567890123456789012}', {"a": 0.1234567890123456789012}),
        (b'{"a":3.0}', {"a": 3.0}),
        (b'{"a":1,"b":2,"a":3}', {"a": 3, "b": 2}),
        (b'{"a":"\\ud800x"}', {"a": "\ud800x"}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "😀"}),
        (b'{"a":"\\u0000"}', {"a": "\0"}),
        (b'{"":null}', {"": None}),
        (b"{}", {}),
    ],
)
def test_a_line_keeps_its_values(line: bytes, value: dict[str, Any]) -> None:
    assert parse(line) == value
    assert [type(item) for item in value.values()] == [type(item) for item in parse(line).values()]  # type: ignore[union-attr]  # a dict, as just asserted


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (b"[1]", "is a list, not an object"),
        (b'"a"', "is a string, not an object"),
        (b"12", "is a number, not an object"),
        (b"1.5", "is a number, not an object"),
        (b"12345678901234567890123", "is a number, not an object"),
        (b"true", "is a boolean, not an object"),
        (b"null", "is null, not an object"),
        (b'"is not JSON"', "is a string, not an object"),
        (b'"\\ud800"', "is a string, not an object"),
        (b'{"a":1', "is not JSON: Expecting ',' delimiter at column 7"),
        (b"{'a':1}", "is not JSON: Expecting property name enclosed in double quotes at column 2"),
        (b'{"a":1}{"a":2}', "is not JSON: Extra data at column 8"),
        (b'{"a":"\t"}', "is not JSON: Invalid control character at at column 7"),
        (b'{"a":1}\x00', "is not JSON: Extra data at column 8"),
        (b'{"a":NaN}', "is not JSON that can be kept: NaN is not JSON; write null"),
        (b'{"a":-Infinity}', "is not JSON that can be kept: -Infinity is not JSON; write null"),
        (b'{"a":1e400}', "is not JSON that can be kept: 1e400 is beyond a 64-bit float; write it as a string"),
        (b'{"a":"\xff"}', "is not UTF-8: byte 0xff at byte 6 of the line"),
        (b'{"a":"\xed\xa0\x80"}', "is not UTF-8: byte 0xed at byte 6 of the line"),
        (b'{"\\ud800":1}', "has a column whose name is not valid text (a lone surrogate)"),
        (nested(MAX_DEPTH + 1), "is nested more than 200 deep"),
        (b"[" * 5000 + b"]" * 5000, "is nested more than 200 deep"),
        (b'{"a":' + b"[" * 100_000 + b"}", "is nested more than 200 deep"),
    ],
)
def test_a_bad_line_is_told_in_words(line: bytes, wrong: str) -> None:
    said = parse(line)
    assert isinstance(said, str)
    assert str(said) == wrong


def test_an_integer_of_5000_digits_is_a_bad_line() -> None:
    said = parse(b'{"a":' + b"1" * 5000 + b"}")
    assert isinstance(said, str)
    assert "4300 digits" in said


def test_the_deepest_row_that_is_taken_can_be_written_again() -> None:
    assert json.loads(nested(MAX_DEPTH)) == parse(nested(MAX_DEPTH))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n\n", []),
        (b"\xef\xbb\xbf", []),
        (b'{"a":1}', [(0, 1)]),
        (b'{"a":1}\n', [(0, 1)]),
        (b'\xef\xbb\xbf{"a":1}\r\n\r\n  \n{"a":2}\r\n', [(0, 1), (17, 4)]),
        (b'\n\n{"a":1}\n\n{"a":2}', [(2, 3), (11, 5)]),
        ('{"a":"x\u2028y\u0085z"}\n{}'.encode(), [(0, 1), (17, 2)]),
    ],
)
def test_lines_end_at_newlines_only_and_blank_ones_are_no_rows(
    tmp_path: Path, data: bytes, expected: list[tuple[int, int]]
) -> None:
    found = list(records(span(tmp_path / "t.jsonl", data)))
    assert [(offset, line) for offset, line, *_ in found] == expected
    assert [error for *_, error in found] == [None] * len(expected)


def test_a_bad_line_is_reported_with_file_line_and_byte(tmp_path: Path) -> None:
    good, bad = records(span(tmp_path / "t.jsonl", b'\n{"a":1}\nnull\n'))
    assert good == (1, 2, b'{"a":1}', {"a": 1}, None)
    assert bad == (9, 3, b"null", None, "t.jsonl:3 (byte 9): is null, not an object")


def test_a_line_longer_than_many_blocks_is_one_row(tmp_path: Path) -> None:
    text = "x" * (5 * BLOCK_BYTES)
    data = json.dumps({"a": text}).encode() + b'\n{"a":"y"}'
    assert [row for _, _, _, row, _ in records(span(tmp_path / "t.jsonl", data))] == [{"a": text}, {"a": "y"}]


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MOST_LINE_BYTES", 5 << 20)
    fits = b'{"a":1}\n{"a":"' + b"x" * (5 << 20) + b'"}\n{"a":1}'
    assert len([*records(span(tmp_path / "t.jsonl", fits))]) == 3
    with pytest.raises(InputError, match=r"^t\.jsonl: the line that begins at byte 8 is longer than 5 MB$") as caught:
        [*records(span(tmp_path / "t.jsonl", b'{"a":1}\n[' + b"0," * (4 << 20)))]
    assert caught.value.hint


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(st.integers(0, 400_000), max_size=8), ends=st.booleans())
def test_every_offset_is_where_its_line_begins(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int], ends: bool
) -> None:
    texts = [json.dumps({"n": n, "pad": "p" * n}).encode() for n in rows]
    data = b"\n".join(texts) + (b"\n" if ends else b"")
    found = list(records(span(tmp_path_factory.getbasetemp() / "offsets.jsonl", data)))
    assert [data[offset : offset + len(raw)] for offset, _, raw, _, _ in found] == texts
    assert [line for _, line, *_ in found] == list(range(1, len(rows) + 1))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=EXAMPLES)
@given(row=st.dictionaries(st.text(), JSON, max_size=5), ascii_only=st.booleans())
def test_whatever_json_writes_is_read_back(row: dict[str, Any], ascii_only: bool) -> None:
    line = json.dumps(row, ensure_ascii=ascii_only).encode()
    assert parse(line) == row


@settings(deadline=None, max_examples=EXAMPLES)
@given(line=st.binary(max_size=60))
def test_no_bytes_raise(line: bytes) -> None:
    assert isinstance(parse(line), dict | str)
