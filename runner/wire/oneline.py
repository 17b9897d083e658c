"""Foreign text made fit for a terminal, a log and a table cell.

Rule: one line, valid UTF-8, no control characters, no more than MESSAGE_CHARS, and no secret: servers quote the key
that they refuse ("Incorrect API key provided: …").
"""

from __future__ import annotations

import re
from typing import Final

from runner.wire.jsonbody import utf8

MESSAGE_CHARS: Final = 500
_READ_CHARS: Final = 8_000  #: of a foreign text; the rest cannot reach the first 500

_ANSI: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)")
#: White space, C0, C1, line separators, and the marks that turn the direction of what is printed after them.
_BLANK: Final = re.compile("[\\s\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]+")

_MASK: Final = "***"
#: Keys known by their first letters; "Bearer" and what follows; any JSON Web Token.
_KNOWN_KEY: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk|gsk|csk|xai|hf|r8|nvapi|fw|pplx|tgp)[-_][\w.*-]{2,}|AIza[\w-]{6,}|eyJ[\w-]+\.[\w.-]+)",
)
_BEARER: Final = re.compile(r"\b(bearer[\s:=\"'`]+)(?!(?:token|auth\w*|key|is|was)\b)[^\s\"'`,;)]+", re.IGNORECASE)
_KEY_WORDS: Final = ("key", "token", "secret", "令牌", "密钥")
#: A long word after "key" or "token": 20 letters, or 10 with a digit or an asterisk among them.
_AFTER_KEY: Final = re.compile(
    rf"((?:{'|'.join(_KEY_WORDS)})s?"
    r"(?:\s+(?:provided|given|received|used|named|value|header|is|was|of|not|found|invalid))*[\s:=\"'`()<\[：]*)"
    r"(?<![\w/.-])(?=[\w.+*=-]*[\d*]|[\w+=-]{20})[\w+*=-][\w.+*=-]{9,}",
    re.IGNORECASE,
)


def one_line(text: str) -> str:
    """`text` as one line of at most 500 characters, secrets masked; empty when it says nothing."""
    text = utf8(text[:_READ_CHARS])
    line = masked(_BLANK.sub(" ", _ANSI.sub("", text) if "\x1b" in text else text).strip())
    return line if len(line) <= MESSAGE_CHARS else line[: MESSAGE_CHARS - 1].rstrip() + "…"


def masked(line: str) -> str:
    """`line` with all that looks like a key replaced by asterisks."""
    line = _KNOWN_KEY.sub(_MASK, line)
    lower = line.lower()  # most messages name no key: a plain look first spares them the patterns
    if "bearer" in lower:
        line = _BEARER.sub(rf"\1{_MASK}", line)
    if any(word in lower for word in _KEY_WORDS):
        line = _AFTER_KEY.sub(rf"\1{_MASK}", line)
    return line
