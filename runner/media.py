"""Local images, recordings and files, from the disk into the request that carries them.

    folder = Folder(root)
    folder.look("cats/tom.png", "messages.0.content.1.image_url")     # Stamp(size, mtime_ns) | Failure; nothing is read
    async with Media(folder).filled(body) as whole:                   # bytes with data URLs | Failure
        await send(whole)

Rule: only plain files below the root are read, whatever `..`, an absolute path or a link says, and whoever changes the
folder meanwhile: a path is resolved first, then opened from the root downward without following any link. A file that
is not the one whose size and time are in the request is not sent.

Strategy: bytes exist from the moment a request has its slot until its reply is here, read in a few threads, and weigh
on one limiter, so that many large files never stand in memory together.
"""

from __future__ import annotations

import errno
import os
import stat
from binascii import b2a_base64
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import anyio
import anyio.to_thread

from runner.errors import JobError
from runner.recipe import Attach
from runner.records import Failure
from runner.spec import JobSpec
from runner.wire.attach import (
    MAX_FILE_BYTES,
    Local,
    Stamp,
    carries,
    cut,
    frame,
    may_come_from_data,
    names_files,
    stamped,
    weight,
)
from runner.wire.encode import input_failure
from runner.wire.mediatypes import HEAD_BYTES, media_type

#: Bytes of requests with media between their slot and their reply.
MOST_BYTES = 256 << 20
#: Reading is quick beside an answer; more readers would only hold more half-made requests.
READERS = 4
#: Divisible by three, so that the base64 texts of the pieces can be joined.
CHUNK_BYTES = 3 << 18
MOST_CHUNKS = MAX_FILE_BYTES // CHUNK_BYTES + 1

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Without blocking: what was a file may be a FIFO by now.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SENTENCES = {
    errno.ENOENT: "there is no such file under input.files_root ({root}); mend the path or the folder",
    errno.ENOTDIR: "a part of the path is no folder",
    errno.EACCES: "the file may not be read; mend its permissions",
    errno.ELOOP: "the file became a link while the run went on",
    errno.ENAMETOOLONG: "the path is too long",
}


Answer = TypeVar("Answer")


