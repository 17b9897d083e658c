"""A run read while it may be going on: the one reader of journals and parts together.

Rule: no lock, no writes; each settled row once, in row order, whatever is being sealed meanwhile. Journals are read
first, then parts; a range seen in both is the part's.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from runner.errors import LaterError, RunDirectoryError, RunnerError
from runner.journal import head_in
from runner.lock import is_held
from runner.parts import Range, read_footer, record_lines, record_tables
from runner.prepare import Prepared, of_run, prepare
from runner.recovery import ranges_of
from runner.sources import Survey
from runner.store import Moving, RunDirectory

#: How long a process is given to put answers into their new places, which takes it milliseconds.
MOVING_S, LOOK_S = 5.0, 0.02


def open_directory(path: Path) -> RunDirectory:
    """The run directory at `path`, with its answers in their places: a process that is moving them is waited for, and
    what one that died has left is read from where it is. Raises RunDirectoryError when there is no run."""
    directory, until_s = RunDirectory(path), time.monotonic() + MOVING_S
    known = directory.read_run()
    while known and known.get("swap") and is_held(directory.lock) and time.monotonic() < until_s:
        time.sleep(LOOK_S)
        known = directory.read_run()
    if known is None:
        raise RunDirectoryError(
            f"{path} is not the directory of a run: it has no run.json", hint="give the path that `runner run` named"
        )
    return Moving(path, known["epoch"]) if known.get("swap") else directory


@contextmanager
def undisturbed(directory: RunDirectory) -> Iterator[None]:
    """For what is read of a run inside. Raises LaterError when its answers have moved meanwhile: some of what was read
    may be of before, and whatever seems wrong with it need not be."""
    before = _layout(directory)
    try:
        yield
    except (RunnerError, LookupError, OSError, pa.ArrowException):
        if _layout(directory) == before:
            raise
    if _layout(directory) != before:
        raise LaterError(
            f"the answers in {directory.root} took new places while they were read", hint="read them again"
        )


def _layout(directory: RunDirectory) -> tuple[Any, ...]:
    known = directory.read_run() or {}
    return known.get("run"), known.get("epoch"), bool(known.get("swap"))


def prepared_of(directory: RunDirectory) -> Prepared:
    """The job of a run as run.json keeps it: readers need no job file."""
    saved = directory.read("survey.json")
    if saved is None:
        raise RunDirectoryError(f"{directory.root} has no survey yet", hint="the run has only just begun")
    return prepare(of_run(directory), Survey.from_json(saved), past=True)


def ranges_in(directory: RunDirectory) -> tuple[int, list[Range]]:
    """Rows of the run, and its ranges."""
    known, saved = directory.read_run(), directory.read("survey.json")
    if known is None or saved is None:
        return 0, []
    survey = Survey.from_json(saved)
    return survey.rows, ranges_of(survey, known)


#: Of a column of structs, or of lists of structs: the paths below it that are wanted, as Parquet spells them.
Within = Mapping[str, Sequence[str]]


def records(
    directory: RunDirectory, columns: Sequence[str] | None = None, within: Within = MappingProxyType({})
) -> Iterator[Any]:
    """Arrow tables of the settled rows, in row order. columns: names of result or input columns; None: all.

    within: `{"attempts": ["list.element.cost_usd"]}` reads no more of that column from the parts; rows that are in no
    part yet come with all of it. Raises LaterError when the answers took new places meanwhile.
    """
    with undisturbed(directory):
        prepared = prepared_of(directory)
        names = list(columns) if columns is not None else prepared.shape.part.names
        paths = [f"{name}.{path}" if path else name for name in names for path in within.get(name, ("",))]
        ranges = ranges_of(prepared.survey, directory.read_run() or {})
        opened = {number: _open_rows(prepared, directory, ranges[number]) for number in directory.open_journals()}
        parts = directory.parts()
        for number in sorted(opened.keys() | parts.keys()):
            yield from _tables(opened.get(number), parts.get(number), prepared, (names, paths))


@dataclass(frozen=True, slots=True)
class _OpenRows:
    """The settled rows of a journal, joined with their input columns."""

    epoch: int
    table: Any


def _tables(
    opened: _OpenRows | None, part: Path | None, prepared: Prepared, wanted: tuple[list[str], list[str]]
) -> Iterator[Any]:
    """A range's rows: the journal's when there is no part, both when the range was opened again, the journal first."""
    names, paths = wanted
    if part is None:
        if opened:
            yield opened.table.select(names)
        return
    if opened is None or opened.epoch <= read_footer(part).epoch:
        with pq.ParquetFile(part) as file:  # a dataset's reader takes no path into a list
            _refuse_other(part, file.schema, paths)
            yield file.read(columns=paths).select(names).replace_schema_metadata(None)
        return
    index = prepared.job.output.prefix + "row_index"
    newer = opened.table.select(list(dict.fromkeys([*names, index])))
    again = set(newer[index].to_pylist())
    with pq.ParquetFile(part) as file:
        _refuse_other(part, file.schema, newer.column_names)
        base = file.read(columns=newer.column_names).select(newer.column_names).replace_schema_metadata(None)
    kept = base.filter(pa.array([row not in again for row in base[index].to_pylist()], pa.bool_()))
    together = pa.concat_tables([newer, kept.cast(newer.schema)])
    yield together.sort_by(index).select(names)


def _refuse_other(part: Path, schema: Any, paths: Sequence[str]) -> None:
    """Raises RunDirectoryError for a part without one of these columns, or members of one."""
    leaves = {schema.column(number).path for number in range(len(schema))}
    known = {".".join(leaf.split(".")[:depth]) for leaf in leaves for depth in range(1, leaf.count(".") + 2)}
    if lacking := [path for path in paths if path not in known]:
        raise RunDirectoryError(
            f"{part} is damaged, or of another version of runner: it has no column {', '.join(lacking)}",
            hint="restore it, or read it with the version that wrote it",
        )


def _open_rows(prepared: Prepared, directory: RunDirectory, part: Range) -> _OpenRows | None:
    """None: the range was sealed meanwhile, or nothing in it is settled yet."""
    path = directory.journal(part.number)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            head = head_in(data, part.run, part.number)
            lines = record_lines(data, part.run, part.number)
            rows = sorted(lines)
            tables = list(record_tables(data, [lines[row] for row in rows], prepared.shape.results))
    except (FileNotFoundError, ValueError):
        return None
    if not tables:
        return None
    results = pa.concat_tables(tables)
    inputs = _inputs(prepared, part).take(pa.array([row - part.first_row for row in rows], pa.int64()))
    columns = [*inputs.columns, *results.columns]
    return _OpenRows(head.epoch if head else 1, pa.Table.from_arrays(columns, schema=prepared.shape.part))


def _inputs(prepared: Prepared, part: Range) -> Any:
    """The input columns of an open range; nulls when the input is not there any more: the answers are."""
    names = prepared.input_columns
    try:
        prepared.reader.verify(part.number)
        return prepared.reader.table(part.number, names)
    except RunnerError:
        fields = [prepared.survey.schema.field(name) for name in names]
        nulls = [pa.nulls(part.rows, field.type) for field in fields]
        return pa.Table.from_arrays(nulls, names=names) if names else pa.table({"": pa.nulls(part.rows)}).select([])


def read_table(directory: RunDirectory, columns: Sequence[str] | None = None) -> Any:
    """All settled rows as one pa.Table."""
    tables = list(records(directory, columns))
    if tables:
        return pa.concat_tables(tables)
    schema = prepared_of(directory).shape.part
    return schema.empty_table().select(list(columns) if columns is not None else schema.names)
