"""The gate of a lane: closed by what says wait, for as long as it says.

Rule: one storm is one closing. Requests that left before the last closing are the same storm; they may lengthen the
wait by the server's own hint, never by lots of ours.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The gate's first wait without a hint, doubled at each closing in turn; CometAPI's pages advise 1 s · 2^k.
FIRST_WAIT_S = 0.5


@dataclass(slots=True)
class Gate:
    """Closed until a moment; while probing it lets one request through at a time, until one succeeds."""

    closed_until: float = 0.0
    closed_at: float = float("-inf")
    closed_before: float = float("-inf")  #: the closing before the last
    closings: int = 0  #: in a row, without an answer to a request that left between two of them
    probing: bool = False

    def open_in(self, now: float) -> float:
        return max(0.0, self.closed_until - now)

    def is_fresh(self, sent_at: float) -> bool:
        """Whether a request that left then says something new: it left after the last closing."""
        return sent_at >= self.closed_at

    def close(self, now: float, wait_s: float, sent_at: float) -> bool:
        """Close for `wait_s`. False when the failed request left before the last closing: the same storm, already
        answered; it may only lengthen the wait."""
        fresh = self.is_fresh(sent_at)
        self.closed_until = max(self.closed_until, now + wait_s)
        if fresh:
            self.closed_before, self.closed_at = self.closed_at, now
            self.closings += 1
        return fresh

    def success(self, sent_at: float) -> None:
        """An answer. To a request that left after the last closing: the endpoint takes requests again. To one that left
        between the last two: it took some then, so these two are not a row."""
        if self.is_fresh(sent_at):
            self.closings = 0
            self.probing = False
        elif sent_at >= self.closed_before:
            self.closings = min(self.closings, 1)


def wait_of(
    hint_s: float | None, closings: int, max_backoff_s: float, luck: float, first_s: float = FIRST_WAIT_S
) -> float:
    """Seconds to close a gate: the server's hint with a little jitter on top, else full jitter on first_s, doubled with
    each closing in a row."""
    if hint_s is not None:
        return hint_s + 0.05 * luck * max(first_s, hint_s)
    ceiling: float = min(max_backoff_s, first_s * 2.0 ** min(closings, 30))
    return max(min(first_s, 0.05), ceiling * luck)
