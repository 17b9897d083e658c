"""The three forms that results are exported in: JSON lines, CSV, one Parquet file.

Rule: a writer holds a thousand rows at a time and has only `write` of its stream to stand on; it never seeks.

CSV is RFC 4180 in UTF-8. Spreadsheets run a cell that begins with = + - @ or with a tab, a CR or an LF as a formula
(OWASP, CSV injection), so text that does gets an apostrophe in front, headers too. Numbers stay numbers.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from runner.export.plain import is_nested, values

ROWS_AT_ONCE = 1024
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")


class Stream(Protocol):
    """Where bytes go."""

    def write(self, data: Any, /) -> Any: ...


class Writer(Protocol):
    """Tables in, bytes out. `write` says how many rows it wrote; `finish` writes what stands at the end, and gives the
    sentences about what was left out."""

    def write(self, table: Any) -> int: ...

    def finish(self) -> list[str]: ...


class JsonLines:
    """One object a line. json_texts: the columns whose text is JSON, given back as what it says."""

    def __init__(self, schema: Any, json_texts: Collection[str], out: Stream) -> None:
        self._names = schema.names
        self._json_texts = json_texts
        self._out = out

    def write(self, table: Any) -> int:
        for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
            columns = [self._column(name, batch.column(number)) for number, name in enumerate(self._names)]
            rows = (dict(zip(self._names, row, strict=True)) for row in zip(*columns, strict=True))
            self._out.write(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
        return int(table.num_rows)

    def _column(self, name: str, array: Any) -> list[Any]:
        found = values(array)
        if name not in self._json_texts:
            return found
        # As it stands: parsing would round integers beyond 64 bit.
        return [None if text is None else orjson.Fragment(text) for text in found]

    def finish(self) -> list[str]:
        return []


class Csv:
    """A header and one record a row. flat: the column whose members become columns of their own."""

    def __init__(self, schema: Any, json_texts: Collection[str], flat: str, out: Stream) -> None:
        self._json_texts = json_texts
        self._flat = flat if _has_room(schema, flat) else ""
        self._out = out
        self._write_records([[defused(name) for name in flattened(schema.empty_table(), self._flat).column_names]])

    def write(self, table: Any) -> int:
        for batch in flattened(table, self._flat).to_batches(max_chunksize=ROWS_AT_ONCE):
            names = enumerate(batch.schema.names)
            columns = [cells(batch.column(number), is_json=name in self._json_texts) for number, name in names]
            self._write_records(zip(*columns, strict=True))
        return int(table.num_rows)

    def _write_records(self, records: Any) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(records)
        self._out.write(text.getvalue().encode())

    def finish(self) -> list[str]:
        return []


class Parquet:
    """One file of the parts' own schema; each table is a row group."""

    def __init__(self, schema: Any, out: Stream) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(out, schema, compression="zstd", write_page_checksum=True)

    def write(self, table: Any) -> int:
        self._writer.write_table(table.cast(self._schema))
        return int(table.num_rows)

    def finish(self) -> list[str]:
        self._writer.close()
        return []


def cells(array: Any, *, is_json: bool) -> list[Any]:
    """What the CSV cells of a column hold; is_json: its text is JSON. None: an empty cell."""
    found = values(array)
    if is_json:
        return found
    write = next((write for fits, write in _CELLS if fits(array.type)), None)
    return found if write is None else [None if value is None else write(value) for value in found]


def defused(text: str) -> str:
    """`text` as a spreadsheet shows it rather than runs it."""
    return f"'{text}" if _FORMULA.match(text) else text


def flattened(table: Any, name: str) -> Any:
    """The table with the members of the struct column `name`, and of structs in it, as columns of their own."""
    columns: list[tuple[str, Any]] = []
    for each in table.column_names:
        columns += _leaves(table.select([each])) if each == name else [(each, table[each])]
    schema = pa.schema([(label, column.type) for label, column in columns])
    return pa.Table.from_arrays([column for _, column in columns], schema=schema)


def _leaves(table: Any) -> Iterator[tuple[str, Any]]:
    while any(types.is_struct(kind) for kind in table.schema.types):
        table = table.flatten()
    yield from zip(table.column_names, table.columns, strict=True)


def _has_room(schema: Any, name: str) -> bool:
    """Whether the members' names are nobody else's: the input may have a column `parsed.label` of its own."""
    names = flattened(schema.empty_table(), name).column_names
    return len(names) == len(set(names))


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _is_text(kind: Any) -> bool:
    """Binary is in it: base64 may begin with a plus."""
    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return any(fits(kind) for fits in (types.is_string, types.is_large_string, *_BINARY))


_BINARY = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
_CELLS: tuple[tuple[Callable[[Any], bool], Callable[[Any], str]], ...] = (
    (is_nested, _json),
    (_is_text, defused),
    (types.is_boolean, lambda value: "true" if value else "false"),
)
