"""Why a request is not answered: the error bodies of the wire, in OpenAI's shape.

Strategy: `CHECKS` is one table of what a body must be; the first row that fails is the answer, with status 400. Only
what the simulator relies on is checked, so that no JSON whatever can break it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from runner.simulator.answers import name_of


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


NO_KEY = Refusal(401, "You didn't provide an API key. Provide it in an Authorization header as a bearer token.")
WRONG_KEY = Refusal(401, "Incorrect API key provided.", code="invalid_api_key")
NOT_JSON = Refusal(400, "We could not parse the JSON body of your request.")
SERVER_ERROR = Refusal(500, "The server had an error while processing your request. Sorry about that!", "server_error")
OVERLOADED = Refusal(
    503, "The engine is currently overloaded, please try again later.", "server_error", code="server_is_overloaded"
)


def not_found(method: str, path: str) -> Refusal:
    return Refusal(404, f"Invalid URL ({method} {path})", code="unknown_url")


def not_allowed(method: str) -> Refusal:
    return Refusal(405, f"Not allowed to {method} here.", code="method_not_supported")


def rate_limited(message: str, kind: str) -> Refusal:
    """`kind` is what ran out: requests or tokens."""
    return Refusal(429, message, kind, code="rate_limit_exceeded")


def bad_schema(reason: str) -> Refusal:
    return Refusal(400, f"Invalid schema: {reason}"[:300], code="invalid_schema")


def refusal_of(body: Any) -> Refusal | None:
    """What is wrong with a request's body, or None."""
    if not isinstance(body, dict):
        return NOT_JSON
    for param, fine, demand in CHECKS:
        if not fine(body):
            return Refusal(400, f"Invalid '{param}': {demand}.", param=param)
    return None


def _count(name: str, low: int, high: int) -> Callable[[Mapping[str, Any]], bool]:
    return lambda body: body.get(name) is None or (type(body[name]) is int and low <= body[name] <= high)


def _messages(body: Mapping[str, Any]) -> bool:
    messages = body.get("messages")
    return isinstance(messages, list) and bool(messages) and all(map(_message, messages))


def _message(message: Any) -> bool:
    return isinstance(message, dict) and isinstance(message.get("role"), str)


def _stop(body: Mapping[str, Any]) -> bool:
    stop = body.get("stop")
    marks = stop if isinstance(stop, list) else [] if stop is None else [stop]
    return len(marks) <= 4 and all(isinstance(mark, str) for mark in marks)


def _format(body: Mapping[str, Any]) -> bool:
    wanted = body.get("response_format") or {"type": "text"}
    if not isinstance(wanted, dict) or wanted.get("type") not in ("text", "json_object", "json_schema"):
        return False
    named = wanted.get("json_schema")
    return wanted["type"] != "json_schema" or (isinstance(named, dict) and isinstance(named.get("name"), str))


def _tool(tool: Any) -> bool:
    if not isinstance(tool, dict) or tool.get("type") not in ("function", "custom"):
        return False
    named = tool.get(tool["type"])
    if not isinstance(named, dict) or not isinstance(named.get("name"), str):
        return False
    return isinstance(named.get("parameters") or {}, dict)


def _tools(body: Mapping[str, Any]) -> bool:
    tools = body.get("tools")
    return tools is None or (isinstance(tools, list) and bool(tools) and all(map(_tool, tools)))


def _tool_choice(body: Mapping[str, Any]) -> bool:
    """Runs after `_tools`: a choice names tools that are offered."""
    choice = body.get("tool_choice")
    if choice is None or choice == "none":
        return True
    if isinstance(choice, str):
        return choice in ("auto", "required") and bool(body.get("tools"))
    chosen = _chosen(choice)
    offered = [name_of(tool) for tool in body.get("tools") or ()]
    return bool(chosen) and all(_tool(tool) and name_of(tool) in offered for tool in chosen)


def _chosen(choice: Any) -> list[Any]:
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return [choice]
    allowed = choice.get("allowed_tools")
    tools = allowed.get("tools") if isinstance(allowed, dict) else None
    return tools if isinstance(tools, list) else []


CHECKS: tuple[tuple[str, Callable[[Mapping[str, Any]], bool], str], ...] = (
    ("model", lambda body: isinstance(body.get("model"), str) and body["model"] != "", "a model's name is required"),
    ("messages", _messages, "at least one message with a role is required"),
    ("stream", lambda body: body.get("stream") in (None, True, False), "true or false is required"),
    ("stream_options", lambda body: isinstance(body.get("stream_options") or {}, dict), "an object is required"),
    ("stream_options", lambda body: body.get("stream") or not body.get("stream_options"), "set stream to true first"),
    ("n", _count("n", 1, 128), "an integer from 1 to 128 is required"),
    ("max_tokens", _count("max_tokens", 1, 2**31), "a positive integer is required"),
    ("max_completion_tokens", _count("max_completion_tokens", 1, 2**31), "a positive integer is required"),
    ("top_logprobs", _count("top_logprobs", 0, 20), "an integer from 0 to 20 is required"),
    ("top_logprobs", lambda body: body.get("logprobs") or not body.get("top_logprobs"), "set logprobs to true first"),
    ("stop", _stop, "a string or at most four of them are required"),
    ("response_format", _format, "its type is text, json_object or json_schema, which has a json_schema with a name"),
    ("tools", _tools, "a list of functions with names is required"),
    ("tool_choice", _tool_choice, "none, auto, required or an offered tool is required"),
)
