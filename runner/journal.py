"""The journal of one open range: append-only, one JSON object a line, each with its own checksum.

Rule: a line counts only when `append` and `sync` have returned. Four kinds of line, told apart by their first key:

    head     format, run, range, epoch, rows, input_hash       first line
    sent     row, epoch, n, reserved_usd, at                   written before the request leaves, not waited for
    attempt  row and the members of one `attempts` entry       an exchange that did not settle its row
    record   the result columns of one row                     the row is final

The last key of every line is "crc": crc32 over everything before it, seeded with run id and range, so that a line of
another run or range, however whole, never passes. Reading keeps every line whose checksum holds: a torn end is cut, a
damaged line is skipped and counted, and lines that grew together because a newline was damaged are taken apart.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from runner import files
from runner.records import Attempt

FORMAT = 1

_START = b'{"line":"'
_STARTS = re.compile(rb'\{"line":"(?:head|sent|attempt|record|reopen|sample)",')
_END = re.compile(rb',"crc":"([0-9a-f]{8})"\}')
_RECORD_START = b'{"line":"record","row_index":'
_TAIL_BYTES = len(b',"crc":"01234567"}')


@dataclass(frozen=True, slots=True)
class Head:
    """What a journal says of itself in its first line."""

    run: str
    range: int
    epoch: int
    rows: int
    input_hash: str


def seed(run: str, range_no: int) -> int:
    """The checksum's start value for the lines of one range of one run."""
    return zlib.crc32(f"{run}/{range_no}".encode())


def seal_line(payload: bytes, start: int) -> bytes:
    """A JSON object without its closing brace, made a journal line."""
    return b'%b,"crc":"%08x"}\n' % (payload, zlib.crc32(payload, start))


def head_line(head: Head) -> bytes:
    members = {"line": "head", "format": FORMAT, "run": head.run, "range": head.range}
    members |= {"epoch": head.epoch, "rows": head.rows, "input_hash": head.input_hash}
    return seal_line(orjson.dumps(members)[:-1], seed(head.run, head.range))


def sent_line(row: int, attempt: tuple[int, int], reserved_usd: str | None, at: str, start: int) -> bytes:
    """`attempt`: (epoch, n). `at`: ISO 8601. Formatted by hand: it is written once for every request, in the loop."""
    reserved = b"null" if reserved_usd is None else b'"%b"' % reserved_usd.encode()
    payload = b'{"line":"sent","row":%d,"epoch":%d,"n":%d,"reserved_usd":%b,"at":"%b"' % (
        row,
        attempt[0],
        attempt[1],
        reserved,
        at.encode(),
    )
    return seal_line(payload, start)


def attempt_line(row: int, members: Mapping[str, Any], start: int) -> bytes:
    return seal_line(orjson.dumps({"line": "attempt", "row": row, **members})[:-1], start)


def record_line(record: Mapping[str, Any], start: int) -> bytes:
    """`record`: the result columns, `row_index` first."""
    return seal_line(b'{"line":"record",' + orjson.dumps(record)[1:-1], start)


class Journal:
    """The open journal of one range. `append` may be called from the loop while `sync` runs in a thread."""

    def __init__(self, path: Path, head: Head) -> None:
        self.path = path
        self.head = head
        self.seed = seed(head.run, head.range)
        self._descriptor = files.open_append(path)
        if os.fstat(self._descriptor).st_size == 0:
            self.append(head_line(head))
            self.sync()
            files.sync_directory(path.parent)

    def append(self, lines: bytes) -> None:
        files.write_all(self._descriptor, lines, self.path)

    def sync(self) -> None:
        """Raises StorageError also when the file has no name any more: whoever removed it removed the answers."""
        files.sync(self._descriptor, self.path)
        if os.fstat(self._descriptor).st_nlink == 0:
            raise files.vanished("cannot make durable", self.path)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that was about to leave."""

    row: int
    epoch: int
    n: int
    reserved_usd: str | None
    at: str


@dataclass(slots=True)
class Replayed:
    """What a journal held: intact lines only."""

    head: Head | None = None
    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    attempts: dict[int, dict[tuple[int, int], dict[str, Any]]] = field(default_factory=dict)
    sent: dict[tuple[int, int, int], Sent] = field(default_factory=dict)
    damaged: int = 0  #: stretches of bytes that were no intact line
    length: int = 0  #: bytes up to the last newline or intact line; what stands behind is torn

    @property
    def epoch(self) -> int | None:
        """The journal's epoch; from its other lines when the head is damaged; None when it holds nothing."""
        if self.head:
            return self.head.epoch
        seen = [sent.epoch for sent in self.sent.values()]
        seen += [epoch for tries in self.attempts.values() for epoch, _ in tries]
        seen += [attempt["epoch"] for record in self.records.values() for attempt in record["attempts"]]
        return max(seen, default=None)

    def unanswered(self) -> list[Sent]:
        """Requests that left and whose end is not here: they were on the wire when the process died."""
        ended = {(row, *key) for row, tries in self.attempts.items() for key in tries}
        for row, record in self.records.items():
            ended |= {(row, attempt["epoch"], attempt["n"]) for attempt in record["attempts"]}
        return [sent for key, sent in self.sent.items() if key not in ended]


