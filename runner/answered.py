"""What the final rows of a run tell about the others: their tokens, dollars and seconds.

Rule: read-only, from parts and journals; only the columns that are needed. Strategy: for an estimate a spread of ranges
is enough, so a run of ten million rows is not read through.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from runner import files
from runner.columns import prefix_of
from runner.demand import Answer
from runner.journal import replay
from runner.parts import Range
from runner.recovery import OpenRange, Standing
from runner.store import RunDirectory

#: Ranges that are looked into, and answers of each.
SPREAD_RANGES = 32
SPREAD_ANSWERS = 256

_COLUMNS = ("row_index", "status", "model", "prompt_tokens", "completion_tokens", "total_usd")
_SECONDS = "attempts.list.element.seconds"


def answers_in(directory: RunDirectory, part: Range, opened: OpenRange | None) -> dict[int, Answer]:
    """The final rows of a range. `opened`: None when it is sealed."""
    rows = {answer.row: answer for answer in _of_part(directory.part(part.number))}
    if opened is None:
        return rows
    records = replay(files.read_file(directory.journal(part.number)) or b"", part.run, part.number).records
    rows |= {row: _answer(record) for row, record in records.items()}
    return {row: answer for row, answer in rows.items() if row in opened.done}


def spread(directory: RunDirectory, ranges: Sequence[Range], standing: Standing) -> dict[int, dict[int, Answer]]:
    """Some answers of some ranges, all over the run; rows without an answer tell nothing and are left out."""
    begun = [part for part in ranges if part.number in standing.sealed or _has_rows(standing.open.get(part.number))]
    step = max(1, len(begun) // SPREAD_RANGES)
    return {
        part.number: _some(answers_in(directory, part, standing.open.get(part.number)))
        for part in begun[::step][:SPREAD_RANGES]
    }


def of_rows(
    directory: RunDirectory, ranges: Sequence[Range], standing: Standing, rows: Mapping[int, Collection[int]]
) -> list[Answer]:
    """The answers of these rows, given by the number of their range, as far as they are final."""
    found = []
    for number in sorted(rows):
        answers = answers_in(directory, ranges[number], standing.open.get(number))
        found += [answers[row] for row in sorted(rows[number]) if row in answers]
    return found


def _has_rows(opened: OpenRange | None) -> bool:
    return opened is not None and bool(opened.done)


def _some(answers: Mapping[int, Answer]) -> dict[int, Answer]:
    told = [answer for _, answer in sorted(answers.items()) if answer.completion_tokens is not None]
    return {answer.row: answer for answer in told[:: max(1, len(told) // SPREAD_ANSWERS)]}


def _of_part(path: Path) -> Iterator[Answer]:
    with suppress(FileNotFoundError), pq.ParquetFile(path) as file:
        prefix = prefix_of(file.schema_arrow.names)
        table = file.read(columns=[prefix + name for name in (*_COLUMNS, _SECONDS)])
        for line in table.rename_columns([name.removeprefix(prefix) for name in table.column_names]).to_pylist():
            yield _answer(line)


def _answer(line: Mapping[str, Any]) -> Answer:
    attempts = line["attempts"] or ()
    usd = line["total_usd"]
    return Answer(
        line["row_index"],
        line["status"],
        line["model"] or "",
        line["prompt_tokens"],
        line["completion_tokens"],
        None if usd is None else Decimal(repr(usd)),
        sum(attempt["seconds"] or 0.0 for attempt in attempts),
        len(attempts),
    )
