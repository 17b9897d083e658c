"""Where a request stands in the row of those that left."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """Taken when a request leaves. requests, tokens: how much had been let in by then, itself included."""

    at: float = 0.0
    requests: int = 0
    tokens: int = 0
    ordinal: int = 0  #: of those that left, from 1
    in_flight: int = 0  #: itself included


#: Of a row that has sent nothing yet.
NOTHING_LEFT = Mark()
