"""The text of an answer becomes a JSON value.

Rule: patient with what models wrap around JSON (white space, a byte order mark, one code fence, prose around the
fence), and exact with numbers. Prose without a fence is not patched up, nor is one of two fences chosen: that is no
JSON, and asking again is cheaper than guessing.

Strategy: orjson; the standard library where orjson refuses what Python's own json writes (NaN, 1e400, half a
character) or would lose digits (it makes floats of integers beyond 64 bit).
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import orjson

from runner.outputs.shape import clean

#: 2^63 has 19 digits: a text without such a run holds no integer that orjson would turn into a float. Counted after
#: making all digits alike, which takes 5 µs on 2 kB of prose; the expression \d{19} takes 33 µs, on tables 270 µs.
_ALIKE = bytes.maketrans(b"123456789", b"000000000")
_LONG_INTEGER = b"0" * 19

#: Python refuses to read integers of more digits (CVE-2020-10735); no column could hold them anyway.
_MOST_DIGITS = 4300

#: What stands for a number beyond float: still a number to the validator, null in a column.
_HUGE = Decimal("1e400")

_FENCE = "```"
_OPENING = ("{", "[", '"')


class NotJsonError(ValueError):
    """The text is no JSON; the message says where."""


def parse_answer(text: str) -> Any:
    """The JSON of an answer, out of what is wrapped around it. Raises NotJsonError."""
    return parse_json(_unfenced(text))


def parse_json(text: str) -> Any:
    """Raises NotJsonError. Strings come back as valid Unicode; numbers beyond float as ±1e400."""
    if _LONG_INTEGER not in text.encode(errors="replace").translate(_ALIKE):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            pass  # the standard library has the last word
    return _parse_patiently(text)


def _parse_patiently(text: str) -> Any:
    try:
        return clean(json.loads(text, parse_int=_integer, parse_float=_float))
    except json.JSONDecodeError as error:
        what = f"{error.msg[:1].lower()}{error.msg[1:]}"
        raise NotJsonError(f"{what} at character {error.pos + 1}" if text else "it is empty") from error
    except RecursionError as error:
        raise NotJsonError("it is nested too deeply") from error


def _unfenced(text: str) -> str:
    text = text.strip().removeprefix("\ufeff").strip()
    if text[:1] in _OPENING or _FENCE not in text:
        return text
    if text.startswith(_FENCE) and text.endswith(_FENCE) and len(text) >= 2 * len(_FENCE):
        inner = text[len(_FENCE) : -len(_FENCE)]
        return (inner[4:] if inner[:4].lower() == "json" else inner).strip()
    return _between_fences(text.split("\n")) or text


def _between_fences(lines: list[str]) -> str | None:
    """The one block of a text. No line inside of JSON begins with a fence: strings hold no line ends."""
    marks = [place for place, line in enumerate(lines) if line.strip().startswith(_FENCE)]
    if len(marks) != 2 or lines[marks[0]].strip().strip("`").lower() not in ("", "json"):
        return None
    return "\n".join(lines[marks[0] + 1 : marks[1]]).strip()


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _MOST_DIGITS else _huge(digits)


def _float(digits: str) -> float | Decimal:
    number = float(digits)
    return number if math.isfinite(number) else _huge(digits)


def _huge(digits: str) -> Decimal:
    return -_HUGE if digits.startswith("-") else _HUGE
