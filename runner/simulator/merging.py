"""JSON Schemas made flat: references followed, `allOf` merged.

Rule: merging keeps what both demand (the higher minimum, the shared enum members); pure, and no schema is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any
from urllib.parse import unquote

STEPS = 32  #: references followed in a row; a schema that is only a reference to itself ends here

Schema = Mapping[str, Any]


def resolved(schema: Any, root: Any) -> Schema:
    """`schema` with its own `$ref` and `allOf` merged in; `true` and anything that is no schema demand nothing."""
    flat: Schema = schema if isinstance(schema, Mapping) else {}
    for _ in range(STEPS):
        if isinstance(flat.get("$ref"), str):
            flat = merged(_pointed(flat["$ref"], root), _without(flat, "$ref"))
        elif isinstance(flat.get("allOf"), list):
            flat = reduce(merged, flat["allOf"], _without(flat, "allOf"))
        else:
            return flat
    return {}


def merged(one: Any, other: Any) -> Schema:
    """The schema that demands what both demand."""
    flat = dict(one) if isinstance(one, Mapping) else {}
    for key, value in other.items() if isinstance(other, Mapping) else ():
        flat[key] = _JOINS.get(key, _later)(flat[key], value) if key in flat else value
    return flat


def _without(schema: Schema, key: str) -> Schema:
    return {name: value for name, value in schema.items() if name != key}


def _pointed(reference: str, root: Any) -> Any:
    """What a local JSON pointer (`#/$defs/address`) leads to; `{}` when it leads nowhere."""
    place = root
    for step in unquote(reference).removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        place = place.get(name, {}) if isinstance(place, Mapping) else _at(place, name)
    return place


def _at(place: Any, step: str) -> Any:
    return place[int(step)] if isinstance(place, list) and step.isdigit() and int(step) < len(place) else {}


def _later(_: Any, value: Any) -> Any:
    return value


def _properties(one: Schema, other: Schema) -> Schema:
    return {**one, **{name: merged(one[name], value) if name in one else value for name, value in other.items()}}


def _required(one: list[str], other: list[str]) -> list[str]:
    return [*one, *(name for name in other if name not in one)]


def _shared(one: list[Any], other: list[Any]) -> list[Any]:
    return [value for value in one if value in other]


def _types(one: str | list[str], other: str | list[str]) -> str | list[str]:
    left, right = ([kinds] if isinstance(kinds, str) else kinds for kinds in (one, other))
    if "number" in left and "integer" in right:
        left = [*left, "integer"]
    return _shared(left, right) or other


def _joined(one: list[Any], other: list[Any]) -> list[Any]:
    return [*one, *other]


_JOINS: dict[str, Callable[[Any, Any], Any]] = {
    "properties": _properties,
    "required": _required,
    "enum": _shared,
    "type": _types,
    "items": merged,
    "allOf": _joined,
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}
