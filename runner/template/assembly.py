"""The parts of a body, put together once for the job and filled for each row.

Rule: what is the same for every row is made once and shared by all of them; nobody may change it. Strategy: a part
that differs is a `Filled`; a mapping or list that holds one becomes one itself, and copies only its own level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: The values of all leaves, in their order, become a part of the body.
Build = Callable[[Sequence[Any]], Any]


@dataclass(frozen=True, slots=True)
class Filled:
    """A part of the body that differs from row to row."""

    build: Build


def mapping(parts: Mapping[str, Any]) -> Any:
    fills = [(key, part.build) for key, part in parts.items() if isinstance(part, Filled)]
    if not fills:
        return parts

    def build(values: Sequence[Any]) -> dict[str, Any]:
        copy = dict(parts)
        for key, fill in fills:
            copy[key] = fill(values)
        return copy

    return Filled(build)


def sequence(parts: list[Any]) -> Any:
    fills = [(number, part.build) for number, part in enumerate(parts) if isinstance(part, Filled)]
    if not fills:
        return parts

    def build(values: Sequence[Any]) -> list[Any]:
        copy = list(parts)
        for number, fill in fills:
            copy[number] = fill(values)
        return copy

    return Filled(build)


def joined(pieces: list[Any]) -> Any:
    """Lists, and what gives lists, as one list."""
    if not any(isinstance(piece, Filled) for piece in pieces):
        return [item for piece in pieces for item in piece]

    def build(values: Sequence[Any]) -> list[Any]:
        made: list[Any] = []
        for piece in pieces:
            made += piece.build(values) if isinstance(piece, Filled) else piece
        return made

    return Filled(build)
