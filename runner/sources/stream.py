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

import pyarrow as pa

from runner.errors import ChangedError
from runner.sources.catalog import Frame
from runner.sources.lines import Span, refuse_foreign_text, whole
from runner.sources.spool import Copy, SpoolFile
from runner.sources.unpack import Tell, is_packed, text_of

#: Text in a frame of a copy. A range reads two frames too many at most: 1 ms of unpacking.
FRAME_BYTES = 1 << 20

#: The end of a span that goes to the end of a text whose length nobody knows.
OPEN_END = sys.maxsize

_ZSTD = pa.Codec("zstd")


class Stream:
    """The text of a packed input on its one way through the survey."""

    def __init__(self, path: Path, label: str, tell: Tell, copy: Callable[[], SpoolFile] | None = None) -> None:
        """`copy` makes the file to copy the text to, when the first of it comes."""
        self._label = label
        self._source = text_of(path, label, tell)
        self._kept: deque[bytes] = deque()
        self._make_copy = copy
        self._copy: SpoolFile | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
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

    def finish(self) -> tuple[str, tuple[Frame, ...]]:
        """Close; the name of the copy and its frames, if there is one."""
        self._source.close()
        if self._copy is None:
            return "", ()
        self._flush()
        return self._copy.path.name, self._copy.finish()

    def _pull(self) -> bool:
        piece = next(self._source, None)
        if piece is None:
            self.ended = True
            return False
        if not self.length:
            refuse_foreign_text(piece, self._label)
            self._copy = self._make_copy() if self._make_copy else None
        self.length += len(piece)
        self.last = piece[-1:]
        self._kept.append(piece)
        if self._copy:
            self._write(piece)
        return True

    def _write(self, piece: bytes) -> None:
        self._waiting.append(piece)
        self._waiting_bytes += len(piece)
        if self._waiting_bytes >= FRAME_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._copy and self._waiting:
            self._copy.add(_ZSTD.compress(b"".join(self._waiting), asbytes=True), self.length)
            self._waiting, self._waiting_bytes = [], 0


class Copied:
    """Stretches of a text that was copied."""

    def __init__(self, copy: Copy) -> None:
        self.copy = copy

    def __call__(self, span: Span) -> Iterator[bytes]:
        for begin, end, data in self.copy.frames(span.start, span.end):
            text = _ZSTD.decompress(data, decompressed_size=end - begin, asbytes=True)
            yield text[max(span.start - begin, 0) : span.end - begin]


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
