"""The sentences in which mistakes are said.

Rule: what was found is named by its sort, never repeated, since it may be a secret; no word of a validator's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

SORTS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
    (str, "text"),
    (list, "a list"),
    (dict, "a mapping"),
)


QUOTED = "; remove the quotes"


def sort_of(value: Any) -> str:
    return next((name for sort, name in SORTS if isinstance(value, sort)), "null")


def must_be(what: str, value: Any) -> str:
    """`must be a number, not text`; a number in quotes is told how to lose them."""
    sentence = f"must be {what}"
    if what != sort_of(value):
        sentence += f", not {sort_of(value)}"
    if "number" in what and isinstance(value, str) and value.strip().lstrip("+-").replace(".", "", 1).isdigit():
        sentence += QUOTED
    return sentence


def one_of(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def guess(word: Any, words: Iterable[str]) -> str:
    """`; did you mean max_attempts?`, or nothing."""
    near = get_close_matches(word, list(words), n=1, cutoff=0.6) if isinstance(word, str) else []
    return f"; did you mean {near[0]}?" if near else ""


def unknown(key: str, keys: Iterable[str]) -> str:
    return f"unknown key{guess(key, keys)}"


def choice(value: Any, words: Iterable[str]) -> str:
    """The sentence for a word that is none of the allowed ones."""
    words = list(words)
    return f"must be {one_of(words)}{guess(value, words)}"