@dataclass(frozen=True, slots=True)
class Line:
    """One intact line: its members without the checksum still attached, and where it stands."""

    start: int
    end: int


def intact_lines(data: Any, start: int) -> Iterator[Line | None]:
    """Walk the bytes of a journal (bytes or mmap): a Line for each that holds, None for a stretch that does not."""
    position = 0
    while (newline := data.find(b"\n", position)) >= 0:
        if holds(data, position, newline, start):
            yield Line(position, newline)
        else:
            yield from _salvage(data, position, newline, start)
        position = newline + 1
    # Behind the last newline: usually torn, but when only the newline is missing the line is as good as any.
    yield from (line for line in _salvage(data, position, len(data), start) if line)


def holds(data: Any, begin: int, end: int, start: int) -> bool:
    """Whether data[begin:end] is one whole line of this run and range."""
    if end - begin <= _TAIL_BYTES or data[begin : begin + len(_START)] != _START:
        return False
    tail = _END.fullmatch(data[end - _TAIL_BYTES : end])
    return tail is not None and int(tail[1], 16) == zlib.crc32(data[begin : end - _TAIL_BYTES], start)


def _salvage(data: Any, begin: int, end: int, start: int) -> Iterator[Line | None]:
    """Lines inside a damaged stretch: a flipped newline joins two lines that are both whole."""
    stretch = bytes(data[begin:end])
    ends = [match.end() for match in _END.finditer(stretch)]
    starts = [match.start() for match in _STARTS.finditer(stretch)]
    found, after = 0, 0
    for position in starts:
        stop = next((e for e in ends if e > position >= after and holds(stretch, position, e, start)), None)
        if stop is not None:
            found, after = found + 1, stop
            yield Line(begin + position, begin + stop)
    if found == 0 or len(starts) > found:
        yield None


def replay(data: bytes, run: str, range_no: int) -> Replayed:
    """Everything intact in the bytes of a journal. Later lines win over earlier ones of the same identity."""
    result = Replayed(length=data.rfind(b"\n") + 1)
    start = seed(run, range_no)
    for line in intact_lines(data, start):
        if line is None:
            result.damaged += 1
        else:
            _take(result, orjson.loads(data[line.start : line.end]))
            result.length = max(result.length, line.end)
    return result


def _take(result: Replayed, members: dict[str, Any]) -> None:
    kind = members.pop("line")
    members.pop("crc")
    if kind == "record":
        result.records[members["row_index"]] = members
    elif kind == "attempt":
        row = members.pop("row")
        result.attempts.setdefault(row, {})[members["epoch"], members["n"]] = members
    elif kind == "sent":
        sent = Sent(**members)
        result.sent[sent.row, sent.epoch, sent.n] = sent
    elif kind == "head":
        members.pop("format")
        result.head = Head(**members)


def head_in(data: Any, run: str, range_no: int) -> Head | None:
    """The head of a journal, without reading further than it."""
    for line in intact_lines(data, seed(run, range_no)):
        if line and data[line.start : line.end].startswith(b'{"line":"head"'):
            return replay(bytes(data[line.start : line.end]), run, range_no).head
    return None


def record_row(data: Any, line: Line) -> int | None:
    """The ordinal of a record line without parsing it; None for other lines."""
    if data[line.start : line.start + len(_RECORD_START)] != _RECORD_START:
        return None
    digits = line.start + len(_RECORD_START)
    return int(data[digits : data.find(b",", digits)])


def unknown_attempt(sent: Sent) -> Attempt:
    """What the bill keeps of a request that was on the wire when the process died."""
    return Attempt(
        epoch=sent.epoch,
        n=sent.n,
        started_at=sent.at,
        seconds=None,
        waited_s=0.0,
        error_kind="UNKNOWN",
        error="the process ended while this request was on the wire; it may have been billed",
    )
