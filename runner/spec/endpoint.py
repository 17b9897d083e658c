"""Where requests go, and the rule that no secret stands in a job file.

Rule: nothing of `endpoint` is ever repeated in a sentence: what is refused here is mostly a key in the wrong place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

from runner.spec.positions import Path

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  #: RFC 9110, 5.6.2
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Headers that the runner writes itself; a second hand on them would break the framing of the request.
OURS = ("accept-encoding", "connection", "content-length", "content-type", "host", "transfer-encoding")
KEY_NAME = re.compile(r"(?i)(api|secret|access)?[-_]?(key|token|secret)|authorization|bearer|password")
SECRET_HEADER = re.compile(r"(?i).*(api[-_]?key|authorization|bearer|cookie|password|secret|token)|(.*[-_])?key$")
SECRET_VALUE = re.compile(r"(?i)\s*(bearer|basic)\s|.*\b(sk|gsk|xai)[-_][a-z0-9_-]{6,}|.*\bAIza")
OWN_RULES = ("api_key_env", "api_key_file", "base_url", "headers")  #: keys whose own rule says more
NO_KEYS = "a key is never written into a job file; put it into an environment variable and name that in api_key_env"
NOT_IN_HEADERS = (
    "a secret is never written into a job file; the usual key goes by api_key_env, "
    "any other header by {env: NAME}, an environment variable's name"
)


def said(sentence: str) -> PydanticCustomError:
    """A validator's objection whose sentence is already ours."""
    # Braces would be taken for the template of the message, so the sentence travels as its context.
    return PydanticCustomError("said", "{sentence}", {"sentence": sentence})


def variable(value: str) -> str:
    if not VARIABLE.fullmatch(value):
        raise said("must be the name of an environment variable (letters, digits, _), not the key itself")
    return value


def base_url(value: str) -> str:
    """The URL without its last slashes. Raises where it is not http(s)://host[:port][/path]."""
    if objection := _objection(value):
        raise said(objection)
    return value.rstrip("/")


def _objection(value: str) -> str | None:
    if not value.isascii() or not value.isprintable() or " " in value:
        return "must be a URL without spaces or special characters"
    if _looks_secret(value):
        return NO_KEYS
    host, port, parts = _authority(value)
    if parts.scheme not in ("http", "https") or not host or port == 0:
        return "must be http://… or https://… with a host"
    if "@" in parts.netloc:
        return "must not hold a user or a password; " + NO_KEYS
    if "?" in value or "#" in value:
        return "must not have a query or a fragment"
    if parts.path.rstrip("/").endswith("/chat/completions"):
        return "must end before /chat/completions, which is added"
    return None


def _authority(value: str) -> tuple[str | None, int | None, Any]:
    try:
        parts = urlsplit(value)
        return parts.hostname, parts.port, parts
    except ValueError:
        return None, None, urlsplit("")


def header(value: Any) -> Any:
    """A header's value as it may be sent: printable, without line breaks."""
    if isinstance(value, str) and not (value.isascii() and value.isprintable()):
        raise said("must be printable ASCII on one line")
    return value


def mistakes(endpoint: Any) -> Iterator[tuple[Path, str]]:
    """Keys in the wrong place, and headers that cannot be sent, as (path from the job, sentence)."""
    if not isinstance(endpoint, Mapping):
        return
    for name, value in endpoint.items():
        if KEY_NAME.fullmatch(name) or (name not in OWN_RULES and _looks_secret(value)):
            yield ("endpoint", name), NO_KEYS
    if _looks_secret(endpoint.get("api_key_file")):
        yield ("endpoint", "api_key_file"), NO_KEYS
    if endpoint.get("api_key_env") is not None and endpoint.get("api_key_file") is not None:
        yield ("endpoint", "api_key_file"), "give either api_key_env or api_key_file"
    if isinstance(headers := endpoint.get("headers"), Mapping):
        yield from _headers(headers)


def _headers(headers: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    seen: dict[str, str] = {}
    for name, value in headers.items():
        if objection := _header(name, value, seen):
            yield ("endpoint", "headers", name), objection
        seen[name.lower()] = name


def _header(name: str, value: Any, seen: Mapping[str, str]) -> str | None:
    if not TOKEN.fullmatch(name):
        return "is no header name"
    if name.lower() in OURS:
        return "this header is written by the runner itself; leave it out"
    if name.lower() in seen:
        return f"the same header as {seen[name.lower()]}"
    if isinstance(value, str) and (SECRET_HEADER.match(name) or _looks_secret(value)):
        return NOT_IN_HEADERS
    return None


def _looks_secret(value: Any) -> bool:
    return isinstance(value, str) and bool(SECRET_VALUE.match(value))
