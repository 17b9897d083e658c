"""One row's whole story: what came in, what was sent, every exchange, what became of it.

Rule: reads only; right while the run goes on, for rows that are not final too. The job is the one in run.json, so a
request that was rendered again and has the hash of then is what was sent, to the byte, for as long as endpoint.dialect
stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow.parquet as pq

from runner import files
from runner.columns import attempt_record
from runner.errors import RunnerError, UsageError
from runner.export.plain import values
from runner.journal import replay
from runner.lock import is_held
from runner.parts import Range, read_footer
from runner.prepare import Prepared
from runner.reading import prepared_of, ranges_in, records
from runner.records import Failure, Request, Row
from runner.recovery import look
from runner.say import dollars, plain
from runner.sources.types import json_text
from runner.store import RunDirectory

MOST_LISTED = 20


@dataclass(frozen=True, slots=True)
class Story:
    """A row at this moment. `outcome`: its result columns without prefix and attempts; None: it is not final."""

    row: int
    id_column: str | None
    input: Mapping[str, Any] | None
    trouble: str | None  #: why there is no input, or no request
    request: Request | None
    sent_hash: str | None
    attempts: list[dict[str, Any]]
    outcome: dict[str, Any] | None

    @property
    def as_sent(self) -> bool | None:
        """Whether the request is what was sent; None: nothing was, or it cannot be rendered any more."""
        if self.request is None or not self.sent_hash:
            return None
        return self.request.hash == self.sent_hash

    @property
    def id(self) -> Any:
        return (self.input or {}).get(self.id_column) if self.id_column else None

    def to_json(self) -> dict[str, Any]:
        """The members of `--json`."""
        return {
            "row": self.row,
            "id": self.id,
            "final": self.outcome is not None,
            "input": self.input,
            "request": None if self.request is None else json.loads(self.request.body),
            "request_hash": None if self.request is None else self.request.hash,
            "as_sent": self.as_sent,
            "trouble": self.trouble,
            "attempts": self.attempts,
            "outcome": self.outcome,
        }


def story(directory: RunDirectory, name: str, *, by_ordinal: bool = False) -> Story:
    """The story of the row called `name`: an id's text when the job has an id_column, else its ordinal.

    by_ordinal: `name` is the ordinal in any case. Raises UsageError when it names no row, or several.
    """
    prepared = prepared_of(directory)
    row = row_named(directory, prepared, name, by_ordinal=by_ordinal)
    _, ranges = ranges_in(directory)
    part = next(part for part in ranges if part.first_row <= row < part.first_row + part.rows)
    attempts, final = _told(directory, prepared, part, row)
    data, request, trouble = _asked(prepared, part, row)
    outcome = final.results if final else None
    return Story(
        row=row,
        id_column=prepared.job.input.id_column,
        input=final.inputs if data is None and final else data,
        trouble=trouble,
        request=request,
        sent_hash=_hash(attempts, outcome),
        attempts=attempts,
        outcome=outcome,
    )


def _hash(attempts: list[dict[str, Any]], outcome: Mapping[str, Any] | None) -> str | None:
    """The hash of the last request for the row."""
    if outcome and outcome["request_hash"]:
        return str(outcome["request_hash"])
    return next((each["request_hash"] for each in reversed(attempts) if each["request_hash"]), None)


# Which row


def row_named(directory: RunDirectory, prepared: Prepared, name: str, *, by_ordinal: bool) -> int:
    """The ordinal of the row called `name`."""
    column, rows = prepared.job.input.id_column, prepared.survey.rows
    if column and not by_ordinal:
        found = [row for row, text in _ids(directory, prepared, column) if text == name]
        if len(found) > 1:
            listed = ", ".join(map(str, found[:MOST_LISTED])) + (", …" if len(found) > MOST_LISTED else "")
            raise UsageError(
                f"{len(found):,} rows have the {column} {name}: rows {listed}", hint="give one of them with --ordinal"
            )
        if found:
            return found[0]
    if name.isascii() and name.isdigit() and int(name) < rows:
        return int(name)
    bounds = f"the run has {rows:,} rows" + (f", 0 to {rows - 1}" if rows else "")
    if column and not by_ordinal:
        raise UsageError(f"no row has the {column} {name}, and it is no row's ordinal", hint=bounds)
    raise UsageError(f"there is no row {name}", hint=bounds)


def _ids(directory: RunDirectory, prepared: Prepared, column: str) -> Iterator[tuple[int, str | None]]:
    """Every row's id as text, from the input; from the results when the input is not what it was."""
    try:
        for number in range(len(prepared.survey.ranges)):
            prepared.reader.verify(number)
    except RunnerError:
        yield from _kept_ids(directory, prepared, column)
        return
    for number in range(len(prepared.survey.ranges)):
        for row in prepared.reader.rows(number, [column]):
            yield row.index, _text((row.data or {}).get(column))


def _kept_ids(directory: RunDirectory, prepared: Prepared, column: str) -> Iterator[tuple[int, str | None]]:
    if column not in prepared.input_columns:
        return
    index = prepared.job.output.prefix + "row_index"
    for table in records(directory, [index, column]):
        pairs = zip(table[index].to_pylist(), table[column].to_pylist(), strict=True)
        yield from ((row, _text(value)) for row, value in pairs)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


# What came in and what was asked


def _asked(prepared: Prepared, part: Range, row: int) -> tuple[Mapping[str, Any] | None, Request | None, str | None]:
    """The input row, the request rendered from it, and what stood in the way."""
    try:
        prepared.reader.verify(part.number)
        found = next(islice(prepared.reader.rows(part.number), row - part.first_row, None))
    except RunnerError as error:
        return None, None, error.message
    made = prepared.recipe.request(found)
    data = None if found.data is None else _plain(prepared, part, found)
    return (data, None, made.message) if isinstance(made, Failure) else (data, made, None)


