"""The one way to leave early: set once with a reason, seen by feeder, engine and sleepers."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import anyio

from runner.errors import RunnerError


class Stop:
    """First: set, and everything in flight finishes. Second: abandon, and nothing is waited for any more."""

    def __init__(self) -> None:
        self._set = anyio.Event()
        self._abandoned = anyio.Event()
        self.reason: RunnerError | None = None  #: None with a signal
        self.signal: int | None = None

    @property
    def is_set(self) -> bool:
        return self._set.is_set()

    def set(self, reason: RunnerError | None = None, *, signal: int | None = None) -> None:
        """The first reason stays: what comes after it is mostly its echo."""
        if not self.is_set:
            self.reason, self.signal = reason, signal
            self._set.set()

    def abandon(self) -> None:
        self.set()
        self._abandoned.set()

    async def wait(self) -> None:
        await self._set.wait()

    async def wait_abandoned(self) -> None:
        await self._abandoned.wait()

    async def sleep(self, seconds: float) -> None:
        """Sleep, but no longer than until the stop."""
        with anyio.move_on_after(seconds):
            await self._set.wait()


class Leash:
    """A run's stop in the hands of another thread, or of a signal handler there: pull once to drain, twice to leave.

    Rule: no locks, since a handler may interrupt a pull; a pull before the run has a loop is not lost.
    """

    def __init__(self) -> None:
        self.pulls = 0
        self.signal: int | None = None  #: of the first pull
        self._wake: Callable[[], object] | None = None

    def pull(self, number: int = signal.SIGINT) -> None:
        self.signal = self.signal or number
        self.pulls += 1
        wake = self._wake
        if wake is not None:
            with suppress(RuntimeError):  # the loop has just closed: there is nothing left to stop
                wake()

    def check(self) -> None:
        """Before there is a loop a run is left as a process is left by Ctrl-C. Raises KeyboardInterrupt."""
        if self.pulls:
            raise KeyboardInterrupt

    @contextmanager
    def tied(self, obey: Callable[[int | None], None], soon: Callable[[Callable[[], None]], object]) -> Iterator[None]:
        """While open, each pull becomes one `obey(signal)` in the loop; `soon`: its call_soon_threadsafe."""
        heard = 0

        def heed() -> None:
            nonlocal heard
            while heard < self.pulls:
                heard += 1
                obey(self.signal)

        self._wake = lambda: soon(heed)
        heed()
        try:
            yield
        finally:
            self._wake = None
