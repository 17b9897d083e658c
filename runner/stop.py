"""The one way to leave early: set once with a reason, seen by feeder, engine and sleepers."""

from __future__ import annotations

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
