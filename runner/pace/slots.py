"""Room over all lanes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Slots:
    """`most` requests on the wire, and at most `most` answers that are not durable yet.

    The second bound makes a promise arithmetic: what a kill can cause to be sent again is what is on the wire plus what
    has come back and is not on disk, never more than twice the concurrency.
    """

    most: int
    in_flight: int = 0
    undurable: int = 0

    @property
    def free(self) -> bool:
        return self.in_flight < self.most and self.in_flight + self.undurable < 2 * self.most
