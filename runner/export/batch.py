"""Final rows as the result lines of a batch file (interchange/results.py).

Rule: a line is joined to its request by `custom_id`: the value of the job's id column, or the row's position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from runner.conversation import custom_names
from runner.errors import UsageError
from runner.export.naming import custom_ids, plain_ids
from runner.export.plain import values
from runner.export.writers import ROWS_AT_ONCE, Stream
from runner.interchange.requests import custom_id
from runner.interchange.results import Names, result_line
from runner.prepare import Prepared


@dataclass(frozen=True, slots=True)
class Results:
    """The columns of the lines, by their own names; `ids`: the id column, where the results carry it."""

    prepared: Prepared
    names: list[str]
    ids: str | None

    @property
    def own(self) -> list[str]:
        return [self.prepared.job.output.prefix + name for name in self.names]

    @property
    def reads(self) -> list[str]:
        return [*self.own, self.ids] if self.ids else self.own


_IN_NO_LINE = {
    "parsed",
    "confidence",
    "endpoint",
    "cost_usd",
    "wasted_usd",
    "total_usd",
    "price_source",
    "request_hash",
}


def results(prepared: Prepared, columns: Sequence[str] | None) -> Results:
    """Raises UsageError where columns are chosen: the lines have members of their own."""
    if columns is not None:
        raise UsageError("--columns: the lines of openai_batch have members of their own", hint="leave it out")
    names = [name for name in prepared.shape.results.names if name not in _IN_NO_LINE]
    column = prepared.job.input.id_column
    return Results(prepared, names, column if column in prepared.input_columns else None)


class BatchResults:
    """Tables of answers in, result lines out."""

    def __init__(self, layout: Results, out: Stream) -> None:
        self._layout = layout
        self._out = out
        self._custom = custom_names(layout.prepared.prompt.constants.get("tools"))
        self._range: tuple[int, list[str]] = (-1, [])  #: the last whose names were looked up

    def write(self, table: Any) -> int:
        for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
            columns = [values(batch.column(name)) for name in self._layout.own]
            rows = [dict(zip(self._layout.names, row, strict=True)) for row in zip(*columns, strict=True)]
            lines = zip(rows, self._names(batch, [row["row_index"] for row in rows]), strict=True)
            made = (result_line(row, Names(_line_id(row["row_index"]), name, self._custom)) for row, name in lines)
            self._out.write(b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in made))
        return int(table.num_rows)

    def finish(self) -> list[str]:
        return []

    def _names(self, batch: Any, rows: Sequence[int]) -> list[str]:
        """What the rows are called; of the input only what the results do not carry."""
        layout = self._layout
        if layout.ids:
            found = plain_ids(layout.prepared, batch.column(layout.ids))
            return [custom_id(value, row) for value, row in zip(found, rows, strict=True)]
        number = rows[0] // layout.prepared.survey.rows_per_part
        if self._range[0] != number:
            self._range = number, custom_ids(layout.prepared, number)
        first = layout.prepared.survey.ranges[number].first
        return [self._range[1][row - first] for row in rows]


def _line_id(row: int) -> str:
    return f"batch_req_{row:012d}"
