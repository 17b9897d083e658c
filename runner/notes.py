"""notes.jsonl: durable facts of a run that are no rows.

Rule: append-only, each line with the checksum of the journals, durable when `add` returns. One kind so far:

    reopen   range, epoch, rows, input_hash, change     these rows of the range are to be sent again at this epoch

A note holds only when run.json lists its `change`: that file is replaced in one step, so a decision about many ranges
is taken as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import orjson

from runner import files
from runner.journal import intact_lines, seal_line, seed

#: Stands for the range in the checksum of notes.
NO_RANGE = -1


@dataclass(frozen=True, slots=True)
class Reopened:
    """Rows of a range that are to be sent again, whatever the run holds of them from before `epoch`. `input_hash`: of
    the range as it is from then on."""

    range: int
    epoch: int
    rows: frozenset[int]
    input_hash: str
    change: str


def add(path: Path, run: str, notes: Iterable[Reopened]) -> None:
    """Write notes down; durable when it returns."""
    start = seed(run, NO_RANGE)
    lines = [seal_line(_payload(note), start) for note in notes]
    if lines:
        new = not path.exists()
        files.append(path, b"".join(lines))
        if new:
            files.sync_directory(path.parent)


def read(path: Path, run: str, changes: Collection[str]) -> dict[int, list[Reopened]]:
    """The intact notes of `changes` by range, in the order they were written."""
    data = files.read_file(path) or b""
    found: dict[int, list[Reopened]] = {}
    for line in intact_lines(data, seed(run, NO_RANGE)):
        if line:
            members = orjson.loads(data[line.start : line.end])
            facts = (members["range"], members["epoch"], frozenset(members["rows"]))
            note = Reopened(*facts, members["input_hash"], members["change"])
            if note.change in changes:
                found.setdefault(note.range, []).append(note)
    return found


def _payload(note: Reopened) -> bytes:
    members = {"line": "reopen", "range": note.range, "epoch": note.epoch, "rows": sorted(note.rows)}
    return orjson.dumps(members | {"input_hash": note.input_hash, "change": note.change})[:-1]