def _resolve(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve() raises for links that go round


class _Refused(Exception):  # noqa: N818 - becomes a Failure of the row
    """Why a file is not sent."""


def folder_of(job: JobSpec, base: Path) -> Folder | None:
    """The folder that a job's requests read local files from, `base` being that of the job file; None: they read none.

    Messages that come out of the data may name files only below a folder that the job names, for then its author knows.
    """
    messages = job.request.messages
    if names_files(messages) or (may_come_from_data(messages) and job.input.files_root != "."):
        return Folder(base / Path(job.input.files_root).expanduser())
    return None


def attach_of(job: JobSpec, base: Path) -> tuple[Attach | None, bool]:
    """How media of the job's rows are looked at, and whether that asks a disk; None when no message can hold more than
    text. Raises JobError."""
    messages = job.request.messages
    if not carries(messages):
        return None, False
    if names_files(messages) and may_come_from_data(messages) and job.input.files_root == ".":
        where = job.where("input.files_root")
        raise JobError(
            mistakes=(f"{where}: input.files_root: messages out of the data could name local files too; name a folder",)
        )
    folder = folder_of(job, base)
    return partial(stamped, look=folder.look if folder else _no_files), folder is not None


def _no_files(path: str, where: str) -> Failure:
    said = "messages out of the data may name local files only when input.files_root names a folder"
    return input_failure(f"{where}.file: {said}: {path}")


class Folder:
    """`input.files_root`."""

    def __init__(self, root: Path) -> None:
        self.root = _resolve(root)
        # For looking only, once or more a row; opening resolves anew.
        self._folder_of = lru_cache(maxsize=4096)(_resolve)

    def look(self, path: str, where: str) -> Stamp | Failure:
        """Size and time of a file that may be sent, without reading it. Failure(INPUT): why it may not."""
        try:
            return _stamp(self._below(path, self._resolved(path)).lstat())
        except (OSError, ValueError, _Refused) as error:
            return self._failure(error, path, where)

    def fill(self, pieces: Sequence[bytes | Local]) -> bytes | Failure:
        """A body (see attach.cut) with the bytes of its files. Blocks: call it in a thread."""
        whole: list[bytes] = []
        for piece in pieces:
            found = self._asked(piece, _encoded) if isinstance(piece, Local) else [piece]
            if isinstance(found, Failure):
                return found
            whole += found
        return b"".join(whole)

    def type_of(self, local: Local) -> str | Failure:
        """The media type that a file would be sent as, from its first bytes."""
        return self._asked(local, _typed)

    def _asked(self, local: Local, question: Callable[[Local, BinaryIO], Answer]) -> Answer | Failure:
        try:
            with self._open(local.file) as file:
                return question(local, file)
        except (OSError, ValueError, _Refused) as error:
            return self._failure(error, local.file, local.where)

    def _failure(self, error: Exception, path: str, where: str) -> Failure:
        said = str(error) if isinstance(error, _Refused) else "the path is no text"
        if isinstance(error, OSError):
            said = _SENTENCES.get(error.errno or 0, f"the file cannot be read ({error.strerror})").format(
                root=self.root
            )
        return input_failure(f"{where}.file: {said}: {path}")  # the path last: failures alike begin alike

    def _resolved(self, path: str) -> Path:
        """Where a path leads, its folder taken from memory."""
        named = self.root / path
        found = self._folder_of(named.parent) / named.name
        return _resolve(found) if found.is_symlink() else found

    def _below(self, path: str, real: Path) -> Path:
        """`real`, if it may be read under the name `path`."""
        if ".." in path.split("/"):
            raise _Refused("a path with `..` is not read; name the file from input.files_root downward")
        if self.root not in real.parents:
            raise _Refused(f"the file is outside of input.files_root ({self.root})")
        return real

    def _open(self, path: str) -> BinaryIO:
        """The file, opened step by step from the root: a link that appears meanwhile is an error, not a way out."""
        *folders, name = self._below(path, _resolve(self.root / path)).relative_to(self.root).parts
        at = os.open(self.root, _FOLDER)
        try:
            for folder in folders:
                above, at = at, os.open(folder, _FOLDER, dir_fd=at)
                os.close(above)
            _stamp(os.stat(name, dir_fd=at, follow_symlinks=False))  # a device may act when it is opened
            return os.fdopen(os.open(name, _FILE, dir_fd=at), "rb")
        finally:
            os.close(at)


def _stamp(found: os.stat_result) -> Stamp:
    if not stat.S_ISREG(found.st_mode):
        raise _Refused("this is no plain file")
    if not 0 < found.st_size <= MAX_FILE_BYTES:
        size = f"has {found.st_size:,} bytes, at most {MAX_FILE_BYTES:,} are sent" if found.st_size else "is empty"
        raise _Refused(f"the file {size}")
    return Stamp(found.st_size, found.st_mtime_ns)


def _encoded(local: Local, file: BinaryIO) -> list[bytes] | Failure:
    _refuse_another(local, file)
    chunk = file.read(CHUNK_BYTES)
    around = frame(local, chunk[:HEAD_BYTES])
    if isinstance(around, Failure):
        return around
    pieces = [around[0]]
    while chunk:
        pieces.append(b2a_base64(chunk, newline=False))
        chunk = file.read(CHUNK_BYTES) if len(pieces) <= MOST_CHUNKS else b""
    _refuse_another(local, file)  # nor was it written to meanwhile
    return [*pieces, around[1]]


def _typed(local: Local, file: BinaryIO) -> str | Failure:
    head = file.read(HEAD_BYTES)
    around = frame(local, head)
    return around if isinstance(around, Failure) else media_type(head, local.file)


def _refuse_another(local: Local, file: BinaryIO) -> None:
    if _stamp(os.fstat(file.fileno())) != local.stamp:
        raise _Refused("the file changed while the run went on; `runner retry` sends the row with the file as it is")


class ByteLimiter:
    """Room for so many bytes, in order of arrival. What is larger than the room is let through alone."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self._waiting: deque[tuple[int, anyio.Event]] = deque()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        await self._take(size)
        try:
            yield
        finally:
            self._give(size)

    def _fits(self, size: int) -> bool:
        return not self.held or self.held + size <= self.most

    async def _take(self, size: int) -> None:
        if not self._waiting and self._fits(size):
            self.held += size
            return
        turn = (size, anyio.Event())
        self._waiting.append(turn)
        try:
            await turn[1].wait()
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
                self._give(0)
            else:  # it was let in at the moment when it was sent home
                self._give(size)
            raise

    def _give(self, size: int) -> None:
        self.held -= size
        while self._waiting and self._fits(self._waiting[0][0]):
            size, event = self._waiting.popleft()
            self.held += size
            event.set()


class Media:
    """Requests made whole: see `ports.Fill`."""

    def __init__(self, folder: Folder, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._room = ByteLimiter(most_bytes)
        self._readers = anyio.CapacityLimiter(READERS)

    @asynccontextmanager
    async def filled(self, body: bytes) -> AsyncIterator[bytes | Failure]:
        """`body` with the bytes of its files, for as long as this is open; Failure(INPUT): it cannot be sent."""
        pieces = cut(body)
        if len(pieces) == 1:
            yield body
            return
        async with self._room.hold(weight(pieces)):
            yield await anyio.to_thread.run_sync(self._folder.fill, pieces, limiter=self._readers)
