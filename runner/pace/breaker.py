"""A lane most of whose requests fail is probed instead of fed: rows must not burn their attempts on a broken endpoint.

Rule: more than half of the last hundred charged exchanges failed -> one request at a time, until one is answered.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

LAST = 100


@dataclass(slots=True)
class Breaker:
    """`open`: the lane is probed, and what a probe's failure says is not about its row."""

    open: bool = False
    last: deque[bool] = field(default_factory=lambda: deque(maxlen=LAST))
    failures: int = 0

    def see(self, *, failed: bool) -> None:
        """One exchange that was charged, or answered."""
        if not failed and self.open:
            self.open, self.failures = False, 0
            self.last.clear()
        if len(self.last) == LAST:
            self.failures -= self.last[0]
        self.last.append(failed)
        self.failures += failed
        if self.failures > LAST // 2:
            self.open = True
