"""The one pass over the input before the first request: rows, columns, types, a hash and a place for every range.

Rule: after it nothing about the input is a guess; every bad line is known before a cent is spent.
Strategy: text files are read once, row by row, by the functions that read them again later; of Parquet files the
footers tell everything but the hashes. What cannot be read again from any place is copied on the way, if there is a
place to copy to (sources/spool.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from runner.errors import InputError
from runner.sources import delimited
from runner.sources.catalog import STDIN, BadLines, File, Range, Segment, Survey, SurveyOptions, labels
from runner.sources.copies import SpoolFile
from runner.sources.expand import common_format
from runner.sources.hugegroups import Piece, copy_rows, is_huge
from runner.sources.lines import Record, Span, refuse_foreign
from runner.sources.parquet import Shape, cuts, group_hash, segment_keys, shape
from runner.sources.promote import unify
from runner.sources.reader import unchanged
from runner.sources.spool import Spooling
from runner.sources.stream import OPEN_END, Copying, Stream, whole_text
from runner.sources.text import RECORDS
from runner.sources.tiles import Tiler, hash_of, part_rows
from runner.sources.types import Columns
from runner.sources.unpack import is_packed

__all__ = ["Survey", "SurveyOptions", "stale", "survey"]

Progress = Callable[[int, int], None]

_TELL_BYTES = 4 << 20
_BAD_SHOWN = 20


def survey(
    files: Sequence[Path],
    options: SurveyOptions,
    progress: Progress = lambda done, total: None,
    spooling: Spooling | None = None,
) -> Survey:
    """Read every row once. `progress(bytes_done, bytes_total)` is called every few MB, while a pipe is silent, and at
    the end.

    `spooling`: where what cannot be sought is copied to; None: nothing is, its ranges are found by reading on, and
    stdin is refused. Raises InputError when a file cannot be read, when files do not go together, and for bad lines
    unless `options.on_bad_line` is fail_row; StorageError when a copy cannot be written.
    """
    if STDIN in files and spooling is None:
        raise InputError(
            "stdin can be read only once, and that is for `run`",
            hint="write the rows to a file to check or render them",
        )
    format_ = common_format(files, options.format)
    standing = [_standing(path, format_) for path in files]
    meter = _Meter(sum(file.size for file in standing), progress)
    found = (_parquet if format_ == "parquet" else _text)(standing, options, meter, spooling)
    meter.finish()
    for file in found.files:
        if not unchanged(file):
            raise InputError(f"{file.path} changed while it was read", hint="run again when it is written")
    if found.bad_lines.count and options.on_bad_line == "stop":
        raise _bad_lines(found.bad_lines)
    return found


def stale(found: Survey) -> list[Path]:
    """The files that are gone, or differ in size or time of change from what was surveyed."""
    return [file.path for file in found.files if not unchanged(file)]


class _Meter:
    def __init__(self, total_bytes: int, progress: Progress) -> None:
        self._total = total_bytes
        self._progress = progress
        self._done = 0
        self._due = _TELL_BYTES

    def add(self, size_bytes: int) -> None:
        self._done += size_bytes
        if self._done >= self._due or not size_bytes:  # nothing comes: who waits may be asked to leave
            self._due = self._done + _TELL_BYTES
            # how much comes through a pipe nobody knows
            self._progress(min(self._done, self._total or self._done), self._total)

    def finish(self) -> None:
        self._progress(self._total, self._total)


def _standing(path: Path, format_: str) -> File:
    if path == STDIN:
        return File(path, format_, 0, 0, 0, "")
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="put the file back, or mend `input.path`") from error
    return File(path.absolute(), format_, found.st_size, found.st_mtime_ns, 0, "")


def _bad_lines(bad: BadLines) -> InputError:
    more = bad.count - len(bad.first)
    tail = f"\n… and {more:,} more" if more else ""
    return InputError(
        f"{bad.count:,} bad line{'s' * (bad.count != 1)} in the input:\n" + "\n".join(bad.first) + tail,
        hint="mend them, or set `input.on_bad_line: fail_row` to make each a failed row",
    )


@dataclass(frozen=True, slots=True)
class _Pass:
    """One text file on its way through the survey."""

    file: File
    span: Span
    stream: Stream | None = None  #: of a file that cannot be sought


def _text(files: Sequence[File], options: SurveyOptions, meter: _Meter, spooling: Spooling | None) -> Survey:
    names = labels([file.path for file in files])
    copyings = [_copying(file, number, options, spooling) for number, file in enumerate(files)]
    passes = [_pass(file, names[number], meter, copyings[number]) for number, file in enumerate(files)]
    spans = [each.span for each in passes]
    tiler = Tiler(options.rows_per_part, [span.header for span in spans])
    columns, complaints = Columns(), _Complaints()
    for number, record in islice(_metered(passes, RECORDS[files[0].format], meter), options.limit):
        if copying := copyings[number]:
            copying.row(tiler.rows, record)
        tiler.add(number, record)
        _, _, raw, data, error = record
        if data is None:
            complaints.add(error or "")
        elif files[0].format == "jsonl":
            columns.add(data, len(raw))
    rows_per_part = part_rows(tiler.rows, options.rows_per_part)
    ranges = tiler.ranges(rows_per_part)
    return Survey(
        files=tuple(_surveyed(each, tiler, number, rows_per_part) for number, each in enumerate(passes)),
        rows=tiler.rows,
        rows_per_part=rows_per_part,
        ranges=ranges,
        schema=columns.schema() if files[0].format == "jsonl" else _strings(spans),
        bad_lines=complaints.all(),
        options=options,
    )


class _Complaints:
    def __init__(self) -> None:
        self._count = 0
        self._first: list[str] = []

    def add(self, text: str) -> None:
        self._count += 1
        if len(self._first) < _BAD_SHOWN:
            self._first.append(text)

    def all(self) -> BadLines:
        return BadLines(self._count, tuple(self._first))


def _copying(file: File, number: int, options: SurveyOptions, spooling: Spooling | None) -> Copying | None:
    if not spooling or not is_packed(file.path):
        return None
    return Copying(options.rows_per_part, partial(spooling.file, number, "zst"))


def _pass(file: File, label: str, meter: _Meter, copying: Copying | None) -> _Pass:
    if not is_packed(file.path):
        refuse_foreign(file.path, label)
        span = Span(file.path, label, 0, file.size)
        return _Pass(file, delimited.header(span) if file.format == "csv" else span)
    stream = Stream(file.path, label, meter.add, copying)
    span = Span(file.path, label, 0, OPEN_END, source=stream.rest)
    return _Pass(file, _headed(span, stream) if file.format == "csv" else span, stream)


def _headed(span: Span, stream: Stream) -> Span:
    # files are opened again for their rows: a thousand of them are not held open at once
    head = replace(span, source=stream.peek) if span.path == STDIN else whole_text(span.path, span.label)
    return replace(delimited.header(head), source=stream.rest)


def _metered(
    passes: Sequence[_Pass], records: Callable[[Span], Iterator[Record]], meter: _Meter
) -> Iterator[tuple[int, Record]]:
    for number, each in enumerate(passes):
        told = 0
        record = None
        for record in records(each.span):
            if each.stream is None and record[0] - told >= _TELL_BYTES:
                meter.add(record[0] - told)
                told = record[0]
            yield number, record
        if each.stream is None:
            meter.add(each.span.end - told)
        else:
            _ended(each, each.stream, record)


def _ended(each: _Pass, stream: Stream, last: Record | None) -> None:
    """Close what was read to its end, and refuse a pipe that was cut as far as that shows.

    A pipe whose writer was killed ends like one whose writer was done. What shows is a last line without its newline:
    a JSON object that is whole was written whole, but the last field of a CSV line may lack its end. A writer that
    died between two lines, or before its first, cannot be told; none at all is refused.
    """
    stream.finish()
    if each.file.path != STDIN:
        return
    if not stream.length:
        raise InputError("stdin ended before its first byte", hint="see what the command before the pipe says")
    whole = last is not None and last[3] is not None and each.file.format == "jsonl"
    begun = last is None or last[0] + len(last[2]) == stream.length
    if stream.last != b"\n" and begun and not whole:
        raise InputError(
            f"stdin ended in the middle of line {last[1] if last else 1:,}: what wrote it was cut off",
            hint="see what the command before the pipe says; if all is there, end the last line with a newline",
        )


def _surveyed(each: _Pass, tiler: Tiler, number: int, rows_per_part: int) -> File:
    spool, frames = each.stream.copied(rows_per_part) if each.stream else ("", ())
    file = replace(
        each.file,
        rows=tiler.file_rows[number],
        hash=tiler.file_hash(number),
        columns=each.span.header,
        spool=spool,
        frames=frames,
    )
    if each.stream and file.path == STDIN:
        return replace(file, size=each.stream.length, mtime_ns=time.time_ns())
    return file


def _strings(spans: Sequence[Span]) -> Any:
    return pa.schema([(name, pa.string()) for name in dict.fromkeys(name for span in spans for name in span.header)])


def _parquet(files: Sequence[File], options: SurveyOptions, meter: _Meter, spooling: Spooling | None) -> Survey:
    names = labels([file.path for file in files])
    shapes = [shape(file.path, name) for file, name in zip(files, names, strict=True)]
    schema = unify(names, [each.schema for each in shapes])
    counts = _limited([each.metadata.num_rows for each in shapes], options.limit)
    ends = tuple(accumulate(counts))
    rows_per_part = part_rows(ends[-1], options.rows_per_part)
    hashes = [_group_hashes(each, rows, meter) for each, rows in zip(shapes, counts, strict=True)]
    taken = [
        replace(file, rows=rows, hash=hash_of(keys), columns=tuple(each.schema.names), groups=each.groups)
        for file, each, rows, keys in zip(files, shapes, counts, hashes, strict=True)
    ]
    ranges = tuple(
        _parquet_range(first, min(first + rows_per_part, ends[-1]), ends, shapes, hashes)
        for first in range(0, ends[-1], rows_per_part)
    )
    if spooling:
        for number, each in enumerate(shapes):
            # too large to be decoded for every range
            if taken[number].rows and is_huge(each, rows_per_part):
                copy = spooling.file(number, "arrows.zst")
                taken[number] = _copied(taken[number], each, _pieces(ranges, number), copy)
    return Survey(
        files=tuple(taken), rows=ends[-1], rows_per_part=rows_per_part, ranges=ranges, schema=schema, options=options
    )


def _pieces(ranges: Sequence[Range], number: int) -> Iterator[Piece]:
    """How the rows of a file lie in the ranges."""
    segments = (segment for each in ranges for segment in each.segments)
    return (Piece(segment.first, segment.end) for segment in segments if segment.file == number)


def _copied(file: File, each: Shape, pieces: Iterator[Piece], copy: SpoolFile) -> File:
    copy_rows(each, pieces, copy)
    return replace(file, spool=copy.path.name, frames=copy.finish())


def _limited(counts: Sequence[int], limit: int | None) -> list[int]:
    """Rows taken of each file."""
    ends = [end if limit is None else min(end, limit) for end in accumulate(counts)]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def _group_hashes(each: Shape, rows: int, meter: _Meter) -> list[bytes]:
    return [group_hash(each, cut.number, meter.add) for cut in cuts(each.ends, 0, rows)]


def _parquet_range(
    first: int, stop: int, ends: Sequence[int], shapes: Sequence[Shape], hashes: Sequence[list[bytes]]
) -> Range:
    segments: list[Segment] = []
    keys: list[bytes] = []
    at = first
    for file, start, end in cuts(ends, first, stop):
        segments.append(Segment(file, start, end, at, end - start))
        at += end - start
        keys += segment_keys(shapes[file].schema, cuts(shapes[file].ends, start, end), hashes[file].__getitem__)
    return Range(first, stop - first, hash_of(keys), tuple(segments))
