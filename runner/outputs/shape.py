"""What a JSON value looks like as a column: an Arrow type, and how any value is made to fit it.

Rule: fitting is total. Whatever JSON a model answers with becomes a value that orjson writes and pyarrow's read_json
takes for the type; what cannot is null, never an error. (read_json refuses 3.0 and more than 64 bits for int64,
1e400, a number where a boolean or a string is due.)

Strategy: a tree of shapes, one node a value. The Arrow type alone does not say whether a string column holds text or
JSON, so the tree is compiled from the schema (schema.py), and only `fit` for outsiders starts from the type.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa

from runner.wire.jsonbody import integer, utf8


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """Equal only to itself: the four scalars and JSON are single objects."""

    arrow_type: Any  #: pa.DataType
    fit: Callable[[Any], Any]


def fit(value: Any, arrow_type: Any) -> Any:
    """`value` for a column of `arrow_type`: string, int64, float64, bool, and lists and structs of these.

    A string column takes text as it is and anything else as compact JSON. Types beside these hold only null.
    """
    return _shape_of(arrow_type).fit(value)


def list_of(item: Shape) -> Shape:
    def fit_list(value: Any) -> list[Any] | None:
        return [item.fit(element) for element in value] if isinstance(value, list | tuple) else None

    return Shape(pa.list_(item.arrow_type), fit_list)


def struct_of(fields: Mapping[str, Shape]) -> Shape:
    """Fields in the given order, all nullable; members that are no field are left out."""
    fitters = [(name, shape.fit) for name, shape in fields.items()]

    def fit_struct(value: Any) -> dict[str, Any] | None:
        if not isinstance(value, Mapping):
            return None
        return {name: fitter(value.get(name)) for name, fitter in fitters}

    return Shape(pa.struct([pa.field(name, shape.arrow_type) for name, shape in fields.items()]), fit_struct)


def compact_json(value: Any) -> str | None:
    """`value` as compact JSON text in valid Unicode, null for what JSON has no number for; None for null itself.

    Integers stay exact. Nested beyond Python's own limit: None.
    """
    if value is None:
        return None
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return _compact_json_patiently(value)


def clean(value: Any) -> Any:
    """A copy without lone surrogates. Raises RecursionError."""
    if isinstance(value, str):
        return utf8(value)
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, Mapping):
        return {utf8(str(key)): clean(item) for key, item in value.items()}
    return value


def _compact_json_patiently(value: Any) -> str | None:
    try:
        return json.dumps(_finite(clean(value)), ensure_ascii=False, separators=(",", ":"))
    except (RecursionError, TypeError, ValueError):
        return None


def _finite(value: Any) -> Any:
    if isinstance(value, float | Decimal):
        return _number(value)
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value


def _text(value: Any) -> str | None:
    return utf8(value) if isinstance(value, str) else None


def _text_or_json(value: Any) -> str | None:
    return utf8(value) if isinstance(value, str) else compact_json(value)


def _integer(value: Any) -> int | None:
    return integer(value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        number = float(value)
    except OverflowError:  # an int beyond 1.8e308
        return None
    return number if math.isfinite(number) else None


def _boolean(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _null(_: Any) -> None:
    return None


TEXT = Shape(pa.string(), _text)
INTEGER = Shape(pa.int64(), _integer)
NUMBER = Shape(pa.float64(), _number)
BOOLEAN = Shape(pa.bool_(), _boolean)
JSON = Shape(pa.string(), compact_json)

_TEXT_OR_JSON = Shape(pa.string(), _text_or_json)
_SCALARS = {pa.string(): _TEXT_OR_JSON, pa.int64(): INTEGER, pa.float64(): NUMBER, pa.bool_(): BOOLEAN}


def _shape_of(arrow_type: Any) -> Shape:
    if pa.types.is_struct(arrow_type):
        return struct_of({field.name: _shape_of(field.type) for field in arrow_type})
    if pa.types.is_list(arrow_type):
        return list_of(_shape_of(arrow_type.value_type))
    return _SCALARS.get(arrow_type) or Shape(arrow_type, _null)
