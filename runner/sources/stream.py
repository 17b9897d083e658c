"""Text that is read from its beginning: once by the survey, which may copy it, and again by whoever has no copy.

Rule: offsets are bytes of the text, as in a file that is not compressed; so segments, hashes and words about bad lines
are those of the plain file.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from runner.errors import ChangedError
from runner.sources.catalog import Frame
from runner.sources.copies import Copy, SpoolFile
from runner.sources.lines import BLOCK_BYTES, Record, Span, refuse_foreign_text, whole
from runner.sources.tiles import LARGEST, part_rows
from runner.sources.unpack import Tell, is_packed, text_of

#: The end of a span that goes to the end of a text whose length nobody knows.
OPEN_END = sys.maxsize


class Stream:
    """The text of a packed input on its one way through the survey."""

    def __init__(self, path: Path, label: str, tell: Tell, copying: Copying | None = None) -> None:
        """`copying`: where the text goes beside, from the first of it on."""
        self._label = label
        self._source = text_of(path, label, tell)
        self._kept: deque[bytes] = deque()
        self._copying = copying
        self.length = 0  #: bytes of text so far
        self.last = b""  #: its last byte
        self.ended = False

    def peek(self, span: Span) -> Iterator[bytes]:
        """The text from its beginning; what is taken comes again."""
        number = 0
        while number < len(self._kept) or self._pull():
            yield self._kept[number]
            number += 1

    def rest(self, span: Span) -> Iterator[bytes]:
        """The text from `span.start` on, once."""
        skip = span.start
        while self._kept or self._pull():
            piece = self._kept.popleft()
            if skip < len(piece):
                yield piece[skip:]
            skip = max(0, skip - len(piece))

    def finish(self) -> None:
        """Close what is read, and what is written."""
        self._source.close()
        if self._copying:
            self._copying.close(whole=self.ended)

    def copied(self, part: int) -> tuple[str, tuple[Frame, ...]]:
        """Finish, for ranges of `part` rows; the name of the copy and its frames, if there is one."""
        self.finish()
        return self._copying.finish(part) if self._copying else ("", ())

    def _pull(self) -> bool:
        piece = next(self._source, None)
        if piece is None:
            self.ended = True
            return False
        if not self.length:
            refuse_foreign_text(piece, self._label)
        self.length += len(piece)
        self.last = piece[-1:]
        self._kept.append(piece)
        if self._copying:
            self._copying.take(piece)
        return True


class Copying:
    """The text of one file on its way into its copy, in frames as large as ranges will be at least.

    Text comes before the rows in it: the end of it waits until it is known whether a range begins there.
    """

    def __init__(self, setting: int | Literal["auto"], make: Callable[[], SpoolFile]) -> None:
        """`setting`: rows of a range, or auto; `make` makes an empty copy, when the first of the text comes."""
        self._setting = setting
        self._make = make
        self._copy: SpoolFile | None = None
        self._waiting: deque[memoryview] = deque()
        self._written = 0  #: the byte of the text where what waits begins
        self._taken = 0  #: the byte behind it
        self._reached = -1  #: the byte behind the last row
        self._row = -1  #: the ordinal of the last row; -1: none has come
        self._first = 0  #: … of the first row of the open frame
        self._part = 0  #: rows of a range, at least
        self._next = 0  #: the ordinal that begins the next frame

    def take(self, piece: bytes) -> None:
        """More of the text, when all of the rows before it have come, but for one that ends in it or later."""
        self._copy = self._copy or self._make()
        if self._row < 0 or self._row + 1 < self._next:
            self._write(self._taken)
        else:
            self._write(self._reached)
            while size := self._blank():
                self._write(self._written + size)
        self._waiting.append(memoryview(piece))
        self._taken += len(piece)

    def row(self, ordinal: int, record: Record) -> None:
        """The next row and where it lies."""
        if ordinal >= self._next or self._row < 0:
            self._begin(ordinal, record[0])
        self._row = ordinal
        self._reached = record[0] + len(record[2])

    def close(self, whole: bool) -> None:
        """End the copy behind the last row or, of a text that is `whole`, behind the last byte. May be called again."""
        if self._copy:
            self._cut(self._taken if whole else min(self._reached + 1, self._taken))
            self._copy.finish()

    def finish(self, part: int) -> tuple[str, tuple[Frame, ...]]:
        """The name of the copy and its frames, for ranges of `part` rows. Close it before."""
        if not self._copy:
            return "", ()
        self._regroup(part)
        return self._copy.path.name, self._copy.finish()

    def _blank(self) -> int:
        """Bytes of blank lines that come first: any number of them may stand before the row that begins a frame."""
        head = bytes(self._waiting[0]) if self._waiting else b""
        if head.strip():
            return 0
        # without a newline it may be the indent of a row longer than a piece, which is then read out of two frames
        return head.rfind(b"\n") + 1 or (len(head) if len(self._waiting) > 1 else 0)

    def _begin(self, ordinal: int, offset: int) -> None:
        known, self._part = self._part, part_rows(ordinal + 1, self._setting)
        if self._row >= 0:
            self._cut(offset)
        if self._part == LARGEST != known:
            # now and not at the end: what follows is never moved
            self._regroup(LARGEST)
        self._first, self._next = ordinal, ordinal - ordinal % self._part + self._part

    def _cut(self, end: int) -> None:
        self._write(end)
        if self._copy:
            self._copy.cut(self._first, self._written)

    def _write(self, end: int) -> None:
        while self._copy and self._written < end:
            piece = self._waiting.popleft()
            size = min(len(piece), end - self._written)
            self._copy.write(piece[:size])
            self._written += size
            if size < len(piece):
                self._waiting.appendleft(piece[size:])

    def _regroup(self, part: int) -> None:
        small = self._copy
        if small and small.is_split(part):
            self._copy = self._make()
            small.join(part, self._copy)
            small.remove()


class Copied:
    """Stretches of a text that was copied."""

    def __init__(self, copy: Copy) -> None:
        self.copy = copy

    def __call__(self, span: Span) -> Iterator[bytes]:
        for at, text in self.copy.read(span.start, span.end, _pieces):
            yield text[max(span.start - at, 0) : span.end - at]


def _pieces(content: Any) -> Iterator[bytes]:
    while text := content.read(BLOCK_BYTES):
        yield text


class Forward:
    """Stretches of a compressed text without a copy, found by reading on: asked for in order they cost one pass."""

    def __init__(self, path: Path, label: str) -> None:
        self._path = path
        self._label = label
        self._lock = Lock()
        self._cursor: _Cursor | None = None

    def __call__(self, span: Span) -> Iterator[bytes]:
        with self._lock:
            cursor, self._cursor = self._cursor, None
        if cursor is None or cursor.position > span.start:
            cursor = _Cursor(text_of(self._path, self._label, lambda size_bytes: None))
        yield from cursor.stretch(span)
        self._cursor = cursor


class _Cursor:
    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self._piece = b""
        self.position = 0

    def stretch(self, span: Span) -> Iterator[bytes]:
        while self.position < span.end:
            self._piece = self._piece or next(self._source, b"")
            if not self._piece:
                raise ChangedError(f"{span.label} is shorter than it was", hint="put the file back as it was")
            begin = self.position
            wanted = begin >= span.start
            size = (span.end if wanted else span.start) - begin
            taken, self._piece = self._piece[:size], self._piece[size:]
            self.position += len(taken)
            if wanted:
                yield taken


def whole_text(path: Path, label: str) -> Span:
    """All of a text file as it is now, compressed or not, to look at its beginning."""
    if not is_packed(path):
        return whole(path, label)
    return Span(path, label, 0, OPEN_END, source=Stream(path, label, lambda size_bytes: None).peek)
