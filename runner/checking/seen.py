"""What deserves a word among the rows that are to be sent.

Rule: bounded memory: eight bytes a row tell which requests are alike, and of everything else the first few are kept.
Strategy: what providers say of a request depends on its model, its roles and the parameters that differ from row to
row, never on its texts; each such combination is judged once.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runner.demand import Told
from runner.dialect import Finding, Severity
from runner.prepare import Prepared
from runner.pricing import context_window
from runner.recipe import Asked
from runner.records import Failure, Request, Row
from runner.wire.encode import output_cap
from runner.worstcase import unpriced_extra

#: Combinations that are judged, and rows whose requests are held against each other.
MOST_SHAPES = 1024
MOST_ALIKE_ROWS = 20_000_000
SHOWN = 3


@dataclass(slots=True)
class TooLong:
    """Rows of a model whose prompt and answer do not fit into its context."""

    window: int | None
    ratio: float
    rows: int = 0
    first: list[str] = field(default_factory=list)

    def see(self, row: Row, tokens: float, id_column: str | None) -> None:
        if self.window is None or tokens <= self.window:
            return
        self.rows += 1
        if len(self.first) < SHOWN:
            name = row.data.get(id_column) if id_column and row.data else None
            self.first.append(f"row {row.index}" if name is None else str(name))

    def words(self, model: str) -> str:
        which = ", ".join(self.first) + (", …" if self.rows > len(self.first) else "")
        do = "does" if self.rows == 1 else "do"
        return (
            f"{self.rows:,} prompt{'s' * (self.rows != 1)} with the answer's cap {do} not fit into the "
            f"{self.window:,} tokens of {model}, by estimate: {which}"
        )


class Seen:
    """The rows of one check."""

    def __init__(self, prepared: Prepared, told: Mapping[str, Told]) -> None:
        self._prepared = prepared
        self._told = told
        self._hashes = array("Q")
        self._remarks: dict[str, None] = {}
        self._shapes: set[tuple[Any, ...]] = set()
        self._differing = sorted(prepared.dialect.bodies.differing - {"messages"})
        self._roles_differ = "messages" in prepared.dialect.bodies.differing
        self._differs = bool(prepared.dialect.bodies.differing)
        self._id_column = prepared.job.input.id_column
        self._contexts: dict[str, TooLong] = {}

    def look(self, row: Row, asked: Asked | Failure, made: Request | Failure) -> None:
        if isinstance(asked, Failure):
            return
        if self._differs or not self._shapes:
            self._judge(asked.body)
        if isinstance(made, Failure):
            return
        if len(self._hashes) < MOST_ALIKE_ROWS:
            self._hashes.append(int(made.hash[:16], 16))
        known = self._contexts.get(made.model) or self._context(made.model)
        if known.window is not None:
            known.see(row, made.prompt_tokens * known.ratio + (output_cap(asked.body) or 0), self._id_column)

    def _context(self, model: str) -> TooLong:
        told = self._told.get(model)
        self._contexts[model] = TooLong(context_window(model), told.ratio if told else 1.0)
        return self._contexts[model]

    def _judge(self, body: Mapping[str, Any]) -> None:
        shape = tuple(repr(body.get(name)) for name in self._differing)
        if self._roles_differ:
            shape += tuple(message.get("role") for message in body["messages"])
        if shape not in self._shapes and len(self._shapes) < MOST_SHAPES:
            self._shapes.add(shape)
            for found in self._prepared.dialect.findings(body):
                self._remarks[_words(found)] = None
            self._doubt_price(body)

    def _doubt_price(self, body: Mapping[str, Any]) -> None:
        model = str(body.get("model"))
        price = self._prepared.prices.of(model)
        extra = unpriced_extra(body, price) if price and price.is_known else None
        if extra:
            said = f"{extra}: the bill lacks it where the server tells no cost; give pricing.{model}.per_request"
            self._remarks[f"warning    {said}"] = None

    def warnings(self) -> list[str]:
        """`warning    …`, `notice     …`, `advice     …`, each once."""
        long = (f"warning    {each.words(model)}" for model, each in self._contexts.items() if each.rows)
        return [*self._remarks, *long]

    def alike(self) -> int:
        """Rows that ask what a row before them asks."""
        return len(self._hashes) - len(np.unique(np.frombuffer(self._hashes, np.uint64)))


def _words(found: Finding) -> str:
    """What is not refused: warnings, advice, and what is sent otherwise than it was written."""
    heading = Severity.NOTICE if found.changes else found.severity
    return f"{heading:<10} {found.said_of_change if found.changes else found.sentence}"
