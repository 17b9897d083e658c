"""Parquet files whose row groups are too large to be read again and again: their rows are copied, a range a frame.

Rule: what is read from the copy is what the file says, to the type.
Strategy: a row group can only be decoded as a whole, so the survey streams through it once, and writes each range's
worth of rows as an Arrow stream of its own, of which any columns can be read alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from runner.errors import InputError
from runner.sources.spool import Copy, SpoolFile

if TYPE_CHECKING:
    from runner.sources.parquet import Shape

#: Two decoded groups are kept at a time, so larger ones would take more than 256 MB; pyarrow, pandas and DuckDB write
#: groups of about a million short rows, or 120,000: below this for most tables.
HUGE_GROUP_BYTES = 128 << 20
#: A single row that is looked up, or a range that is opened again, decodes its whole group: this many ranges for one.
HUGE_GROUP_RANGES = 64

#: Rows in a frame are at most so many that it stays about this large.
_FRAME_BYTES = 32 << 20
_BUFFER_BYTES = 1 << 20
_IPC = pa.ipc.IpcWriteOptions(compression="zstd", emit_dictionary_deltas=False)


def is_huge(each: Shape, rows_per_part: int) -> bool:
    """Whether one of the row groups is beyond what is decoded again and again."""
    sizes = (each.metadata.row_group(number).total_byte_size for number in range(len(each.groups)))
    return max(each.groups, default=0) > HUGE_GROUP_RANGES * rows_per_part or max(sizes, default=0) > HUGE_GROUP_BYTES


def copy_rows(each: Shape, rows: int, rows_per_part: int, copy: SpoolFile) -> None:
    """Write the first `rows` rows of a file. Memory: a frame, and the pages that it comes from."""
    size = sum(each.metadata.row_group(number).total_byte_size for number in range(len(each.groups)))
    at_a_time = max(1, min(rows_per_part, _FRAME_BYTES * each.metadata.num_rows // max(size, 1)))
    end = 0
    for batch in _batches(each, at_a_time):
        taken = batch.slice(0, rows - end)
        if not taken.num_rows:
            return
        end += taken.num_rows
        copy.add(_stream(taken), end)


def copied_rows(copy: Copy, start: int, end: int, names: tuple[str, ...]) -> Iterator[Any]:
    """The rows start … end as tables of the columns `names`."""
    for first, last, data in copy.frames(start, end):
        table = _columns(data, names)
        yield table.slice(max(start - first, 0), min(end, last) - max(start, first))


def _batches(each: Shape, rows: int) -> Iterator[Any]:
    with pq.ParquetFile(each.path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
        batches = file.iter_batches(batch_size=rows)
        while (batch := _next(batches, each.label)) is not None:
            yield batch


def _next(batches: Iterator[Any], label: str) -> Any:
    try:
        return next(batches, None)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{label} is damaged: {error}", hint="write the file again") from error


def _stream(batch: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_IPC) as writer:
        # a sliced batch writes its slice alone
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _columns(data: bytes, names: tuple[str, ...]) -> Any:
    schema = pa.ipc.open_stream(data).schema
    fields = [schema.get_field_index(name) for name in names]
    with pa.ipc.open_stream(data, options=pa.ipc.IpcReadOptions(included_fields=fields)) as reader:
        return reader.read_all().select(list(names))
