"""The text of inputs that have no second beginning: .gz, .zst, stdin.

Rule: what was cut off or damaged never passes as whole, and no file may fill memory or disk out of nothing.
Strategy: the text comes in pieces of at most 1 MB. gzip members and zstd frames may follow one another (`cat a.gz
b.gz`, bgzip, pzstd); anything else behind the last of them is an error.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from runner.errors import InputError
from runner.sources.catalog import STDIN
from runner.sources.lines import BLOCK_BYTES, opened

#: More text than this for one compressed byte, …
MOST_RATIO = 1000
#: … once so much text has come. Log lines reach 200:1; gzip ends at 1032:1, which only a repeated byte gives.
FREE_BYTES = 100 << 20

#: Whoever ends a pipeline by signals may reach its writer first: what then looks like the end waits so long for ours.
_AFTER_END_S = 0.25

#: A signal that comes in the instant before a read is not seen by that read, which may wait for ever.
_LOOK_UP_MS = 500

_GZIP = 31  # zlib's wbits for "a gzip header, the largest window"
_READ_BYTES = 1 << 18

Tell = Callable[[int], None]


def is_packed(path: Path) -> bool:
    """Whether the file cannot be sought in: ranges are found again in a copy, or by reading on."""
    return path == STDIN or path.suffix.lower() in _UNPACKERS


def bare(path: Path) -> Path:
    """The name without .gz or .zst, whose suffix tells the format."""
    return path.with_suffix("") if path.suffix.lower() in _UNPACKERS else path


def text_of(path: Path, label: str, tell: Tell) -> Generator[bytes]:
    """All of the text, from its beginning. Nothing is opened before the first piece is asked for.

    `tell` gets the bytes read from the file. Raises InputError saying how far the text is good.
    """
    if path == STDIN:
        yield from _stdin(tell)
        return
    with opened(path) as handle:
        yield from _checked(_UNPACKERS[path.suffix.lower()](handle), handle, label, tell)


def _stdin(tell: Tell) -> Iterator[bytes]:
    # not by its path: opening /dev/stdin begins a redirected file anew, and fails for a socket
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise InputError("stdin holds no rows", hint="pipe them in: `cat rows.jsonl | runner run JOB`")
    while data := _read_stdin(sys.stdin.buffer, tell):
        tell(len(data))
        yield data
    if _is_fed(sys.stdin.buffer):
        time.sleep(_AFTER_END_S)


def _is_fed(stream: Any) -> bool:
    """Whether somebody writes to it meanwhile: it is no file."""
    try:
        return not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except OSError:  # it has no descriptor
        return False


def _read_stdin(stream: Any, tell: Tell) -> bytes:
    if _is_fed(stream):
        waiting = select.poll()
        waiting.register(stream.fileno(), select.POLLIN)
        while not waiting.poll(_LOOK_UP_MS):
            tell(0)
    try:
        return bytes(stream.read1(BLOCK_BYTES))
    except OSError as error:
        raise InputError(f"stdin: {error.strerror or error}") from error


def _checked(pieces: Iterator[bytes], handle: BinaryIO, label: str, tell: Tell) -> Iterator[bytes]:
    text_bytes = told = 0
    while piece := _next(pieces, label, text_bytes):
        text_bytes += len(piece)
        packed_bytes = handle.tell()
        tell(packed_bytes - told)
        told = packed_bytes
        if text_bytes > max(FREE_BYTES, MOST_RATIO * packed_bytes):
            raise InputError(
                f"{label} unpacks to more than {MOST_RATIO:,} times its size: {text_bytes:,} bytes of text out of "
                f"{packed_bytes:,}",
                hint="if that is meant, unpack the file first",
            )
        yield piece


def _next(pieces: Iterator[bytes], label: str, good_bytes: int) -> bytes:
    try:
        return next(pieces, b"")
    except (EOFError, OSError, zlib.error, pa.ArrowException) as error:
        raise InputError(
            f"{label} is cut off or damaged: its text is good up to byte {good_bytes:,} ({error})",
            hint="copy or write the file again; nothing of it was used",
        ) from error


def _gunzipped(handle: BinaryIO) -> Iterator[bytes]:
    member, members = zlib.decompressobj(_GZIP), 0
    begun = False
    while data := handle.read(_READ_BYTES):
        while data:
            if not begun and members:
                data = data.lstrip(b"\0")  # padding to whole blocks, as gzip itself ignores it
                if data and data[:1] != b"\x1f":
                    raise zlib.error(f"something else follows the last of {members:,} gzip members")
            begun = begun or bool(data)
            piece = member.decompress(data, BLOCK_BYTES)
            if piece:
                yield piece
            data = member.unconsumed_tail
            if member.eof:
                data, member, members, begun = member.unused_data, zlib.decompressobj(_GZIP), members + 1, False
    if begun:
        if piece := member.flush():
            yield piece
        if not member.eof:
            raise EOFError("the file ends inside a gzip member")


def _unzstd(handle: BinaryIO) -> Iterator[bytes]:
    with pa.CompressedInputStream(pa.PythonFile(handle, mode="r"), "zstd") as stream:
        while piece := stream.read(BLOCK_BYTES):
            yield piece


_UNPACKERS: dict[str, Callable[[BinaryIO], Iterator[bytes]]] = {".gz": _gunzipped, ".zst": _unzstd}
