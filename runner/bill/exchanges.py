"""Every exchange of a run as one flat row of numbers, and their sums by group.

Rule: money is summed as whole picodollars in 64 bit integers, never as floats: costs are multiples of 1e-12 dollars and
below 1,000 dollars, so the sum is exact to the last digit, and groups add up to the total. The row's own answer is its
last exchange that was an answer, if the row kept one; every other exchange of known cost is waste, by the reason why.

Strategy: one part at a time, only the leaves of `attempts` that are needed; Arrow's group_by adds up inside a part, and
once more over the parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.bill.grouping import Key, Reading, Zone

PICO = 10**12
TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
#: So many small tables of sums are held before they are added up themselves.
FEW = 128
SUMS = ("exchanges", "unknown_exchanges", *TOKENS, "cost_pico", "wasted_pico")
#: Why an answer is no row's answer: it was cut off and asked for again, or its row was sent again later.
TRUNCATED, REPLACED = "truncated", "replaced"


def dollars(pico: int) -> Decimal:
    return Decimal(pico) / PICO


def pico_of(costs: Any) -> Any:
    """Dollars as float64 -> whole picodollars; null is 0. Exact: such a float is within 0.3 of its integer."""
    plain = pc.fill_null(costs, 0.0).to_numpy(zero_copy_only=False)
    return pa.array(np.rint(plain * PICO).astype(np.int64))


def key_names(keys: Sequence[Key]) -> list[str]:
    return [f"key{number}" for number in range(len(keys))]


def of_table(table: Any, reading: Reading, days: Zone) -> tuple[Any, Any]:
    """The rows and the exchanges of a table of records, each with its keys; see `ROWS` and `SUMS` for the numbers."""
    lists = table[reading.attempts].combine_chunks()
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    tried = lists.flatten()
    own = _own(table, tried, parents, reading.prefix)
    rows, exchanges = {}, {}
    for name, key in zip(key_names(reading.keys), reading.keys, strict=True):
        if key.is_day:
            exchanges[name] = days(pc.struct_field(tried, "started_at"))
            rows[name] = _row_days(table, exchanges[name], parents, days, reading.prefix)
        else:
            rows[name] = key.of_rows(table)
            exchanges[name] = rows[name].take(pa.array(parents))
    rows["status"] = table[f"{reading.prefix}status"].combine_chunks()
    return pa.table(rows), pa.table(exchanges | _numbers(tried, own))


def _own(table: Any, tried: Any, parents: Any, prefix: str) -> Any:
    """For each exchange whether it is its row's answer."""
    kept = pc.or_kleene(
        pc.not_equal(table[f"{prefix}status"], "failed"),
        pc.fill_null(pc.equal(table[f"{prefix}error_kind"], "OUTPUT"), False),
    )
    kinds = pc.struct_field(tried, "error_kind")
    answers = pc.fill_null(pc.or_(pc.is_null(kinds), pc.fill_null(pc.equal(kinds, "OUTPUT"), False)), False)
    found = np.flatnonzero(answers.to_numpy(zero_copy_only=False))
    last = np.full(table.num_rows, -1, np.int64)
    last[parents[found]] = found  # in order, so the last one stays
    last = last[(last >= 0) & kept.to_numpy()]
    own = np.zeros(len(tried), bool)
    own[last] = True
    return own


def _numbers(tried: Any, own: Any) -> dict[str, Any]:
    cost = pc.struct_field(tried, "cost_usd")
    pico = pico_of(cost)
    wasted = np.where(own, 0, pico.to_numpy())
    cut = pc.fill_null(pc.equal(pc.struct_field(tried, "finish_reason"), "length"), False)
    kinds = pc.coalesce(pc.struct_field(tried, "error_kind"), pc.if_else(cut, TRUNCATED, REPLACED))
    tokens = {name: pc.fill_null(pc.struct_field(tried, name), 0) for name in TOKENS}
    return {
        "reason": pc.if_else(pa.array(own), pa.scalar(None, pa.string()), kinds),
        "exchanges": pa.array(np.ones(len(tried), np.int64)),
        "unknown_exchanges": pc.is_null(cost).cast(pa.int64()),
        **tokens,
        "cost_pico": pico,
        "wasted_pico": pa.array(wasted),
    }


def _row_days(table: Any, days: Any, parents: Any, zone: Zone, prefix: str) -> Any:
    """The day of each row's last exchange; of a row that was never sent the day on which that was said."""
    last = np.full(table.num_rows, -1, np.int64)
    last[parents] = np.arange(len(parents))
    sent = days.take(pa.array(last, mask=last < 0))
    return pc.coalesce(sent, zone(table[f"{prefix}finished_at"].combine_chunks()))


class Adding:
    """The rows and exchanges of tables that come one after the other, added up by `keys`: some of their columns."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = list(keys)
        self._rows: list[Any] = []
        self._exchanges: list[Any] = []

    def add(self, rows: Any, exchanges: Any) -> None:
        """What `of_table` makes of a table."""
        self._rows.append(rows.group_by([*self._keys, "status"]).aggregate([([], "count_all")]))
        self._exchanges.append(summed(exchanges, [*self._keys, "reason"], SUMS))
        if len(self._rows) == FEW:
            self._rows = [summed(pa.concat_tables(self._rows), [*self._keys, "status"], ["count_all"])]
            self._exchanges = [summed(pa.concat_tables(self._exchanges), [*self._keys, "reason"], SUMS)]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Lines of keys, `status` and `count_all`; a group may have several."""
        return (line for piece in self._rows for line in piece.to_pylist())

    def exchanges(self) -> list[dict[str, Any]]:
        """A line for each group of keys and `reason`, with `SUMS`."""
        if not self._exchanges:
            return []
        lines: list[dict[str, Any]] = summed(
            pa.concat_tables(self._exchanges), [*self._keys, "reason"], SUMS
        ).to_pylist()
        return lines


def summed(table: Any, keys: Sequence[str], sums: Sequence[str]) -> Any:
    grouped = table.group_by(list(keys)).aggregate([(name, "sum") for name in sums])
    return grouped.rename_columns([name.removesuffix("_sum") for name in grouped.column_names]).select([*keys, *sums])
