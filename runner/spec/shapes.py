"""What the request's own values may look like: a little language of shapes.

Rule: values are judged, never converted; they reach the wire as they were written. Wherever a value may stand, a text
that holds a template may stand too: its value is only known for a row. What comes out of data is judged by the
`literal` of a shape, where every text is text. Strategy: every shape yields its mistakes as (path, sentence), and
describes itself as JSON Schema for editors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, runtime_checkable

from runner.spec.positions import Path
from runner.spec.words import choice, must_be, one_of, unknown

Found = Iterator[tuple[Path, str]]
Schema = dict[str, Any]
TEMPLATE: Schema = {"type": "string", "pattern": r"\{\{|\{%"}
FILE: Schema = {"type": "object", "properties": {"file": {"type": "string"}}, "required": ["file"]}


def is_template(value: Any) -> bool:
    return isinstance(value, str) and ("{{" in value or "{%" in value)


@runtime_checkable
class Shape(Protocol):
    def check(self, value: Any, path: Path) -> Found: ...
    def schema(self) -> Schema: ...


def judge(shape: Shape, value: Any, path: Path, literal: bool = False) -> Found:
    """The mistakes of one value; a template has none yet."""
    if literal or not is_template(value):
        yield from shape.check(value, path)


def literal(shape: Shape) -> Shape:
    """The shape for values out of data: `{{` is text there, and a key that nobody knows is the data's own."""
    given: Any = shape  # a dataclass, as every shape is
    inner = {each.name: _literal_member(getattr(given, each.name)) for each in fields(given) if each.init}
    found: Shape = replace(given, **(inner | {"literal": True} if "literal" in inner else inner))
    return found


def _literal_member(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _literal_member(below) for name, below in value.items()}
    return literal(value) if isinstance(value, Shape) else value


def describe(shape: Shape) -> Schema:
    plain = shape.schema()
    return plain if plain in ({}, {"type": "string"}) else {"anyOf": [plain, TEMPLATE]}


@dataclass(frozen=True, slots=True)
class Anything:
    def check(self, value: Any, path: Path) -> Found:
        yield from ()

    def schema(self) -> Schema:
        return {}


@dataclass(frozen=True, slots=True)
class Text:
    """Text of at least `low` and at most `high` characters, or of one `form`, which `like` says in words."""

    low: int = 0
    high: int | None = None
    form: str | None = None
    like: str = ""

    def check(self, value: Any, path: Path) -> Found:
        if not isinstance(value, str):
            yield path, must_be("text", value)
        elif len(value) < self.low:
            yield path, "must not be empty"
        elif self.high is not None and len(value) > self.high:
            yield path, f"must be at most {self.high} characters long"
        elif self.form is not None and not re.fullmatch(self.form, value):
            yield path, f"must be {self.like}"

    def schema(self) -> Schema:
        size: Schema = {"minLength": self.low} if self.low else {}
        size |= {"maxLength": self.high} if self.high is not None else {}
        return {"type": "string", **size, **({"pattern": f"^(?:{self.form})$"} if self.form else {})}


@dataclass(frozen=True, slots=True)
class Prompt(Text):
    """Text that the file may also keep elsewhere: {file: path}, replaced before it is judged."""

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "string"}, FILE]}


@dataclass(frozen=True, slots=True)
class Number:
    low: float | None = None
    high: float | None = None
    whole: bool = False

    def check(self, value: Any, path: Path) -> Found:
        fits = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        if not fits:
            sort = "a whole number" if self.whole else "a number"
            yield path, f"must be {sort}" if isinstance(value, float) else must_be(sort, value)
        elif self.low is not None and self.high is not None and not self.low <= value <= self.high:
            yield path, f"must be from {self.low} to {self.high}"
        elif self.low is not None and value < self.low:
            yield path, f"must be at least {self.low}"

    def schema(self) -> Schema:
        bounds = {"minimum": self.low, "maximum": self.high}
        kept = {name: bound for name, bound in bounds.items() if bound is not None}
        return {"type": "integer" if self.whole else "number", **kept}


