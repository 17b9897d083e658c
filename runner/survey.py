"""The one pass over the input before the first request: rows, columns, types, a hash and a place for every range.

Rule: after it nothing about the input is a guess; every bad line is known before a cent is spent.
Strategy: text files are read once, row by row, by the functions that read them again later; of Parquet files the
footers tell everything but the hashes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from runner.errors import InputError
from runner.sources import delimited
from runner.sources.catalog import BadLines, File, Range, Segment, Survey, SurveyOptions, labels
from runner.sources.expand import common_format
from runner.sources.lines import Record, Span, refuse_foreign
from runner.sources.parquet import Shape, cuts, group_hash, segment_keys, shape
from runner.sources.promote import unify
from runner.sources.reader import unchanged
from runner.sources.text import RECORDS
from runner.sources.tiles import Tiler, hash_of, part_rows
from runner.sources.types import Columns

__all__ = ["Survey", "SurveyOptions", "stale", "survey"]

Progress = Callable[[int, int], None]

_TELL_BYTES = 4 << 20
_BAD_SHOWN = 20


def survey(files: Sequence[Path], options: SurveyOptions, progress: Progress = lambda done, total: None) -> Survey:
    """Read every row once. `progress(bytes_done, bytes_total)` is called every few MB and at the end.

    Raises InputError when a file cannot be read, when files do not go together, and for bad lines unless
    `options.on_bad_line` is fail_row.
    """
    format_ = common_format(files, options.format)
    standing = [_standing(path, format_) for path in files]
    meter = _Meter(sum(file.size for file in standing), progress)
    found = (_parquet if format_ == "parquet" else _text)(standing, options, meter)
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
        if self._done >= self._due:
            self._due = self._done + _TELL_BYTES
            self._progress(min(self._done, self._total), self._total)

    def finish(self) -> None:
        self._progress(self._total, self._total)


def _standing(path: Path, format_: str) -> File:
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


def _text(files: Sequence[File], options: SurveyOptions, meter: _Meter) -> Survey:
    spans = [_whole(file, label) for file, label in zip(files, labels([f.path for f in files]), strict=True)]
    tiler = Tiler(options.rows_per_part, [span.header for span in spans])
    columns, complaints = Columns(), _Complaints()
    for number, record in islice(_metered(spans, RECORDS[files[0].format], meter), options.limit):
        tiler.add(number, record)
        _, _, raw, data, error = record
        if data is None:
            complaints.add(error or "")
        elif files[0].format == "jsonl":
            columns.add(data, len(raw))
    rows_per_part = part_rows(tiler.rows, options.rows_per_part)
    ranges = tiler.ranges(rows_per_part)
    return Survey(
        files=tuple(_surveyed(file, span, tiler, n) for n, (file, span) in enumerate(zip(files, spans, strict=True))),
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


def _whole(file: File, label: str) -> Span:
    refuse_foreign(file.path, label)
    span = Span(file.path, label, 0, file.size)
    return delimited.header(span) if file.format == "csv" else span


def _metered(
    spans: Sequence[Span], records: Callable[[Span], Iterator[Record]], meter: _Meter
) -> Iterator[tuple[int, Record]]:
    for number, span in enumerate(spans):
        told = 0
        for record in records(span):
            if record[0] - told >= _TELL_BYTES:
                meter.add(record[0] - told)
                told = record[0]
            yield number, record
        meter.add(span.end - told)


def _surveyed(file: File, span: Span, tiler: Tiler, number: int) -> File:
    return File(
        file.path, file.format, file.size, file.mtime_ns, tiler.file_rows[number], tiler.file_hash(number), span.header
    )


def _strings(spans: Sequence[Span]) -> Any:
    return pa.schema([(name, pa.string()) for name in dict.fromkeys(name for span in spans for name in span.header)])


def _parquet(files: Sequence[File], options: SurveyOptions, meter: _Meter) -> Survey:
    names = labels([file.path for file in files])
    shapes = [shape(file.path, name) for file, name in zip(files, names, strict=True)]
    schema = unify(names, [each.schema for each in shapes])
    counts = _limited([each.metadata.num_rows for each in shapes], options.limit)
    ends = tuple(accumulate(counts))
    rows_per_part = part_rows(ends[-1], options.rows_per_part)
    hashes = [_group_hashes(each, rows, meter) for each, rows in zip(shapes, counts, strict=True)]
    return Survey(
        files=tuple(
            File(f.path, f.format, f.size, f.mtime_ns, rows, hash_of(keys), tuple(each.schema.names), each.groups)
            for f, each, rows, keys in zip(files, shapes, counts, hashes, strict=True)
        ),
        rows=ends[-1],
        rows_per_part=rows_per_part,
        ranges=tuple(
            _parquet_range(first, min(first + rows_per_part, ends[-1]), ends, shapes, hashes)
            for first in range(0, ends[-1], rows_per_part)
        ),
        schema=schema,
        options=options,
    )


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
