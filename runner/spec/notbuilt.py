"""What a job file may ask for one day, and cannot yet.

Rule: a key or a value whose machinery does not exist is refused in words, never ignored. To build one of these is to
delete its line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from runner.spec.positions import Path, find


def _given(value: Any) -> bool:
    return value is not None


def _is(*words: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in words


def _many(value: Any) -> bool:
    return isinstance(value, list | dict)


MATRIX = "several models in one job are not built yet; write one job for each"

#: (where, when, sentence)
NOT_BUILT: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("matrix", _given, MATRIX),
    ("request.model", _many, MATRIX),
    ("engine", _is("batch", "ray"), "only the local engine is built yet; write local"),
)


def mistakes(job: Any) -> Iterator[tuple[Path, str]]:
    """What of a plain job tree is not built, as (path, sentence)."""
    for pattern, applies, sentence in NOT_BUILT:
        for path, value in find(job, pattern):
            if applies(value):
                yield path, sentence