@dataclass(frozen=True, slots=True)
class Flag:
    def check(self, value: Any, path: Path) -> Found:
        if not isinstance(value, bool):
            yield path, must_be("true or false", value)

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class OneOf:
    words: tuple[str, ...]

    def check(self, value: Any, path: Path) -> Found:
        if value not in self.words:
            yield path, choice(value, self.words)

    def schema(self) -> Schema:
        return {"enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Items:
    """A list of `low` to `high` values of one shape."""

    of: Shape
    low: int = 1
    high: int | None = None
    literal: bool = False

    def check(self, value: Any, path: Path) -> Found:
        if not isinstance(value, list):
            yield path, must_be("a list", value)
            return
        if len(value) < self.low:
            yield path, "must not be empty"
        if self.high is not None and len(value) > self.high:
            yield path, f"must hold at most {self.high}"
        for index, item in enumerate(value):
            yield from judge(self.of, item, (*path, index), self.literal)

    def schema(self) -> Schema:
        top = {"maxItems": self.high} if self.high is not None else {}
        return {"type": "array", "items": describe(self.of), "minItems": self.low, **top}


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping from free keys to values of one shape; `key` is a pattern, `like` says it in words."""

    of: Shape
    key: str = r"(?s).*"
    like: str = ""
    high: int | None = None
    literal: bool = False

    def check(self, value: Any, path: Path) -> Found:
        if not isinstance(value, dict):
            yield path, must_be("a mapping", value)
            return
        if self.high is not None and len(value) > self.high:
            yield path, f"must hold at most {self.high} pairs"
        for name, item in value.items():
            if not re.fullmatch(self.key, name):
                yield (*path, name), f"this key must be {self.like}"
            yield from judge(self.of, item, (*path, name), self.literal)

    def schema(self) -> Schema:
        top = {"maxProperties": self.high} if self.high is not None else {}
        return {"type": "object", "additionalProperties": describe(self.of), **top}


def _fine(_: Mapping[str, Any]) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping of known keys. Optional ones may be null; `rule` sees the whole and may object."""

    required: Mapping[str, Shape] = field(default_factory=dict)
    optional: Mapping[str, Shape] = field(default_factory=dict)
    rule: Callable[[Mapping[str, Any]], str | None] = _fine
    literal: bool = False
    _known: Mapping[str, Shape] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_known", {**self.required, **self.optional})

    def check(self, value: Any, path: Path) -> Found:
        if not isinstance(value, dict):
            yield path, must_be("a mapping", value)
            return
        known = self._known
        for name in self.required:
            if name not in value:
                yield (*path, name), "is required"
        for name, item in value.items():
            if name not in known:
                if not self.literal:
                    yield (*path, name), unknown(name, known)
            elif item is not None or name in self.required:
                yield from judge(known[name], item, (*path, name), self.literal)
        if objection := self.rule(value):
            yield path, objection

    def schema(self) -> Schema:
        needed = {name: describe(shape) for name, shape in self.required.items()}
        free = {name: {"anyOf": [describe(shape), {"type": "null"}]} for name, shape in self.optional.items()}
        asked: Schema = {"required": list(needed)} if needed else {}
        return {"type": "object", "properties": {**needed, **free}, "additionalProperties": False, **asked}


@dataclass(frozen=True, slots=True)
class Tagged:
    """A mapping whose `key` says which of several shapes it has."""

    key: str
    of: Mapping[str, Fields]
    literal: bool = False

    def check(self, value: Any, path: Path) -> Found:
        if not isinstance(value, dict):
            yield path, must_be("a mapping", value)
        elif self.key not in value:
            yield (*path, self.key), f"is required: {one_of(self.of)}"
        elif not self.literal and is_template(value[self.key]):
            return
        elif not isinstance(tag := value[self.key], str) or tag not in self.of:
            yield (*path, self.key), choice(tag, self.of)
        else:
            yield from self.of[tag].check(value, path)

    def schema(self) -> Schema:
        return {"anyOf": [shape.schema() for shape in self.of.values()]}


@dataclass(frozen=True, slots=True)
class BySort:
    """One shape for text, another for lists, another for mappings; `like` says what is possible in words."""

    like: str
    text: Shape | None = None
    items: Shape | None = None
    fields: Shape | None = None

    def check(self, value: Any, path: Path) -> Found:
        shapes: dict[type, Shape | None] = {str: self.text, list: self.items, dict: self.fields}
        shape = shapes.get(type(value))
        if shape is None:
            yield path, must_be(self.like, value)
        else:
            yield from shape.check(value, path)

    def schema(self) -> Schema:
        return {"anyOf": [describe(shape) for shape in (self.text, self.items, self.fields) if shape is not None]}