def _plain(prepared: Prepared, part: Range, row: Row) -> dict[str, Any]:
    """The row as the input says it; Parquet's own types as exports write them."""
    data = dict(row.data or {})
    if all(file.format != "parquet" for file in prepared.survey.files):
        return data
    return _row_of(prepared.reader.table(part.number, list(data)), row.index - part.first_row)


def _row_of(table: Any, place: int) -> dict[str, Any]:
    one = table.slice(place, 1)
    return {name: values(one[name].combine_chunks())[0] for name in one.column_names}


# What became of it


@dataclass(frozen=True, slots=True)
class _Final:
    """A final row as it is kept: result columns without prefix, and the input columns when a part holds it."""

    results: dict[str, Any]
    inputs: dict[str, Any] | None


def _told(
    directory: RunDirectory, prepared: Prepared, part: Range, row: int
) -> tuple[list[dict[str, Any]], _Final | None]:
    """The exchanges of a row, and what is kept of it when it is final."""
    _, ranges = ranges_in(directory)
    standing = look(directory, ranges, live=is_held(directory.lock))
    opened = standing.open.get(part.number)
    if part.number not in standing.sealed and (opened is None or row not in opened.done):
        so_far = opened.prior.get(row, ()) if opened else ()
        return [attempt_record(each) for each in so_far], None
    final = _final(directory, prepared, part, row)
    return final.results.pop("attempts") or [], final


def _final(directory: RunDirectory, prepared: Prepared, part: Range, row: int) -> _Final:
    """The journal's word, unless the part is as new. The journal is read first: when it is sealed in between, the part
    is there."""
    data = files.read_file(directory.journal(part.number))
    path = directory.part(part.number)
    found = replay(data, part.run, part.number) if data else None
    newer = found and (not path.exists() or (found.epoch or 0) > read_footer(path).epoch)
    if found and newer and row in found.records:
        return _Final(found.records[row], None)
    kept = list(_row_of(pq.read_table(path, partitioning=None), row - part.first_row).items())
    names = prepared.shape.results.names
    inputs, results = kept[: -len(names)], kept[-len(names) :]
    return _Final(dict(zip(names, (value for _, value in results), strict=True)), dict(inputs))


# In words


def lines(told: Story) -> list[str]:
    """The story for people. Still to be made plain: data may hold control characters."""
    called = f" ({told.id_column} {told.id})" if told.id is not None else ""
    state = told.outcome["status"] if told.outcome else "not final yet"
    return [
        f"row {told.row}{called}: {state}",
        "",
        "input",
        *_members(told.input or {"": told.trouble}),
        "",
        *_request_lines(told),
        "",
        f"exchanges{'' if told.outcome else ' so far'}: {len(told.attempts) or 'none'}",
        *(line for attempt in told.attempts for line in _attempt_lines(attempt)),
        *(["", "outcome", *_members(told.outcome)] if told.outcome else []),
    ]


_STANDING = {
    True: "as sent (rendered again: the hash is that of then)",
    False: "not what was sent: the job or the input has changed since; this is what would be sent now",
    None: "as it would be sent",
}


def _request_lines(told: Story) -> list[str]:
    if told.request is None:
        return [f"request: there is none: {told.trouble}"]
    members = json.loads(told.request.body)
    messages = members.pop("messages", [])
    said = [line for message in messages for line in _members({message.get("role", "message"): _content(message)})]
    return [f"request {told.request.hash}, {_STANDING[told.as_sent]}", *_members(members), *said]


def _content(message: Mapping[str, Any]) -> Any:
    """The text of a message; the whole of it when there is more to it."""
    return message["content"] if message.keys() == {"role", "content"} else message


def _attempt_lines(attempt: Mapping[str, Any]) -> list[str]:
    shown = {name: value for name, value in attempt.items() if name not in _IN_HEADING}
    took = "" if attempt["seconds"] is None else f" took {attempt['seconds']:.3f} s"
    waited = f", waited {attempt['waited_s']:.3f} s" if attempt["waited_s"] else ""
    ended = attempt["error_kind"] or "answered"
    status = f" HTTP {attempt['http_status']}" if attempt["http_status"] else ""
    heading = f"  {attempt['epoch']}.{attempt['n']} {attempt['started_at']}{took}{waited}:{status} {ended}"
    cost = "unknown" if attempt["cost_usd"] is None else dollars(attempt["cost_usd"])
    return [heading, *(f"  {line}" for line in _members(shown | {"cost": cost}))]


_IN_HEADING = {"epoch", "n", "started_at", "seconds", "waited_s", "http_status", "error_kind", "cost_usd"}


def _members(members: Mapping[str, Any]) -> list[str]:
    """`  name: value`, text of several lines below its name; what is null is left out."""
    found: list[str] = []
    for name, value in members.items():
        if value is None:
            continue
        first, *more = _shown(value).split("\n")
        heading = f"  {name}: " if name else "  "
        found += [heading.rstrip(), *(f"    {line}" for line in [first, *more])] if more else [heading + first]
    return found


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)


def as_json(told: Story) -> str:
    """One line of JSON. Characters that could move a terminal's cursor stand as escapes, so it says the same."""
    text = json_text(told.to_json())
    if plain(text) == text:
        return text
    return "".join(each if plain(each) == each else f"\\u{ord(each):04x}" for each in text)
