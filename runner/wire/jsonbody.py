"""Bytes of a reply to clean Python values.

Rule: what comes out can be stored anywhere: every string is valid UTF-8 and every float is finite. Strategy: orjson,
which gives nothing else; only when it refuses, the standard library, cleaned. Servers do send what orjson refuses:
half an emoji (a lone surrogate, where a model was cut between two tokens), NaN among the logprobs, 1e400.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

import orjson

INT64_MAX: Final = 2**63 - 1
INT64_MIN: Final = -(2**63)

_EXACT: Final = 2**53  #: beyond, a float is no longer the integer that was sent; orjson makes one of 30 digits
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_INT64_DIGITS: Final = 20  #: with the sign; beyond, int() itself is slow, and refuses 4,300 digits


def load(body: bytes) -> Any:
    """The value of a JSON body; None when it is no JSON (a bare `null` is no reply either)."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _load_patiently(body)


def _load_patiently(body: bytes) -> Any:
    try:
        text = body.decode("utf-8-sig")
        return _cleaned(json.loads(text, parse_int=_int64, parse_float=_finite, parse_constant=_nothing))
    except (ValueError, RecursionError):
        return None


def utf8(text: str) -> str:
    """`text` with every lone surrogate replaced by U+FFFD."""
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def text_of(value: Any) -> str | None:
    """A string as it is, nothing as None; anything else as its compact JSON, for no paid answer is thrown away."""
    if value is None or type(value) is str:
        return value
    return compact(value)


def compact(value: Any) -> str | None:
    """Compact JSON text; None for what nests deeper than 254 levels."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return None


def string(value: Any) -> str | None:
    """A string that says something, or None."""
    return value if type(value) is str and value else None


def integer(value: Any) -> int | None:
    """An integer within 64 bits, also one written 3.0; None for a boolean, a text, anything else."""
    if type(value) is float and abs(value) <= _EXACT and value.is_integer():
        value = int(value)
    return value if type(value) is int and INT64_MIN <= value <= INT64_MAX else None


def number(value: Any) -> float | None:
    """A finite float; None for a boolean, a text, anything else."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    return float(value) if type(value) is int and INT64_MIN <= value <= INT64_MAX else None


def mapping(value: Any) -> dict[str, Any]:
    """An object as it is; an empty one for anything else."""
    return value if type(value) is dict else {}


def mappings(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; none for anything else."""
    return [item for item in value if type(item) is dict] if type(value) is list else []


def _int64(digits: str) -> int | None:
    return integer(int(digits)) if len(digits) <= _INT64_DIGITS else None


def _finite(digits: str) -> float | None:
    return number(float(digits))


def _nothing(_: str) -> None:
    """NaN, Infinity and -Infinity."""


def _cleaned(value: Any) -> Any:
    if type(value) is str:
        return utf8(value)
    if type(value) is list:
        return [_cleaned(item) for item in value]
    if type(value) is dict:
        return {utf8(key): _cleaned(item) for key, item in value.items()}
    return value
