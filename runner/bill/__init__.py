"""What runs have cost: rows, exchanges, tokens and dollars, by any column, parsed member, day, tag or model.

    bill([Path("runs/a"), Path("runs/b")], by=("team", "model"))

Rule: reads only, also while a run goes on, and never more than it needs. Every exchange that was ever made is counted
once: those of final rows by group, those of rows that are not final yet and of rows that left the input beside them.
Dollars are exact sums over `attempts`; what is unknown is counted, never taken for 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import compress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from runner.bill.exchanges import TOKENS, Adding, dollars, key_names, of_table
from runner.bill.grouping import DAY, Names, Reading, Zone, days_in, keys_of
from runner.lock import is_held
from runner.reading import open_directory, prepared_of, ranges_in, records
from runner.records import Tally
from runner.recovery import Standing, look
from runner.store import RunDirectory

__all__ = ["Bill", "Sums", "bill"]


@dataclass(slots=True)
class Sums:
    """The totals of a group of rows. wasted: dollars of the exchanges that are no row's answer, by the reason why."""

    rows: dict[str, int] = field(default_factory=dict)
    exchanges: int = 0
    unknown_exchanges: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    wasted: dict[str, Decimal] = field(default_factory=dict)
    unknown_usd: Decimal = Decimal(0)  #: of a whole run: what the exchanges of unknown cost may have cost at most
    bounded: int = 0  #: of a whole run: how many of them that is said of

    @property
    def cost_known(self) -> bool:
        """Whether the dollars are of anything: 0 of exchanges that are all of unknown cost is no sum."""
        return bool(self.cost_usd) or not self.unknown_exchanges

    @property
    def wasted_usd(self) -> Decimal:
        return sum(self.wasted.values(), Decimal(0))

    def add_exchanges(self, line: dict[str, Any]) -> None:
        for name in ("exchanges", "unknown_exchanges", *TOKENS):
            setattr(self, name, getattr(self, name) + line[name])
        self.cost_usd += dollars(line["cost_pico"])
        if line["wasted_pico"]:
            self._waste(line["reason"], dollars(line["wasted_pico"]))

    def add_tally(self, tally: Tally, reason: str) -> None:
        for name in ("exchanges", "unknown_exchanges", *TOKENS):
            setattr(self, name, getattr(self, name) + getattr(tally, name))
        self.cost_usd += tally.cost_usd
        if tally.cost_usd:
            self._waste(reason, tally.cost_usd)

    def _waste(self, reason: str, usd: Decimal) -> None:
        self.wasted[reason] = self.wasted.get(reason, Decimal(0)) + usd


@dataclass(slots=True)
class Bill:
    """`lines`: by the values of `by`, null where a row has none, sorted; they and `beside` add up to `total`.

    beside: exchanges that belong to no final row: of rows that are `not final` yet, and of rows `removed` from the
    input.
    """

    runs: list[str]
    by: tuple[str, ...]
    lines: dict[tuple[str | None, ...], Sums] = field(default_factory=dict)
    beside: dict[str, Sums] = field(default_factory=dict)
    total: Sums = field(default_factory=Sums)
    simulated: int = 0  #: of the runs: their dollars are made up

    def at(self, key: tuple[str | None, ...]) -> Sums:
        return self.lines.setdefault(key, Sums())


def bill(runs: Sequence[Path], by: Sequence[str] = (), zone: str = "UTC") -> Bill:
    """The bill of one or more runs. zone: of the days, such as Europe/Berlin.

    Raises RunDirectoryError for a path that is no run, UsageError for a column or zone that there is not.
    """
    once = list({run.resolve(): run for run in runs}.values())  # a run named twice was paid once
    days, made = days_in(zone), Bill([str(run) for run in once], tuple(by))
    for run in once:
        _add_run(made, open_directory(run), days)
    return ordered(made)


def by_model_and_day(runs: Sequence[Path], zone: str = "UTC") -> tuple[Bill, Bill]:
    """The two views of a bill that nobody asked to be grouped."""
    both = bill(runs, ("model", DAY), zone)
    return _folded(both, 0), _folded(both, 1)


