"""The lines of a request file: what a job reads in place of a request of its own, and what it writes.

Rule: a line is sent as it stands: nothing in it is a template, and it may have parameters that are not known here.
Strategy: `Lines` is to such a job what a compiled prompt is to any other; the parameters are judged where those of
templates are (recipe.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from runner.conversation import mistake as conversation_mistake
from runner.errors import JobError
from runner.outputs.each import output_of
from runner.records import Failure
from runner.spec.body import CORE
from runner.spec.words import must_be
from runner.wire.encode import input_failure

ID, METHOD, URL, BODY = "custom_id", "method", "url", "body"
PATH = "/v1/chat/completions"


class Lines:
    """Request lines as the templates of a job: see template.Prompt."""

    columns = frozenset({METHOD, URL, BODY})
    required = frozenset({BODY})
    whole_row = False
    model_is_template = True
    constants: Mapping[str, Any] = {}

    def clashes(self, columns: Iterable[str]) -> list[str]:
        """None: nothing is named in a template."""
        return []

    def render(self, row: Mapping[str, Any]) -> dict[str, Any] | Failure:
        """The body of a line; Failure(INPUT) says what is wrong with the line."""
        wrong = next(_mistakes(row), None)
        if wrong:
            return input_failure(wrong)
        body: dict[str, Any] = row[BODY]
        return body


def custom_id(value: Any, row: int) -> str:
    """What a line is called: the value of the id column as text, or the row's position where there is none."""
    return f"row-{row}" if value is None or value == "" else value if isinstance(value, str) else _text(value)


def request_line(name: str, body: bytes) -> bytes:
    """The line of a request whose body is JSON."""
    members = {ID: name, METHOD: "POST", URL: PATH, BODY: orjson.Fragment(body)}
    return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)


def _text(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()


def _mistakes(row: Mapping[str, Any]) -> Iterator[str]:
    if row.get(METHOD) != "POST":
        yield f"{METHOD}: must be POST"
    url = row.get(URL)
    if not isinstance(url, str) or not url.startswith("/") or not url.endswith("/chat/completions"):
        yield f"{URL}: must be {PATH}; where it is sent is endpoint.base_url, other endpoints cannot be asked"
    body = row.get(BODY)
    if not isinstance(body, dict):
        yield f"{BODY}: {must_be('a mapping', body)}"
        return
    yield from (f"{BODY}.{sentence}" for sentence in _body_mistakes(body))


def _body_mistakes(body: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{name}: is required" for name in CORE if name not in body)
    model, messages = body.get("model"), body.get("messages")
    if not isinstance(model, str) or not model:
        yield f"model: {must_be('the name of a model', model)}"
    if not isinstance(messages, list):
        yield f"messages: {must_be('a list', messages)}"
    elif wrong := conversation_mistake(messages):
        yield wrong
    yield from _format_mistakes(body)


def _format_mistakes(body: Mapping[str, Any]) -> Iterator[str]:
    try:
        output_of(body.get("response_format"))
    except JobError as error:
        yield error.message.removeprefix("request.")
