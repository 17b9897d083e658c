"""Bytes of a text file, as whole lines, never all at once.

Rule: only b"\\n" ends a line. `str.splitlines` would also cut at U+2028, which JSON allows inside a string.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from runner.errors import ChangedError, InputError

BLOCK_BYTES = 1 << 20
#: A longer line is no row: a whole JSON array, or a file of zeros. CSV has the same limit for a field.
MOST_LINE_BYTES = 128 << 20
BOM = b"\xef\xbb\xbf"

#: (byte offset, line number, the row's own bytes without the last newline, its data or None, what is wrong or None)
Record = tuple[int, int, bytes, dict[str, Any] | None, str | None]

_FOREIGN = {
    b"\x1f\x8b": ("is compressed by gzip", "give the file the suffix .gz; into a pipe, unpack it by `gzip -dc`"),
    b"\x28\xb5\x2f\xfd": (
        "is compressed by zstd",
        "give the file the suffix .zst; into a pipe, unpack it by `zstd -dc`",
    ),
    b"PAR1": ("is a Parquet file", "set `input.format: parquet`"),
    b"\xff\xfe": ("is UTF-16", "write it as UTF-8: `iconv -f UTF-16 -t UTF-8`"),
    b"\xfe\xff": ("is UTF-16", "write it as UTF-8: `iconv -f UTF-16 -t UTF-8`"),
}


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text file that begins and ends at a row."""

    path: Path
    label: str  #: the file's name in messages
    start: int
    end: int
    line: int = 1
    header: tuple[str, ...] = ()  #: the columns of a CSV file
    source: Callable[[Span], Iterator[bytes]] | None = None  #: gives the bytes start … end; None: the file does

    def where(self, line: int, offset: int) -> str:
        return f"{self.label}:{line} (byte {offset})"


def lines(span: Span) -> Iterator[bytes]:
    """The lines of a span, without their newline; the last one may lack it. Blank ones are given too."""
    for block in blocks(span):
        yield from block.split(b"\n")


def blocks(span: Span) -> Iterator[bytes]:
    """Whole lines joined by newlines, about BLOCK_BYTES at a time. Pieces of a long line are joined once: 100 MB of
    it cost 100 MB. Raises InputError for one beyond MOST_LINE_BYTES."""
    pieces: list[bytes] = []
    begin = at = span.start
    for data in (span.source or _from_file)(span):
        whole, newline, rest = data.rpartition(b"\n")
        at += len(data)
        if newline:
            pieces.append(whole)
            yield b"".join(pieces)
            pieces = [rest]
            begin = at - len(rest)
        else:
            pieces.append(rest)
            if at - begin > MOST_LINE_BYTES:
                raise InputError(
                    f"{span.label}: the line that begins at byte {begin:,} is longer than {MOST_LINE_BYTES >> 20} MB",
                    hint="a row is a line; `jq -c '.[]'` makes lines of a JSON array",
                )
    last = b"".join(pieces)
    if last:
        yield last


def _from_file(span: Span) -> Iterator[bytes]:
    left = span.end - span.start
    with opened(span.path) as handle:
        handle.seek(span.start)
        while left > 0:
            data = read(handle, min(left, BLOCK_BYTES), span.label)
            left -= len(data)
            yield data


def whole(path: Path, label: str) -> Span:
    """All of a file as it is now."""
    with opened(path) as handle:
        return Span(path, label, 0, os.fstat(handle.fileno()).st_size)


def opened(path: Path) -> BinaryIO:
    """Open for reading. Raises InputError with the system's word."""
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="put the file back, or mend `input.path`") from error


def read(handle: BinaryIO, size: int, label: str) -> bytes:
    """Exactly `size` bytes. Raises ChangedError when the file ends before, InputError when the disk refuses."""
    try:
        data = handle.read(size)
    except OSError as error:
        raise InputError(f"{label}: {error.strerror}") from error
    if len(data) < size:
        raise ChangedError(f"{label} is shorter than it was", hint="put the file back as it was, or start anew")
    return data


def refuse_foreign(path: Path, label: str) -> None:
    """Raise InputError for a file that begins as text never does, before every line of it is called bad."""
    with opened(path) as handle:
        refuse_foreign_text(handle.read(4), label)


def refuse_foreign_text(head: bytes, label: str) -> None:
    """The same for the first bytes of it."""
    for magic, (what, hint) in _FOREIGN.items():
        if head.startswith(magic):
            raise InputError(f"{label} {what}", hint=hint)