def _folded(both: Bill, place: int) -> Bill:
    one = Bill(both.runs, (both.by[place],), beside=both.beside, total=both.total, simulated=both.simulated)
    for key, sums in both.lines.items():
        _join(one.at((key[place],)), sums)
    return ordered(one)


def _join(into: Sums, sums: Sums) -> None:
    for name in ("exchanges", "unknown_exchanges", *TOKENS, "cost_usd"):
        setattr(into, name, getattr(into, name) + getattr(sums, name))
    for status, count in sums.rows.items():
        into.rows[status] = into.rows.get(status, 0) + count
    for reason, usd in sums.wasted.items():
        into.wasted[reason] = into.wasted.get(reason, Decimal(0)) + usd


def ordered(made: Bill) -> Bill:
    """With its lines sorted, what has no value last."""
    made.lines = dict(sorted(made.lines.items(), key=_order))
    return made


def _order(line: tuple[tuple[str | None, ...], Sums]) -> tuple[tuple[bool, str], ...]:
    return tuple((value is None, value or "") for value in line[0])


def _add_run(made: Bill, directory: RunDirectory, days: Zone) -> None:
    prepared = prepared_of(directory)
    known = directory.read_run() or {}
    made.simulated += known["simulated"]
    names = Names(prepared, str(directory.root), known.get("tags") or dict(prepared.job.tags))
    reading = Reading(keys_of(names, made.by), prepared.job.output.prefix)
    standing = look(directory, ranges_in(directory)[1], live=is_held(directory.lock))
    # Rows that become final between the two looks are in the second one only.
    pending = {row: cost for opened in standing.open.values() for row, cost in opened.pending.items()}
    _add_records(made, directory, reading, (days, pending))
    add_beside(made, standing, pending)


def _add_records(made: Bill, directory: RunDirectory, reading: Reading, given: tuple[Zone, dict[int, Tally]]) -> None:
    days, pending = given
    keys = key_names(reading.keys)
    adding = Adding(keys)
    for table in records(directory, reading.columns, reading.within):
        adding.add(*of_table(final_rows(table, reading.prefix, pending), reading, days))
    fill(made, adding, keys)


def final_rows(table: Any, prefix: str, pending: dict[int, Tally]) -> Any:
    """The rows of a table of records that count as final; these are taken out of `pending`.

    A row that is being sent again stands in its part as it was before: while more exchanges of it are known than stand
    there, it counts by these.
    """
    if not pending:
        return table
    rows = table[f"{prefix}row_index"].to_pylist()
    tried = pc.list_value_length(table[f"{prefix}attempts"]).to_pylist()
    final = [row not in pending or count >= pending[row].exchanges for row, count in zip(rows, tried, strict=True)]
    for row in compress(rows, final):
        pending.pop(row, None)
    return table.filter(pa.array(final, pa.bool_()))


def fill(made: Bill, adding: Adding, keys: Sequence[str]) -> None:
    """The lines of a bill, by these columns of what was added up, and their total."""
    for line in adding.rows():
        for into in (made.at(_key(line, keys)), made.total):
            into.rows[line["status"]] = into.rows.get(line["status"], 0) + line["count_all"]
    for line in adding.exchanges():
        for into in (made.at(_key(line, keys)), made.total):
            into.add_exchanges(line)


def _key(line: dict[str, Any], names: Sequence[str]) -> tuple[str | None, ...]:
    """The values of a group; days as text only here: there are few groups, and many rows."""
    return tuple(None if line[name] is None else str(line[name]) for name in names)


def add_beside(made: Bill, standing: Standing, pending: dict[int, Tally]) -> None:
    """What belongs to no final row. pending: what rows that are not final have cost so far."""
    for tally in (standing.settled, standing.removed):
        made.total.unknown_usd += tally.unknown_usd
        made.total.bounded += tally.bounded
    of_pending = Tally()
    for cost in pending.values():
        of_pending.add(cost)
    for reason, tally in (("not final", of_pending), ("removed", standing.removed)):
        if tally.exchanges:
            for into in (made.beside.setdefault(reason, Sums()), made.total):
                into.add_tally(tally, reason)
