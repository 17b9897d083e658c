"""The real program, made to die at a chosen step of its dealings with the disk: `python mortal.py STEPS`.

STEPS is a file for its own notes; orders come on stdin. An order is one JSON line {"words": […], "talk": path,
"dies_at": n or null}; the answer is the exit code and how many steps were taken. With "dies_in_commit": path instead,
the first fsync of answers takes until there is a file of that name, and the process dies in it. A step is every call
that opens for writing, makes, renames, removes or cuts something under `runs/`, each write three times over (before it,
after half of its bytes, behind it) and every fsync. Death is SIGKILL.

Strategy: the imports are done once, and each order is a fork of this process; nothing else is spared: signals, threads,
sockets and files are the program's own. An audit hook sees the file calls, wherever they come from.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd  # pyarrow imports it when it first seals

import runner.running
from runner import cli, files

#: What the first request and the first part import; a third of a life's time.
_LATE = ("anyio._backends._asyncio", "uvloop", "certifi", "concurrent.futures.thread", "encodings.idna", "stringprep")
_FILE_CALLS = {"open", "os.mkdir", "os.rename", "os.remove", "os.truncate"}


class Mortality:
    """Counts steps, and ends the process at the one it is told. How many were taken is kept in `steps`, a file."""

    def __init__(self, order: Mapping[str, Any], steps: int) -> None:
        self._dies_at = order.get("dies_at")
        self._dies_in_commit = order.get("dies_in_commit")
        self._commits: set[Path] = set()
        self._steps = steps
        self._numbers = count(1)  # `next` is one step for all threads

    def install(self) -> None:
        sys.addaudithook(self._audit)
        files.write_all = self._writing(files.write_all)
        files.sync = self._syncing(files.sync)

    def step(self, last_act: Callable[[], object] = lambda: None) -> None:
        number = next(self._numbers)
        os.pwrite(self._steps, b"%8d" % number, 0)
        if number == self._dies_at:
            last_act()
            os.kill(os.getpid(), signal.SIGKILL)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in _FILE_CALLS or not isinstance(args[0], str | os.PathLike | int):
            return
        if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if event == "os.truncate" or "/runs" in str(args[0]):
            self.step()

    def _writing(self, real: Callable[..., None]) -> Callable[..., None]:
        def write_all(descriptor: int, data: bytes, path: Path) -> None:
            self.step()
            self.step(lambda: os.write(descriptor, data[: len(data) // 2]))
            real(descriptor, data, path)
            self.step()

        return write_all

    def _syncing(self, real: Callable[..., None]) -> Callable[..., None]:
        def sync(descriptor: int, path: Path) -> None:
            self.step()
            if self._dies_in_commit and path in self._commits:
                while not Path(self._dies_in_commit).exists():
                    time.sleep(0.005)
                os.kill(os.getpid(), signal.SIGKILL)
            if path.suffix == ".jsonl":
                self._commits.add(path)  # the first one was of its head
            real(descriptor, path)

        return sync


def live(order: dict[str, Any], steps: int) -> None:
    """The child's whole life."""
    talk = os.open(order["talk"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(talk, 2)
    sys.argv = ["runner", *order["words"]]
    Mortality(order, steps).install()
    code = 0
    try:
        cli.main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    os._exit(code)


def main() -> None:
    assert pd and runner.running  # imported for the forks
    for name in _LATE:
        with suppress(ImportError):
            import_module(name)
    steps = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            live(json.loads(line), steps)
        _, status = os.waitpid(child, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), int(os.pread(steps, 8, 0) or 0)]), flush=True)


if __name__ == "__main__":
    main()
