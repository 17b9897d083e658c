"""What a report tells of a run, gathered in one pass over its rows.

Rule: reads only, also while the run goes on; of each part only the leaves that are needed, and never all rows at once.
What the exchanges cost is added up by the machinery of the bill, so that the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Any

from pyarrow import types

from runner.bill import Bill, add_beside, fill, final_rows, ordered
from runner.bill.exchanges import Adding, key_names, of_table
from runner.bill.grouping import DAY, Key, Reading, as_text, days_in
from runner.lock import is_held
from runner.outputs.choices import Path, choices_in
from runner.prepare import Prepared
from runner.reading import prepared_of, ranges_in, records
from runner.records import Tally
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
    choices, seen, reasons = _choices(prepared), Seen(), Adding([])
    keys = _keys(prepared, choices)
    adding = {column: Adding([column]) for column in key_names(keys)}
    for table, names in _tables(directory, prepared, (keys, pending)):
        both = of_table(table, _reading(keys, prepared), days_in("UTC"))
        for sums in (*adding.values(), reasons):
            sums.add(*both)
        seen.add(_plain(table, prepared), names)
    left = ((opened.prior, row) for opened in standing.open.values() for row in opened.prior.keys() & pending.keys())
    seen.add_tries(attempt for prior, row in left for attempt in prior[row])
    models, days, *answers = (
        _bill(key, column, adding[column], (standing, pending))
        for key, column in zip(keys, key_names(keys), strict=True)
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


def _keys(prepared: Prepared, choices: Iterable[Path]) -> list[Key]:
    """Models, days, and each of the members."""
    prefix = prepared.job.output.prefix
    return [Key("model", prefix + "model"), Key(DAY), *(Key(".".join(p), prefix + "parsed", p) for p in choices)]


def _reading(keys: Sequence[Key], prepared: Prepared) -> Reading:
    return Reading(keys, prepared.job.output.prefix, ("row_index", *ROW), (*EXCHANGE, *_PAID))


def _tables(
    directory: RunDirectory, prepared: Prepared, given: tuple[Sequence[Key], dict[int, Tally]]
) -> Iterator[tuple[Any, Any]]:
    """The final rows, and what people call them: their id, or else their position."""
    keys, pending = given
    prefix, identity = prepared.job.output.prefix, prepared.job.input.id_column
    named = identity if identity in prepared.input_columns else f"{prefix}row_index"
    reading = _reading(keys, prepared)
    for table in records(directory, list(dict.fromkeys([*reading.columns, named])), reading.within):
        final = final_rows(table, prefix, pending)
        yield final, as_text(final[named].combine_chunks())


def _plain(table: Any, prepared: Prepared) -> Any:
    names = [*ROW, "attempts"]
    return table.select([prepared.job.output.prefix + name for name in names]).rename_columns(names)


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
    latest = max(map(_changed, paths), default=0.0)
    return datetime.fromtimestamp(latest, UTC) if latest else None


def _changed(path: FilePath) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # sealed meanwhile
        return 0.0
