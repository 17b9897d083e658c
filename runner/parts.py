"""A range made a Parquet file: journal and input slice in, part out.

Rule: a part appears under its name only when it is whole and durable; whatever the journal accepted can be sealed.
Strategy: record lines are found in the journal by their bytes (no parsing), put in row order, and turned into Arrow by
`read_json` with the explicit schema in chunks of at most 32 MB; a line that it refuses is sealed as a failed row rather
than block its range. The footer says which run, range and epoch this is, with the exact totals of its rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from runner import files
from runner.columns import prefix_of
from runner.errors import RunDirectoryError, RunnerError
from runner.journal import Line, intact_lines, record_row, seed
from runner.records import Kind, Status, Tally

CHUNK_BYTES = 32 << 20
FOOTER_KEY = b"runner"
_MONEY = ("cost_usd", "wasted_usd", "unknown_usd")


@dataclass(frozen=True, slots=True)
class Range:
    """Which rows a part holds, of which run."""

    run: str
    number: int
    first_row: int
    rows: int
    epoch: int
    input_hash: str


@dataclass(frozen=True, slots=True)
class Footer:
    """What a part says of itself."""

    run: str
    range: int
    epoch: int
    rows: int
    input_hash: str
    totals: Tally


def totals_to_json(tally: Tally) -> dict[str, Any]:
    """Exact: dollars as decimal text."""
    plain = {name: getattr(tally, name) for name in Tally.__dataclass_fields__}
    return plain | {name: str(plain[name]) for name in _MONEY}


def totals_from_json(plain: dict[str, Any]) -> Tally:
    money = {name: Decimal(plain[name]) for name in _MONEY if name in plain}
    return Tally(**{**plain, **money})


def read_footer(path: Path) -> Footer:
    """Raises RunDirectoryError for a file that is no part of ours."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
        members = json.loads(metadata[FOOTER_KEY])
    except (OSError, KeyError, pa.ArrowInvalid, ValueError) as error:
        raise _unreadable(path, error) from error
    return Footer(**(members | {"totals": totals_from_json(members["totals"])}))


def result_columns(path: Path, names: Sequence[str]) -> Any:
    """Result columns of a part as an Arrow table, under their names without the prefix. Raises RunDirectoryError for a
    file that is no part of ours, StorageError when it cannot be read."""
    try:
        prefix = prefix_of(pq.read_schema(path).names)
        table = pq.read_table(path, columns=[prefix + name for name in names], partitioning=None)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error
    return table.rename_columns(list(names))


def _unreadable(path: Path, error: Exception) -> RunnerError:
    if isinstance(error, FileNotFoundError):
        return files.vanished("cannot read", path)
    if isinstance(error, OSError) and error.errno:  # Arrow raises others for what a file holds
        return files.storage_error("cannot read", path, error)
    return RunDirectoryError(
        f"{path} is not a whole part of a run: {error}",
        hint="move it out of the results directory; its rows are sent again only if their journal is gone too",
    )


def record_lines(data: Any, run: str, range_no: int) -> dict[int, Line]:
    """Where the record of each row stands in the bytes of a journal; the last one of a row wins."""
    found: dict[int, Line] = {}
    for line in intact_lines(data, seed(run, range_no)):
        row = record_row(data, line) if line else None
        if line and row is not None:
            found[row] = line
    return found


def record_tables(data: Any, lines: Sequence[Line], schema: pa.Schema) -> Iterator[pa.Table]:
    """Record lines as Arrow tables of the result schema, in the order given, in chunks of at most 32 MB."""
    chunk: list[bytes] = []
    size = 0
    for line in lines:
        text = bytes(data[line.start : line.end])
        if chunk and size + len(text) > CHUNK_BYTES:
            yield _table(chunk, schema)
            chunk, size = [], 0
        chunk.append(text)
        size += len(text) + 1
    if chunk:
        yield _table(chunk, schema)


def _table(chunk: Sequence[bytes], schema: pa.Schema) -> pa.Table:
    try:
        return _read_json(chunk, schema)
    except pa.ArrowInvalid:
        if len(chunk) > 1:
            middle = len(chunk) // 2
            return pa.concat_tables([_table(chunk[:middle], schema), _table(chunk[middle:], schema)])
    return _read_json([_sealable_part(chunk[0], schema)], schema)


def _read_json(chunk: Sequence[bytes], schema: pa.Schema) -> pa.Table:
    text = b"\n".join(chunk)
    # One block for all: read_json cannot take an object that is larger than its block.
    options = pj.ReadOptions(use_threads=False, block_size=len(text) + 16)
    parsing = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    return pj.read_json(pa.BufferReader(text), read_options=options, parse_options=parsing).select(schema.names)


def _sealable_part(line: bytes, schema: pa.Schema) -> bytes:
    """A record that Arrow refuses, as a failed row with the columns that it takes. Not known to happen (a property
    test tries), but a paid answer must never block its range."""
    record = orjson.loads(line)
    kept: dict[str, Any] = {}
    for field in schema:
        try:
            _read_json([orjson.dumps({field.name: record.get(field.name)})], pa.schema([field]))
        except pa.ArrowInvalid:
            continue
        kept[field.name] = record.get(field.name)
    refused = ", ".join(name for name in schema.names if name not in kept)
    said = f"the answer does not fit the result columns {refused}, which are left empty"
    return orjson.dumps(kept | {"status": Status.FAILED, "error_kind": Kind.BAD_REPLY, "error": said})


