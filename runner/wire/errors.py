"""Replies that are no answer: which kind of failure each one is.

Rule: total, any reply gives a Failure, whose message is one line without secrets. Strategy: shapes.py reads what the
body says, signals.py what that means together with the status, hints.py how long to wait.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from runner.records import NO_USAGE, Billed, Failure, Kind, Reply
from runner.wire.hints import Told, hint_s
from runner.wire.jsonbody import compact, load, mapping, string, utf8
from runner.wire.oneline import one_line
from runner.wire.shapes import Said, read_error, read_page
from runner.wire.signals import HAS_RETRY_AFTER, SHOULD_RETRY, kind_of
from runner.wire.usage import read_usage

__all__ = ["classify", "failure", "one_line", "request_id"]

_MAYBE_BILLED: Final = frozenset({408, 504, 524})  #: the upstream may have worked on when its proxy gave up
_WAITS: Final = frozenset({Kind.RATE, Kind.OVERLOADED, Kind.QUOTA, Kind.SERVER, Kind.TIMEOUT})
_RETRY_AFTER: Final = frozenset({"retry-after", "retry-after-ms", "llm_provider-retry-after"})
_REQUEST_IDS: Final = ("x-request-id", "request-id", "x-generation-id", "x-litellm-call-id", "x-oneapi-request-id")
_REQUEST_ID_CHARS: Final = 200
#: Gateways of the one-api family, and OpenAI, name it in the message.
_REQUEST_ID_SAID: Final = re.compile(rf"request[ _-]?id\b:?\s*([\w-]{{8,{_REQUEST_ID_CHARS}}})", re.IGNORECASE)
_PAGE_BYTES: Final = 8_000
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus} | {
    498: "Capacity Exceeded",
    520: "Web Server Returned an Unknown Error",
    521: "Web Server Is Down",
    522: "Connection Timed Out",
    523: "Origin Is Unreachable",
    524: "A Timeout Occurred",
    525: "TLS Handshake Failed",
    526: "Invalid TLS Certificate",
    529: "Site Is Overloaded",
}


def classify(reply: Reply, now: float) -> Failure:
    """The failure that a reply is, given that it is no answer. `now` in epoch seconds, for hints that are dates."""
    return failure(reply, load(reply.body), now)


def failure(reply: Reply, value: Any, now: float, why: str = "", otherwise: Kind = Kind.BAD_REPLY) -> Failure:
    """As `classify`, with the body parsed: `value` is where the error is, None for a body that is no JSON.

    `why` is the message when the body holds none, `otherwise` the kind when no signal matches.
    """
    html = value is None and _is_html(reply)
    said = read_error(value) if value is not None else _read_page(reply, html)
    status = said.status if 200 <= reply.status < 300 and said.status else reply.status
    kind = kind_of(status, said.message, said.words | _header_words(reply), otherwise)
    usage = read_usage(mapping(value).get("usage"))
    message = said.message[:_PAGE_BYTES]
    return Failure(
        kind,
        _redirect(reply) if 300 <= reply.status < 400 else one_line(message) or why or _unread(value, status),
        status=reply.status,
        billed=Billed.YES if usage != NO_USAGE else _billed(reply.status),
        wait_s=hint_s(Told(reply.headers, value, message, now)) if kind in _WAITS else None,
        request_id=request_id(reply) or _request_id_said(value, message),
        html=html,
        usage=usage,
    )


def request_id(reply: Reply) -> str | None:
    """The server's own name for the exchange, which its support asks for."""
    for name in _REQUEST_IDS:
        found = reply.headers.get(name)
        if found:
            return utf8(found[:_REQUEST_ID_CHARS])
    return None


def _request_id_said(value: Any, message: str) -> str | None:
    named = string(mapping(value).get("request_id"))
    if named is not None:
        return one_line(named)[:_REQUEST_ID_CHARS]
    found = _REQUEST_ID_SAID.search(message)
    return found.group(1) if found else None


def _header_words(reply: Reply) -> frozenset[str]:
    waits = {HAS_RETRY_AFTER} if not _RETRY_AFTER.isdisjoint(reply.headers) else set()
    retry = reply.headers.get("x-should-retry")
    return frozenset(waits if retry is None else {*waits, SHOULD_RETRY + retry.lower()})


def _billed(status: int) -> Billed:
    return Billed.MAYBE if 200 <= status < 300 or status in _MAYBE_BILLED else Billed.NO


def _is_html(reply: Reply) -> bool:
    # A label alone is not believed: some servers send their JSON and plain texts as text/html.
    start = reply.body[:512].lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or (
        start.startswith(b"<") and "html" in reply.headers.get("content-type", "").lower()
    )


def _read_page(reply: Reply, html: bool) -> Said:
    if 200 <= reply.status < 300 and not html:
        return Said()  # the start of a broken answer is no message
    return read_page(reply.body[:_PAGE_BYTES].decode("utf-8", "replace"), html)


def _redirect(reply: Reply) -> str:
    host = _host(reply.headers.get("location", ""))
    return one_line(
        f"the server redirects to {host or 'another place'}, which is never followed: check endpoint.base_url"
    )


def _host(location: str) -> str | None:
    try:
        return urlsplit(location).hostname
    except ValueError:
        return None


def _unread(value: Any, status: int) -> str:
    """A body that says nothing in a known place is shown as it is."""
    raw = compact(value) if value else None
    return _phrase(status) if raw is None else one_line(f"{_phrase(status)}: {raw[:_PAGE_BYTES]}")


def _phrase(status: int) -> str:
    return f"HTTP {status} {_PHRASES.get(status, '')}".rstrip()
