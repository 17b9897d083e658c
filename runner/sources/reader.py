"""The rows of a survey, by range: the one reader of the input while a run goes on.

Rule: lazy and bounded; a range is read where the survey found it, and is the same rows or an error, never others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from runner.errors import ChangedError
from runner.records import Row
from runner.sources.catalog import STDIN, File, Range, Segment, Survey, labels
from runner.sources.parquet import ParquetSource
from runner.sources.text import TextSource
from runner.sources.types import without_columns


class Source(Protocol):
    """What a format must give."""

    def rows(self, segment: Segment, columns: Collection[str] | None) -> Iterator[Row]: ...

    def table(self, segment: Segment, schema: Any) -> Any: ...

    def check(self, number: int) -> None: ...

    def hash(self, piece: Range) -> str: ...


class Reader:
    """Any thread may call any method.

    Reader(survey).rows(3)                  Row(24576, {...}), Row(24577, {...}), …
    Reader(survey).table(3, ["title"])      pa.Table, one row for each of them
    Reader(survey).verify(3)                nothing, or ChangedError
    """

    def __init__(self, survey: Survey, copies: Path | None = None) -> None:
        """`copies`: the directory where the copies of what cannot be sought lie; None: the survey made none."""
        self._survey = survey
        self._verified: dict[
            int, tuple[tuple[int, int] | None, ...]
        ] = {}  #: files as they stood when rows were compared
        self._copies = copies
        parquet = any(file.format == "parquet" for file in survey.files)
        self._source: Source = ParquetSource(survey, copies) if parquet else TextSource(survey, copies)

    def rows(self, range_no: int, columns: Collection[str] | None = None) -> Iterator[Row]:
        """The rows of a range in order. `data` is what the input says, not yet of the column's type: a JSON object as
        parsed, CSV fields as strings, of Parquet only `columns` (None: all). A bad line has `error` and no data."""
        for segment in self._survey.ranges[range_no].segments:
            yield from self._source.rows(segment, columns)

    def table(self, range_no: int, columns: Sequence[str]) -> Any:
        """A pa.Table of the survey's types, one row for each ordinal of the range in order; a bad line is nulls.

        Raises KeyError for a column that is not in the survey, ChangedError when the rows are not those surveyed.
        """
        piece = self._survey.ranges[range_no]
        schema = pa.schema([self._survey.schema.field(name) for name in columns])
        if not columns:
            return without_columns(piece.rows)
        return pa.concat_tables([self._source.table(segment, schema) for segment in piece.segments])

    def verify(self, range_no: int) -> None:
        """Nothing while the range's files stand as surveyed, by size and time of change; else the rows themselves are
        compared. A file that was copied may change, its copy may not: that is checked as it is read.

        Raises ChangedError naming the file and the rows, InputError when the file cannot be read."""
        piece = self._survey.ranges[range_no]
        for segment in piece.segments:
            self._source.check(segment.file)
        touched = [segment.file for segment in piece.segments if not self._stands(segment.file)]
        moments = tuple(moment(self._survey.files[file]) for file in touched)
        if not touched or self._verified.get(range_no) == moments:
            return
        if self._source.hash(piece) != piece.hash:
            names = labels([file.path for file in self._survey.files])
            raise ChangedError(
                f"{', '.join(names[file] for file in touched)}: the rows {piece.first:,} to "
                f"{piece.first + piece.rows - 1:,} are not the ones that this run was started with",
                hint="put the file back as it was, or start anew with `--fresh`",
            )
        self._verified[range_no] = moments

    def _stands(self, number: int) -> bool:
        file = self._survey.files[number]
        return bool(file.spool and self._copies) or unchanged(file)


def unchanged(file: File) -> bool:
    """Whether the file has the size and time of change that it was surveyed with. Stdin is not there to change."""
    return file.path == STDIN or moment(file) == (file.size, file.mtime_ns)


def moment(file: File) -> tuple[int, int] | None:
    """Size and time of change as they are now; None: it cannot be looked at."""
    try:
        now = file.path.stat()
    except OSError:
        return None
    return now.st_size, now.st_mtime_ns
