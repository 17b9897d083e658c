"""YAML text -> a tree of nodes, each with its place.

Rule: the YAML 1.2 core schema and nothing else. `no`, `on`, `2024-01-31` and `12:30` are text; keys are text; a key
written twice is a mistake; numbers are finite; there are no tags. Strategy: ruamel.yaml's events, not its values: the
events carry marks and leave the meaning of a plain scalar to the table below.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from runner.spec.positions import Mistake, Node, Path, Place, halved, paired

Event = Any  # ruamel's classes name their attributes in slots only, which no type checker sees
MAX_DEPTH = 60  #: JSON Schemas nest to about 20; Python's own stack ends near 300 of our levels
MAX_ALIASED = 100_000  #: nodes that aliases may stand for in all: ten lines of "billion laughs" stand for 10^9

#: YAML 1.2 core schema (section 10.3.2), in its order. Anything else plain is text.
CORE: tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...] = (
    (re.compile(r"null|Null|NULL|~|"), lambda _: None),
    (re.compile(r"true|True|TRUE"), lambda _: True),
    (re.compile(r"false|False|FALSE"), lambda _: False),
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"0o[0-7]+"), lambda text: int(text[2:], 8)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text[2:], 16)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), lambda _: math.nan),
)
MAX_DIGITS = 1000  #: Python refuses to read integers beyond 4,300 digits, and nobody means one


class NotYamlError(Exception):
    """The text cannot be read past this mistake."""

    def __init__(self, place: Place, sentence: str) -> None:
        super().__init__(sentence)
        self.mistake = Mistake(place, (), sentence)


def read(text: str, place: Callable[[int], Place]) -> tuple[Node, list[Mistake]]:
    """The tree of `text` and the mistakes met on the way; `place` names a line, counted from 1.

    An empty text is a node of None. Raises NotYamlError where nothing can be read past a mistake.
    """
    reader = _Reader(text, place)
    # OverflowError and ValueError: the scanner calls chr() on whatever "\UFFFFFFFF" says.
    try:
        return reader.document(), reader.mistakes
    except (YAMLError, OverflowError, ValueError) as error:
        line, problem = _problem(error, text)
        raise NotYamlError(place(line), f"not YAML: {problem}") from None


def _problem(error: Exception, text: str) -> tuple[int, str]:
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        return line, error.problem or error.context or "it cannot be read"
    position = getattr(error, "position", 0)
    character = getattr(error, "character", None)
    if character is not None:
        code = character if isinstance(character, int) else ord(character)
        return text.count("\n", 0, position) + 1, f"the character U+{code:04X} is not allowed"
    return 1, "an escape in a quoted text names no character"


class _Reader:
    def __init__(self, text: str, place: Callable[[int], Place]) -> None:
        self._events: Iterator[Event] = iter(YAML(typ="safe", pure=True).parse(text))
        self._place = place
        self._anchors: dict[str, Node | None] = {}  # None: the anchor's own value is still being read
        self._aliased = 0
        self.mistakes: list[Mistake] = []

    def document(self) -> Node:
        root: Node | None = None
        for event in self._events:
            if not isinstance(event, DocumentStartEvent):
                continue
            if root is not None:
                self._say(event, (), "a second document starts here; a job file holds one")
                break
            root = self._node(next(self._events), ())
        return root or Node(self._place(1), None)

    def _node(self, event: Event, path: Path) -> Node:
        if isinstance(event, AliasEvent):
            return self._alias(event, path)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        node = Node(self._at(event), self._value(event, path))
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _value(self, event: Event, path: Path) -> Any:
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            self._say(event, path, "a YAML tag (`!…`) has no meaning here")
        if len(path) > MAX_DEPTH:
            raise NotYamlError(self._at(event), f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(path)
        return self._scalar(event, path)

    def _sequence(self, path: Path) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            items.append(self._node(event, (*path, len(items))))
        return items

    def _mapping(self, path: Path) -> dict[str, Node]:
        items: dict[str, Node] = {}
        merged: list[Node] = []
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._key(event, path)
            node = replace(self._node(next(self._events), (*path, key)), place=self._at(event))
            if key == "<<" and event.style is None:
                merged += self._merge(node, path)
            elif key in items:
                self._say(event, (*path, key), f"written twice; first at {items[key].place}")
            else:
                items[key] = node
        for node in merged:
            items = {**node.value, **items}
        return items

    def _key(self, event: Event, path: Path) -> str:
        if isinstance(event, ScalarEvent):
            return self._text(event, path)
        if isinstance(event, AliasEvent):
            node = self._alias(event, path)
            if isinstance(node.value, str):
                return node.value
        else:
            self._node(event, path)
        self._say(event, path, "a key must be text; quote a text that starts with `{` or `[`")
        return "?"

    def _merge(self, node: Node, path: Path) -> list[Node]:
        """`<<: *anchor`, or a list of such: keys written beside it win, then the earlier in the list."""
        sources = node.value if isinstance(node.value, list) else [node]
        if all(isinstance(source.value, dict) for source in sources):
            return list(sources)
        self.mistakes.append(Mistake(node.place, (*path, "<<"), "only mappings can be merged in"))
        return []

    def _alias(self, event: Event, path: Path) -> Node:
        node = self._anchors.get(event.anchor, None)
        if node is None:
            problem = "stands for itself" if event.anchor in self._anchors else "was never defined with `&`"
            raise NotYamlError(self._at(event), f"this alias (`*…`) {problem}")
        self._aliased += _size(node)
        if self._aliased > MAX_ALIASED:
            raise NotYamlError(self._at(event), f"aliases stand for more than {MAX_ALIASED:,} values")
        return node

    def _scalar(self, event: Event, path: Path) -> Any:
        text = self._text(event, path)
        if event.style is not None or getattr(event, "tag", None) == "!":
            return text
        value = next((make for form, make in CORE if form.fullmatch(text)), None)
        if value is None:
            return text
        if len(text) > MAX_DIGITS or (isinstance(number := value(text), float) and not math.isfinite(number)):
            self._say(event, path, "must be a finite number")
            return None
        return number

    def _text(self, event: Event, path: Path) -> str:
        text = paired(event.value)
        if halved(text):
            self._say(event, path, "holds half a character (a lone surrogate escape)")
            return ""
        return text

    def _at(self, event: Event) -> Place:
        return self._place(event.start_mark.line + 1)

    def _say(self, event: Event, path: Path, sentence: str) -> None:
        self.mistakes.append(Mistake(self._at(event), path, sentence))


def _size(node: Node) -> int:
    if isinstance(node.value, dict):
        return 1 + sum(map(_size, node.value.values()))
    return 1 + sum(map(_size, node.value)) if isinstance(node.value, list) else 1