@dataclass(frozen=True, slots=True)
class Shape:
    """The two schemas of a run: `results` as the journal holds them, `part` with the input columns and the prefix."""

    results: pa.Schema
    part: pa.Schema


def seal(part: Range, totals: Tally, paths: tuple[Path, Path], shape: Shape, inputs: Callable[[], pa.Table]) -> None:
    """Write the part of a complete range and put it in place, durably.

    paths: the range's journal, and the part to be. When the range was opened again, the part is there already: rows
    without a record in the journal keep what it says of them. inputs: gives the range's input columns, one row per
    ordinal. The caller deletes the journal afterwards: a crash before that only means sealing again.
    """
    journal, target = paths
    temporary = journal.with_name(f"{target.name}.tmp")
    schema = shape.part.with_metadata({FOOTER_KEY: _footer(part, totals)})
    with files.mapped(journal) as data:
        lines = record_lines(data, part.run, part.number)
        kept = kept_rows(target, shape, lines)
        _check_complete(part, {*lines, *(kept["row_index"].to_pylist() if kept else ())}, journal)
        tables = record_tables(data, [lines[row] for row in sorted(lines)], shape.results)
        _write(temporary, schema, inputs(), tables if kept is None else in_order([kept, *tables]))
    _put_in_place(temporary, target)


def kept_rows(path: Path, shape: Shape, but: Collection[int]) -> pa.Table | None:
    """The result columns, without prefix, of the rows of a part that are not among `but`; None: there is no part."""
    if not path.exists():
        return None
    table = result_columns(path, shape.results.names)
    stays = [row not in but for row in table["row_index"].to_pylist()]
    return table.filter(pa.array(stays, pa.bool_())).cast(shape.results)


def in_order(tables: Sequence[pa.Table]) -> Iterator[pa.Table]:
    """Tables of the result schema as one, sorted by row_index."""
    together = pa.concat_tables(tables)
    rows = together["row_index"].to_pylist()
    yield together.take(pa.array(sorted(range(len(rows)), key=rows.__getitem__), pa.int64()))


def write_part(part: Range, totals: Tally, target: Path, shape: Shape, columns: tuple[pa.Table, pa.Table]) -> None:
    """A whole part out of its input columns and its result columns, row by row the same, durably."""
    inputs, results = columns
    temporary = target.with_name(f"{target.name}.tmp")
    schema = shape.part.with_metadata({FOOTER_KEY: _footer(part, totals)})
    _write(temporary, schema, inputs, iter([results]))
    _put_in_place(temporary, target)


def write_empty(part: Range, journal_directory: Path, target: Path, shape: Shape) -> None:
    """The one part of a run without rows: no row, the full schema."""
    temporary = journal_directory / f"{target.name}.tmp"
    schema = shape.part.with_metadata({FOOTER_KEY: _footer(part, Tally())})
    _write(temporary, schema, schema.empty_table(), iter(()))
    _put_in_place(temporary, target)


def _check_complete(part: Range, found: Collection[int], journal: Path) -> None:
    wanted = range(part.first_row, part.first_row + part.rows)
    missing = [row for row in wanted if row not in found]
    if missing or len(found) != part.rows:
        said = f"{len(missing)} rows have no record (first {missing[:1]})"
        raise RunDirectoryError(f"{journal}: {said}; cannot be sealed")


def _write(path: Path, schema: pa.Schema, inputs: pa.Table, tables: Iterator[pa.Table]) -> None:
    files.remove(path)
    os.close(files.open_append(path))  # made by us, so that it is 0600 whatever the umask
    try:
        with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
            first = 0
            for results in tables:
                slice_ = inputs.slice(first, results.num_rows)
                columns = [*slice_.columns, *results.columns]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
                first += results.num_rows
    except OSError as error:
        raise files.storage_error("cannot write", path, error) from error


def _put_in_place(temporary: Path, target: Path) -> None:
    descriptor = files.open_append(temporary)
    try:
        files.sync(descriptor, temporary)
    finally:
        os.close(descriptor)
    partial = target.with_suffix(".partial.parquet")
    if partial.exists():  # it becomes the whole part first: at no instant are its rows there twice, or not at all
        files.rename(temporary, partial)
        files.rename(partial, target)
    else:
        files.rename(temporary, target)
    files.sync_directory(temporary.parent)
    files.sync_directory(target.parent)


def _footer(part: Range, totals: Tally) -> bytes:
    members = {"run": part.run, "range": part.number, "epoch": part.epoch, "rows": part.rows}
    # The standard library's json: sums of what servers call token counts may pass 64 bits, which orjson refuses.
    return json.dumps(members | {"input_hash": part.input_hash, "totals": totals_to_json(totals)}).encode()
