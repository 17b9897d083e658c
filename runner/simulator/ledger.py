"""What the simulator remembers for those who check on it: counters, and a log with one JSON line per event.

Rule: a line is in the file when `write` returns, so that a checker may kill anything at any time and still count.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

import orjson

from runner.errors import UsageError


class Log:
    """One JSON line per event, in the file when `write` returns."""

    def __init__(self, path: str | None) -> None:
        self._file = _opened(path) if path else None

    def write(self, **event: Any) -> None:
        if self._file is not None:
            os.write(self._file, orjson.dumps(event | {"t": time.time()}) + b"\n")


@dataclass(slots=True)
class Stats:
    requests: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    answers: dict[str, int] = field(default_factory=dict)  #: by status, faults of the wire by their name
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def answered(self, how: str) -> None:
        self.answers[how] = self.answers.get(how, 0) + 1

    def arrive(self) -> int:
        self.requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        return self.requests

    def leave(self) -> None:
        self.in_flight -= 1


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise UsageError(f"cannot write the request log {path}: {error.strerror}") from error
