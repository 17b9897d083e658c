"""Foreign text on one line, and the keys in it."""

from __future__ import annotations

import pytest
from failures import NOW, error, reply
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.wire.errors import classify
from runner.wire.oneline import one_line

KEY = "abcDEF123456ghiJKL"


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: sk-{KEY}. You can find your API key at https://platform.openai.com/account.",
        f"Incorrect API key provided: sk-proj-{KEY}-{KEY}",
        f"Incorrect API key provided: {KEY}",
        f"invalid key '{KEY}'",
        f"api_key={KEY}&x=1",
        f"Authorization: Bearer {KEY} is not valid",
        f"无效的令牌：{KEY}",
        f"Received API Key = gsk_{KEY}, Key Hash (Token) ={KEY}{KEY}",
        f"token: eyJhbGciOi.{KEY}.{KEY}",
        f"x-goog-api-key AIza{KEY}",
        "key " + "q" * 20,
    ],
)
def test_a_key_that_the_server_echoes_is_masked(text: str) -> None:
    for line in (
        one_line(text),
        classify(reply(401, error(text)), NOW).message,
        classify(reply(500, text.encode()), NOW).message,
    ):
        assert KEY not in line
        assert "q" * 20 not in line
        assert "***" in line


@pytest.mark.parametrize(
    "text",
    [
        "You can find your API key at https://platform.openai.com/account/api-keys.",
        "Invalid token (request id: 20250101123456789abcdef)",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 130000 tokens.",
        "Missing bearer token in Authorization header",
        "Rate limit reached for gpt-4.1-mini-2025-04-14 on tokens per min (TPM): Limit 30000, Used 29000",
        "unknown parameter: max_completion_tokens",
        "the ask-and-answer task",
    ],
)
def test_what_is_no_key_is_left_as_it_is(text: str) -> None:
    assert one_line(text) == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        (" a\r\n\tb\u2028c\u0085d\x00e\x7f ", "a b c d e"),
        ("\x1b[31mred\x1b[0m \x1b]0;title\x07x", "red x"),
        ("abc\u202egnp.exe", "abc gnp.exe"),
        ("half \ud83d of it", "half \ufffd of it"),
        ("x" * 500, "x" * 500),
        ("x" * 501, "x" * 499 + "…"),
        ("é" * 9_000, "é" * 499 + "…"),
    ],
)
def test_foreign_text_becomes_one_line(text: str, line: str) -> None:
    assert one_line(text) == line


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.text(st.characters(), max_size=700))
def test_one_line_is_one_line_whatever_comes(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 500
    line.encode()
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in line)
    assert one_line(line) == line
