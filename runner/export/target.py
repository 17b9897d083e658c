"""Where an export goes: standard output, or a file that appears when it is whole.

Rule: nothing is overwritten unasked, the input never, and no file of ours lands among the parts of a run. The file is
written beside its place and renamed into it; what a killed export left there goes with the next one. It is an ordinary
file of the user: the umask decides who reads it.
"""

from __future__ import annotations

import fcntl
import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from runner.errors import StorageError, UsageError


@dataclass(frozen=True, slots=True)
class Target:
    """`path` None: standard output."""

    path: Path | None
    force: bool = False

    def refuse(self, run: Path, inputs: Sequence[Path], *, binary: bool) -> None:
        """Raise UsageError for a place that an export must not be written to."""
        if self.path is None:
            if binary and sys.stdout.isatty():
                raise UsageError("Parquet is nothing for a terminal", hint="give a file with -o, or pipe it on")
            return
        where = self.path.resolve()
        if where.is_relative_to(run.resolve()):
            raise UsageError(f"{self.path} is inside the run", hint="choose a file outside it: readers take every part")
        if where in {path.resolve() for path in inputs}:
            raise UsageError(f"{self.path} is the input of the run", hint="choose another file")
        if where.is_dir():
            raise UsageError(f"{self.path} is a directory", hint="give the path of a file")
        if where.is_file() and not self.force:
            raise UsageError(f"{self.path} is there already", hint="choose another file, or overwrite it with --force")

    @contextmanager
    def opened(self) -> Iterator[Checked]:
        """The stream to write to. A file is in its place when this ends well, and untouched when it does not."""
        if self.path is None:
            with Checked(sys.stdout.buffer, "standard output") as out:
                yield out
            return
        where = self.path.resolve()
        if where.exists() and not where.is_file():  # a pipe or a device: nothing to rename over
            with _made(where, "wb") as file, Checked(file, str(self.path)) as out:
                yield out
            return
        _sweep(where)
        temporary = where.with_name(f".{where.name}.{os.getpid()}.tmp")
        try:
            with _made(temporary, "xb") as file, _claimed(file), Checked(file, str(self.path)) as out:
                yield out
            temporary.replace(where)
        finally:
            with suppress(OSError):
                temporary.unlink()


class Checked:
    """A stream whose failures are sentences; a reader that has gone is BrokenPipeError as ever.

    What is written after a failure, or after the end, goes nowhere: an abandoned ParquetWriter still writes its footer.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name
        self._ended = False
        self.closed = False  # pyarrow asks

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True

    def write(self, data: Any) -> int:
        return self._guarded(lambda: self._stream.write(data)) or len(data)

    def flush(self) -> None:
        self._guarded(self._stream.flush)

    def _guarded(self, act: Callable[[], int | None]) -> int | None:
        if self._ended:
            return None
        try:
            return act()
        except OSError as error:
            self._ended = True
            if isinstance(error, BrokenPipeError):
                raise
            raise StorageError(
                f"cannot write to {self._name}: {error.strerror}",
                hint="the run itself is untouched; mend the cause, then export again",
            ) from error


@contextmanager
def _claimed(file: BinaryIO) -> Iterator[None]:
    """Held until the file is closed, so that others see that somebody writes it; where there are no locks, they do not
    see that nobody does."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield


def _sweep(where: Path) -> None:
    """Remove what exports to this place left behind whose processes have died."""
    for left in where.parent.glob(f".{glob.escape(where.name)}.*.tmp"):
        number = left.name.split(".")[-2]
        if number.isdigit() and not _runs(int(number)):
            with suppress(OSError), left.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its process may run on another machine
                left.unlink()


def _runs(pid: int) -> bool:
    """Whether there is such a process here."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _made(path: Path, mode: str) -> BinaryIO:
    try:
        return path.open(mode)  # type: ignore[return-value]  # both modes are binary
    except OSError as error:
        raise UsageError(f"cannot write in {path.parent}: {error.strerror}") from error
