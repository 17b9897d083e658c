"""The program, started at once: one process has imported it and everything it needs, and forks for each start.

Rule: a child has its own session, streams, directory, arguments and environment before a line of the program runs, and
is spoken to like a `subprocess.Popen`. Strategy: the imports of a start cost a second of a processor, which is most of
what a small run costs; tests of what a fresh interpreter does start one.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import runner

SOURCE = Path(runner.__file__).parents[1]

# What runs in the nursery. An order is one line of JSON with the members of Order.
_NURSERY = """
import gc, json, os, resource, select, signal, socket, sys
import certifi, concurrent.futures.thread, encodings.idna, genai_prices, pandas, pyarrow.csv, pyarrow.json
import pyarrow.parquet, stringprep, tqdm, uvloop
import anyio._backends._asyncio
import runner.checking, runner.cli, runner.reading, runner.running, runner.standing, runner.summary
server = socket.socket(fileno=int(sys.argv[1]))
gc.collect()
gc.freeze()  # nothing of the imports is looked at again at each start
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    if sys.stdin in select.select([server, sys.stdin], [], [])[0]:
        os._exit(0)  # whose tests these are is gone
    connection, _ = server.accept()
    if os.fork() == 0:
        break
    connection.close()
server.close()
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
asked = json.loads(connection.makefile().readline())
child = os.fork()
if child:
    connection.sendall(b"%12d" % child)
    connection.sendall(b"%12d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)
connection.close()
os.setsid()
for number, path in enumerate(asked["streams"]):
    fresh = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(fresh, number)
    os.close(fresh)
os.chdir(asked["cwd"])
os.environ.clear()
os.environ.update(asked["env"])
sys.stdout.reconfigure(line_buffering=os.isatty(1))
if asked["most_bytes"] is not None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (asked["most_bytes"], asked["most_bytes"]))
sys.argv = ["runner", *asked["argv"]]
exec(asked["program"], {"__name__": "__main__"})
"""


@dataclass(frozen=True)
class Order:
    """A start. program: Python that is run, by default the command line's; most_bytes: no file may grow beyond."""

    argv: tuple[str, ...]
    cwd: Path
    env: dict[str, str]
    stdin: Path | str = os.devnull
    out: Path | str = os.devnull
    err: Path | str = os.devnull
    program: str = "import runner.cli; runner.cli.main()"
    most_bytes: int | None = None

    def line(self) -> bytes:
        streams = [str(path) for path in (self.stdin, self.out, self.err)]
        more = {"argv": self.argv, "env": self.env, "cwd": str(self.cwd), "streams": streams}
        return json.dumps(more | {"program": self.program, "most_bytes": self.most_bytes}).encode() + b"\n"


@dataclass
class Child:
    """A process that was started."""

    pid: int
    _tells: socket.socket = field(repr=False)  #: its exit code, once it has ended
    returncode: int | None = None  #: negative for a signal

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        return self._ended(0)

    def wait(self, within_s: float) -> int:
        """The exit code. TimeoutError when it does not end."""
        if self._ended(within_s) is None:
            raise TimeoutError(f"process {self.pid} is still running")
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended since
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and its end."""
        self.send_signal(signal.SIGKILL)
        self.wait(60)

    def _ended(self, within_s: float) -> int | None:
        if self.returncode is None and select.select([self._tells], [], [], within_s)[0]:
            self.returncode = int(self._tells.recv(12))
            self._tells.close()
        return self.returncode


class Nursery:
    """The process that forks. It ends with this one."""

    def __init__(self) -> None:
        self._address = f"{mkdtemp()}/nursery"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(self._address)
            server.listen(64)
            os.set_inheritable(server.fileno(), True)
            words = [sys.executable, "-c", _NURSERY, str(server.fileno())]
            settings: dict[str, Any] = {"env": environment(PYTHONIOENCODING="utf-8"), "pass_fds": [server.fileno()]}
            self._process = subprocess.Popen(words, stdin=subprocess.PIPE, **settings)
        atexit.register(self._process.communicate)

    def start(self, order: Order) -> Child:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(300)  # at first it imports all that there is
        connection.connect(self._address)
        connection.sendall(order.line())
        return Child(int(connection.recv(12, socket.MSG_WAITALL)), connection)


@cache
def nursery() -> Nursery:
    return Nursery()


def start(order: Order) -> Child:
    return nursery().start(order)


def environment(**more: str) -> dict[str, str]:
    """Ours, with the package that is tested, and without settings of the program or of a terminal."""
    others = {"COLUMNS", "LINES", "PYTHONDONTWRITEBYTECODE"}  # compiling the package anew costs each start 0.4 s
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNNER_") and name not in others}
    return kept | {"PYTHONPATH": str(SOURCE)} | more
