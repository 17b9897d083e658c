"""A rendered body becomes a request: bytes, hash, and an estimate of its tokens.

Rule: the hash is of what the job asked for (base_url and body, before any provider's adaptation), so the same row has
the same hash for ever. The recipe has a number, kept in run.json; a recipe is never changed, only joined by another.

Strategy: orjson writes what it can, insertion order kept. What it refuses (integers beyond 64 bit, very deep nesting)
the standard library writes; what neither can write is a Failure of the row, never an exception.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import orjson

from runner.records import Failure, Kind, Request
from runner.wire.oneline import one_line

HASH_RECIPE = 1

#: OpenAI takes batch lines and images up to 20 to 50 MB a request; gateways stop earlier, nginx at 1 MB by default.
MAX_BODY_BYTES = 32 * 1024 * 1024

#: What a reply is reckoned at for tokens_per_minute when the job sets no cap; replies correct it.
USUAL_OUTPUT_TOKENS = 256

#: English and code run at about four bytes a token in the public vocabularies.
BYTES_PER_TOKEN = 4

_NULL = re.compile(rb"null")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def encode(index: int, body: Mapping[str, Any], base_url: str) -> Request | Failure:
    """The request of row `index`. Failure(INPUT): text that is not Unicode, numbers that JSON lacks, over the cap."""
    data = _dump(body)
    if isinstance(data, Failure):
        return data
    if len(data) > MAX_BODY_BYTES:
        return too_large(len(data))
    return Request(
        index=index,
        body=data,
        hash=request_hash(data, base_url),
        model=str(body.get("model", "")),
        tokens=_tokens(data, body),
        prompt_tokens=len(data) // BYTES_PER_TOKEN,
        prompt_most=len(data),
        choices=_choices(body),
        service_tier=_tier(body),
    )


def encode_again(request: Request, body: Mapping[str, Any]) -> Request | Failure:
    """The same request, its hash too, with a body that its provider takes."""
    data = _dump(body)
    if isinstance(data, Failure):
        return data
    return replace(
        request,
        body=data,
        tokens=_tokens(data, body),
        prompt_tokens=len(data) // BYTES_PER_TOKEN,
        prompt_most=len(data),
        choices=_choices(body),
        service_tier=_tier(body),
    )


def _tier(body: Mapping[str, Any]) -> str | None:
    asked = body.get("service_tier")
    return asked if isinstance(asked, str) else None


def _tokens(data: bytes, body: Mapping[str, Any]) -> int:
    """An estimate of the prompt and all answers."""
    cap = output_cap(body)
    return len(data) // BYTES_PER_TOKEN + (USUAL_OUTPUT_TOKENS if cap is None else cap) * _choices(body)


def _choices(body: Mapping[str, Any]) -> int:
    return _count(body.get("n")) or 1


def request_hash(body: bytes, base_url: str) -> str:
    """Recipe 1: blake2b, 16 bytes, in hex, over `1`, base_url and the body, joined by newlines."""
    digest = _hash_of_endpoint(base_url).copy()
    digest.update(body)
    return digest.hexdigest()


def output_cap(body: Mapping[str, Any]) -> int | None:
    """The most tokens that one choice may answer with, where the body says so; -1 (no limit, llama.cpp) is None."""
    return _count(body.get("max_completion_tokens")) or _count(body.get("max_tokens"))


def too_large(size: int) -> Failure:
    return input_failure(f"the request has {size:,} bytes, the limit is {MAX_BODY_BYTES:,}; shorten what goes into it")


def input_failure(message: str) -> Failure:
    """The row cannot be sent; nothing was."""
    return Failure(Kind.INPUT, one_line(message))


@lru_cache(maxsize=64)
def _hash_of_endpoint(base_url: str) -> blake2b:
    return blake2b(f"{HASH_RECIPE}\n{base_url}\n".encode(), digest_size=16)


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 1 else None


def _dump(body: Mapping[str, Any]) -> bytes | Failure:
    try:
        data = orjson.dumps(body)
    except TypeError:
        return _dump_by_standard_library(body)
    # orjson writes NaN as null, and a request must not say something else than the job did. Few bodies hold a null,
    # so the search for its cause is rarely made. (`in` takes two to three times as long as this expression.)
    return data if _NULL.search(data) is None else _not_a_number(body) or data


def _dump_by_standard_library(body: Mapping[str, Any]) -> bytes | Failure:
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        return input_failure(_where_unencodable(body))
    except RecursionError:
        return input_failure("the request is nested too deeply to be written as JSON")
    except (TypeError, ValueError) as error:
        return _not_a_number(body) or input_failure(f"the request cannot be written as JSON: {error}")


def _not_a_number(body: Mapping[str, Any]) -> Failure | None:
    for path, value in _leaves(body):
        if isinstance(value, float) and not math.isfinite(value):
            return input_failure(f"{path} is {value}, which JSON does not have; give it a number or leave it out")
    return None


def _where_unencodable(body: Mapping[str, Any]) -> str:
    for path, value in _leaves(body):
        if isinstance(value, str) and (found := _SURROGATE.search(value)):
            half = f"half a character (U+{ord(found[0]):04X}) at character {found.start() + 1}"
            return f"{path} cannot be encoded as UTF-8: {half}; repair the input"
    return "the name of a parameter cannot be encoded as UTF-8: it holds half a character; repair the job file"


def _leaves(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every scalar with its dotted path, without recursion: this runs on bodies that were found too deep, too."""
    stack: list[tuple[str, Any]] = [("", body)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, Mapping):
            stack.extend((f"{path}.{key}".lstrip("."), item) for key, item in reversed(list(value.items())))
        elif isinstance(value, list | tuple):
            stack.extend((f"{path}.{number}", item) for number, item in reversed(list(enumerate(value))))
        else:
            yield path, value
