"""JSONL and CSV files behind a survey: rows, Arrow slices and hashes of their segments.

Rule: a range is read from its own bytes, in blocks of about 1 MB. Each call opens its files anew: any thread may call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from runner.errors import ChangedError
from runner.records import Row
from runner.sources import delimited, jsonl
from runner.sources.catalog import STDIN, File, Range, Segment, Survey, labels
from runner.sources.copies import Copy
from runner.sources.lines import Record, Span
from runner.sources.stream import Copied, Forward, whole_text
from runner.sources.tiles import Tiler
from runner.sources.types import array
from runner.sources.unpack import is_packed

RECORDS: dict[str, Callable[[Span], Iterator[Record]]] = {"jsonl": jsonl.records, "csv": delimited.records}

#: Rows that are Python objects at a time while a slice is built.
_CHUNK_ROWS = 2048


class TextSource:
    def __init__(self, survey: Survey, copies: Path | None) -> None:
        self._files = survey.files
        self._labels = labels([file.path for file in survey.files])
        self._sources = [_source(file, label, copies) for file, label in zip(self._files, self._labels, strict=True)]

    def check(self, number: int) -> None:
        source = self._sources[number]
        if isinstance(source, Copied):
            source.copy.check()

    def rows(self, segment: Segment, columns: Collection[str] | None) -> Iterator[Row]:
        """`columns` chooses nothing here: a line is parsed as a whole."""
        for (_, _, _, data, error), index in self._records(segment):
            yield Row(index, data, error)

    def table(self, segment: Segment, schema: Any) -> Any:
        records = self._records(segment)
        batches = []
        while chunk := [record[3] or {} for record, _ in islice(records, _CHUNK_ROWS)]:
            batches.append(self._batch(segment, schema, chunk))
        return pa.Table.from_batches(batches, schema)

    def hash(self, piece: Range) -> str:
        """The hash of the rows that lie where the range's rows lay."""
        headers = {segment.file: self._header_now(segment.file) for segment in piece.segments}
        tiler = Tiler(piece.rows, [headers.get(number, ()) for number in range(len(self._files))])
        for segment in piece.segments:
            for record, _ in self._records(segment):
                tiler.add(segment.file, record)
        (now,) = tiler.ranges(piece.rows)
        return now.hash

    def _header_now(self, number: int) -> tuple[str, ...]:
        """A renamed column changes what the rows say, though none of their bytes."""
        file = self._files[number]
        if file.format != "csv":
            return ()
        return delimited.header(whole_text(file.path, self._labels[number])).header

    def _records(self, segment: Segment) -> Iterator[tuple[Record, int]]:
        """Exactly `segment.rows` records with their ordinals. Raises ChangedError when there are fewer."""
        file, label = self._files[segment.file], self._labels[segment.file]
        source = self._sources[segment.file]
        span = Span(file.path, label, segment.start, segment.end, segment.line, file.columns, source)
        ordinals = iter(range(segment.first, segment.first + segment.rows))
        yield from zip(RECORDS[file.format](span), ordinals, strict=False)
        if left := len(list(ordinals)):
            raise ChangedError(f"{label}: {left:,} of the {segment.rows:,} rows from line {segment.line:,} on are gone")

    def _batch(self, segment: Segment, schema: Any, rows: Sequence[dict[str, Any]]) -> Any:
        try:
            columns = [array([row.get(field.name) for row in rows], field) for field in schema]
            return pa.RecordBatch.from_arrays(columns, schema=schema)
        except pa.ArrowException as error:
            label = self._labels[segment.file]
            raise ChangedError(f"{label} has values that its survey did not see: {error}") from error


def _source(file: File, label: str, copies: Path | None) -> Copied | Forward | None:
    """Where the bytes of a file come from; None: from itself."""
    if file.spool and copies:
        return Copied(Copy(file, label, copies))
    return Forward(file.path, label) if is_packed(file.path) and file.path != STDIN else None
