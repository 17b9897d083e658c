"""What a table of records adds to a report beside its money: when, how long, why not, and which rows stand out.

Rule: a table comes, is counted and is forgotten. Instants are whole microseconds, money whole picodollars.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.bill.exchanges import pico_of
from runner.columns import ATTEMPT, attempt_record
from runner.records import Attempt, Status
from runner.report.examples import Failings, Leaders
from runner.report.spread import Spread
from runner.report.timeline import Timeline

#: Of a row and of each of its exchanges: what must be read.
ROW = (
    *("status", "error_kind", "http_status", "error", "finished_at", "latency_s", "first_token_s"),
    *("prompt_tokens", "completion_tokens", "model_returned"),
)
EXCHANGE = ("started_at", "seconds", "http_status", "error_kind", "cost_usd")
LIMITED = 429


@dataclass(slots=True)
class Seen:
    """All that was observed of a run's rows and exchanges."""

    answered_by: Counter[str] = field(default_factory=Counter)  #: final rows by model_returned
    timeline: Timeline = field(default_factory=Timeline)
    latency: Spread = field(default_factory=Spread)
    first_token: Spread = field(default_factory=Spread)
    failings: Failings = field(default_factory=Failings)
    slowest: Leaders = field(default_factory=Leaders)
    dearest: Leaders = field(default_factory=Leaders)

    def add(self, table: Any, names: Any) -> None:
        """table: final rows, the columns `ROW` and `attempts`; names: what people call these rows."""
        lists = table["attempts"].combine_chunks()
        tried, parents = lists.flatten(), pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
        self._add_ends(table)
        self._add_exchanges(tried)
        latency = _floats(table["latency_s"])
        self.latency.add(latency)
        self.first_token.add(_floats(table["first_token_s"]))
        for line in pc.value_counts(table["model_returned"].combine_chunks()).to_pylist():
            if line["values"] is not None:
                self.answered_by[line["values"]] += line["counts"]
        failed = table.select(["error_kind", "http_status", "error"]).append_column("name", names)
        self.failings.add(failed.filter(pc.equal(table["status"], Status.FAILED.value)))
        spent = np.zeros(table.num_rows, np.int64)
        costs = pc.struct_field(tried, "cost_usd")
        np.add.at(spent, parents, pico_of(costs).to_numpy())
        unknown = np.bincount(parents, pc.is_null(costs).to_numpy(zero_copy_only=False), table.num_rows) > 0
        shown = table.select(["status", "latency_s", "prompt_tokens", "completion_tokens"])
        exchanges = pa.array(np.bincount(parents, minlength=table.num_rows))
        sums = {"spent_pico": pa.array(spent), "cost_unknown": pa.array(unknown)}
        for name, column in ({"name": names, "exchanges": exchanges} | sums).items():
            shown = shown.append_column(name, column)
        self.slowest.add(shown, latency)
        self.dearest.add(shown, spent.astype(float))

    def add_tries(self, attempts: Iterable[Attempt]) -> None:
        """Exchanges of rows that are not final."""
        lines = [attempt_record(attempt) for attempt in attempts]
        columns = []
        for name in EXCHANGE:
            kind = ATTEMPT.field(name).type
            values = [line[name] for line in lines]
            plain = pa.array(values, pa.string() if pa.types.is_timestamp(kind) else kind)
            columns.append(plain.cast(kind))
        self._add_exchanges(pa.StructArray.from_arrays(columns, names=EXCHANGE))

    def _add_ends(self, table: Any) -> None:
        finished, ok = table["finished_at"].combine_chunks(), pc.equal(table["status"], Status.OK.value)
        for name, chosen in (("ok", ok), ("not_ok", pc.invert(ok))):
            self.timeline.count(name, _instants(finished.filter(chosen).drop_null()))

    def _add_exchanges(self, tried: Any) -> None:
        """tried: structs with the members of `EXCHANGE`."""
        tried = tried.filter(pc.is_valid(pc.struct_field(tried, "started_at")))
        starts = _instants(pc.struct_field(tried, "started_at"))
        seconds = _floats(pc.struct_field(tried, "seconds"))
        timed = np.isfinite(seconds)
        ends = starts + (np.where(timed, seconds, 0) * 1e6).astype(np.int64)
        self.timeline.in_flight(starts[timed], ends[timed])
        self.timeline.count("spent_pico", ends, pico_of(pc.struct_field(tried, "cost_usd")).to_numpy())
        limited = pc.fill_null(pc.equal(pc.struct_field(tried, "http_status"), LIMITED), False)
        broken = pc.and_(pc.is_valid(pc.struct_field(tried, "error_kind")), pc.invert(limited))
        for name, chosen in (("limited", limited), ("broken", broken)):
            self.timeline.count(name, ends[chosen.to_numpy(zero_copy_only=False)])


def _instants(array: Any) -> Any:
    return array.cast(pa.int64()).to_numpy(zero_copy_only=False)


def _floats(array: Any) -> Any:
    """float64, NaN for null."""
    return pc.fill_null(array, np.nan).to_numpy()
