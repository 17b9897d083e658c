"""Rows worth a look: why rows failed, with examples, and the rows at the top by some number.

Rule: of ten million rows no more are held than are shown, and of failures one short entry for each kind of sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

EXAMPLES = 3
#: Sentences that differ in more than their numbers; those beyond are counted under their kind alone.
SHAPES = 1000
TOP = 10


@dataclass(slots=True)
class Reason:
    """Failed rows whose sentences differ in their numbers at most."""

    kind: str
    http_status: int | None
    message: str | None  #: of the first one; None: of many other sentences
    count: int = 0
    rows: list[str] = field(default_factory=list)  #: names of the first ones


class Failings:
    """Fed with failed rows, part by part: error_kind, http_status, error, name."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int | None, str | None], Reason] = {}

    def add(self, rows: Any) -> None:
        """rows: a table of error_kind, http_status, error and name."""
        if not rows.num_rows:
            return
        # What differs from row to row in one and the same sentence: numbers and long identifiers.
        shapes = pc.replace_substring_regex(rows["error"], r"[0-9a-fA-F-]*[0-9][0-9a-fA-F-]*", "#")
        grouped = rows.append_column("shape", shapes).group_by(
            ["error_kind", "http_status", "shape"], use_threads=False
        )
        for line in grouped.aggregate([("name", "count"), ("error", "first"), ("name", "list")]).to_pylist():
            reason = self._reason(line)
            reason.count += line["name_count"]
            reason.rows += line["name_list"][: EXAMPLES - len(reason.rows)]

    def _reason(self, line: Mapping[str, Any]) -> Reason:
        kind, status, shape = line["error_kind"] or "", line["http_status"], line["shape"]
        key, message = (kind, status, shape), line["error_first"]
        if key not in self._found and len(self._found) >= SHAPES:
            key, message = (kind, None, None), None
        return self._found.setdefault(key, Reason(kind, key[1], message))

    @property
    def reasons(self) -> list[Reason]:
        """The most frequent first."""
        return sorted(self._found.values(), key=lambda reason: -reason.count)

    @property
    def kinds(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for reason in self._found.values():
            found[reason.kind] += reason.count
        return found


class Leaders:
    """The rows with the greatest numbers, greatest first; of equals the first."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, rows: Any, numbers: Any) -> None:
        """numbers: one for each row, NaN where there is none."""
        known = np.flatnonzero(np.isfinite(numbers) & (numbers > 0))
        known = known[np.argsort(-numbers[known], kind="stable")[:TOP]]
        if not len(known):
            return
        found = rows.take(pa.array(known)).to_pylist()
        leading = [row | {"number": float(number)} for row, number in zip(found, numbers[known], strict=True)]
        self.rows = sorted([*self.rows, *leading], key=lambda row: -row["number"])[:TOP]
