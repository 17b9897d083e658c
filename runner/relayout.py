"""Answers that move: a run's results and journals laid out anew for another input.

Rule: the new layout is built whole beside the old one (`*.next`), then run.json is replaced, with the mark `swap`, and
only then do the new ones take the places of the old, each directory in one step: at no instant is there none. A start
that finds the mark completes the swap; one that finds leftovers without it removes them. Which of two directories is
the new one says a file in it, named by its epoch, which is durable before the mark. No exchange leaves the bill: what a
row cost goes with its answer, what dropped out goes to removed.jsonl.

A range with rows to send becomes a journal, and a partial part, so that its answers stay where readers look. The run
that goes on from here keeps it until the range is sealed; later ones remove it, as they do with any partial part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from runner import files
from runner.columns import attempt_record, tally
from runner.journal import Head, attempt_line, head_line, record_line, seed
from runner.notes import NO_RANGE
from runner.parts import Range, in_order, kept_rows, record_lines, record_tables, write_part
from runner.plan import NONE
from runner.prepare import Prepared, input_identity
from runner.records import Attempt, Tally
from runner.recovery import Standing, earlier
from runner.store import RunDirectory, following, name_tag
from runner.survey import Survey

#: Parts of the old layout that are held at once; an inserted line makes each new range out of two old ones.
HELD_PARTS = 4


@dataclass(slots=True)
class Old:
    """The run as it was."""

    directory: RunDirectory
    prepared: Prepared
    ranges: Sequence[Range]
    standing: Standing
    _held: dict[int, Any] = field(default_factory=dict)

    def final_rows(self, number: int) -> Any:
        """The result columns of the final rows of an old range, in row order."""
        if number not in self._held:
            if len(self._held) >= HELD_PARTS:
                self._held.pop(next(iter(self._held)))
            self._held[number] = self._read(number)
        return self._held[number]

    def _read(self, number: int) -> Any:
        shape, part = self.prepared.shape, self.ranges[number]
        data = files.read_file(self.directory.journal(number)) or b""
        lines = record_lines(data, part.run, number)
        tables = list(record_tables(data, [lines[row] for row in sorted(lines)], shape.results))
        kept = kept_rows(self.directory.part(number), shape, lines)
        together = [*tables, *([kept] if kept is not None else [])]
        if not together:
            return shape.results.empty_table()
        (table,) = in_order(together)
        opened = self.standing.open.get(number)
        if opened is None:
            return table
        return table.filter(pa.array([row in opened.done for row in table["row_index"].to_pylist()], pa.bool_()))

    def number_of(self, row: int) -> int:
        return row // self.prepared.survey.rows_per_part

    def history(self, row: int) -> Sequence[Attempt]:
        """Every exchange of an old row that gives its answer to nobody."""
        number = self.number_of(row)
        opened = self.standing.open.get(number)
        if opened and row in opened.prior:
            return opened.prior[row]
        table = self.final_rows(number)
        found = table.filter(pa.compute.equal(table["row_index"], row)).to_pylist()
        return earlier(_plain(found[0])) if found else ()


def lay_out(prepared: Prepared, old: Old, sources: Sequence[int], members: Mapping[str, Any]) -> None:
    """Build the new layout, make it the run's (members: run.json as it is to be), and swap."""
    directory = old.directory
    undo(directory)
    for place in (directory.results, directory.journals):
        files.make_directory(following(place))
    epoch = 1 + max([members["epoch"], *(footer.epoch for footer in old.standing.sealed.values()), *_open_epochs(old)])
    builder = _Builder(prepared, old, sources, epoch)
    for number, part in enumerate(prepared.survey.ranges):
        builder.lay(Range(members["run"], number, part.first, part.rows, epoch, part.hash))
    builder.remove_the_rest(members["run"])
    for place in (directory.results, directory.journals):
        files.touch(following(place) / name_tag(epoch))
        files.sync_directory(following(place))
    directory.write("survey.next.json", prepared.survey.to_json())
    carried = {"unknown_usd": str(builder.carried_usd), "bounded": builder.carried}
    directory.write("run.json", {**members, **carried, "epoch": epoch, "changes": [], "swap": True})
    swap(directory)


def _open_epochs(old: Old) -> Iterator[int]:
    return (opened.part.epoch for opened in old.standing.open.values())


