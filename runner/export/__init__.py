"""The settled rows of a run as JSON lines, CSV or one Parquet file.

Rule: reads only, also while the run goes on, and holds one part at a time (beside the open ranges, which have no part
yet). What is refused is refused before the first byte. Strategy: `reading.records` gives tables, a writer turns each
into bytes, a target puts them where they belong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from runner.errors import RunDirectoryError, UsageError
from runner.export.target import Target
from runner.export.writers import Csv, JsonLines, Parquet, Stream, Writer
from runner.outputs import compile_output
from runner.prepare import Prepared
from runner.reading import prepared_of, records
from runner.sources.types import is_json_text
from runner.store import RunDirectory

__all__ = ["Exported", "Target", "Wanted", "export", "format_of"]

_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
NOT_BUILT = {
    "openai_batch": "-f openai_batch: writing a batch file is not built yet; `runner render` prints the requests",
    "messages": "-f messages: writing conversations for fine-tuning is not built yet",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to export. columns: None: all. statuses: empty: every row that is final."""

    format: str = "jsonl"
    columns: tuple[str, ...] | None = None
    statuses: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported: rows written, of so many that are final, of so many in the run."""

    written: int
    settled: int
    rows: int

    def words(self, target: Target) -> str | None:
        """The sentence about it, where there is something to say."""
        missing = self.rows - self.settled
        said = [f"{self.written:,} rows in {target.path}"] if target.path else []
        said += [f"{missing:,} of {self.rows:,} rows are not final yet and are not in it"] if missing else []
        return "; ".join(said) or None


def format_of(given: str | None, path: Path | None) -> str:
    """The format asked for; else the file's, by its suffix; else jsonl. Raises UsageError for one that there is not."""
    if given in NOT_BUILT:
        raise UsageError(NOT_BUILT[given])
    if given is not None and given not in _WRITERS:
        raise UsageError(f"-f {given}: there is no such format", hint=f"one of {', '.join(_WRITERS)}")
    return given or _SUFFIXES.get(path.suffix.lower() if path else "", "jsonl")


def export(directory: RunDirectory, wanted: Wanted, target: Target) -> Exported:
    """Write the rows that are final, in input order.

    Raises UsageError for a column or place that will not do, RunDirectoryError for a run or part that cannot be read,
    StorageError when the disk refuses, BrokenPipeError when the reader of standard output has gone.
    """
    prepared = prepared_of(directory)
    chosen = _schema(prepared, wanted.columns)
    inputs = [file.path for file in prepared.survey.files]
    target.refuse(directory.root, inputs, binary=wanted.format == "parquet")
    settled = written = 0
    with target.opened() as out:
        writer = _WRITERS[wanted.format](_Layout(chosen, prepared), out)
        for found, table in _tables(directory, prepared, replace(wanted, columns=tuple(chosen.names))):
            writer.write(table)
            settled += found
            written += table.num_rows
        writer.finish()
        out.flush()
    return Exported(written, settled, prepared.survey.rows)


@dataclass(frozen=True, slots=True)
class _Layout:
    """The columns of an export."""

    schema: Any
    prepared: Prepared

    @property
    def parsed(self) -> str:
        return self.prepared.job.output.prefix + "parsed"

    @property
    def json_texts(self) -> set[str]:
        """The columns whose text is JSON: input columns of mixed values, and answers of any form."""
        survey = self.prepared.survey
        texts = jsonl_texts(survey) & set(self.prepared.input_columns)
        return texts | {self.parsed} if _any_json(self.prepared) else texts


def jsonl_texts(survey: Any) -> set[str]:
    """The input columns that the survey turned into JSON text. A Parquet file's own metadata say nothing of it."""
    if any(file.format != "jsonl" for file in survey.files):
        return set()
    return {field.name for field in survey.schema if is_json_text(field)}


def _any_json(prepared: Prepared) -> bool:
    """Whether the `parsed` column holds JSON text: the job's schema gives no one type, or there is none."""
    if prepared.output is None:
        return False
    return replace(prepared.output, _validator=None) == compile_output({"type": "json_object"})


_WRITERS: dict[str, Callable[[_Layout, Stream], Writer]] = {
    "jsonl": lambda layout, out: JsonLines(layout.schema, layout.json_texts, out),
    "csv": lambda layout, out: Csv(layout.schema, layout.json_texts, layout.parsed, out),
    "parquet": lambda layout, out: Parquet(layout.schema, out),
}


def _schema(prepared: Prepared, columns: Sequence[str] | None) -> Any:
    """The schema of the parts, or the columns of it that were asked for, in that order."""
    part = prepared.shape.part
    if columns is None:
        return part
    for name in columns:
        if name not in part.names:
            close = get_close_matches(name, part.names, 1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise UsageError(
                f"--columns: the results have no column `{name}`{meant}", hint=f"they have {', '.join(part.names)}"
            )
    return pa.schema([part.field(name) for name in dict.fromkeys(columns)])


def _tables(directory: RunDirectory, prepared: Prepared, wanted: Wanted) -> Iterator[tuple[int, Any]]:
    """Tables of the wanted columns and rows, each with the number of rows that it was taken from."""
    names = list(wanted.columns or ())
    status = prepared.job.output.prefix + "status"
    read = list(dict.fromkeys([*names, status])) if wanted.statuses else names
    found = records(directory, read)
    while (table := _next(found, directory)) is not None:
        kept = table.filter(pc.is_in(table[status], pa.array(sorted(wanted.statuses)))) if wanted.statuses else table
        yield table.num_rows, kept.select(names)


def _next(tables: Iterator[Any], directory: RunDirectory) -> Any:
    try:
        return next(tables, None)
    except (OSError, pa.ArrowException) as error:
        raise RunDirectoryError(
            f"a part in {directory.results} cannot be read: {error}", hint="put the part back from a copy"
        ) from error
