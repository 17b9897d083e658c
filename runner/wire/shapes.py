"""What an error body says, whichever of the known shapes it has.

Rule: total over any JSON value. Strategy: find the object that holds the error, take the first place that holds a
text, and collect all that names the error (codes, types, reasons) as one set of lower-case words.

    {"error": {"message", "type", "param", "code"}}          OpenAI, OpenRouter, llama.cpp, LiteLLM, vLLM
    [{"error": {"code": 429, "status", "details": […]}}]     Gemini: a list of one
    {"type": "error", "error": {"type", "message"}}          Anthropic
    {"object": "error", "message", "type", "code": 400}      older vLLM
    {"detail": "text" | [{"loc", "msg", "type"}]}            FastAPI
    {"error": "text"}                                        mlx_lm
    {"errors": [{"code", "message"}]}                        Cloudflare
    {"message"} {"msg"} {"err"} {"error_msg"} {"header": {"message"}} {"response": {"error": {"message"}}}
    {"status": "failure", "message"} {"html-message"}        Portkey
    {"type", "title", "status", "detail"}                    problem+json
    text, HTML, nothing                                      proxies
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from runner.wire.jsonbody import mapping, mappings, string

#: Where a text may be, best first; each a path from the object that holds the error, then from the body.
_TEXTS: Final = (
    ("message",),
    ("msg",),
    ("err",),
    ("error_msg",),
    ("errmsg",),
    ("detail",),
    ("error",),
    ("errors",),
    ("title",),
    ("header", "message"),
    ("response", "error", "message"),
    ("html-message",),
    ("base_resp", "status_msg"),
)
_NAMES: Final = ("code", "type", "status", "reason", "error_type")
_TITLE: Final = re.compile(r"<title[^>]*>(.{1,300}?)</title>", re.IGNORECASE | re.DOTALL)
_STATUS_LETTERS: Final = 3


@dataclass(frozen=True, slots=True)
class Said:
    """`words` in lower case. `status` is the HTTP status that the body names, 400 to 599. `message` as it came."""

    message: str = ""
    words: frozenset[str] = frozenset()
    status: int | None = None


def error_of(value: Any) -> dict[str, Any]:
    """The object that holds the error: `error` itself where there is one, else the body, else an empty one."""
    body = _body(value)
    inner = body.get("error")
    return inner if type(inner) is dict else body


def read_error(value: Any) -> Said:
    """What a parsed body says."""
    if type(value) is str:
        return Said(value.strip())
    body, error = _body(value), error_of(value)
    message = _message(error) or _message(body)
    raw = string(mapping(error.get("metadata")).get("raw"))
    if raw is not None:  # OpenRouter's own message is "Provider returned error"; the provider's is here
        message = f"{message}: {raw}" if message else raw
    return Said(message, frozenset(_words(error, body)), _status(error) or _status(body))


def read_page(text: str, html: bool) -> Said:
    """What a body that is no JSON says."""
    if not html:
        return Said(text.strip())
    title = _TITLE.search(text)
    return Said(f"a web page came back: {title.group(1).strip()}" if title else "a web page came back")


def _body(value: Any) -> dict[str, Any]:
    if type(value) is list and value:
        value = value[0]
    return mapping(value)


def _message(holder: dict[str, Any]) -> str:
    for path in _TEXTS:
        found: Any = holder
        for name in path:
            found = mapping(found).get(name)
        text = _as_text(found)
        if text:
            return text
    return ""


def _as_text(value: Any) -> str:
    if type(value) is str:
        return value.strip()
    if type(value) is dict:
        return (string(value.get("message")) or string(value.get("msg")) or "").strip()
    return "; ".join(filter(None, map(_complaint, mappings(value))))


def _complaint(item: dict[str, Any]) -> str:
    """FastAPI: {"loc": ["body", "messages"], "msg": "field required"}."""
    loc, text = item.get("loc"), string(item.get("msg")) or string(item.get("message")) or ""
    where = ".".join(str(step) for step in loc if type(step) in (str, int)) if type(loc) is list else ""
    return f"{where}: {text}" if where and text else text


def _words(error: dict[str, Any], body: dict[str, Any]) -> Iterator[str]:
    for holder in (error, body, mapping(error.get("innererror")), *mappings(error.get("details"))):
        for name in _NAMES:
            word = string(holder.get(name))
            if word is not None:
                yield word.lower()
    for violation in (v for detail in mappings(error.get("details")) for v in mappings(detail.get("violations"))):
        if "PerDay" in (string(violation.get("quotaId")) or ""):
            yield "quota_per_day"
    metadata = mapping(error.get("metadata"))
    if metadata.get("reasons") or metadata.get("flagged_input"):
        yield "moderation"


def _status(holder: dict[str, Any]) -> int | None:
    for name in ("code", "status", "status_code"):
        code = holder.get(name)
        if type(code) is str and len(code) == _STATUS_LETTERS and code.isascii() and code.isdigit():
            code = int(code)  # LiteLLM writes "429"
        if type(code) is int and 400 <= code <= 599:
            return code
    return None
