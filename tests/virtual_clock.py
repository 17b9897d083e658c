"""An event loop whose hours pass in milliseconds.

Rule: `time()` is virtual. When nothing is ready, the clock jumps to the next timer instead of waiting for it; when
there is no timer either, nothing can ever happen again, and that is an error in a test rather than a hang.
Not for code that works in threads while timers run: the clock would jump past them.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

T = TypeVar("T")

#: Real seconds granted to threads and sockets when no timer is set: as long as a machine may stall.
IDLE_S = 60.0
#: What one turn of the loop takes: no clock stands still, and code that waits for the rest of a rounding must come out.
TURN_S = 1e-9


class JumpingSelector(selectors.DefaultSelector):
    """Waits for nothing: adds to its clock what it was told to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        self.now += TURN_S
        if ready or timeout == 0:
            return ready
        if timeout is None:
            ready = super().select(IDLE_S)
            assert ready, "every task waits for another: nothing can happen any more"
            return ready
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on a JumpingSelector; starts at 0.0 s."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return float(self._jumping.now)


def run_virtual(main: Callable[..., Awaitable[T]], *args: Any) -> T:
    """`anyio.run` on a VirtualLoop."""
    return anyio.run(main, *args, backend="asyncio", backend_options={"loop_factory": VirtualLoop})
