"""One copy of an input that cannot be sought: written once, a zstd frame for each range, and read back by range.

Rule: what a range needs lies in one frame, which holds nothing else; what is read was compared with its hash before.
Strategy: how many rows a range has is known when the last row has come. Until then frames are as large as the rows so
far allow, which only ever doubles, so small frames can be joined and none need be cut. Everything goes through in
pieces of a megabyte, however much a frame holds.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from runner import files
from runner.errors import ChangedError
from runner.sources.catalog import STDIN, File, Frame
from runner.sources.lines import BLOCK_BYTES
from runner.sources.tiles import digest

#: Of copies of Parquet files that earlier versions made: Arrow streams that pack their own columns.
_UNPACKED = ".arrows"


class SpoolFile:
    """One copy while it is written. A disk that refuses is a StorageError.

    copy.write(b"…")       as often as there is something
    copy.cut(512, 70301)   the frame is whole: the ordinal of its first row, and what lies behind its last
    copy.finish()          durable
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = files.open_append(path)
        self._size = 0
        self._hash = digest()
        self._packer: _Packer | None = None
        self._frames: list[Frame] = []
        self._firsts: list[int] = []  #: the ordinal of each frame's first row

    def write(self, data: bytes | memoryview) -> None:
        """Add to the open frame."""
        self._packer = self._packer or _Packer()
        self._append(self._packer.pack(data))

    def cut(self, first: int, end: int) -> None:
        """Close the open frame, if there is one. `end`: the byte of text, or of a Parquet file the row, behind it."""
        if self._packer:
            self._append(self._packer.rest())
            self._packer = None
            self._note(first, end)

    def is_split(self, part: int) -> bool:
        """Whether several frames hold rows of one range of `part` rows."""
        return len({first // part for first in self._firsts}) < len(self._firsts)

    def join(self, part: int, target: SpoolFile) -> None:
        """Write into `target` the same with one frame for each range of `part` rows; no frame is open."""
        try:
            with self.path.open("rb") as handle:
                for _, numbers in groupby(range(len(self._firsts)), lambda number: self._firsts[number] // part):
                    self._move(handle, [*numbers], target)
        except OSError as error:
            raise files.storage_error("cannot read", self.path, error) from error

    def finish(self) -> tuple[Frame, ...]:
        """Make it durable; its frames. May be called again."""
        if self._descriptor >= 0:
            files.sync(self._descriptor, self.path)
            self.close()
        return tuple(self._frames)

    def remove(self) -> None:
        self.close()
        files.remove(self.path)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _move(self, handle: BinaryIO, numbers: list[int], target: SpoolFile) -> None:
        first, end = self._firsts[numbers[0]], self._frames[numbers[-1]].end
        packed = _Stretch(handle, *_place(self._frames, numbers[0], numbers[-1]))
        if len(numbers) == 1:
            for data in packed.pieces():
                target._append(data)
            target._note(first, end)
            return
        with _unpacked(packed) as text:
            while data := text.read(BLOCK_BYTES):
                target.write(data)
        target.cut(first, end)

    def _append(self, data: bytes) -> None:
        if data:
            files.write_all(self._descriptor, data, self.path)
            self._size += len(data)
            self._hash.update(data)

    def _note(self, first: int, end: int) -> None:
        self._frames.append(Frame(end, self._size, self._hash.hexdigest()))
        self._firsts.append(first)
        self._hash = digest()


class _Packer:
    """Bytes -> the bytes of one zstd frame, as they become ready."""

    def __init__(self) -> None:
        self._outlet = Outlet()
        self._zstd = pa.CompressedOutputStream(pa.PythonFile(self._outlet, mode="w"), "zstd")

    def pack(self, data: bytes | memoryview) -> bytes:
        self._zstd.write(data)
        return self._outlet.take()

    def rest(self) -> bytes:
        self._zstd.close()
        return self._outlet.take()


class Outlet:
    """A file for Arrow to write to; what has come out is taken, and raises nothing inside Arrow."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._pieces.append(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


class _Stretch:
    """The bytes start … stop of an open file, as a file for Arrow to read from."""

    closed = False

    def __init__(self, handle: BinaryIO, start: int, stop: int) -> None:
        handle.seek(start)
        self._handle = handle
        self._left = stop - start

    def read(self, size: int) -> bytes:
        data = self._handle.read(min(size, self._left))
        self._left -= len(data)
        return data

    def pieces(self) -> Iterator[bytes]:
        while data := self.read(BLOCK_BYTES):
            yield data

    def close(self) -> None:
        self.closed = True


def _unpacked(packed: _Stretch) -> Any:
    return pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd")


def _place(frames: list[Frame] | tuple[Frame, ...], first: int, last: int) -> tuple[int, int]:
    """Where the frames `first` to `last` lie in the copy."""
    return frames[first - 1].stop if first else 0, frames[last].stop


class Copy:
    """A finished copy, read by position. Each call opens it anew: any thread may call."""

    def __init__(self, file: File, label: str, place: Path) -> None:
        self._path = place / file.spool
        self._label = label
        self._again = "give the same rows on stdin" if file.path == STDIN else f"it is made again from {label}"
        self._frames = file.frames
        self._ends = [frame.end for frame in file.frames]

    def read(self, start: int, end: int, parse: Callable[[Any], Iterable[Any]]) -> Iterator[tuple[int, Any]]:
        """(where it begins, piece) of all that start … end touches, in order. `parse` makes pieces of bytes or rows out
        of the content of a frame, a file to read from. Raises ChangedError when the copy is damaged.

        A range touches one frame; in copies that earlier versions made, several or a part of one."""
        for number in range(bisect_right(self._ends, start), bisect_left(self._ends, end) + (start < end)):
            at = self._ends[number - 1] if number else 0
            with self._content(number) as content:
                for piece in parse(content):
                    if at + len(piece) > start:
                        yield at, piece
                    at += len(piece)
                    if at >= end:
                        return

    def check(self) -> None:
        """Raise ChangedError when the copy is gone or has another size. Its bytes are checked as they are read."""
        if not self.is_whole():
            raise self._damaged()

    def is_whole(self) -> bool:
        """Whether it is there with its size."""
        try:
            return self._path.stat().st_size == (self._frames[-1].stop if self._frames else 0)
        except OSError:
            return False

    @contextmanager
    def _content(self, number: int) -> Iterator[Any]:
        start, stop = _place(self._frames, number, number)
        try:
            with self._path.open("rb") as handle:
                seen = digest()
                for data in _Stretch(handle, start, stop).pieces():
                    seen.update(data)
                if seen.hexdigest() != self._frames[number].hash:
                    raise self._damaged()
                packed = _Stretch(handle, start, stop)
                yield pa.PythonFile(packed, mode="r") if self._path.suffix == _UNPACKED else _unpacked(packed)
        except (OSError, pa.ArrowException) as error:
            raise self._damaged() from error

    def _damaged(self) -> ChangedError:
        return ChangedError(
            f"the copy of {self._label} in {self._path} is damaged or gone",
            hint=f"remove what is left of it and run again: {self._again}",
        )
