"""Which Arrow type fits every value of a JSONL column, and values as Arrow arrays of it.

Rule: a column has the narrowest of bool, int64, float64, string, list of one of these that loses nothing; any other
mixture is compact JSON text, so no row is ever refused for the type of another. Only null and a missing key are null.
Strategy: of each column the union of a few traits is kept, and one table turns traits into a type.
"""

from __future__ import annotations

import json
from array import array as packed
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntFlag
from itertools import accumulate, chain
from typing import Any

import orjson
import pyarrow as pa

from runner.sources.jsonl import LONE_SURROGATE

JSON_TEXT = {b"json": b"1"}
_FLUSH_ROWS, _FLUSH_BYTES = 1024, 1 << 22
_EXACT_IN_FLOAT = 1 << 53
_INT64 = 1 << 63


class Trait(IntFlag):
    NULL = 0
    BOOL = 1
    INT = 2  #: within ±2^53, where a float64 is exact
    WIDE = 4  #: an int64 that a float64 would round
    FLOAT = 8
    STRING = 16
    LIST = 32
    OTHER = 64  #: an object, an integer beyond int64


_BY_CLASS = {
    type(None): Trait.NULL,
    bool: Trait.BOOL,
    int: Trait.NULL,  # by its bounds
    float: Trait.FLOAT,
    str: Trait.STRING,
    list: Trait.LIST,
    dict: Trait.OTHER,
}

_SCALARS = {
    Trait.NULL: pa.string(),
    Trait.BOOL: pa.bool_(),
    Trait.INT: pa.int64(),
    Trait.WIDE: pa.int64(),
    Trait.INT | Trait.WIDE: pa.int64(),
    Trait.FLOAT: pa.float64(),
    Trait.INT | Trait.FLOAT: pa.float64(),
    Trait.STRING: pa.string(),
}


class Columns:
    """Gathers the traits of every column over all rows."""

    def __init__(self) -> None:
        self._own: dict[str, Trait] = {}
        self._inner: dict[str, Trait] = {}  #: of the elements of lists
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, row: dict[str, Any], size_bytes: int) -> None:
        self._rows.append(row)
        self._bytes += size_bytes
        if len(self._rows) == _FLUSH_ROWS or self._bytes > _FLUSH_BYTES:
            self._flush()

    def schema(self) -> Any:
        """A pa.Schema, columns in first-seen order."""
        self._flush()
        return pa.schema([_field(name, own, self._inner[name]) for name, own in self._own.items()])

    def _flush(self) -> None:
        alike: defaultdict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
        for row in self._rows:
            alike[tuple(row)].append(row)
        for names, rows in alike.items():
            # rows of the same keys are turned into columns at once: a third of the time of a loop over their values
            for name, values in zip(names, zip(*map(dict.values, rows), strict=True), strict=True):
                self._gather(name, values)
        self._rows = []
        self._bytes = 0

    def _gather(self, name: str, values: Sequence[Any]) -> None:
        own = traits(values)
        lists = [value for value in values if type(value) is list] if own & Trait.LIST else []
        inner = traits(list(chain.from_iterable(lists)))
        self._own[name] = self._own.get(name, Trait.NULL) | own
        self._inner[name] = self._inner.get(name, Trait.NULL) | inner


def traits(values: Sequence[Any]) -> Trait:
    """The union over all values."""
    classes = set(map(type, values))
    found = Trait.NULL
    for kind in classes:
        found |= _BY_CLASS[kind]
    if int in classes:
        found |= _traits_of_ints([value for value in values if type(value) is int])
    return found


def _traits_of_ints(values: Sequence[int]) -> Trait:
    low, high = min(values), max(values)
    if low >= -_EXACT_IN_FLOAT and high <= _EXACT_IN_FLOAT:
        return Trait.INT
    return Trait.WIDE if low >= -_INT64 and high < _INT64 else Trait.OTHER


def _field(name: str, own: Trait, inner: Trait) -> Any:
    if own == Trait.LIST and inner in _SCALARS:
        return pa.field(name, pa.list_(_SCALARS[inner]))
    if own in _SCALARS:
        return pa.field(name, _SCALARS[own])
    return pa.field(name, pa.string(), metadata=JSON_TEXT)


def is_json_text(field: Any) -> bool:
    return bool(field.metadata) and field.metadata.get(b"json") == b"1"


def array(values: Sequence[Any], field: Any) -> Any:
    """A pa.Array of the field's type, lone surrogates as U+FFFD. Raises pa.ArrowException if one does not fit."""
    if is_json_text(field):
        values = [None if value is None else json_text(value) for value in values]
    try:
        return _quickly(values, field.type) or pa.array(values, field.type)
    except UnicodeEncodeError:
        clean = [_scrubbed(value) for value in values]
    return pa.array(clean, field.type)


def _quickly(values: Sequence[Any], kind: Any) -> Any:
    """Texts, or whole numbers, without a null among them; None: leave it to pa.array, which imports pandas, 0.3 s in
    the midst of a run that may take ten."""
    build = _BUILDERS.get(kind)
    if build is None or set(map(type, values)) != {build[0]}:
        return None
    with suppress(OverflowError):
        return pa.Array.from_buffers(kind, len(values), [None, *map(pa.py_buffer, build[1](values))])


def _numbers(values: Sequence[int]) -> list[Any]:
    return [packed("q", values)]


def _texts(values: Sequence[str]) -> list[Any]:
    texts = [value.encode() for value in values]
    return [packed("i", accumulate(map(len, texts), initial=0)), b"".join(texts)]


#: Arrow type -> the class of its values, and what makes its buffers behind the one of nulls.
_BUILDERS: dict[Any, tuple[type, Callable[[Sequence[Any]], list[Any]]]] = {
    pa.int64(): (int, _numbers),
    pa.string(): (str, _texts),
}


def without_columns(rows: int) -> Any:
    """A pa.Table of rows alone. Only a struct without fields carries their number; slicing such a table loses it."""
    return pa.Table.from_batches([pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))])


def json_text(value: Any) -> str:
    """Compact JSON of any parsed value, a string with its quotes; lone surrogates become U+FFFD."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a lone surrogate, an integer beyond 64 bit
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return LONE_SURROGATE.sub("\ufffd", text)


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return LONE_SURROGATE.sub("\ufffd", value)
    return [_scrubbed(item) for item in value] if isinstance(value, list) else value
