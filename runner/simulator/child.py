"""The simulator as a child process of a run.

Rule: the child never sees a key and never outlives its parent. Its environment is a short list of harmless names; it
ends when the pipe on its stdin does, which the kernel closes however the parent dies. It has a session of its own, so a
Ctrl-C in the terminal reaches the parent alone, which can then drain.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from runner.errors import RunnerError
from runner.simulator.options import SimulatorOptions, words_of

START_S = 60.0  #: it takes half a second; a loaded machine may take long
STOP_S = 2.0
HARMLESS = frozenset({"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH"})
HARMLESS_PREFIXES = ("LC_", "PYTHON")
SECRETIVE = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")


class SimulatorError(RunnerError):
    """The simulator did not start."""


class Child:
    """A running simulator: `with Child(options) as child: … child.base_url`. Blocks about half a second.

    Raises SimulatorError when it does not come up; what it says on stderr is seen on the parent's.
    """

    base_url: str
    pid: int

    def __init__(self, options: SimulatorOptions) -> None:
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603  (our own interpreter and our own words)
            [sys.executable, "-P", "-m", "runner.simulator", "--with-parent", *words_of(self.options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=scrubbed(os.environ),
            start_new_session=True,
        )
        self.pid = self._process.pid
        try:
            self.base_url = _announced(self._process, START_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """What a child may know of the environment, and where this process finds its modules.

    The child's own search path is the parent's (`-P` keeps the working directory out of it), as multiprocessing does.
    """
    kept = {name: value for name, value in environ.items() if _harmless(name)}
    return kept | {"PYTHONPATH": os.pathsep.join(str(Path(place).absolute()) for place in sys.path)}


def _harmless(name: str) -> bool:
    known = name in HARMLESS or name.startswith(HARMLESS_PREFIXES)
    return known and not any(word in name.upper() for word in SECRETIVE)


def _announced(process: subprocess.Popen[bytes], timeout_s: float) -> str:
    """The base_url from the child's first line."""
    assert process.stdout is not None
    line = _line_within(process.stdout, timeout_s)
    if line is None:
        raise SimulatorError(f"the simulator did not start within {timeout_s:g} s")
    if not line:
        raise SimulatorError(f"the simulator ended {_with_status(process)}before it started")
    return str(json.loads(line)["base_url"])


def _with_status(process: subprocess.Popen[bytes]) -> str:
    """In words; nothing while it is still about to end: its output ends before it does."""
    with suppress(subprocess.TimeoutExpired):
        return f"with status {process.wait(START_S)} "
    return ""


def _line_within(pipe: IO[bytes], timeout_s: float) -> bytes | None:
    """One line, which the child writes in one piece; b"" when the pipe ends, None when it stays silent."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        return pipe.readline() if selector.select(timeout_s) else None
