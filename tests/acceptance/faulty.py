"""A disk that refuses: the calls that a run makes on its files, in turn, each of which may fail.

Rule: nothing is known of the program but the calls of the system that it uses. A call is counted when it names
something under the given directory, or has it open; those inside pyarrow count as opening, writing and closing a part.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

SHORT, GONE, MOVED = -1, -2, -3  #: in place of an error number: half of the bytes; the directory deleted; moved away
NAMES = {SHORT: "a short write", GONE: "the directory deleted", MOVED: "the directory moved away"}

#: What takes space, what changes anything else, what makes durable, what only looks.
_TAKES = {"open for writing", "write", "mkdir", "link", "write_table", "close"}
_CHANGES = {"rename", "replace", "unlink", "rmdir", "ftruncate"}
_SYNCS = {"fsync", "fdatasync"}
_LOOKS = {"open", "io.open", "scandir", "listdir", "read_table", "read_metadata", "read_schema"}


def fits(error: int, call: str) -> bool:
    """Whether a call can end so."""
    if error in (GONE, MOVED, errno.EIO):
        return True
    if error == SHORT:
        return call == "write"
    return call in (_TAKES | _SYNCS if error in (errno.ENOSPC, errno.EDQUOT) else _TAKES | _CHANGES | _SYNCS)


def lasts(error: int, call: str) -> bool:
    """Whether it is so for later calls too, once it is so: a full disk stays full for all that takes space."""
    return error in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) and call not in _SYNCS and fits(error, call)


@dataclass
class Faulty:
    """`with disk.running(patch):` the `at`th call under `root` fails with `error`; 0: none does, they are counted."""

    root: Path
    error: int = 0
    at: int = 0
    calls: list[tuple[str, Path]] = field(default_factory=list)
    struck: list[tuple[str, Path]] = field(default_factory=list)
    _synced: dict[int, int] = field(default_factory=dict)
    _aloof: bool = False

    @property
    def aside(self) -> Path:
        return self.root.with_name("aside")

    @contextmanager
    def running(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        self._os = {name: getattr(os, name) for name in ("rename", "ftruncate")}
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "link", "scandir", "listdir"):
            patch.setattr(os, name, partial(self._by_path, name, getattr(os, name)))
        for name in ("write", "ftruncate", "fsync", "fdatasync"):
            patch.setattr(os, name, partial(self._by_descriptor, name, getattr(os, name)))
        for name in ("read_table", "read_metadata", "read_schema"):
            patch.setattr(pq, name, partial(self._by_path, name, getattr(pq, name)))
        for name in ("write_table", "close"):
            patch.setattr(pq.ParquetWriter, name, self._by_writer(name, getattr(pq.ParquetWriter, name)))
        patch.setattr(pq.ParquetWriter, "__init__", self._making(pq.ParquetWriter.__init__))
        patch.setattr(os, "open", partial(self._opening, os.open))
        patch.setattr(io, "open", partial(self._by_path, "io.open", builtins.open))
        yield

    def _by_path(self, name: str, real: Callable[..., Any], path: Any, *given: Any, **named: Any) -> Any:
        self._meet(name, path if named.get("dir_fd") is None else _path_of(named["dir_fd"]) / path)
        return real(path, *given, **named)

    def _opening(self, real: Callable[..., int], path: Any, flags: int, *given: Any, **named: Any) -> int:
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR))
        self._meet("open for writing" if writes else "open", path)
        descriptor = real(path, flags, *given, **named)
        seen = os.fstat(descriptor)
        if not seen.st_size or seen.st_ino not in self._synced:
            self._synced[seen.st_ino] = seen.st_size
        return descriptor

    def _by_descriptor(self, name: str, real: Callable[..., Any], descriptor: int, *given: Any) -> Any:
        if name == "write" and not given[0]:
            return real(descriptor, *given)  # nothing to refuse
        path = _path_of(descriptor)
        if name == "fdatasync" and self._is_ours(path) and self._fails_next():
            self._forget(descriptor)
        if self._meet(name, path) == SHORT:
            return real(descriptor, given[0][: len(given[0]) // 2])
        if name in _SYNCS:
            self._synced[os.fstat(descriptor).st_ino] = os.fstat(descriptor).st_size
        return real(descriptor, *given)

    def _forget(self, descriptor: int) -> None:
        """A failed fsync takes with it what was written since the last one, as a kernel that drops dirty pages does."""
        size = self._synced.get(os.fstat(descriptor).st_ino)
        if size is not None:
            self._os["ftruncate"](descriptor, size)

    def _by_writer(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(writer: Any, *given: Any, **named: Any) -> Any:
            if writer.is_open:
                writer.is_open = False  # it would try again when it is collected
                self._meet(name, writer.where)
                writer.is_open = True
            return real(writer, *given, **named)

        return call

    def _making(self, real: Callable[..., None]) -> Callable[..., None]:
        def make(writer: Any, where: Any, *given: Any, **named: Any) -> None:
            self._meet("open for writing", where)
            real(writer, where, *given, **named)

        return make

    def _is_ours(self, path: Path) -> bool:
        return path == self.root or self.root in path.parents

    def _fails_next(self) -> bool:
        return len(self.calls) + 1 == self.at and self.error > 0

    def _meet(self, name: str, place: Any) -> int:
        """Count a call, and raise, or say, what becomes of it."""
        path = Path(os.fsdecode(place)) if isinstance(place, str | bytes | os.PathLike) else Path("elsewhere")
        if self._aloof or not self._is_ours(path):
            return 0
        self.calls.append((name, path))
        number = len(self.calls)
        if not (number == self.at or (0 < self.at < number and lasts(self.error, name))):
            return 0
        if self.error in (GONE, MOVED) and not self.root.exists():
            return 0
        self.struck.append((name, path))
        if self.error == GONE:
            self._aloof = True
            shutil.rmtree(self.root)
            self._aloof = False
        elif self.error == MOVED:
            self._os["rename"](self.root, self.aside)
        elif self.error > 0:
            raise OSError(self.error, os.strerror(self.error))
        return self.error

    def mend(self) -> None:
        """What can be put right is put right."""
        if self.aside.exists():
            shutil.rmtree(self.root, ignore_errors=True)
            self.aside.rename(self.root)


def _path_of(descriptor: int) -> Path:
    return Path(str(Path(f"/proc/self/fd/{descriptor}").readlink()).removesuffix(" (deleted)"))
