"""A JSON value that a JSON Schema accepts, drawn from a random generator.

Rule: pure; the same schema and generator state give the same value.
Strategy: construct, then check. Each kind of value is drawn inside its own limits; what construction alone cannot
promise (`oneOf`, `not`, `if`, look-around) is checked with the validator and drawn again, a few times. Recursion is
bounded: beyond `DEEP` levels optional containers are left out, and of several branches the shallowest is taken.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from random import Random
from typing import Any

import jsonschema_rs

from runner.simulator.merging import merged, resolved
from runner.simulator.pattern import compile_pattern
from runner.simulator.prose import WORDS, phrase

DEEP = 4  #: levels of nesting after which values stop growing
DEEPEST = 40  #: levels after which even a schema that demands more gets null
MOST = 2000  #: values in one answer, after which all further ones are null
REACH = 8  #: how far down `height` looks for an end
REDRAWS = 12
ITEMS = 3  #: how many items beyond its minimum an array may get

Schema = Mapping[str, Any]


def value_of(schema: Any, rng: Random) -> Any:
    """A value that `schema` accepts; the last of `REDRAWS` tries when none does (a schema nothing fits).

    Raises ValueError when `schema` is not a JSON Schema.
    """
    check = _validator(json.dumps(schema))
    value = None
    for _ in range(REDRAWS):
        value = _Draw(schema, rng).value(schema, 0)
        if check.is_valid(value):
            break
    return value


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    return jsonschema_rs.validator_for(json.loads(schema), validate_formats=True, retriever=_no_network)


def _no_network(uri: str) -> Any:
    raise ValueError(f"a $ref to {uri} is not followed")


class _Draw:
    def __init__(self, root: Any, rng: Random) -> None:
        self.root = root
        self.rng = rng
        self.left = MOST
        self.heights: dict[tuple[Any, int], float] = {}

    def value(self, schema: Any, depth: int) -> Any:
        flat = self._flat(schema, depth)
        if "const" in flat:
            return flat["const"]
        if "enum" in flat:
            return self.rng.choice(flat["enum"]) if flat["enum"] else None
        self.left -= 1
        if self.left < 0 or depth >= DEEPEST:
            return None
        return _KINDS.get(self._kind(flat, depth), _null)(self, flat, depth)

    def _flat(self, schema: Any, depth: int) -> Schema:
        """`schema` without references and unions: one branch of each, merged into the rest."""
        flat = resolved(schema, self.root)
        for _ in range(REACH):
            union = "anyOf" if "anyOf" in flat else "oneOf"
            if not flat.get(union):
                break
            rest = {key: value for key, value in flat.items() if key != union}
            flat = resolved(merged(rest, self._branch(flat[union], depth)), self.root)
        return flat

    def _branch(self, branches: list[Any], depth: int) -> Any:
        if depth >= DEEP:
            return min(branches, key=self.height)
        full = [branch for branch in branches if resolved(branch, self.root).get("type") != "null"]
        return self.rng.choice(branches if not full or self.rng.random() < 0.15 else full)

    def _kind(self, schema: Schema, depth: int) -> str:
        kind = schema.get("type")
        if isinstance(kind, str):
            return kind
        if not kind:
            return next((kind for key, kind in _IMPLIED.items() if key in schema), "string")
        plain = [one for one in kind if one not in ("object", "array")] if depth >= DEEP else []
        full = [one for one in plain or kind if one != "null"]
        return str(self.rng.choice(full)) if full and self.rng.random() < 0.85 else str(self.rng.choice(plain or kind))

    def height(self, schema: Any, reach: int = REACH) -> float:
        """How many levels the smallest value of `schema` has; infinite when it does not end within `reach`."""
        mark = (schema.get("$ref") or id(schema)) if isinstance(schema, Mapping) else 0, reach
        if mark not in self.heights:
            self.heights[mark] = self._height(resolved(schema, self.root), reach - 1) if reach else math.inf
        return self.heights[mark]

    def _height(self, flat: Schema, reach: int) -> float:
        if union := flat.get("anyOf") or flat.get("oneOf"):
            return min(self.height(branch, reach) for branch in union)
        properties = flat.get("properties", {})
        below = [self.height(properties.get(name, {}), reach) for name in flat.get("required", ())]
        if flat.get("minItems", 0) > 0:
            below.append(self.height(flat.get("items", {}), reach))
        return 1 + max(below, default=0) if self._kind(flat, DEEP) in ("object", "array") else 0

    def object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        names = self._names(schema, properties, depth)
        others = schema.get("additionalProperties", {})
        value = {name: self.value(properties.get(name, others), depth + 1) for name in names}
        source = next(iter(schema.get("patternProperties", {}).items()), None)
        keys = {"pattern": source[0]} if source else schema.get("propertyNames", {"enum": list(WORDS)})
        some = 0 if properties or not (source or others) else self.rng.randint(0, 2)
        wanted = _count(schema, "minProperties", some)
        for _ in range(4 * wanted):  # a drawn name may be there already
            if len(value) >= wanted:
                break
            value[str(self.value({"type": "string"} | keys, depth))] = self.value(
                source[1] if source else others, depth + 1
            )
        return value

    def _names(self, schema: Schema, properties: Schema, depth: int) -> list[str]:
        required = schema.get("required", [])
        room = _count(schema, "maxProperties", len(properties) + len(required)) - len(required)
        need = _count(schema, "minProperties", 0) - len(required)
        optional = [name for name in properties if name not in required]
        kept = [name for name in optional if self._worth(properties[name], depth)][: max(room, 0)]
        kept += [name for name in optional if name not in kept][: max(need - len(kept), 0)]
        return [name for name in properties if name in required or name in kept] + [
            name for name in required if name not in properties
        ]

    def _worth(self, schema: Any, depth: int) -> bool:
        """Whether an optional property is given: mostly, but no containers far down."""
        return schema is not False and self.rng.random() < 0.7 and (depth < DEEP or self.height(schema) == 0)

    def array(self, schema: Schema, depth: int) -> list[Any]:
        items = schema.get("items", {})
        first = schema.get("prefixItems", items if isinstance(items, list) else [])
        rest = schema.get("additionalItems", {}) if isinstance(items, list) else items
        least = _count(schema, "minItems", len(first))
        most = _count(schema, "maxItems", len(first) if rest is False else least + max(0, ITEMS - depth))
        wanted = least if depth >= DEEP else self.rng.randint(least, max(least, min(most, least + ITEMS)))
        sources = [first[place] if place < len(first) else rest for place in range(wanted)]
        if "contains" in schema:
            sources = [schema["contains"], *sources[1:]]
        return self._items(sources, depth, unique=bool(schema.get("uniqueItems")))

    def _items(self, sources: list[Any], depth: int, *, unique: bool) -> list[Any]:
        values: list[Any] = []
        for source in sources:
            value = self.value(source, depth + 1)
            for _ in range(REDRAWS if unique and value in values else 0):
                value = self.value(source, depth + 1)
                if value not in values:
                    break
            if not unique or value not in values:
                values.append(value)
        return values

    def string(self, schema: Schema, depth: int) -> str:
        least, most = _count(schema, "minLength", 0), _count(schema, "maxLength", None)
        if draw := _FORMATS.get(schema.get("format", "")):
            return draw(self.rng)
        if "pattern" not in schema:
            return phrase(self.rng, least, most)
        piece = compile_pattern(schema["pattern"])
        texts = [piece(self.rng) for _ in range(REDRAWS)]
        return next((text for text in texts if least <= len(text) and (most is None or len(text) <= most)), texts[0])

    def integer(self, schema: Schema, depth: int) -> int:
        low, high = _limits(schema)
        multiple = schema.get("multipleOf", 1)
        step = int(multiple) if multiple == int(multiple) else 1
        bottom = math.floor(low) + 1 if "exclusiveMinimum" in schema and low == math.floor(low) else math.ceil(low)
        top = math.ceil(high) - 1 if "exclusiveMaximum" in schema and high == math.ceil(high) else math.floor(high)
        first, last = -(-bottom // step), top // step
        return self.rng.randint(first, max(first, last)) * step

    def number(self, schema: Schema, depth: int) -> float:
        low, high = _limits(schema)
        if "multipleOf" in schema:
            step = Decimal(repr(schema["multipleOf"]))
            first, last = math.ceil(Decimal(repr(low)) / step), math.floor(Decimal(repr(high)) / step)
            return float(self.rng.randint(first, max(first, last)) * step)
        value = self.rng.uniform(low, high)
        rounded = round(value, 2)
        return rounded if low < rounded < high else value

    def boolean(self, schema: Schema, depth: int) -> bool:
        return self.rng.random() < 0.5


def _null(draw: _Draw, schema: Schema, depth: int) -> None:
    return None


def _limits(schema: Schema) -> tuple[float, float]:
    """The lowest and the highest value, exclusive ones included; what is open spans a thousand."""
    lows = [schema[key] for key in ("minimum", "exclusiveMinimum") if key in schema]
    highs = [schema[key] for key in ("maximum", "exclusiveMaximum") if key in schema]
    if not highs:
        low = max(lows, default=0)
        return low, low + 1000
    high = min(highs)
    return max(lows) if lows else 0 if high > 0 else high - 1000, high


def _count(schema: Schema, key: str, default: Any) -> Any:
    """A length or a count, which JSON may write 3.0."""
    return int(schema[key]) if key in schema else default


def _day(rng: Random) -> str:
    return f"{rng.randint(2019, 2026)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def _time(rng: Random) -> str:
    return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}Z"


def _host(rng: Random) -> str:
    return f"{rng.choice(WORDS)}.example.com"


def _uuid(rng: Random) -> str:
    text = f"{rng.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


_FORMATS: dict[str, Callable[[Random], str]] = {
    "date": _day,
    "time": _time,
    "date-time": lambda rng: f"{_day(rng)}T{_time(rng)}",
    "duration": lambda rng: f"P{rng.randint(1, 30)}D",
    "email": lambda rng: f"{rng.choice(WORDS)}.{rng.choice(WORDS)}@example.com",
    "hostname": _host,
    "uri": lambda rng: f"https://{_host(rng)}/{rng.choice(WORDS)}",
    "uri-reference": lambda rng: f"/{rng.choice(WORDS)}",
    "uuid": _uuid,
    "ipv4": lambda rng: f"192.0.2.{rng.randint(1, 254)}",
    "ipv6": lambda rng: f"2001:db8::{rng.randint(1, 65535):x}",
}
_KINDS: dict[str, Callable[[_Draw, Schema, int], Any]] = {
    "object": _Draw.object,
    "array": _Draw.array,
    "string": _Draw.string,
    "integer": _Draw.integer,
    "number": _Draw.number,
    "boolean": _Draw.boolean,
}
_IMPLIED = {
    "properties": "object",
    "required": "object",
    "additionalProperties": "object",
    "patternProperties": "object",
    "minProperties": "object",
    "items": "array",
    "prefixItems": "array",
    "minItems": "array",
    "contains": "array",
    "minimum": "number",
    "maximum": "number",
    "exclusiveMinimum": "number",
    "exclusiveMaximum": "number",
    "multipleOf": "number",
}
