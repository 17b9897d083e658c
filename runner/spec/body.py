"""The chat completion body as a job file may write it: every documented parameter, its sort and its range.

Rule: OpenAI's wire names and ranges; what one provider narrows or refuses is not said here. Newer parameters go into
`extra_body`, which is sent as written, so a parameter that stands here may not hide there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from runner.spec.positions import Path
from runner.spec.shapes import (
    Anything,
    BySort,
    Fields,
    Flag,
    Found,
    Items,
    Number,
    OneOf,
    Prompt,
    Schema,
    Shape,
    Table,
    Tagged,
    Text,
    describe,
    is_template,
    judge,
    literal,
)
from runner.spec.turns import mistakes as turns
from runner.spec.words import QUOTED, guess, must_be

TEXT, PROMPT, FLAG, OPEN = Text(), Prompt(), Flag(), Table(Anything())
FILLED = Text(low=1)
NAME = Text(form=r"[A-Za-z0-9_-]{1,64}", like="1 to 64 letters, digits, _ or -")
TOKENS = Number(1, whole=True)
EXPLICIT = Fields(required={"mode": OneOf(("explicit",))})


def _part(kind: str, content: Shape) -> Fields:
    return Fields({"type": OneOf((kind,)), kind: content}, {"prompt_cache_breakpoint": EXPLICIT})


def _given(value: Mapping[str, Any], *names: str) -> list[str]:
    return [name for name in names if value.get(name) is not None]


def _one_image(value: Mapping[str, Any]) -> str | None:
    return None if len(_given(value, "url", "file")) == 1 else "needs either url or file (a local path)"


def _one_recording(value: Mapping[str, Any]) -> str | None:
    if not _given(value, "file"):
        return None if len(_given(value, "data", "format")) == 2 else "needs data and format, or file (a local path)"
    return "a local file says itself what it is; leave out data and format" if len(_given(value, *value)) > 1 else None


def _one_file(value: Mapping[str, Any]) -> str | None:
    given = _given(value, "file_id", "file_data", "file")
    if len(given) != 1:
        return "needs one of file_id, file_data and file (a local path)"
    return "file_data needs a filename" if given == ["file_data"] and not _given(value, "filename") else None


#: `file` is a local path, sent as its bytes (wire/attach.py). For texts, `{file: path}` is read at load (files.py).
IMAGE = Fields({}, {"url": FILLED, "file": FILLED, "detail": OneOf(("auto", "low", "high"))}, _one_image)
RECORDING = Fields({}, {"data": FILLED, "format": OneOf(("wav", "mp3")), "file": FILLED}, _one_recording)
DOCUMENT = Fields({}, {"file_id": FILLED, "file_data": FILLED, "filename": FILLED, "file": FILLED}, _one_file)
PARTS = {
    "text": _part("text", PROMPT),
    "image_url": _part("image_url", IMAGE),
    "input_audio": _part("input_audio", RECORDING),
    "file": _part("file", DOCUMENT),
    "refusal": _part("refusal", TEXT),
}


def _content(*kinds: str) -> BySort:
    return BySort("text or a list of parts", PROMPT, Items(Tagged("type", {kind: PARTS[kind] for kind in kinds})))


def _says_something(message: Mapping[str, Any]) -> str | None:
    given = any(message.get(name) is not None for name in ("content", "tool_calls", "refusal", "audio"))
    return None if given else "an assistant message needs content or tool_calls"


def _message(role: str, required: Mapping[str, Shape], optional: Mapping[str, Shape]) -> Fields:
    shape = Fields({"role": OneOf((role,)), **required}, optional)
    return replace(shape, rule=_says_something) if role == "assistant" else shape


CALLS = Items(
    Tagged(
        "type",
        {
            "function": Fields(
                {"id": FILLED, "type": OneOf(("function",)), "function": Fields({"name": NAME, "arguments": TEXT})}
            ),
            "custom": Fields(
                {"id": FILLED, "type": OneOf(("custom",)), "custom": Fields({"name": NAME, "input": TEXT})}
            ),
        },
    )
)
MESSAGE = Tagged(
    "role",
    {
        "system": _message("system", {"content": _content("text")}, {"name": FILLED}),
        "developer": _message("developer", {"content": _content("text")}, {"name": FILLED}),
        "user": _message("user", {"content": _content("text", "image_url", "input_audio", "file")}, {"name": FILLED}),
        "assistant": _message(
            "assistant",
            {},
            {
                "content": _content("text", "refusal"),
                "name": FILLED,
                "refusal": TEXT,
                "tool_calls": CALLS,
                "audio": Fields({"id": FILLED}),
            },
        ),
        "tool": _message("tool", {"content": _content("text"), "tool_call_id": FILLED}, {}),
    },
)

FUNCTION = Fields({"name": NAME}, {"description": TEXT, "parameters": OPEN, "strict": FLAG})
GRAMMAR = Fields({"definition": FILLED, "syntax": OneOf(("lark", "regex"))})
CUSTOM_FORMAT = Tagged(
    "type",
    {
        "text": Fields({"type": OneOf(("text",))}),
        "grammar": Fields({"type": OneOf(("grammar",)), "grammar": GRAMMAR}),
    },
)
TOOL = Tagged(
    "type",
    {
        "function": Fields({"type": OneOf(("function",)), "function": FUNCTION}),
        "custom": Fields(
            {
                "type": OneOf(("custom",)),
                "custom": Fields({"name": NAME}, {"description": TEXT, "format": CUSTOM_FORMAT}),
            }
        ),
    },
)
NAMED = Fields({"name": NAME})
ALLOWED = Fields({"mode": OneOf(("auto", "required")), "tools": Items(OPEN)})
TOOL_CHOICE = BySort(
    "none, auto, required or a mapping",
    text=OneOf(("none", "auto", "required")),
    fields=Tagged(
        "type",
        {
            "function": Fields({"type": OneOf(("function",)), "function": NAMED}),
            "custom": Fields({"type": OneOf(("custom",)), "custom": NAMED}),
            "allowed_tools": Fields({"type": OneOf(("allowed_tools",)), "allowed_tools": ALLOWED}),
        },
    ),
)
JSON_SCHEMA = Fields(
    {"name": NAME, "schema": BySort("a mapping (a JSON Schema) or {file: path}", fields=OPEN)},
    {"description": TEXT, "strict": FLAG},
)
RESPONSE_FORMAT = Tagged(
    "type",
    {
        "text": Fields({"type": OneOf(("text",))}),
        "json_object": Fields({"type": OneOf(("json_object",))}),
        "json_schema": Fields({"type": OneOf(("json_schema",)), "json_schema": JSON_SCHEMA}),
    },
)
PLACE_ON_EARTH = Fields({}, {"city": TEXT, "country": TEXT, "region": TEXT, "timezone": TEXT})
USER_LOCATION = Fields({"type": OneOf(("approximate",)), "approximate": PLACE_ON_EARTH})

#: PROTOCOL's parameters beside model and messages. Each may also be null, or a text that holds a template.
PARAMETERS: dict[str, Shape] = {
    "temperature": Number(0, 2),
    "top_p": Number(0, 1),
    "n": Number(1, 128, whole=True),
    "stop": BySort("text or a list of texts", TEXT, Items(TEXT)),  # how many, the provider's table says
    "max_tokens": TOKENS,
    "max_completion_tokens": TOKENS,
    "presence_penalty": Number(-2, 2),
    "frequency_penalty": Number(-2, 2),
    "logit_bias": Table(Number(-100, 100), r"[0-9]+", "a token id"),
    "logprobs": FLAG,
    "top_logprobs": Number(0, 20, whole=True),
    "tools": Items(TOOL, 1, 128),
    "tool_choice": TOOL_CHOICE,
    "parallel_tool_calls": FLAG,
    "response_format": RESPONSE_FORMAT,
    "reasoning_effort": OneOf(("none", "minimal", "low", "medium", "high", "xhigh", "max")),
    "verbosity": OneOf(("low", "medium", "high")),
    "stream": FLAG,
    "stream_options": Fields({}, {"include_usage": FLAG, "include_obfuscation": FLAG}),
    "service_tier": OneOf(("auto", "default", "flex", "scale", "priority", "fast")),
    "seed": Number(-(2**63), 2**63 - 1, whole=True),
    "user": TEXT,
    "safety_identifier": Text(high=64),
    "prompt_cache_key": TEXT,
    "prompt_cache_retention": OneOf(("in_memory", "24h")),
    "prompt_cache_options": Fields({}, {"ttl": OneOf(("30m",)), "mode": OneOf(("implicit", "explicit"))}),
    "metadata": Table(Text(high=512), r"(?s).{1,64}", "1 to 64 characters long", high=16),
    "store": FLAG,
    "modalities": Items(OneOf(("text", "audio"))),
    "audio": Fields({"voice": FILLED, "format": OneOf(("wav", "aac", "mp3", "flac", "opus", "pcm16"))}),
    "prediction": Fields({"type": OneOf(("content",)), "content": _content("text")}),
    "web_search_options": Fields(
        {}, {"search_context_size": OneOf(("low", "medium", "high")), "user_location": USER_LOCATION}
    ),
    "moderation": Fields({}, {"model": FILLED, "policy": Anything()}),
    "functions": Items(Fields({"name": NAME}, {"description": TEXT, "parameters": OPEN}), 1, 128),
    "function_call": BySort("none, auto or a mapping", text=OneOf(("none", "auto")), fields=NAMED),
}
CORE: dict[str, Shape] = {"model": FILLED, "messages": Items(MESSAGE)}
KEYS = (*CORE, *PARAMETERS, "extra_body")
#: The same for values that rows have given.
LITERAL = {name: literal(shape) for name, shape in PARAMETERS.items()}
NEEDS = {"top_logprobs": "logprobs", "stream_options": "stream"}
CAST = "; let the template end in | float or | int"


def mistakes(request: Any) -> Iterator[tuple[Path, str]]:
    """What is wrong inside `request`, as (path from the job, sentence). Missing keys are the model's to miss."""
    if not isinstance(request, dict):
        return
    for name, value in request.items():
        yield from _parameter(name, value, ("request", name))
    messages, place = request.get("messages"), ("request", "messages")
    if isinstance(messages, list) and not any(judge(CORE["messages"], messages, place)):
        yield from turns(messages, place, _is_open)
    for name, objection in _alone(request):
        yield ("request", name), objection


