"""What a report tells of a run, gathered in one pass over its rows.

Rule: reads only, also while the run goes on; of each part only the leaves that are needed, and never all rows at once.
What the exchanges cost is added up by the machinery of the bill, so that the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pyarrow import types

from runner.bill import Bill, add_beside, fill, forget, ordered
from runner.bill.exchanges import Adding, key_names, of_table
from runner.bill.grouping import DAY, Key, Reading, as_text, days_in
from runner.lock import is_held
from runner.outputs.choices import Path, choices_in
from runner.prepare import Prepared
from runner.reading import prepared_of, ranges_in, records
from runner.recovery import Standing, look
from runner.report.observe import EXCHANGE, ROW, Seen
from runner.store import RunDirectory

#: Members of `parsed` whose answers are counted, and how many values one may have.
MOST_MEMBERS, MOST_VALUES = 12, 60
_PAID = ("finish_reason", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")


@dataclass(frozen=True, slots=True)
class Facts:
    """One run at this moment."""

    directory: RunDirectory
    known: Mapping[str, Any]  #: run.json
    prepared: Prepared
    rows: int
    state: str  #: finished, in progress or stopped
    written_at: datetime | None
    models: Bill
    days: Bill
    answers: Mapping[Path, Bill]  #: by a member of `parsed` that takes one of a few values
    choices: Mapping[Path, tuple[str, ...]]  #: these values
    reasons: Sequence[Mapping[str, Any]]  #: the bill's `SUMS` by `reason`; None: a row's own answer
    seen: Seen


def gather(directory: RunDirectory) -> Facts:
    """Raises RunDirectoryError for what is no run."""
    prepared, known = prepared_of(directory), directory.read_run() or {}
    held = is_held(directory.lock)
    rows, ranges = ranges_in(directory)
    standing = look(directory, ranges, live=held)
    # Rows that become final between the two looks are in the second one only.
    pending = {row: cost for opened in standing.open.values() for row, cost in opened.pending.items()}
    choices, prefix = _choices(prepared), prepared.job.output.prefix
    members = [Key(".".join(path), prefix + "parsed", path) for path in choices]
    keys = [Key("model", prefix + "model"), Key(DAY), *members]
    adding, seen = [Adding([column]) for column in key_names(keys)], Seen()
    reasons = Adding([])
    for table, names in _tables(directory, prepared, keys):
        forget(pending, table[prefix + "row_index"])
        both = of_table(table, _reading(keys, prefix), days_in("UTC"))
        for sums in (*adding, reasons):
            sums.add(*both)
        seen.add(_plain(table, prefix), names)
    seen.add_tries(
        attempt
        for opened in standing.open.values()
        for row in opened.prior.keys() & pending.keys()
        for attempt in opened.prior[row]
    )
    models, days, *answers = (
        _bill(key, column, sums, (standing, pending))
        for key, column, sums in zip(keys, key_names(keys), adding, strict=True)
    )
    return Facts(
        directory=directory,
        known=known,
        prepared=prepared,
        rows=rows,
        state="in progress" if held else "finished" if directory.read("manifest.json") is not None else "stopped",
        written_at=_written(directory),
        models=models,
        days=days,
        answers=dict(zip(choices, answers, strict=True)),
        choices=choices,
        reasons=reasons.exchanges(),
        seen=seen,
    )


def _reading(keys: Sequence[Key], prefix: str) -> Reading:
    return Reading(keys, prefix, ("row_index", *ROW), (*EXCHANGE, *_PAID))


def _tables(directory: RunDirectory, prepared: Prepared, keys: Sequence[Key]) -> Iterator[tuple[Any, Any]]:
    """The final rows, and what people call them: their id, or else their position."""
    prefix, identity = prepared.job.output.prefix, prepared.job.input.id_column
    named = identity if identity in prepared.input_columns else f"{prefix}row_index"
    reading = _reading(keys, prefix)
    for table in records(directory, list(dict.fromkeys([*reading.columns, named])), reading.within):
        yield table, as_text(table[named].combine_chunks())


def _plain(table: Any, prefix: str) -> Any:
    return table.select([prefix + name for name in (*ROW, "attempts")]).rename_columns([*ROW, "attempts"])


def _bill(key: Key, column: str, sums: Adding, beside: tuple[Standing, dict[int, Any]]) -> Bill:
    made = Bill([], (key.name,))
    fill(made, sums, [column])
    add_beside(made, *beside)
    return ordered(made)


def _choices(prepared: Prepared) -> dict[Path, tuple[str, ...]]:
    """The members of `parsed` that take one of a few values, as far as they are columns of their own."""
    wrapper = (prepared.prompt.constants.get("response_format") or {}).get("json_schema") or {}
    found = choices_in(wrapper.get("schema"))
    few = [(path, values) for path, values in found.items() if len(values) <= MOST_VALUES and _is_leaf(prepared, path)]
    return dict(few[:MOST_MEMBERS])


def _is_leaf(prepared: Prepared, path: Path) -> bool:
    kind = prepared.spec.parsed
    for name in path:
        if kind is None or not types.is_struct(kind) or kind.get_field_index(name) < 0:
            return False
        kind = kind.field(name).type
    return not types.is_nested(kind)


def _written(directory: RunDirectory) -> datetime | None:
    """When rows were last written."""
    paths = [*directory.open_journals().values(), *directory.parts().values()]
    times = [path.stat().st_mtime for path in paths if path.exists()]
    return datetime.fromtimestamp(max(times), UTC) if times else None
