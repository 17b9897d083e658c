"""Rows of text files -> ranges: where each begins and ends, and the hash of its rows.

Rule: a hash covers the raw bytes of the rows alone (and a CSV's header), each closed by one newline: blank lines, a
missing last newline, and where a row lies in which file change nothing.
Strategy: the size of a range is known only at the end, so rows are hashed in blocks of 256, the smallest automatic
range, and a range's hash is the hash of its blocks' hashes. The size itself never enters: a range of 512 rows has the
same hash whether 512 was given or found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Literal

from runner.sources.catalog import Range, Segment
from runner.sources.lines import Record

BLOCK_ROWS = 256
SMALLEST, LARGEST = 256, 8192
_PARTS = 64
_WAITING_BYTES = 1 << 20


def part_rows(rows: int, setting: int | Literal["auto"]) -> int:
    """Rows of a range: `setting`, or a 64th of the rows as a power of two within 256 … 8192."""
    if setting != "auto":
        return setting
    return min(max(1 << (-(-rows // _PARTS) - 1).bit_length(), SMALLEST), LARGEST)


def digest() -> Any:
    return blake2b(digest_size=16)


def hash_of(parts: Iterable[bytes]) -> str:
    """One hash, in hex, over byte strings that are delimited by themselves."""
    whole = digest()
    for part in parts:
        whole.update(part)
    return str(whole.hexdigest())


class Tiler:
    """Takes every row once, in order; then gives the ranges."""

    def __init__(self, setting: int | Literal["auto"], headers: Sequence[tuple[str, ...]]) -> None:
        """`headers`: the CSV columns of each file, which belong to what its rows say; empty for JSONL."""
        self._part = None if setting == "auto" else setting
        self._salts = ["\x1f".join(header).encode() for header in headers]
        self._files = [digest() for _ in headers]
        self.file_rows = [0 for _ in headers]
        self.rows = 0
        self._blocks: list[tuple[bytes, list[Segment]]] = []
        self._segments: list[Segment] = []
        self._open = -1  #: the file of the open segment
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._begin()

    def add(self, file: int, record: Record) -> None:
        offset, line, raw, _, _ = record
        if file != self._open:
            self._enter(file, offset, line)
        self._end = offset + len(raw)
        self._waiting.append(raw)
        self._waiting_bytes += len(raw)
        self.rows += 1
        if self.rows == self._block_end:
            self._close()
        elif self._waiting_bytes > _WAITING_BYTES:
            self._stroke()

    def file_hash(self, file: int) -> str:
        """Of the file's rows; like `file_rows` right after `ranges`."""
        return str(self._files[file].hexdigest())

    def ranges(self, rows_per_part: int) -> tuple[Range, ...]:
        """The ranges of all rows so far. No row may be added afterwards."""
        if self.rows > self._first:
            self._close()
        found: list[Range] = []
        waiting: list[tuple[bytes, list[Segment]]] = []
        for number, block in enumerate(self._blocks, 1):
            waiting.append(block)
            following = self._blocks[number][1][0].first if number < len(self._blocks) else None
            if following is None or following % rows_per_part == 0:
                found.append(_range(waiting))
                waiting = []
        return tuple(found)

    def _begin(self) -> None:
        self._hash = digest()
        self._first = self.rows
        room = BLOCK_ROWS if self._part is None else self._part - self.rows % self._part
        # blocks are counted from the beginning of their range
        self._block_end = self.rows + min(BLOCK_ROWS, room)

    def _enter(self, file: int, offset: int, line: int) -> None:
        self._leave()
        self._open, self._start, self._line, self._from = file, offset, line, self.rows
        self._hash.update(self._salts[file])

    def _leave(self) -> None:
        if self._open >= 0:
            self._stroke()
            rows = self.rows - self._from
            self.file_rows[self._open] += rows
            self._segments.append(Segment(self._open, self._start, self._end, self._from, rows, self._line))
            self._open = -1

    def _stroke(self) -> None:
        """Hash the rows that wait: many at once costs a tenth of one by one."""
        if self._waiting:
            raw = b"\n".join([*self._waiting, b""])
            self._hash.update(raw)
            self._files[self._open].update(raw)
            self._waiting.clear()
            self._waiting_bytes = 0

    def _close(self) -> None:
        self._leave()
        self._blocks.append((self._hash.digest(), self._segments))
        self._segments = []
        self._begin()


def _range(blocks: Sequence[tuple[bytes, list[Segment]]]) -> Range:
    segments = _joined(segment for _, several in blocks for segment in several)
    rows = sum(segment.rows for segment in segments)
    return Range(segments[0].first, rows, hash_of(key for key, _ in blocks), tuple(segments))


def _joined(segments: Iterable[Segment]) -> list[Segment]:
    """Neighbours in one file as one segment."""
    found: list[Segment] = []
    for segment in segments:
        if found and found[-1].file == segment.file:
            found[-1] = replace(found[-1], end=segment.end, rows=found[-1].rows + segment.rows)
        else:
            found.append(segment)
    return found
