"""Ranges opened again: rows that are final are to be sent once more.

Rule: the decision is one durable note a range; from then on every start goes on with it, and until the range is sealed
again its old part stays where it is. What a row said and cost before stays in its attempts.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner import files, notes
from runner.journal import replay
from runner.parts import Range
from runner.recovery import Standing, base_rows
from runner.store import RunDirectory


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows `retry` means. Empty: everything that is not ok."""

    statuses: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()

    def takes(self, record: Mapping[str, Any]) -> bool:
        if not self.statuses and not self.kinds:
            return bool(record["status"] != "ok")
        return record["status"] in self.statuses or record["error_kind"] in self.kinds

    def may_take(self, statuses: Iterable[str]) -> bool:
        """Whether a part with these statuses can hold such a row: most parts need not be read."""
        found = set(statuses)
        return bool(found - {"ok"}) or "ok" in self.statuses


def select(
    directory: RunDirectory, ranges: Sequence[Range], standing: Standing, wanted: Selection
) -> list[notes.Reopened]:
    """The notes that open every range with a final row that `wanted` takes."""
    change = uuid.uuid4().hex
    found = []
    for part in ranges:
        rows, epoch = _final_rows(directory, part, standing, wanted)
        again = frozenset(row for row, record in rows.items() if wanted.takes(record))
        if again:
            found.append(notes.Reopened(part.number, epoch + 1, again, part.input_hash, change))
    return found


def _final_rows(
    directory: RunDirectory, part: Range, standing: Standing, wanted: Selection
) -> tuple[dict[int, dict[str, Any]], int]:
    """The final rows of a range, and the epoch that it has reached."""
    sealed, opened = standing.sealed.get(part.number), standing.open.get(part.number)
    if sealed:
        read = wanted.may_take(sealed.totals.rows)
        return (base_rows(directory.part(part.number)) if read else {}), sealed.epoch
    if opened is None:
        return {}, 0
    path = directory.part(part.number)
    rows = base_rows(path) if path.exists() else {}
    rows |= replay(files.read_file(directory.journal(part.number)) or b"", part.run, part.number).records
    return {row: record for row, record in rows.items() if row in opened.done}, opened.part.epoch


def reopen(directory: RunDirectory, run: Mapping[str, Any], found: Sequence[notes.Reopened]) -> None:
    """Make it so: the notes, then run.json (`run`, its members), which makes them hold. The manifest goes first: from
    here on not every row is final."""
    files.remove(directory.root / "manifest.json")
    notes.add(directory.root / notes.NOTES, run["run"], found)
    changes = [*run.get("changes", ()), *dict.fromkeys(note.change for note in found)]
    directory.write("run.json", {**run, "changes": changes})
