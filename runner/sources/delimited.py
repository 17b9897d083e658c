"""CSV (RFC 4180) -> records; every value is a string.

Rule: a record with as many fields as the header, or a bad line in words.
Strategy: csv.reader pulls as many lines as a record needs, and what it pulled gives the record's bytes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from runner.errors import InputError
from runner.sources.lines import Record, Span, lines

# The default, 128 KiB, refuses a pasted document. A quote that is never closed takes the rest of the file as one field,
# and csv holds 4 bytes a character: 512 MB is where that ends.
csv.field_size_limit(1 << 27)

_REASONS = {
    "unexpected end of data": "a quote opened in this record is never closed",
    "new-line character seen in unquoted field": "a carriage return stands inside a field without quotes",
    "field larger than field limit": "a field is larger than 128 MB; is a quote never closed?",
    "expected after": "text follows a closing quote; a quote inside a field is written twice",
}


def header(span: Span) -> Span:
    """The span of a whole file without its header line, and with the columns that it names. Raises InputError."""
    for offset, number, raw, fields, why in _split(span):
        names = tuple(fields)
        wrong = why or _wrong_header(names)
        if wrong:
            raise InputError(f"{span.where(number, offset)}: the header {wrong}", hint="name every column once")
        # a header without a newline ends the file
        start = min(offset + len(raw) + 1, span.end)
        return replace(span, start=start, line=number + raw.count(b"\n") + 1, header=names)
    raise InputError(
        f"{span.label} is empty; a CSV file begins with a header line", hint="write the header, or leave it out"
    )


def records(span: Span) -> Iterator[Record]:
    """The rows of a span and its bad lines, in order; blank lines are skipped."""
    names, width = span.header, len(span.header)
    for offset, number, raw, fields, why in _split(span):
        if why is None and len(fields) == width:
            yield offset, number, raw, dict(zip(names, fields, strict=True)), None
            continue
        wrong = why or f"has {len(fields)} field{'s' * (len(fields) != 1)}, the header has {width}"
        yield offset, number, raw, None, f"{span.where(number, offset)}: {wrong}"


def _split(span: Span) -> Iterator[tuple[int, int, bytes, list[str], str | None]]:
    """(offset, line number, bytes, fields, what is wrong) of every record that is not blank."""
    pulled: list[bytes] = []
    reader = csv.reader(_text(span, pulled), strict=True)
    offset, number = span.start, span.line
    while True:
        fields, why = _next(reader)
        if not pulled:
            return
        raw = b"\n".join(pulled)
        if why is None and any("\ufffd" in field for field in fields):
            why = _broken_text(raw)
        if fields or why:
            yield offset, number, raw, fields, why
        offset += len(raw) + 1
        number += len(pulled)
        pulled.clear()


def _text(span: Span, pulled: list[bytes]) -> Iterator[str]:
    first = span.start == 0
    for line in lines(span):
        pulled.append(line)
        text = line.decode("utf-8", "replace") + "\n"
        yield text.removeprefix("\ufeff") if first else text
        first = False


def _next(reader: Any) -> tuple[list[str], str | None]:
    try:
        return next(reader, []), None
    except csv.Error as error:
        said = str(error)
    return [], next((reason for sign, reason in _REASONS.items() if sign in said), said)


def _broken_text(raw: bytes) -> str | None:
    """U+FFFD may stand in the file itself; only bytes that are not UTF-8 are wrong."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"is not UTF-8: byte 0x{raw[error.start]:02x} at byte {error.start} of the record"
    return None


def _wrong_header(names: tuple[str, ...]) -> str | None:
    twice = next((name for place, name in enumerate(names) if name in islice(names, place)), None)
    if twice is not None and twice.strip():
        return f"names the column `{twice}` twice"
    return None if all(name.strip() for name in names) else "has a column without a name"
