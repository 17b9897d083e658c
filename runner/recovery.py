"""What a run directory holds when a process takes it over.

Rule: believe only what is durable. A part is whole (it was renamed into place); a journal is believed line by line. A
journal whose epoch is not above its part's was sealed just before the process died: it goes. Requests that left and
have no end become attempts of kind UNKNOWN, written down before anything else is sent, so that the bill keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from runner import files
from runner.columns import attempt_from_record, attempt_record, tally, tally_attempt
from runner.errors import ChangedError, RunDirectoryError
from runner.journal import Head, Journal, Replayed, Sent, attempt_line, replay, unknown_attempt
from runner.parts import Footer, Range, read_footer
from runner.records import Attempt, Tally
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


def ranges_of(survey: Survey, run_id: str) -> list[Range]:
    """The ranges of a run, as journals and parts name them."""
    pairs = enumerate(survey.ranges)
    return [Range(run_id, number, part.first, part.rows, 1, part.hash) for number, part in pairs]


def look(directory: RunDirectory, ranges: Sequence[Range], *, live: bool) -> Standing:
    """How far a run is, without touching anything: for readers, who hold no lock. live: a process is working on it, so
    a request without an end is on the wire, not lost.

    Journals are read before parts, so a range that is sealed meanwhile is seen in at least one of the two; a range seen
    in both is the part's.
    """
    by_number = {part.number: part for part in ranges}
    standing = Standing()
    for number, path in directory.open_journals().items():
        part = by_number.get(number)
        if part:
            found = replay(files.read_file(path) or b"", part.run, number)
            standing.damaged += found.damaged
            standing.open[number] = _open_range(part, found, [] if live else found.unanswered())
    for number, path in directory.parts().items():
        standing.sealed[number] = _checked(path, number, by_number)
        standing.open.pop(number, None)
    return standing


def recover(directory: RunDirectory, ranges: Sequence[Range]) -> Standing:
    """Take a run over. Cuts torn ends, deletes journals that were sealed, writes UNKNOWN attempts down.

    Only the holder of the lock may call this. Raises RunDirectoryError for parts that are not of this run, and
    ChangedError for a range whose input is not what was sent.
    """
    by_number = {part.number: part for part in ranges}
    standing = Standing()
    for number, path in directory.parts().items():
        standing.sealed[number] = _checked(path, number, by_number)
    for number, path in directory.open_journals().items():
        _recover_range(standing, path, number, by_number)
    for path in directory.journals.glob("*.tmp"):
        files.remove(path)
    return standing


def _checked(path: Path, number: int, by_number: dict[int, Range]) -> Footer:
    footer = read_footer(path)
    if footer.range != number:
        raise RunDirectoryError(f"{path} holds range {footer.range}", hint="give the file its own name back")
    part = by_number.get(footer.range)
    if part is None and footer.rows == 0:
        return footer
    if part is None or footer.run != part.run:
        raise RunDirectoryError(f"{path} belongs to another run", hint="move it out of the results directory")
    if (footer.rows, footer.input_hash) != (part.rows, part.input_hash):
        raise _changed(part)
    return footer


def _changed(part: Range) -> ChangedError:
    rows = f"{part.first_row} to {part.first_row + part.rows - 1}"
    return ChangedError(f"the input of rows {rows} is not what it was when they were sent")


def _recover_range(standing: Standing, path: Path, number: int, by_number: dict[int, Range]) -> None:
    part = by_number.get(number)
    data = files.read_file(path) or b""
    if part is None:
        raise RunDirectoryError(f"{path} belongs to no range of this run", hint="move it aside; nothing was touched")
    found = replay(data, part.run, number)
    standing.damaged += found.damaged
    sealed = standing.sealed.get(number)
    if found.epoch is None and found.length and not sealed:
        raise RunDirectoryError(
            f"{path} has no intact line of this run", hint="move it aside to send its rows again; nothing was touched"
        )
    if found.epoch is None or (sealed and found.epoch <= sealed.epoch):
        files.remove(path)
        return
    if found.epoch != (sealed.epoch + 1 if sealed else 1):
        raise RunDirectoryError(f"{path} is of epoch {found.epoch}, which does not follow its part's")
    if found.head and found.head.input_hash != part.input_hash:
        raise _changed(part)
    _mend_end(path, data, found.length)
    lost = found.unanswered()
    standing.unanswered += lost
    standing.open[number] = _open_range(part, found, lost)
    _write_down(path, part, lost)


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


def _open_range(part: Range, found: Replayed, lost: Sequence[Sent]) -> OpenRange:
    opened = OpenRange(part, done=set(found.records))
    for record in found.records.values():
        opened.settled.add(tally(record))
    for row, tries in found.attempts.items():
        if row not in opened.done:
            opened.prior[row] = tuple(attempt_from_record(members) for members in tries.values())
    for sent in lost:
        if sent.row not in opened.done:
            opened.prior[sent.row] = (*opened.prior.get(sent.row, ()), unknown_attempt(sent))
    for row, attempts in opened.prior.items():
        opened.pending[row] = _total(attempts)
    return opened


def _total(attempts: Sequence[Attempt]) -> Tally:
    total = Tally()
    for attempt in attempts:
        total.add(tally_attempt(attempt_record(attempt)))
    return total
