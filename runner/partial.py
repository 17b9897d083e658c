"""What is final of the open ranges, as Parquet, while no process works on the run.

Rule: a convenience for readers of `results/*.parquet`, derived and disposable: written at an orderly stop, removed when
the run goes on, never read by us. A range that was opened again has its old part in the results and gets none.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from runner import files
from runner.errors import RunnerError
from runner.parts import record_lines, record_tables, write_part
from runner.prepare import Prepared
from runner.recovery import OpenRange
from runner.say import Say
from runner.store import RunDirectory


def write(prepared: Prepared, directory: RunDirectory, opened: Iterable[OpenRange], say: Say) -> None:
    """One partial part for each open range with final rows. What cannot be written is only said."""
    for part in opened:
        if part.done and not directory.part(part.part.number).exists():
            try:
                _write(prepared, directory, part)
            except RunnerError as error:
                say.detail(f"no partial results of range {part.part.number}: {error.message}")


def _write(prepared: Prepared, directory: RunDirectory, opened: OpenRange) -> None:
    part = opened.part
    with files.mapped(directory.journal(part.number)) as data:
        lines = record_lines(data, part.run, part.number)
        rows = sorted(opened.done & lines.keys())
        results = pa.concat_tables(record_tables(data, [lines[row] for row in rows], prepared.shape.results))
    prepared.reader.verify(part.number)
    inputs = prepared.reader.table(part.number, prepared.input_columns)
    chosen = inputs.take(pa.array([row - part.first_row for row in rows], pa.int64()))
    write_part(part, opened.settled, directory.partial(part.number), prepared.shape, (chosen, results))


def remove(directory: RunDirectory) -> None:
    """The run goes on: what the partial parts hold comes back as whole ones."""
    for name in files.names(directory.results):
        if ".partial.parquet" in name:
            files.remove(directory.results / name)
