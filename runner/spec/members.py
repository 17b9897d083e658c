"""A job that is a dict of Python's own values -> the same tree as of a file, all of it at one place.

Rule: what a YAML file could hold, and nothing else: text, whole numbers, numbers, true, false, null, lists, mappings.
What means the same is taken for it: tuples, paths, decimals, the numbers of numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any

from runner.spec.positions import Mistake, Node, Path, Place, halved
from runner.spec.read import MAX_DEPTH


def plant(members: Mapping[str, Any], place: Place) -> tuple[Node, list[Mistake]]:
    """The tree of `members`, and what of it no job can hold."""
    planter = _Planter(place)
    return planter.node(members, ()), planter.mistakes


class _Planter:
    def __init__(self, place: Place) -> None:
        self._place = place
        self.mistakes: list[Mistake] = []

    def node(self, value: Any, path: Path) -> Node:
        return Node(self._place, self._value(value, path))

    def _value(self, value: Any, path: Path) -> Any:
        if len(path) > MAX_DEPTH:
            return self._refuse(path[:4], f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, Mapping):
            return {key: self.node(item, (*path, key)) for key, item in self._items(value, path).items()}
        if isinstance(value, list | tuple):
            return [self.node(item, (*path, number)) for number, item in enumerate(value)]
        return self._scalar(value, path)

    def _items(self, value: Mapping[Any, Any], path: Path) -> dict[str, Any]:
        """Keys are text, as in a file: there `1:` is the key "1"."""
        wrong = [key for key in value if isinstance(key, bool) or not isinstance(key, str | int)]
        if wrong:
            self._refuse(path, f"a key must be text, not {type(wrong[0]).__name__}")
        return {str(key): item for key, item in value.items()}

    def _scalar(self, value: Any, path: Path) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str | PurePath):
            text = str(value)
            return self._refuse(path, "holds half a character (a lone surrogate)") if halved(text) else text
        if isinstance(value, Integral):
            return int(value)
        if isinstance(value, Real | Decimal):
            number = float(value)
            return number if math.isfinite(number) else self._refuse(path, "must be a finite number")
        return self._refuse(path, f"must be a plain value (text, number, list, dict), not {type(value).__name__}")

    def _refuse(self, path: Path, sentence: str) -> None:
        self.mistakes.append(Mistake(self._place, path, sentence))
