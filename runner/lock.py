"""One process a run: an flock that dies with its holder, and a record of who that is.

Rule: the lock is the flock, never the record; the record only puts a name into the loser's message. A run is held
before its input is read, so that a second process leaves at once; what was made for that goes when no run began.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType

import orjson

from runner import files
from runner.errors import HeldError, StorageError
from runner.store import RunDirectory

#: Between two looks at a lock that is not to be had yet.
LOOK_S = 0.1
#: `is_held` has the lock for an instant when nobody else does; a process that stands still in it is waited for so long.
ASKED_S = 10.0
#: A holder has the lock for an instant before it has signed; for so long the loser waits to learn its name.
SIGNED_S = 5.0


class Lock:
    """`with Lock(path, since):` raises HeldError at once when another process has it."""

    def __init__(self, path: Path, since: str) -> None:
        self.path = path
        self.since = since
        self._descriptor = -1

    def __enter__(self) -> Lock:
        while True:
            self._open()
            if not self._taken() and not self._taken_from_askers():
                raise self._held()
            if self._stands():
                break
            os.close(self._descriptor)
        self._sign_or_leave()
        return self

    def _open(self) -> None:
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise files.storage_error("cannot open", self.path, error) from error

    def _stands(self) -> bool:
        """Whether the file that was locked is the one of that name still: its last holder may have taken it away."""
        with suppress(OSError):
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        return False

    def _sign_or_leave(self) -> None:
        try:
            self._sign()
        except StorageError:
            os.close(self._descriptor)  # a lock without a process behind it would be held for ever
            raise

    def _taken(self, how: int = fcntl.LOCK_EX) -> bool:
        try:
            fcntl.flock(self._descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise files.storage_error("cannot lock", self.path, error) from error
        return True

    def _taken_from_askers(self) -> bool:
        """Whether it was only asked about (see `is_held`) and is ours now: who asks shares it, a holder does not."""
        until_s = time.monotonic() + ASKED_S
        while self._taken(fcntl.LOCK_SH) and time.monotonic() < until_s:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            time.sleep(LOOK_S)
            if self._taken():
                return True
        return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def _sign(self) -> None:
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": self.since,
            "command": Path(sys.argv[0]).name,
        }
        try:
            os.ftruncate(self._descriptor, 0)
        except OSError as error:
            raise files.storage_error("cannot write to", self.path, error) from error
        files.write_all(self._descriptor, orjson.dumps(owner) + b"\n", self.path)

    def _held(self) -> HeldError:
        owner = self._owner()
        os.close(self._descriptor)
        who = "another process"
        if owner:
            who = f"process {owner['pid']} on {owner['host']} (since {owner['since']})"
        return HeldError(
            f"{self.path.parent} is being worked on by {who}",
            hint="wait for it, or stop it; `runner status` shows how far it is",
        )

    def _owner(self) -> dict[str, object] | None:
        """Who has it. What a dead process has left there is believed when nobody signs."""
        until_s = time.monotonic() + SIGNED_S
        while not _may_live(owner := read_owner(self.path)) and time.monotonic() < until_s:
            time.sleep(LOOK_S)
        return owner


def _may_live(owner: dict[str, object] | None) -> bool:
    """Of other machines nothing is known."""
    if owner is None or owner["host"] != socket.gethostname() or not isinstance(owner["pid"], int):
        return owner is not None
    try:
        os.kill(owner["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


@contextmanager
def held(directory: RunDirectory, since: str) -> Iterator[None]:
    """A run directory that nobody else works on. Raises HeldError at once when somebody does.

    A directory that is not there yet is made, and removed again when this ends before there is a run in it.
    """
    missing = [folder for folder in (directory.root, *directory.root.parents) if not folder.exists()]
    with ExitStack() as leaving:
        leaving.callback(_remove_empty, missing)
        directory.claim()
        leaving.enter_context(Lock(directory.lock, since))
        leaving.callback(_give_up, directory)
        leaving.push(partial(_say_if_gone, directory))
        yield


def _say_if_gone(
    directory: RunDirectory, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> None:
    """When the run was taken away under us, that is the error, whatever it looked like where it was met first."""
    met = isinstance(error, Exception) and not isinstance(error, StorageError)
    if met and not directory.lock.exists():
        raise files.vanished("cannot go on with", directory.root) from error


def _give_up(directory: RunDirectory) -> None:
    """Take the claim away while it is held; one that cannot be taken away is no reason to fail."""
    with suppress(OSError, StorageError):
        if directory.is_bare():
            files.remove(directory.lock)


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):  # not empty: a run has begun there, or another process is about to
        for folder in folders:
            folder.rmdir()


def read_owner(path: Path) -> dict[str, object] | None:
    """Who signed the lock last; None when nobody did, or the record is not whole."""
    try:
        owner = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return owner if isinstance(owner, dict) and {"pid", "host", "since"} <= owner.keys() else None


def is_held(path: Path) -> bool:
    """Whether a process has the lock now. Asks without keeping it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
