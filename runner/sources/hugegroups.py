"""Parquet files whose row groups are too large to be read again and again: their rows are copied, a range a frame.

Rule: what is read from the copy is what the file says, to the type.
Strategy: a row group can only be decoded as a whole, so the survey streams through it once, and writes each range's
rows as an Arrow stream of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from runner.errors import InputError
from runner.sources.copies import Copy, Outlet, SpoolFile

if TYPE_CHECKING:
    from runner.sources.parquet import Shape

#: Two decoded groups are kept at a time, so larger ones would take more than 256 MB; pyarrow, pandas and DuckDB write
#: groups of about a million short rows, or 120,000: below this for most tables.
HUGE_GROUP_BYTES = 128 << 20
#: A single row that is looked up, or a range that is opened again, decodes its whole group: this many ranges for one.
HUGE_GROUP_RANGES = 64

#: Rows are decoded so many at a time, or fewer that take about so much.
_BATCH_ROWS, _BATCH_BYTES = 8192, 32 << 20
_BUFFER_BYTES = 1 << 20
_IPC = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=False)


class Piece(NamedTuple):
    """The rows of a file that lie in one range."""

    first: int  #: the ordinal of the first
    end: int  #: the row of the file behind the last


def is_huge(each: Shape, rows_per_part: int) -> bool:
    """Whether one of the row groups is beyond what is decoded again and again."""
    sizes = (each.metadata.row_group(number).total_byte_size for number in range(len(each.groups)))
    return max(each.groups, default=0) > HUGE_GROUP_RANGES * rows_per_part or max(sizes, default=0) > HUGE_GROUP_BYTES


def copy_rows(each: Shape, pieces: Iterable[Piece], copy: SpoolFile) -> None:
    """Write a file's rows, a frame for each piece. Memory: the rows of a batch, and the pages that they come from."""
    size = sum(each.metadata.row_group(number).total_byte_size for number in range(len(each.groups)))
    at_a_time = max(1, min(_BATCH_ROWS, _BATCH_BYTES * each.metadata.num_rows // max(size, 1)))
    for piece, batches in groupby(_cut(_batches(each, at_a_time), pieces), itemgetter(0)):
        outlet = Outlet()
        with pa.ipc.new_stream(pa.PythonFile(outlet, mode="w"), each.schema, options=_IPC) as writer:
            for _, batch in batches:
                writer.write_batch(batch)  # of a sliced batch the slice alone
                copy.write(outlet.take())
        copy.write(outlet.take())
        copy.cut(*piece)


def copied_rows(copy: Copy, start: int, end: int, names: tuple[str, ...]) -> Iterator[Any]:
    """The rows start … end as tables of the columns `names`."""
    for at, batch in copy.read(start, end, pa.ipc.open_stream):
        rows = batch.select(list(names)).slice(max(start - at, 0), min(end - max(start, at), len(batch)))
        yield pa.Table.from_batches([rows])


def _cut(batches: Iterator[Any], pieces: Iterable[Piece]) -> Iterator[tuple[Piece, Any]]:
    """The batches cut where pieces end, each with its piece."""
    batch, at = None, 0
    for piece in pieces:
        while at < piece.end:
            batch = batch or next(batches)
            taken = batch.slice(0, piece.end - at)
            yield piece, taken
            at += len(taken)
            batch = batch.slice(len(taken))


def _batches(each: Shape, rows: int) -> Iterator[Any]:
    """All rows, `rows` at a time; no more than there are may be asked for."""
    with pq.ParquetFile(each.path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
        batches = file.iter_batches(batch_size=rows)
        while (batch := _next(batches, each.label)) is not None:
            yield batch
    raise InputError(f"{each.label} has fewer rows than it says", hint="write the file again")


def _next(batches: Iterator[Any], label: str) -> Any:
    try:
        return next(batches, None)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{label} is damaged: {error}", hint="write the file again") from error
