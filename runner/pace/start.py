"""The first requests of a lane: a pool opens within a quarter of a second, not in an instant.

Rule: a large pool that is far beyond the limit must not be refused as a whole before the first refusal can be heard.
FIRST requests leave at once; from there what has left may double every DOUBLED_S, whatever has come back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FIRST = 64
#: About a round trip of a refusal: a thousand in flight are reached after four.
DOUBLED_S = 0.05
#: By then tens of thousands might have left: no pool is larger.
OVER_S = 0.5


@dataclass(slots=True)
class Start:
    """Of one process's requests to a lane."""

    since: float | None = None
    left: int = 0
    over: bool = False

    def ready_in(self, now: float) -> float:
        """Seconds until one more may leave."""
        if self.over or self.left < FIRST or self.since is None:
            return 0.0
        return max(0.0, self.since + DOUBLED_S * math.log2((self.left + 1) / FIRST) - now)

    def take(self, now: float) -> None:
        if not self.over:
            self.since = now if self.since is None else self.since
            self.left += 1
            self.over = now - self.since >= OVER_S
