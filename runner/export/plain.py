"""Arrow arrays as plain Python values that JSON can hold.

    timestamp    2025-01-02T03:04:05.000006Z in UTC; without the Z when the column has no time zone
    date, time   ISO 8601
    decimal      text, every digit of it; a duration: text, seconds
    binary       base64 text
    map          a list of [key, value]
    all others   as they are

Rule: nothing is rounded; null is None, at every depth.
Strategy: one table from types to functions, column by column. pyarrow takes 5 µs to make one instant a Python object
and 0.4 µs to write it as text, and an exchange in `attempts` holds one.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

_IN_A_SECOND = {"s": 0, "ms": 3, "us": 6, "ns": 9}  #: powers of ten


def values(array: Any) -> list[Any]:
    """The values of a pa.Array, one for each slot."""
    found: list[Any] = next((make for fits, make in _RULES if fits(array.type)), _as_it_is)(array)
    return found


def is_nested(kind: Any) -> bool:
    """Whether values of this pa.DataType are lists or objects."""
    return bool(types.is_nested(kind))


def _as_it_is(array: Any) -> list[Any]:
    return list(array.to_pylist())


def _written(array: Any) -> list[Any]:
    return _as_it_is(array.cast(pa.string()))


def _instants(array: Any) -> list[Any]:
    text = pc.replace_substring(array.cast(pa.timestamp(array.type.unit)).cast(pa.string()), " ", "T")
    return _as_it_is(pc.binary_join_element_wise(text, "Z", "") if array.type.tz else text)


def _days(array: Any) -> list[Any]:
    return _written(array.cast(pa.date32()))


def _seconds(array: Any) -> list[Any]:
    places = -_IN_A_SECOND[array.type.unit]
    counts = _as_it_is(array.cast(pa.int64()))
    return [None if count is None else f"{Decimal(count).scaleb(places):f}" for count in counts]


def _base64(array: Any) -> list[Any]:
    return [None if data is None else base64.b64encode(data).decode() for data in array.to_pylist()]


def _decoded(array: Any) -> list[Any]:
    return values(array.dictionary_decode())


def _stored(array: Any) -> list[Any]:
    return values(array.storage)


def _structs(array: Any) -> list[Any]:
    names = [field.name for field in array.type]
    columns = [values(column) for column in array.flatten()]
    rows = zip(*columns, strict=True) if columns else ((),) * len(array)
    there = array.is_valid().to_pylist()
    return [dict(zip(names, row, strict=True)) if valid else None for valid, row in zip(there, rows, strict=True)]


def _lists(array: Any) -> list[Any]:
    items = values(array.flatten())
    found: list[Any] = []
    start = 0
    for length in pc.list_value_length(array).to_pylist():
        found.append(None if length is None else items[start : start + length])
        start += length or 0
    return found


def _pairs(array: Any) -> list[Any]:
    pair = pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])
    lists = _lists(array.cast(pa.list_(pair)))
    return [None if rows is None else [[row["key"], row["value"]] for row in rows] for rows in lists]


_RULES: tuple[tuple[Callable[[Any], bool], Callable[[Any], list[Any]]], ...] = (
    (types.is_timestamp, _instants),
    (types.is_struct, _structs),
    (types.is_map, _pairs),
    (lambda kind: types.is_list(kind) or types.is_large_list(kind), _lists),
    (types.is_fixed_size_list, lambda array: _lists(array.cast(pa.list_(array.type.value_type)))),
    (types.is_dictionary, _decoded),
    (types.is_date, _days),
    (types.is_time, _written),
    (types.is_duration, _seconds),
    (types.is_decimal, _written),
    (lambda kind: types.is_binary(kind) or types.is_large_binary(kind), _base64),
    (types.is_fixed_size_binary, _base64),
    (lambda kind: isinstance(kind, pa.BaseExtensionType), _stored),
)
