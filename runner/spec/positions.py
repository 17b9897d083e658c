"""Where each key of a job file stands.

Rule: a value never travels without the place it came from, until every mistake has been said. A `Node` is one value of
the file with its place; a path of keys and indices finds the nearest place even when the key itself is absent, which is
where a missing key is reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Part = str | int
Path = tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """`jobs/x.yaml:12`, or the override that set a value. Sorts in file order, overrides last."""

    order: int
    text: str

    @classmethod
    def line(cls, name: str, number: int) -> Place:
        return cls(number, f"{name}:{number}")

    @classmethod
    def override(cls, dotted: str) -> Place:
        # The value is not repeated: it may be the very secret that is being refused.
        return cls(1 << 62, f"--set {dotted}=…")

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing to mend: `place: dotted.path: sentence`. An empty path is the file itself."""

    place: Place
    path: Path
    sentence: str

    def __str__(self) -> str:
        line = ": ".join(filter(None, (str(self.place), dotted(self.path), self.sentence)))
        # A key may hold line breaks, and every mistake is one line.
        return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place: a mapping of nodes, a list of nodes, a scalar, or (`whole`) what a file held."""

    place: Place
    value: Any
    whole: bool = False

    def child(self, part: Part) -> Node | None:
        if self.whole:
            return None
        if isinstance(self.value, dict):
            return self.value.get(part)
        if isinstance(self.value, list) and isinstance(part, int) and 0 <= part < len(self.value):
            return self.value[part]  # type: ignore[no-any-return]  # the value of a list node is a list of nodes
        return None

    def nearest(self, path: Sequence[Part]) -> tuple[Place, Path]:
        """The place of `path`, or of its nearest known parent; and `path` without indices the file does not have.

        A validator counts the items of a list that the file wrote as one text (`input.path`); people do not.
        """
        node, place, found = self, self.place, list[Part]()
        for part in path:
            below = node.child(part)
            if below is not None or isinstance(part, str):
                found.append(part)
            # Once lost, stay lost: a child of the wrong parent may well have the name of the next step.
            node = below or Node(place, None)
            place = node.place
        return place, tuple(found)

    def placed(self, path: Path, value: Node) -> Node:
        """This tree with `value` at `path`, whose parents exist."""
        if not path:
            return value
        head, *rest = path
        below = self.child(head)
        changed = below.placed(tuple(rest), value) if below is not None else value
        items: Any = dict(self.value) if isinstance(self.value, dict) else list(self.value)
        items[head] = changed
        return replace(self, value=items)

    def plain(self) -> Any:
        """The value without places."""
        if self.whole:
            return self.value
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


class Places:
    """The places of a job, by dotted path. Two jobs are equal wherever they were written, so all of these are equal."""

    def __init__(self, tree: Node | None = None) -> None:
        self._tree = tree

    def where(self, path: str) -> str:
        return path if self._tree is None else str(_node(self._tree, path).place)

    def order(self, path: str) -> int:
        return 0 if self._tree is None else _node(self._tree, path).place.order

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Places)

    def __hash__(self) -> int:
        return 0


def _node(tree: Node, path: str) -> Node:
    """Of a dotted path, or of its nearest known parent."""
    node, rest = tree, path
    while rest:
        part, rest = next(splits(node, rest))
        below = node.child(part)
        if below is None:
            break
        node = below
    return node


def splits(node: Node, path: str) -> Iterator[tuple[Part, str]]:
    """The ways to take one step from `node` along a dotted path, best first: (step, what remains).

    Keys may hold dots themselves (`pricing.gpt-4.1-mini.input`), so the longest key that the file has wins.
    """
    if isinstance(node.value, Mapping) and not node.whole:
        known = [key for key in node.value if path == key or path.startswith(f"{key}.")]
        for key in sorted(known, key=len, reverse=True):
            yield key, path[len(key) + 1 :]
    head, _, rest = path.partition(".")
    index = isinstance(node.value, list) and head.isascii() and head.isdigit() and len(head) < 10
    yield (int(head) if index else head), rest


def halved(text: str) -> bool:
    """Whether a text holds half a character (a lone surrogate), which no UTF-8 file or request can."""
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)


def paired(text: str) -> str:
    r"""Two halves that follow each other made the one character they stand for: JSON writes an emoji "\ud83d\ude00"."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass") if halved(text) else text


def dotted(path: Sequence[Part]) -> str:
    return ".".join(map(str, path))


def find(value: Any, pattern: str) -> Iterator[tuple[Path, Any]]:
    """Every (path, value) of a plain tree that a dotted pattern matches; `*` is any key or index."""
    found: list[tuple[Path, Any]] = [((), value)]
    for step in pattern.split("."):
        found = [((*path, part), below) for path, here in found for part, below in _below(here, step)]
    yield from found


def _below(value: Any, step: str) -> list[tuple[Part, Any]]:
    if isinstance(value, Mapping):
        return [(key, item) for key, item in value.items() if step in ("*", key)]
    return list(enumerate(value)) if isinstance(value, list) and step == "*" else []
