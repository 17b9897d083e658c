"""notes.jsonl: durable facts of a run that are no rows.

Rule: append-only, each line with the checksum of the journals, durable when `add` returns. Three kinds:

    reopen   range, epoch, rows, input_hash, change     these rows of the range are to be sent again at this epoch
    sample   rows, others, total                        these rows were drawn, in this order; the last note holds
    dearer   model, price, times                        an exchange cost so many times its worst case by this price

A note of the first kind holds only when run.json lists its `change`: that file is replaced in one step, so a decision
about many ranges is taken as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from runner import files
from runner.journal import intact_lines, seal_line, seed

NOTES = "notes.jsonl"
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


@dataclass(frozen=True, slots=True)
class Sampled:
    """A sample that was drawn when `others` rows were final besides its own, of `total`."""

    rows: tuple[int, ...]
    others: int
    total: int


@dataclass(frozen=True, slots=True)
class Dearer:
    """An exchange of `model` cost more than it could by `price` (rates as decimal text)."""

    model: str
    price: Mapping[str, Any]
    times: Decimal | None  #: None: it was to cost nothing


Note = Reopened | Sampled | Dearer


def add(path: Path, run: str, notes: Iterable[Note]) -> None:
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
    found: dict[int, list[Reopened]] = {}
    for members in _lines(path, run):
        if members["line"] == "reopen" and members["change"] in changes:
            facts = (members["range"], members["epoch"], frozenset(members["rows"]))
            note = Reopened(*facts, members["input_hash"], members["change"])
            found.setdefault(note.range, []).append(note)
    return found


def sampled(path: Path, run: str) -> Sampled | None:
    """The sample that was drawn last."""
    last = None
    for members in _lines(path, run):
        if members["line"] == "sample":
            last = Sampled(tuple(members["rows"]), members["others"], members["total"])
    return last


def dearer(path: Path, run: str) -> list[Dearer]:
    """What exchanges have cost beyond their worst case."""
    found = (members for members in _lines(path, run) if members["line"] == "dearer")
    return [Dearer(each["model"], each["price"], each["times"] and Decimal(each["times"])) for each in found]


def _lines(path: Path, run: str) -> Iterator[dict[str, Any]]:
    data = files.read_file(path) or b""
    for line in intact_lines(data, seed(run, NO_RANGE)):
        if line:
            yield orjson.loads(data[line.start : line.end])


def _payload(note: Note) -> bytes:
    if isinstance(note, Dearer):
        times = None if note.times is None else f"{note.times:f}"
        return orjson.dumps({"line": "dearer", "model": note.model, "price": note.price, "times": times})[:-1]
    if isinstance(note, Sampled):
        facts = {"line": "sample", "rows": note.rows, "others": note.others, "total": note.total}
        return orjson.dumps(facts)[:-1]
    members = {"line": "reopen", "range": note.range, "epoch": note.epoch, "rows": sorted(note.rows)}
    return orjson.dumps(members | {"input_hash": note.input_hash, "change": note.change})[:-1]
