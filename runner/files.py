"""The file calls that durability rests on, each with its error in words.

Rule: everything of a run that must survive goes through here, so that a full or broken disk is one kind of error
(`StorageError`, exit 4) and tests can break each call in turn. Strategy: whole writes or none, rename for replacement,
fsync of file and directory around it. Files are 0600 and directories 0700: answers are somebody's data.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.errors import StorageError

_HINTS = {
    errno.ENOSPC: "free some space, then run the same command again: it goes on where it stopped",
    errno.EDQUOT: "your quota on that disk is used up: remove something there or have it raised, then run the same "
    "command again: it goes on where it stopped",
    errno.EROFS: "the file system is read-only, often since an error of its disk (see dmesg): make it writable, then "
    "run the same command again",
    errno.EIO: "the disk reports an error: check it (see dmesg), then run the same command again, or go on with a copy "
    "of the run's directory on another disk by -o",
    errno.ENOENT: "something removed or moved the run's directory while the run was going on: put it back, then run "
    "the same command again; without it the run starts anew, and pays anew",
}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}
#: What a kernel or file system says that cannot put two names in each other's place in one step.
_NO_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV}
#: From linux/fs.h and fcntl.h; for macOS from sys/stdio.h.
_AT_FDCWD, _RENAME_EXCHANGE, _RENAME_SWAP = -100, 2, 2
_GENERAL_HINT = "nothing acknowledged is lost; mend the cause, then run the same command again"


def storage_error(doing: str, path: Path | str, error: OSError) -> StorageError:
    """The one sentence for a failed file call: what was being done, where, why."""
    reason = "it is no longer there" if error.errno == errno.ENOENT else error.strerror or str(error)
    return StorageError(f"{doing} {path}: {reason}", hint=_HINTS.get(error.errno or 0, _GENERAL_HINT))


def vanished(doing: str, path: Path) -> StorageError:
    """The same for a file that was there."""
    return storage_error(doing, path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))


def make_directory(path: Path, *, parents: bool = True) -> None:
    """Make `path` (0700) and its parents; fine when it is there."""
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise storage_error("cannot make the directory", path, error) from error


def open_append(path: Path) -> int:
    """A descriptor that only appends; the file is made when it is missing."""
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise storage_error("cannot open", path, error) from error


def touch(path: Path) -> None:
    """Make an empty file; fine when it is there."""
    os.close(open_append(path))


def write_all(descriptor: int, data: bytes, path: Path) -> None:
    """Write all of `data` with one call.

    A short write is an error, not something to go on from: the kernel writes short when the disk fills up, and bytes of
    another thread may already stand behind the torn ones.
    """
    try:
        written = os.write(descriptor, data)
    except OSError as error:
        raise storage_error("cannot write to", path, error) from error
    if written != len(data):
        raise storage_error("cannot write to", path, OSError(errno.ENOSPC, "the write was cut short (disk full?)"))


def sync(descriptor: int, path: Path) -> None:
    """Return when the file's data is on the device. There is no second try: after a failed fsync the kernel may have
    dropped the dirty pages and report success the next time (PostgreSQL's fsyncgate, 2018)."""
    try:
        _datasync(descriptor)
    except OSError as error:
        raise storage_error("cannot make durable", path, error) from error


def _datasync(descriptor: int) -> None:
    if sys.platform == "darwin":  # fsync on macOS stops at the drive's cache
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error("cannot make durable the directory", path, error) from error


def rename(source: Path, target: Path) -> None:
    """Put `source` in the place of `target` in one step."""
    try:
        source.replace(target)
    except OSError as error:
        raise storage_error("cannot put into place", target, error) from error


def exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False, with nothing done, where kernel or file system cannot."""
    try:
        call = _exchange_call()
    except AttributeError:  # a C library without it, such as musl
        return False
    if call(os.fsencode(one), os.fsencode(other)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise storage_error("cannot put into place", other, OSError(number, os.strerror(number)))


def _exchange_call() -> Callable[[bytes, bytes], int]:
    """Python has no name for it. Raises AttributeError when the C library has none either."""
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        swap = library.renamex_np
        return lambda one, other: int(swap(one, other, _RENAME_SWAP))
    rename_at = library.renameat2
    return lambda one, other: int(rename_at(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE))


def link(source: Path, target: Path) -> bool:
    """Give a file a second name; False where the file system has no such thing (exFAT, many network shares)."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise storage_error("cannot make the link", target, error) from error
    return True


def remove(path: Path) -> None:
    """Remove a file; fine when it is gone."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("cannot remove", path, error) from error


def remove_tree(path: Path) -> None:
    """Remove a directory and all that is in it; fine when it is gone."""
    try:
        if path.exists():
            shutil.rmtree(path)
    except OSError as error:
        raise storage_error("cannot remove", path, error) from error


def truncate(path: Path, length: int) -> None:
    """Cut a file to `length` bytes, durably."""
    descriptor = open_append(path)
    try:
        os.ftruncate(descriptor, length)
    except OSError as error:
        raise storage_error("cannot cut the torn end of", path, error) from error
    else:
        sync(descriptor, path)
    finally:
        os.close(descriptor)


def append(path: Path, data: bytes) -> None:
    """Add `data` to the end of a file, durably."""
    descriptor = open_append(path)
    try:
        write_all(descriptor, data, path)
        sync(descriptor, path)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `data` in one step: readers see the old file or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    remove(temporary)
    descriptor = open_append(temporary)
    try:
        write_all(descriptor, data, path)
        if durable:
            sync(descriptor, path)
    finally:
        os.close(descriptor)
    rename(temporary, path)
    if durable:
        sync_directory(path.parent)


def names(path: Path) -> list[str]:
    """What is in a directory, sorted."""
    try:
        return sorted(each.name for each in path.iterdir())
    except OSError as error:
        raise storage_error("cannot list", path, error) from error


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of a file of a run that is not empty, without reading them all."""
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise storage_error("cannot read", path, error) from error
    with data:
        yield data


def read_file(path: Path) -> bytes | None:
    """The bytes of a file of a run; None when it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("cannot read", path, error) from error