def faults(body: Mapping[str, Any], names: Iterable[str]) -> Iterator[tuple[Path, str]]:
    """What is wrong with the parameters `names` of a rendered body, as (path, sentence). Braces in it are data."""
    for name in names:
        shape, value = LITERAL.get(name), body.get(name)
        if shape is not None and value is not None:
            yield from ((path, said.replace(QUOTED, CAST)) for path, said in shape.check(value, (name,)))
    for name, objection in _alone(body):
        yield (name,), objection


def _alone(request: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Parameters that mean nothing without another."""
    for name, other in NEEDS.items():
        if request.get(name) is not None and request.get(other) in (None, False):
            yield name, f"needs {other}: true"


def _is_open(message: Any) -> bool:
    """Whether it depends on the row who speaks, which calls are made, or which call is answered."""
    if is_template(message):
        return True
    calls = message.get("tool_calls")
    ids = [message["role"], calls, message.get("tool_call_id"), *_call_ids(calls)]
    return any(map(is_template, ids))


def _call_ids(calls: Any) -> list[Any]:
    return [None if is_template(call) else call["id"] for call in calls] if isinstance(calls, list) else []


def _parameter(name: str, value: Any, path: Path) -> Found:
    if name == "extra_body":
        yield from _extra_body(value, path)
    elif name in CORE:
        yield from judge(CORE[name], value, path)
    elif name not in PARAMETERS:
        yield path, f"unknown key{guess(name, KEYS) or ';'} newer parameters go into extra_body"
    elif value is not None:
        yield from judge(PARAMETERS[name], value, path)


def _extra_body(value: Any, path: Path) -> Found:
    if not isinstance(value, dict):
        yield path, must_be("a mapping", value)
        return
    for name in value:
        if name in KEYS:
            yield (*path, name), f"is a parameter of the request itself; write it as request.{name}"


def schema() -> Schema:
    """JSON Schema of `request`, for editors."""
    parameters = {name: {"anyOf": [describe(shape), {"type": "null"}]} for name, shape in PARAMETERS.items()}
    return {
        "type": "object",
        "properties": {
            **{name: describe(shape) for name, shape in CORE.items()},
            **parameters,
            "extra_body": {"type": "object", "default": {}},
        },
        "required": list(CORE),
        "additionalProperties": False,
    }
