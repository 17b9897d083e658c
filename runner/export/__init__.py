"""The settled rows of a run: as JSON lines, CSV or one Parquet file, as conversations, as results of a batch.

Rule: reads only, also while the run goes on, and holds one part at a time (beside the open ranges, which have no part
yet). What is refused is refused before the first byte. Strategy: `reading.records` gives tables, a writer turns each
into bytes, a target puts them where they belong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from runner.errors import RunDirectoryError, UsageError
from runner.export.batch import BatchResults, results
from runner.export.conversations import Conversations, told
from runner.export.layout import chosen
from runner.export.target import Target
from runner.export.writers import Csv, JsonLines, Parquet, Stream, Writer
from runner.prepare import Prepared
from runner.reading import prepared_of, records
from runner.records import Status
from runner.store import RunDirectory

__all__ = ["Exported", "Target", "Wanted", "export", "format_of"]

_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to export. columns: None: all. statuses: empty: every row that is final; of conversations the ok ones."""

    format: str = "jsonl"
    columns: tuple[str, ...] | None = None
    statuses: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported: rows written, of so many that are final, of so many in the run; sentences about the others."""

    written: int
    settled: int
    rows: int
    remarks: tuple[str, ...] = ()

    def words(self, target: Target) -> str | None:
        """The sentence about it, where there is something to say."""
        missing = self.rows - self.settled
        said = [f"{self.written:,} rows in {target.path}"] if target.path else []
        said += [f"{missing:,} of {self.rows:,} rows are not final yet and are not in it"] if missing else []
        return "; ".join([*said, *self.remarks]) or None


def format_of(given: str | None, path: Path | None) -> str:
    """The format asked for; else the file's, by its suffix; else jsonl. Raises UsageError for one that there is not."""
    if given is not None and given not in _FORMS:
        raise UsageError(f"-f {given}: there is no such format", hint=f"one of {', '.join(_FORMS)}")
    return given or _SUFFIXES.get(path.suffix.lower() if path else "", "jsonl")


def export(directory: RunDirectory, wanted: Wanted, target: Target) -> Exported:
    """Write the rows that are final, in input order.

    Raises UsageError for a column or place that will not do, RunDirectoryError for a run or part that cannot be read,
    ChangedError for an input that is not what it was where that is needed, StorageError when the disk refuses,
    BrokenPipeError when the reader of standard output has gone.
    """
    prepared = prepared_of(directory)
    form = _FORMS[wanted.format]
    inputs = [file.path for file in prepared.survey.files]
    target.refuse(directory.root, inputs, binary=form.binary)
    layout = form.layout(prepared, wanted.columns)
    statuses = wanted.statuses or form.statuses
    settled = passed = written = 0
    with target.opened() as out:
        writer = form.writer(layout, out)
        for found, table in _tables(directory, prepared, layout.reads, statuses):
            written += writer.write(table)
            settled += found
            passed += found - table.num_rows
        remarks = writer.finish()
        out.flush()
    if passed and not wanted.statuses:
        remarks = [f"{passed:,} rows that are not ok are not in it (--status chooses them)", *remarks]
    return Exported(written, settled, prepared.survey.rows, tuple(remarks))


@dataclass(frozen=True, slots=True)
class _Form:
    """A form of exports: the columns that it takes of the run (its layout, of Wanted.columns), and what writes them."""

    layout: Callable[[Prepared, Sequence[str] | None], Any]
    writer: Callable[[Any, Stream], Writer]
    binary: bool = False
    statuses: frozenset[str] = frozenset()  #: the rows that it has unasked; empty: all


_FORMS: dict[str, _Form] = {
    "jsonl": _Form(chosen, lambda layout, out: JsonLines(layout.schema, layout.json_texts, out)),
    "csv": _Form(chosen, lambda layout, out: Csv(layout.schema, layout.json_texts, layout.parsed, out)),
    "parquet": _Form(chosen, lambda layout, out: Parquet(layout.schema, out), binary=True),
    "openai_batch": _Form(results, BatchResults),
    "messages": _Form(told, Conversations, statuses=frozenset({Status.OK})),
}


def _tables(
    directory: RunDirectory, prepared: Prepared, names: list[str], statuses: frozenset[str]
) -> Iterator[tuple[int, Any]]:
    """Tables of the columns and the rows that are wanted, each with the number of rows that it was taken from."""
    status = prepared.job.output.prefix + "status"
    found = records(directory, list(dict.fromkeys([*names, status])) if statuses else names)
    while (table := _next(found, directory)) is not None:
        kept = table.filter(pc.is_in(table[status], pa.array(sorted(statuses)))) if statuses else table
        yield table.num_rows, kept.select(names)


def _next(tables: Iterator[Any], directory: RunDirectory) -> Any:
    try:
        return next(tables, None)
    except (OSError, pa.ArrowException) as error:
        raise RunDirectoryError(
            f"a part in {directory.results} cannot be read: {error}", hint="put the part back from a copy"
        ) from error
