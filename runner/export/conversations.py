"""Each row's conversation with the answer as its last turn: the input of the job that goes on with it.

Rule: what is written is what was asked. A conversation is rendered again from the input, and is the row's only if it
has the hash of the request that was answered; after an edited job it may not, and the row is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from runner.conversation import turn
from runner.export.layout import answer_texts, jsonl_texts, refuse_unknown
from runner.export.writers import JsonLines, Stream
from runner.prepare import Prepared
from runner.recipe import Asked
from runner.records import Failure, Row
from runner.sources.types import json_text

HISTORY = "history"
_HISTORY = pa.field(HISTORY, pa.string())
#: Rows whose conversations are held at a time: one with images may have megabytes.
_ROWS_AT_ONCE = 128
_ANSWER = ("row_index", "status", "content", "refusal", "tool_calls", "request_hash")
_NO_ANSWER = "have no answer"
_OTHER_REQUEST = "were answered for another request than this job makes of them now"


@dataclass(frozen=True, slots=True)
class Told:
    """The columns of the lines: `inputs` out of the input, `results` out of the answers, and the conversation."""

    prepared: Prepared
    schema: Any  #: pa.Schema
    inputs: list[str]
    results: list[str]

    @property
    def own(self) -> dict[str, str]:
        """The columns that conversations are made of, by their names without prefix."""
        return {name: self.prepared.job.output.prefix + name for name in _ANSWER}

    @property
    def reads(self) -> list[str]:
        return list(dict.fromkeys([*self.own.values(), *self.results]))

    @property
    def json_texts(self) -> set[str]:
        inputs = jsonl_texts(self.prepared.survey) & set(self.inputs)
        return inputs | (answer_texts(self.prepared) & set(self.results)) | {HISTORY}


def told(prepared: Prepared, columns: Sequence[str] | None) -> Told:
    """The input's columns, or those of the input and the results that were asked for, and `history`; an input's own
    column of that name gives way. Raises UsageError; ChangedError when the input is not what was answered."""
    survey = prepared.survey
    known = {field.name: field for field in [*prepared.shape.part, *survey.schema]} | {HISTORY: _HISTORY}
    names = list(dict.fromkeys([*(survey.columns if columns is None else columns), HISTORY]))
    refuse_unknown(names, list(known))
    for number in range(len(survey.ranges)):
        prepared.reader.verify(number)
    inputs = [name for name in names if name in survey.columns and name != HISTORY]
    results = [name for name in names if name not in (*inputs, HISTORY)]
    return Told(prepared, pa.schema([known[name].remove_metadata() for name in names]), inputs, results)


class Conversations:
    """Tables of answers in, JSON lines out."""

    def __init__(self, layout: Told, out: Stream) -> None:
        self._layout = layout
        self._prepared = layout.prepared
        self._lines = JsonLines(layout.schema, layout.json_texts, out)
        self._left_out: Counter[str] = Counter()

    def write(self, table: Any) -> int:
        if not table.num_rows:
            return 0
        number = table[self._layout.own["row_index"]][0].as_py() // self._prepared.survey.rows_per_part
        rows = self._prepared.reader.rows(number, self._prepared.recipe.columns)
        inputs = self._prepared.reader.table(number, self._layout.inputs) if self._layout.inputs else None
        first = self._prepared.survey.ranges[number].first
        return sum(
            self._written(table.slice(start, _ROWS_AT_ONCE), rows, inputs, first)
            for start in range(0, table.num_rows, _ROWS_AT_ONCE)
        )

    def finish(self) -> list[str]:
        return [f"{count:,} rows {why} and are not in it" for why, count in sorted(self._left_out.items())]

    def _written(self, table: Any, rows: Iterator[Row], inputs: Any, first: int) -> int:
        answers = table.select(list(self._layout.own.values())).rename_columns(list(_ANSWER)).to_pylist()
        histories = [self._history(_row(rows, answer["row_index"]), answer) for answer in answers]
        kept = [place for place, text in enumerate(histories) if text is not None]
        columns = {HISTORY: pa.array([histories[place] for place in kept], pa.string())}
        if inputs is not None:
            taken = inputs.take(pa.array([answers[place]["row_index"] - first for place in kept], pa.int64()))
            columns = {name: taken[name] for name in taken.column_names} | columns
        results = table.take(pa.array(kept, pa.int64()))
        made = [columns[name] if name in columns else results[name] for name in self._layout.schema.names]
        self._lines.write(pa.Table.from_arrays(made, schema=self._layout.schema))
        return len(kept)

    def _history(self, row: Row, answer: Mapping[str, Any]) -> str | None:
        """JSON of the messages with the answer as the last one; None: there is none, and it is counted why."""
        asked = self._prepared.recipe.asked(row)
        known = not isinstance(asked, Failure) and asked.request.hash == answer["request_hash"]
        body = self._body(row, asked) if known and isinstance(asked, Asked) else {}
        said = turn(answer, body.get("tools"))
        if said is None or not body:
            self._left_out[_NO_ANSWER if said is None else _OTHER_REQUEST] += 1
            return None
        return json_text([*body["messages"], said])

    def _body(self, row: Row, asked: Asked) -> Mapping[str, Any]:
        """What was asked, local files as the job names them: without the size and time of then."""
        rendered = self._prepared.recipe.render(row.data or {}) if asked.weighed else asked.body
        return asked.body if isinstance(rendered, Failure) else rendered


def _row(rows: Iterator[Row], index: int) -> Row:
    """The row at an ordinal, of rows in order that are read on from where they are."""
    return next(row for row in rows if row.index == index)
