"""The models' objections in plain words.

Rule: every sort of objection that our models can raise has a row in the table, and a test provokes them all; a sort
that is new still gets a sentence, never the validator's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from runner.spec.endpoint import KEY_NAME, NO_KEYS
from runner.spec.model import keys_of
from runner.spec.positions import Path
from runner.spec.words import choice, must_be, unknown

Details = Any  # pydantic's ErrorDetails: type, loc, input, ctx


def _sort(what: str) -> Callable[[Details], str]:
    return lambda error: must_be(what, error["input"])


def _whole(error: Details) -> str:
    found = error["input"]
    return "must be a whole number" if isinstance(found, float) else must_be("a whole number", found)


def _unknown(error: Details) -> str:
    *above, key = error["loc"]
    return NO_KEYS if KEY_NAME.fullmatch(str(key)) else unknown(str(key), keys_of(tuple(above)))


def _literal(error: Details) -> str:
    words = error["ctx"]["expected"].replace(" or ", ", ").split(", ")
    return choice(error["input"], [word.strip("'") for word in words])


SENTENCES: dict[str, Callable[[Details], str]] = {
    "said": lambda error: str(error["ctx"]["sentence"]),
    "missing": lambda _: "is required",
    "extra_forbidden": _unknown,
    "literal_error": _literal,
    "string_type": _sort("text"),
    "string_too_short": lambda _: "must not be empty",
    "int_type": _whole,
    "float_type": _sort("a number"),
    "bool_type": _sort("true or false"),
    "model_type": _sort("a mapping"),
    "dict_type": _sort("a mapping"),
    "tuple_type": _sort("a list"),
    "greater_than": lambda error: f"must be more than {error['ctx']['gt']:g}",
    "greater_than_equal": lambda error: f"must be at least {error['ctx']['ge']:,}",
    "less_than_equal": lambda error: f"must be at most {error['ctx']['le']:,.15g}",
}


def mistakes(error: ValidationError) -> Iterator[tuple[Path, str]]:
    """Every objection, as (path, sentence)."""
    for details in error.errors(include_url=False):
        say = SENTENCES.get(details["type"], lambda _: "cannot be used as it is written")
        yield tuple(details["loc"]), say(details)