class _Builder:
    def __init__(self, prepared: Prepared, old: Old, sources: Sequence[int], epoch: int) -> None:
        self._prepared = prepared
        self._old = old
        self._sources = sources
        self._epoch = epoch
        self._rows = sum(part.rows for part in old.ranges)
        self._used = {source for source in sources if source != NONE}
        #: What exchanges of unknown cost may have cost: parts that are written anew say nothing of it, run.json does.
        self.carried_usd = old.standing.settled.unknown_usd + old.standing.removed.unknown_usd
        self.carried = old.standing.settled.bounded + old.standing.removed.bounded

    def lay(self, part: Range) -> None:
        """One new range: a part when all its rows have answers, else journal and partial part of those that have."""
        rows, directory = range(part.first_row, part.first_row + part.rows), self._old.directory
        answered = [row for row in rows if self._sources[row] != NONE]
        if len(answered) == part.rows:
            if not self._linked(part):
                self._write_part(part, self._table(answered), directory.part(part.number))
            return
        answers = self._table(answered) if answered else None
        lines = self._journal_lines(part, answers, [row for row in rows if self._sources[row] == NONE])
        if len(lines) > 1:
            files.append(following(directory.journals) / directory.journal(part.number).name, b"".join(lines))
        if answers is not None:
            self._write_part(part, answers, directory.partial(part.number))

    def _linked(self, part: Range) -> bool:
        """A part that is the same as before is not written again."""
        old = self._old
        before = old.ranges[part.number] if part.number < len(old.ranges) else None
        same = before and (before.rows, before.input_hash) == (part.rows, part.input_hash)
        untouched = part.number in old.standing.sealed and all(
            self._sources[row] == row for row in range(part.first_row, part.first_row + part.rows)
        )
        if not (same and untouched and old.prepared.shape.part.equals(self._prepared.shape.part)):
            return False
        source = old.directory.part(part.number)
        linked = files.link(source, following(old.directory.results) / source.name)
        if linked:
            self.carried_usd -= old.standing.sealed[part.number].totals.unknown_usd
            self.carried -= old.standing.sealed[part.number].totals.bounded
        return linked

    def _table(self, rows: Sequence[int]) -> Any:
        """The answers of new rows, under their new ordinals."""
        wanted: dict[int, list[int]] = {}
        for row in rows:
            wanted.setdefault(self._old.number_of(self._sources[row]), []).append(row)
        tables = [self._taken(number, group) for number, group in wanted.items()]
        (together,) = in_order(tables)
        return together

    def _taken(self, number: int, rows: Sequence[int]) -> Any:
        table = self._old.final_rows(number)
        places = {row: place for place, row in enumerate(table["row_index"].to_pylist())}
        taken = table.take(pa.array([places[self._sources[row]] for row in rows], pa.int64()))
        moved = taken.set_column(0, taken.schema.field(0), pa.array(rows, pa.int64()))
        return moved.cast(self._prepared.shape.results)

    def _write_part(self, part: Range, table: Any, path: Path) -> None:
        """table: the answers of the range, or of some of its rows. path: in the layout as it will be."""
        totals = Tally()
        for record in table.select(["status", "error_kind", "attempts"]).to_pylist():
            totals.add(tally(record))
        inputs = self._prepared.reader.table(part.number, self._prepared.input_columns)
        places = pa.array([row - part.first_row for row in table["row_index"].to_pylist()], pa.int64())
        target = following(path.parent) / path.name
        write_part(part, totals, target, self._prepared.shape, (inputs.take(places), table))

    def _journal_lines(self, part: Range, answers: Any, others: Sequence[int]) -> list[bytes]:
        start = seed(part.run, part.number)
        lines = [head_line(Head(part.run, part.number, self._epoch, part.rows, part.input_hash))]
        if answers is not None:
            lines += [record_line(_plain(record), start) for record in answers.to_pylist()]
        for row in others:
            if row < self._rows and row not in self._used:  # what was asked in this place before
                self._used.add(row)
                history = self._old.history(row)
                lines += [attempt_line(row, attempt_record(attempt), start) for attempt in history]
        return lines

    def remove_the_rest(self, run: str) -> None:
        """The exchanges of old rows that are in the new layout nowhere."""
        path, start = self._old.directory.removed, seed(run, NO_RANGE)
        lines = [files.read_file(path) or b""]
        for row in range(self._rows):
            if row not in self._used:
                history = self._old.history(row)
                lines += [attempt_line(row, attempt_record(attempt), start) for attempt in history]
        files.write_file(following(path), b"".join(lines))


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a part as a journal has it: instants as text."""
    plain: dict[str, Any] = orjson.loads(orjson.dumps(record, option=orjson.OPT_UTC_Z))
    return plain


def swap(directory: RunDirectory) -> None:
    """Put the new layout in the place of the old one, and take the mark away. May be interrupted and done again."""
    members = directory.read_run() or {}
    for place in (directory.results, directory.journals):
        _put_in_place(place, members["epoch"])
    for new, path in (
        (following(directory.removed), directory.removed),
        (directory.root / "survey.next.json", directory.root / "survey.json"),
    ):
        if new.exists():
            files.rename(new, path)
    files.sync_directory(directory.root)
    directory.write("run.json", {name: value for name, value in members.items() if name != "swap"})
    undo(directory)


def _put_in_place(place: Path, epoch: int) -> None:
    """One new directory, in one step where the file system can. Its name tag tells it from the old one."""
    new, aside = following(place), place.with_name(f"{place.name}.old")
    if (place / name_tag(epoch)).exists() or not new.exists():
        return
    if place.exists() and files.exchange(new, place):
        return
    if place.exists() and not aside.exists():  # else it is aside already, and a start made an empty one anew
        files.rename(place, aside)
    files.rename(new, place)  # may take the place of an empty directory


def complete(directory: RunDirectory) -> bool:
    """At every start: finish a change that run.json has decided on, undo one that it has not. Whether a layout took
    its place."""
    known, waiting = directory.read_run() or {}, directory.read("survey.next.json")
    swapping = bool(known.get("swap"))
    if swapping:
        swap(directory)
    elif waiting and input_identity(Survey.from_json(waiting)) == known["input"]:
        files.rename(directory.root / "survey.next.json", directory.root / "survey.json")
    undo(directory)
    return swapping


def undo(directory: RunDirectory) -> None:
    """Remove what an unfinished build, or an old layout, left behind."""
    for place in (directory.results, directory.journals):
        files.remove_tree(following(place))
        files.remove_tree(place.with_name(f"{place.name}.old"))
        for name in files.names(place):
            if name.startswith(name_tag("")):
                files.remove(place / name)
    for path in (following(directory.removed), directory.root / "survey.next.json"):
        files.remove(path)
