"""Parquet files: what they hold, the hash of a row group, and rows and slices behind a survey.

Rule: types pass through untouched, and nothing beyond the asked columns is decoded.
Strategy: a row group is hashed as it lies in the file, without decoding. Rows are cut from row groups; the last decoded
groups are kept, since a group of a million rows is many ranges.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from runner.errors import ChangedError, InputError
from runner.records import Row
from runner.sources.catalog import File, Range, Segment, Survey, labels
from runner.sources.copies import Copy
from runner.sources.hugegroups import copied_rows
from runner.sources.lines import BLOCK_BYTES, opened, read
from runner.sources.tiles import digest, hash_of
from runner.sources.types import without_columns

#: Rows that are Python objects at a time.
_CHUNK_ROWS = 512
#: Decoded row groups kept: one for the rows that are fed, one for the slices that are sealed.
_KEPT = 2


class Cut(NamedTuple):
    """The rows start … stop of block `number`, counted in the block."""

    number: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What the footer of a file says."""

    path: Path
    label: str
    schema: Any
    metadata: Any
    groups: tuple[int, ...]  #: rows of each row group
    ends: tuple[int, ...]  #: their running sum


def shape(path: Path, label: str) -> Shape:
    """Read the footer. Raises InputError when the file is damaged or no Parquet file."""
    with _open(path, label) as file:
        schema, metadata = file.schema_arrow, file.metadata
    twice = [name for name, times in Counter(schema.names).items() if times > 1]
    if twice:
        raise InputError(f"{label}: the column `{twice[0]}` is there twice", hint="write the file with one of them")
    groups = tuple(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
    return Shape(path, label, schema, metadata, groups, tuple(accumulate(groups)))


def cuts(ends: Sequence[int], start: int, stop: int) -> Iterator[Cut]:
    """The blocks (row groups of a file, files of an input) that start … stop touches; `ends`: where each ends."""
    for number in range(bisect_right(ends, start), len(ends)):
        begin = ends[number - 1] if number else 0
        if begin >= stop:
            return
        if begin < ends[number]:
            yield Cut(number, max(start, begin) - begin, min(stop, ends[number]) - begin)


def group_hash(shape: Shape, group: int, tell: Callable[[int], None]) -> bytes:
    """Over the raw bytes of every column chunk; `tell` gets the bytes read."""
    whole = digest()
    with opened(shape.path) as handle:
        for start, size in _chunks(shape.metadata.row_group(group)):
            handle.seek(start)
            for done in range(0, size, BLOCK_BYTES):
                data = read(handle, min(BLOCK_BYTES, size - done), shape.label)
                whole.update(data)
                tell(len(data))
    return bytes(whole.digest())


def segment_keys(schema: Any, touched: Iterable[Cut], hashes: Callable[[int], bytes]) -> list[bytes]:
    """What the hash of a range covers for one of its segments."""
    rows = [hashes(cut.number) + b"%d-%d;" % (cut.start, cut.stop) for cut in touched]
    return [*rows, schema.to_string(show_field_metadata=False, show_schema_metadata=False).encode(), b"\0"]


class ParquetSource:
    def __init__(self, survey: Survey, copies: Path | None) -> None:
        self._files = survey.files
        self._labels = labels([file.path for file in survey.files])
        self._copies = {
            number: Copy(file, self._labels[number], copies)
            for number, file in enumerate(survey.files)
            if file.spool and copies
        }
        self._ends = [tuple(accumulate(file.groups)) for file in survey.files]
        self._kept: dict[tuple[int, int, tuple[str, ...]], Any] = {}
        self._lock = Lock()

    def rows(self, segment: Segment, columns: Collection[str] | None) -> Iterator[Row]:
        """Values as Arrow's to_pylist gives them; nanoseconds are pandas.Timestamp and Timedelta, the datetime and
        timedelta that keep them. A row with a value that Python cannot hold (the year 20000) has an error, no data."""
        file = self._files[segment.file]
        names = tuple(sorted(set(file.columns if columns is None else columns).intersection(file.columns)))
        absent = dict.fromkeys(self._absent(file, columns))
        for offset, data in enumerate(chain.from_iterable(map(_python_rows, self._cut(segment, names)))):
            if isinstance(data, str):
                where = f"{self._labels[segment.file]}: row {segment.start + offset:,}"
                yield Row(segment.first + offset, None, f"{where}: {data}")
            else:
                yield Row(segment.first + offset, data | absent if absent else data)

    def table(self, segment: Segment, schema: Any) -> Any:
        file = self._files[segment.file]
        names = tuple(sorted(set(schema.names).intersection(file.columns)))
        return pa.concat_tables(_fitted(part, schema) for part in self._cut(segment, names))

    def check(self, number: int) -> None:
        if copy := self._copies.get(number):
            copy.check()

    def hash(self, piece: Range) -> str:
        """The hash of the rows that lie where the range's rows lay."""
        keys: list[bytes] = []
        for segment in piece.segments:
            now = shape(self._files[segment.file].path, self._labels[segment.file])
            touched = cuts(now.ends, segment.start, segment.end)
            keys += segment_keys(now.schema, touched, partial(group_hash, now, tell=_ignore))
        return hash_of(keys)

    def _absent(self, file: File, columns: Collection[str] | None) -> list[str]:
        """Columns that only other files have: null here. A column that no file has stays missing."""
        everywhere = dict.fromkeys(name for other in self._files for name in other.columns)
        return [name for name in everywhere if name not in file.columns and (columns is None or name in columns)]

    def _cut(self, segment: Segment, names: tuple[str, ...]) -> Iterator[Any]:
        if names and segment.file in self._copies:
            yield from copied_rows(self._copies[segment.file], segment.start, segment.end, names)
            return
        for cut in cuts(self._ends[segment.file], segment.start, segment.end):
            rows = cut.stop - cut.start
            yield (
                self._group(segment.file, cut.number, names).slice(cut.start, rows) if names else without_columns(rows)
            )

    def _group(self, file: int, group: int, names: tuple[str, ...]) -> Any:
        key = (file, group, names)
        with self._lock:
            table = self._kept.pop(key, None)
            if table is None:
                # make room before decoding, or three groups are in memory at once
                while len(self._kept) >= _KEPT:
                    del self._kept[next(iter(self._kept))]
                table = self._decode(file, group, names)
            self._kept[key] = table
        return table

    def _decode(self, number: int, group: int, names: tuple[str, ...]) -> Any:
        file, label = self._files[number], self._labels[number]
        with _open(file.path, label) as opened_file:
            table = _read_group(opened_file, group, names, label)
        if table.num_rows != file.groups[group]:
            raise ChangedError(
                f"{label}: row group {group} has {table.num_rows:,} rows, {file.groups[group]:,} were surveyed"
            )
        return table


def _open(path: Path, label: str) -> Any:
    try:
        # buffering a whole row group beforehand pays on object stores only
        return pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        message = f"{label} cannot be read as Parquet: {error}"
        raise InputError(message, hint="write it again, or leave it out") from error


def _read_group(file: Any, group: int, names: tuple[str, ...], label: str) -> Any:
    try:
        # a name also selects `name.child` of another column: choose again
        return file.read_row_group(group, columns=list(names)).select(list(names))
    except (pa.ArrowException, OSError, IndexError, KeyError) as error:
        raise InputError(f"{label}: row group {group} is damaged: {error}", hint="write the file again") from error


def _chunks(group: Any) -> Iterator[tuple[int, int]]:
    for number in range(group.num_columns):
        chunk = group.column(number)
        # some writers leave the dictionary's offset at 0
        start = min(offset for offset in (chunk.dictionary_page_offset, chunk.data_page_offset) if offset)
        yield start, chunk.total_compressed_size


def _fitted(table: Any, schema: Any) -> Any:
    arrays = [_fitted_column(table, field) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _fitted_column(table: Any, field: Any) -> Any:
    if field.name not in table.column_names:
        return pa.chunked_array([pa.nulls(table.num_rows, field.type)])
    column = table.column(field.name)
    return column if column.type.equals(field.type) else column.cast(field.type)


def _python_rows(table: Any) -> Iterator[dict[str, Any] | str]:
    """One dict a row, or why Python cannot hold it."""
    if not table.num_columns:
        yield from ({} for _ in range(table.num_rows))
        return
    for start in range(0, table.num_rows, _CHUNK_ROWS):
        yield from _converted(table.slice(start, _CHUNK_ROWS))


def _converted(chunk: Any) -> list[dict[str, Any] | str]:
    try:
        return list(chunk.to_pylist())
    except (ValueError, OverflowError):
        return [_python_row(chunk.slice(number, 1)) for number in range(chunk.num_rows)]


def _python_row(row: Any) -> dict[str, Any] | str:
    name = ""
    try:
        data = {}
        for name in row.column_names:
            data[name] = row.column(name)[0].as_py()
        return data
    except (ValueError, OverflowError) as error:
        return f"column `{name}`: {error}"


def _ignore(size_bytes: int) -> None:
    pass
