"""Which members of an answer take one of a few values: those that the schema enumerates, and booleans.

Rule: only members that are columns of their own (`parsed.label`, `parsed.address.country`); what is inside lists, or is
JSON text in the results, is none. Strategy: the ways to say it that schema.py reads too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner.outputs.schema import MAX_DEPTH, find

Path = tuple[str, ...]
Choices = dict[Path, tuple[str, ...]]


def choices_in(schema: Any) -> Choices:
    """The values of each such member as text, null left out, in the schema's order; true and false for booleans."""
    return dict(_members(schema, schema, ()))


def _members(root: Any, schema: Any, path: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    plain = _resolved(root, schema)
    properties = plain.get("properties")
    values = plain.get("enum")
    if isinstance(properties, Mapping):
        if len(path) < MAX_DEPTH:
            for name, member in properties.items():
                yield from _members(root, member, (*path, str(name)))
    elif path and isinstance(values, list):
        yield path, tuple(_text(value) for value in values if value is not None)
    elif path and plain.get("type") in ("boolean", ["boolean", "null"], ["null", "boolean"]):
        yield path, ("true", "false")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _resolved(root: Any, schema: Any) -> Any:
    """The schema that stands behind references and unions with null; empty for what is none of these."""
    for _ in range(MAX_DEPTH):
        branch = _branch(root, schema) if isinstance(schema, Mapping) else {}
        if branch is schema:
            return branch
        schema = branch
    return {}


def _branch(root: Any, schema: Mapping[str, Any]) -> Any:
    if "$ref" in schema:
        return find(root, schema["$ref"]) if isinstance(schema["$ref"], str) else None
    for keyword in ("anyOf", "oneOf", "allOf"):
        branches = schema.get(keyword)
        if isinstance(branches, list):
            some = [branch for branch in branches if branch != {"type": "null"}]
            return some[0] if len(some) == 1 else None
    return schema
