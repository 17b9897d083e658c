"""What the program says to people: stderr only; stdout is for data.

Rule: one owner of the terminal. `-q` leaves errors, `--json` silences the talk, `-v` adds detail. Control characters
from data or servers never reach a terminal.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from runner.errors import JobError, RunnerError

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """`text` without what could move a terminal's cursor or colours."""
    return _CONTROL.sub(" ", text)


class Say:
    """The talk of one command, on stderr and, once there is one, in the run's log."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self.stream = stream or sys.stderr
        self.around: Callable[[], AbstractContextManager[object]] = nullcontext  #: a bar steps aside while we write
        self._log: Path | None = None

    def log_to(self, path: Path) -> None:
        """From now on everything that is said goes to this file too, with its time, silenced or not."""
        self._log = path

    def line(self, text: str = "") -> None:
        """Something worth knowing."""
        self.log(text)
        if not self.quiet:
            self._write(text)

    def log(self, text: str) -> None:
        """For the log alone. A log that cannot be written is no reason to stop a run."""
        if self._log is None:
            return
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with suppress(OSError):
            descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "a", encoding="utf-8", errors="replace") as file:
                file.write(f"{now} {plain(text)}\n")

    def detail(self, text: str) -> None:
        """Only with -v."""
        if self.verbose:
            self.line(text)

    def error(self, error: RunnerError) -> None:
        """`error: …`, and below a blank line `hint: …`. Never silenced."""
        self.log(f"error: {error.message}")
        if isinstance(error, JobError) and error.mistakes:
            for mistake in error.mistakes:
                self._write(f"error: {mistake}")
        else:
            self._write(f"error: {error.message}")
        if error.hint:
            self._write(f"\nhint: {error.hint}")

    def _write(self, text: str) -> None:
        # A closed stderr is no reason to lose a run.
        with suppress(OSError, ValueError), self.around():
            print(plain(text), file=self.stream, flush=True)

    @property
    def on_terminal(self) -> bool:
        with suppress(AttributeError, ValueError):
            return self.stream.isatty()
        return False


def dollars(amount: Any) -> str:
    """$12.34, $0.0123, $0.000042: two digits, or as many as show something."""
    value = float(amount)
    if value == 0:
        return "$0"
    if value >= 1:
        return f"${value:,.2f}"
    return f"${value:.4f}" if value >= 0.01 else f"${value:.2g}" if value >= 1e-4 else f"${value:.6f}"
