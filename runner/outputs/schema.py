"""A JSON Schema becomes the shape of the `parsed` column, before the first reply.

Rule: what a column of one Arrow type cannot hold without loss is a string of compact JSON: unions of several types,
maps, tuples, objects without properties, recursion, anything deeper or wider than the limits below.

Strategy: read only what tells the type (type, properties, items, enum, const, anyOf, oneOf, local $ref); the validator
(jsonschema_rs) reads the rest. What is not understood for sure is JSON text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from runner.outputs.shape import BOOLEAN, INTEGER, JSON, NUMBER, TEXT, Shape, list_of, struct_of

#: Parquet's readers stop at 100 levels, of which a list takes two.
MAX_DEPTH = 32

#: Definitions that use each other twice double with every level; a table with more columns helps nobody.
MAX_FIELDS = 2_000

_SCALARS = {"string": TEXT, "integer": INTEGER, "number": NUMBER, "boolean": BOOLEAN}

_PYTHON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number"}

#: Keywords that may stand beside $ref or anyOf without changing the type.
_REMARKS = {"title", "description", "$comment", "default", "example", "examples", "deprecated", "nullable"}
_REMARKS |= {"readOnly", "writeOnly", "$schema", "$id", "$defs", "definitions"}

#: Keywords that can give an object members beside its `properties`, or an array items beside its `items`.
_SHAPING = {"allOf", "anyOf", "oneOf", "if", "then", "else", "dependencies", "dependentSchemas", "patternProperties"}
_SHAPING |= {"prefixItems", "$ref", "$dynamicRef", "$recursiveRef"}

#: With a schema as their value these make a map of an object; as booleans they only say whether it is open.
_MAPS = ("additionalProperties", "unevaluatedProperties")


def shape_of_schema(schema: Any) -> Shape:
    """Total: any value gives a shape, if need be JSON text."""
    try:
        return _Reader(schema).shape(schema, (), 0)
    except RecursionError:
        return JSON


class _Reader:
    """`trail`: the references being resolved, innermost last; `depth`: levels of the shape above this one."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._fields_left = MAX_FIELDS

    def shape(self, schema: Any, trail: tuple[str, ...], depth: int) -> Shape:
        self._fields_left -= 1
        if not isinstance(schema, Mapping) or depth > MAX_DEPTH or self._fields_left < 0:
            return JSON
        if "$id" in schema and schema is not self._root:
            return JSON  # a schema of its own: its references do not start at our root
        for keyword, read in self._READERS.items():
            if keyword in schema and schema.keys() - _REMARKS == {keyword}:
                return read(self, schema[keyword], trail, depth)
        return self._of_type(schema, trail, depth)

    def _of_type(self, schema: Mapping[str, Any], trail: tuple[str, ...], depth: int) -> Shape:
        kind = _type_of(schema)
        if kind == "object":
            return self._object(schema, trail, depth)
        if kind == "array":
            return self._array(schema, trail, depth)
        return _SCALARS.get(kind, JSON)

    def _object(self, schema: Mapping[str, Any], trail: tuple[str, ...], depth: int) -> Shape:
        properties = schema.get("properties")
        is_map = any(isinstance(schema.get(keyword), Mapping) for keyword in _MAPS)
        if not isinstance(properties, Mapping) or not properties or is_map or schema.keys() & _SHAPING:
            return JSON
        if len(properties) > self._fields_left or not all(map(_is_column_name, properties)):
            return JSON
        return struct_of({name: self.shape(value, trail, depth + 1) for name, value in properties.items()})

    def _array(self, schema: Mapping[str, Any], trail: tuple[str, ...], depth: int) -> Shape:
        items = schema.get("items")
        if not isinstance(items, Mapping) or schema.keys() & _SHAPING:
            return JSON
        return list_of(self.shape(items, trail, depth + 1))

    def _reference(self, pointer: Any, trail: tuple[str, ...], depth: int) -> Shape:
        if not isinstance(pointer, str) or pointer in trail:
            return JSON
        return self.shape(find(self._root, pointer), (*trail, pointer), depth)

    def _union(self, branches: Any, trail: tuple[str, ...], depth: int) -> Shape:
        if not isinstance(branches, list | tuple):
            return JSON
        shapes = {self.shape(branch, trail, depth) for branch in branches if not _is_null(branch)}
        if shapes == {INTEGER, NUMBER}:
            return NUMBER
        return shapes.pop() if len(shapes) == 1 else JSON

    def _all_of_one(self, branches: Any, trail: tuple[str, ...], depth: int) -> Shape:
        """`allOf: [{$ref: …}]` is how older generators put a description beside a reference."""
        return self.shape(branches[0], trail, depth) if isinstance(branches, list) and len(branches) == 1 else JSON

    _READERS: Mapping[str, Callable[[_Reader, Any, tuple[str, ...], int], Shape]] = {
        "$ref": _reference,
        "anyOf": _union,
        "oneOf": _union,
        "allOf": _all_of_one,
    }


def _type_of(schema: Mapping[str, Any]) -> str:
    """The one type beside null that the schema allows; "" for several or unknown."""
    declared = schema.get("type")
    if isinstance(declared, str):
        return declared
    if isinstance(declared, list | tuple):
        return _one_type(kind for kind in declared if isinstance(kind, str))
    if isinstance(schema.get("enum"), list | tuple):
        return _one_type(_PYTHON_TYPES.get(type(value), "") for value in schema["enum"] if value is not None)
    if "const" in schema:
        return _PYTHON_TYPES.get(type(schema["const"]), "")
    return "object" if "properties" in schema else "array" if "items" in schema else ""


def _one_type(types: Iterable[str]) -> str:
    kinds = set(types) - {"null"}
    if kinds == {"integer", "number"}:
        return "number"
    return kinds.pop() if len(kinds) == 1 else ""


def _is_null(schema: Any) -> bool:
    return isinstance(schema, Mapping) and (
        schema.get("type") in ("null", ["null"]) or schema.get("enum") == [None] or schema.get("const", 0) is None
    )


def _is_column_name(name: Any) -> bool:
    """Arrow's names are UTF-8: any text but half a character."""
    return isinstance(name, str) and not any("\ud800" <= letter <= "\udfff" for letter in name)


def find(root: Any, pointer: str) -> Any:
    """What a local JSON pointer (`#/$defs/line`) points to, or None."""
    if pointer != "#" and not pointer.startswith("#/"):
        return None
    found = root
    for part in unquote(pointer[1:]).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return found
