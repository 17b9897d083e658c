"""What a run directory holds when a process takes it over.

Rule: believe only what is durable. A part is whole (it was renamed into place); a journal is believed line by line. A
journal whose epoch is not above its part's was sealed just before the process died: it goes. Requests that left and
have no end become attempts of kind UNKNOWN, written down before anything else is sent, so that the bill keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from runner import files, notes
from runner.columns import attempt_from_record, attempt_record, own_place, tally, tally_attempt
from runner.errors import ChangedError, RunDirectoryError
from runner.journal import (
    Head,
    Journal,
    Replayed,
    Sent,
    attempt_line,
    intact_lines,
    replay,
    seed,
    unknown_attempt,
)
from runner.parts import Footer, Range, read_footer, result_columns
from runner.reask import answer_text
from runner.records import Attempt, Choice, Tally, ToolCall
from runner.sources import Survey
from runner.store import RunDirectory


@dataclass(slots=True)
class OpenRange:
    """A range that is not sealed: which rows are final, and what the others have cost already."""

    part: Range
    done: set[int] = field(default_factory=set)
    prior: dict[int, tuple[Attempt, ...]] = field(default_factory=dict)
    settled: Tally = field(default_factory=Tally)
    pending: dict[int, Tally] = field(default_factory=dict)  #: of rows that are not final
    bounds: dict[tuple[int, int, int], Decimal] = field(default_factory=dict)  #: of exchanges of unknown cost

    def bound(self, key: tuple[int, int, int], most_usd: Decimal) -> bool:
        """An exchange (row, epoch, n) of unknown cost may have cost so much. False: it was told before."""
        new = key not in self.bounds
        if new:
            self.bounds[key] = most_usd
            self.settled.unknown_usd += most_usd
            self.settled.bounded += 1
        return new

    @property
    def complete(self) -> bool:
        return len(self.done) == self.part.rows


@dataclass(slots=True)
class Standing:
    """How far a run is."""

    sealed: dict[int, Footer] = field(default_factory=dict)
    open: dict[int, OpenRange] = field(default_factory=dict)
    unanswered: list[Sent] = field(default_factory=list)
    damaged: int = 0
    removed: Tally = field(default_factory=Tally)  #: of rows that left the input

    @property
    def settled(self) -> Tally:
        total = Tally()
        for footer in self.sealed.values():
            total.add(footer.totals)
        for part in self.open.values():
            total.add(part.settled)
        return total

    def unanswered_words(self) -> str | None:
        """`31 requests were on the wire …`; None when the last process ended in order."""
        if not self.unanswered:
            return None
        reserved = [sent.reserved_usd for sent in self.unanswered]
        known = [Decimal(usd) for usd in reserved if usd is not None]
        most = f", at most ${_dollars(sum(known, Decimal(0)))}" if len(known) == len(reserved) else ""
        count = len(reserved)
        return (
            f"{count} request{'s were' if count > 1 else ' was'} on the wire when the last process ended and may have "
            f"been billed{most}; sending {'them' if count > 1 else 'it'} again"
        )


def _dollars(amount: Decimal) -> str:
    return f"{amount:.2f}" if amount >= Decimal("0.01") else f"{amount:.6f}"


def ranges_of(survey: Survey, run: Mapping[str, Any]) -> list[Range]:
    """The ranges of a run, as journals and parts name them. run: the members of run.json."""
    pairs = enumerate(survey.ranges)
    return [Range(run["run"], number, part.first, part.rows, run["epoch"], part.hash) for number, part in pairs]


def look(directory: RunDirectory, ranges: Sequence[Range], *, live: bool) -> Standing:
    """How far a run is, without touching anything: for readers, who hold no lock. live: a process is working on it, so
    a request without an end is on the wire, not lost.

    Journals are read before parts, so a range that is sealed meanwhile is seen in at least one of the two.
    """
    return _Survey(directory, ranges).standing(live=live, mend=False)


def recover(directory: RunDirectory, ranges: Sequence[Range]) -> Standing:
    """Take a run over. Cuts torn ends, deletes journals that were sealed, writes UNKNOWN attempts down.

    Only the holder of the lock may call this. Raises RunDirectoryError for parts that are not of this run, and
    ChangedError for a range whose input is not what was sent.
    """
    standing = _Survey(directory, ranges).standing(live=False, mend=True)
    for name in files.names(directory.journals):
        if name.endswith(".tmp"):
            files.remove(directory.journals / name)
    return standing


class _Survey:
    """One look at a run directory: journals, notes and parts, in this order."""

    def __init__(self, directory: RunDirectory, ranges: Sequence[Range]) -> None:
        self._directory = directory
        self._by_number = {part.number: part for part in ranges}
        known = directory.read_run() or {}
        self._run = known.get("run") or (ranges[0].run if ranges else "")
        self._carried = Decimal(known.get("unknown_usd", "0")), known.get("bounded", 0)
        self._journals = {number: files.read_file(path) for number, path in directory.open_journals().items()}
        self._notes = notes.read(directory.root / notes.NOTES, self._run, known.get("changes", ()))

    def standing(self, *, live: bool, mend: bool) -> Standing:
        standing = Standing(removed=self._removed())
        standing.removed.unknown_usd, standing.removed.bounded = self._carried
        for number, path in self._directory.parts().items():
            footer = self._checked(path, number)
            if footer.rows:
                standing.sealed[number] = footer
            elif mend and self._by_number:  # the part of an empty input that has filled
                files.remove(path)
        for number in sorted(self._journals.keys() | self._notes.keys()):
            self._look_into(standing, number, live=live, mend=mend)
        return standing

    def _look_into(self, standing: Standing, number: int, *, live: bool, mend: bool) -> None:
        path, data = self._directory.journal(number), self._journals.get(number)
        part = self._by_number.get(number)
        if part is None:
            raise RunDirectoryError(
                f"{path} belongs to no range of this run", hint="move it aside; nothing was touched"
            )
        found = replay(data or b"", part.run, number)
        standing.damaged += found.damaged
        sealed = standing.sealed.get(number)
        before = sealed.epoch if sealed else part.epoch - 1
        fresh = [note for note in self._notes.get(number, []) if note.epoch > before]
        epoch = max([found.epoch or 0, *(note.epoch for note in fresh)])
        if epoch <= before:
            self._done_with(path, found, sealed, mend=mend)
            return
        self._check_journal(path, found, part, before)
        if mend:
            _mend_end(path, data or b"", found.length)
        base = base_rows(self._directory.part(number)) if sealed else {}
        opening = _Opening(replace(part, epoch=epoch), found, [] if live else found.unanswered(), fresh, base)
        standing.sealed.pop(number, None)
        standing.unanswered += opening.lost
        standing.open[number] = opening.opened(sealed.totals if sealed else Tally())
        if mend:
            _write_down(path, opening.part, opening.lost)

    def _removed(self) -> Tally:
        """What rows that left the input have cost."""
        data, total = files.read_file(self._directory.removed) or b"", Tally()
        for line in intact_lines(data, seed(self._run, notes.NO_RANGE)):
            if line:
                total.add(tally_attempt(orjson.loads(data[line.start : line.end])))
        return total

    def _checked(self, path: Path, number: int) -> Footer:
        """The footer of a part that belongs here. Raises RunDirectoryError, or ChangedError for another input."""
        footer, part = read_footer(path), self._by_number.get(number)
        if footer.range != number:
            raise RunDirectoryError(f"{path} holds range {footer.range}", hint="give the file its own name back")
        if footer.rows == 0:
            return footer
        if part is None or footer.run != part.run:
            raise RunDirectoryError(f"{path} belongs to another run", hint="move it out of the results directory")
        if (footer.rows, footer.input_hash) != (part.rows, part.input_hash) and not self._agreed(part, footer.epoch):
            raise _changed(part)
        return footer

    def _check_journal(self, path: Path, found: Replayed, part: Range, before: int) -> None:
        if found.head and found.head.epoch != before + 1:
            raise RunDirectoryError(
                f"{path} is of epoch {found.head.epoch}, which does not follow its part's ({before})"
            )
        if found.head and found.head.input_hash != part.input_hash and not self._agreed(part, before):
            raise _changed(part)

    def _agreed(self, part: Range, after: int) -> bool:
        """Whether the range was opened again with the input that it has now."""
        later = [note for note in self._notes.get(part.number, []) if note.epoch > after]
        return bool(later) and later[-1].input_hash == part.input_hash

    @staticmethod
    def _done_with(path: Path, found: Replayed, sealed: Footer | None, *, mend: bool) -> None:
        """A journal that holds nothing beyond its part."""
        if found.epoch is None and found.length and not sealed:
            raise RunDirectoryError(
                f"{path} has no intact line of this run",
                hint="move it aside to send its rows again; nothing was touched",
            )
        if mend:
            files.remove(path)


def _changed(part: Range) -> ChangedError:
    rows = f"{part.first_row} to {part.first_row + part.rows - 1}"
    return ChangedError(f"the input of rows {rows} is not what it was when they were sent")


def _mend_end(path: Path, data: bytes, length: int) -> None:
    """Cut what is torn, so that the next line begins on a line of its own."""
    if length < len(data):
        files.truncate(path, length)
    if data[:length] and not data[:length].endswith(b"\n"):
        files.append(path, b"\n")


def _write_down(path: Path, part: Range, lost: Sequence[Sent]) -> None:
    """The UNKNOWN attempts, durably, before their rows are sent again."""
    if not lost:
        return
    journal = Journal(path, Head(part.run, part.number, part.epoch, part.rows, part.input_hash))
    try:
        for sent in lost:
            journal.append(attempt_line(sent.row, attempt_record(unknown_attempt(sent)), journal.seed))
        journal.sync()
    finally:
        journal.close()


#: What is read of a part when its range is open again.
_BASE_COLUMNS = ("row_index", "status", "error_kind", "content", "refusal", "tool_calls", "attempts")


def base_rows(path: Path) -> dict[int, dict[str, Any]]:
    """The rows of a part, by ordinal, as far as the bill and the attempts go."""
    return {row["row_index"]: row for row in result_columns(path, _BASE_COLUMNS).to_pylist()}


@dataclass(frozen=True, slots=True)
class _Opening:
    """A range that is open: what its journal and, when it was opened again, its part hold."""

    part: Range
    found: Replayed
    lost: list[Sent]
    reopened: Sequence[notes.Reopened]
    base: Mapping[int, Mapping[str, Any]]

    def opened(self, before: Tally) -> OpenRange:
        """before: the part's totals."""
        rows = {**self.base, **self.found.records}
        again = {row: note.epoch for note in self.reopened for row in note.rows}
        opened = OpenRange(self.part)
        opened.settled.unknown_usd, opened.settled.bounded = before.unknown_usd, before.bounded
        for key in self._unknown():
            most_usd = self.found.sent[key].reserved_usd
            if most_usd is not None:
                opened.bound(key, Decimal(most_usd))
        for row, record in rows.items():
            if row in again and not _asked_since(record, again[row]):
                self._take_back(opened, row, record)
            else:
                opened.done.add(row)
                opened.settled.add(tally(record))
        for row in (self.found.attempts.keys() | {sent.row for sent in self.lost}) - opened.done - opened.prior.keys():
            self._take_back(opened, row, None)
        return opened

    def _unknown(self) -> set[tuple[int, int, int]]:
        """The exchanges of this journal whose cost is not known."""
        tries = {(row, *key): members for row, made in self.found.attempts.items() for key, members in made.items()}
        for row, record in self.found.records.items():
            tries |= {(row, made["epoch"], made["n"]): made for made in record["attempts"] or ()}
        unknown = {key for key, members in tries.items() if members["cost_usd"] is None}
        return (unknown | {(sent.row, sent.epoch, sent.n) for sent in self.lost}) & self.found.sent.keys()

    def _take_back(self, opened: OpenRange, row: int, record: Mapping[str, Any] | None) -> None:
        """A row that is not final: every exchange that was ever made for it."""
        tries = {(attempt.epoch, attempt.n): attempt for attempt in (earlier(record) if record else ())}
        tries |= {key: attempt_from_record(members) for key, members in self.found.attempts.get(row, {}).items()}
        tries |= {(sent.epoch, sent.n): unknown_attempt(sent) for sent in self.lost if sent.row == row}
        opened.prior[row] = tuple(tries[key] for key in sorted(tries))
        opened.pending[row] = _total(opened.prior[row])


def _asked_since(record: Mapping[str, Any], epoch: int) -> bool:
    return any(attempt["epoch"] >= epoch for attempt in record["attempts"] or ())


def earlier(record: Mapping[str, Any]) -> list[Attempt]:
    """The exchanges of a row that is asked again; its paid answer, if it had one, moves into the one that gave it."""
    attempts = [attempt_from_record(members) for members in record["attempts"] or ()]
    own = own_place([each.error_kind for each in attempts], record["status"], record["error_kind"])
    if own is not None:
        calls = tuple(ToolCall(**call) for call in record["tool_calls"] or ())
        answer = Choice(0, record["content"], refusal=record["refusal"], tool_calls=calls)
        attempts[own] = replace(attempts[own], answer=answer_text(answer))
    return attempts


def _total(attempts: Sequence[Attempt]) -> Tally:
    total = Tally()
    for attempt in attempts:
        total.add(tally_attempt(attempt_record(attempt)))
    return total
