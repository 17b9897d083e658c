"""Event streams as servers send them, each beside the unstreamed body that says the same; and streams that break.

Rule: what is special about a stream is in its name; all else in it is as OpenAI sends it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from runner.records import Billed, Kind

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}
ABOUT = {"id": "chatcmpl-1", "created": 1741569952, "model": "gpt-4.1-mini-2025-04-14"}


def event(value: Any, end: str = "\n", field: str = "data: ") -> bytes:
    return f"{field}{json.dumps(value, ensure_ascii=False)}{end}{end}".encode()


def chunk(*choices: Any, **more: Any) -> bytes:
    return event({**ABOUT, "object": "chat.completion.chunk", "choices": list(choices), **more})


def part(delta: Any = None, finish: Any = None, index: Any = 0, **more: Any) -> dict[str, Any]:
    return {"index": index, "delta": {} if delta is None else delta, "finish_reason": finish, **more}


def text(content: Any, index: Any = 0, **delta: Any) -> dict[str, Any]:
    return part({**delta, "content": content}, index=index)


def choice(message: dict[str, Any], finish: Any = "stop", index: int = 0, **more: Any) -> dict[str, Any]:
    return {"index": index, "message": {"role": "assistant", **message}, "finish_reason": finish, **more}


def chat(*choices: Any, usage: Any = USAGE, **more: Any) -> dict[str, Any]:
    return {**ABOUT, "object": "chat.completion", "choices": list(choices), "usage": usage, **more}


def fragment(index: Any = None, name: Any = None, arguments: Any = None, **more: Any) -> dict[str, Any]:
    """One entry of a delta's tool_calls; what is None is not there."""
    function = {"name": name, "arguments": arguments}
    head = {} if index is None else {"index": index}
    return {**head, **more, "function": {key: value for key, value in function.items() if value is not None}}


def called(*calls: tuple[str | None, str, str]) -> dict[str, Any]:
    """The unstreamed choice with these calls, each (id, name, arguments)."""
    values = [{"id": i, "type": "function", "function": {"name": name, "arguments": text}} for i, name, text in calls]
    return choice({"content": None, "tool_calls": values}, "tool_calls")


def calling(*deltas: Any) -> bytes:
    """A stream of deltas, each the list of tool_calls that it brings."""
    body = b"".join(chunk(part({"tool_calls": calls})) for calls in deltas)
    return chunk(text(None, role="assistant")) + body + chunk(part(finish="tool_calls")) + TOTAL + DONE


@dataclass(frozen=True)
class Variant:
    """A stream, and the body that an unstreamed reply would have had."""

    stream: bytes
    body: dict[str, Any]
    n: int = 1


@dataclass(frozen=True)
class Broken:
    """A stream that is no answer, and what its failure is."""

    stream: bytes
    kind: Kind
    message: str
    billed: Billed = Billed.MAYBE
    n: int = 1


TOTAL = chunk(usage=USAGE)
FIRST = chunk(text("", role="assistant", refusal=None))
HELLO = FIRST + chunk(text("Hel")) + chunk(text("lo, wörld")) + chunk(text("!"))
STOP = chunk(part(finish="stop"))
OPENAI = HELLO + STOP + TOTAL + DONE
SAID = chat(choice({"content": "Hello, wörld!"}))
UNBILLED = chat(choice({"content": "Hello, wörld!"}), usage=None)
PAIR = chat(choice({"content": "left"}), choice({"content": "right"}, index=1))
TOKEN = {"token": "He", "logprob": -0.1, "bytes": [72, 101], "top_logprobs": [{"token": "Ho", "logprob": -2.5}]}
TOKEN_2 = {"token": "y", "logprob": -9999.0, "top_logprobs": []}


def renamed(stream: bytes, old: str, new: str) -> bytes:
    return stream.replace(old.encode(), new.encode())


def each_with(stream: bytes, before: bytes) -> bytes:
    """`before` in front of every event."""
    return b"".join(before + one + b"\n\n" for one in stream.split(b"\n\n") if one)


def over_lines(value: Any) -> bytes:
    """An event whose JSON is spread over several data lines."""
    lines = json.dumps(value, indent=1, ensure_ascii=False).split("\n")
    return "".join(f"data: {line}\n" for line in lines).encode() + b"\n"


def values(stream: bytes) -> list[Any]:
    """The chunks of a stream as this module writes them."""
    found = [one.removeprefix(b"data: ") for one in stream.split(b"\n\n") if one]
    return [json.loads(one) for one in found if one != b"[DONE]"]


def without(stream: bytes, *names: str) -> bytes:
    """The stream whose choices lack these members."""
    kept = values(stream)
    for value in kept:
        for one in value["choices"]:
            for name in names:
                one.pop(name, None)
    return b"".join(event(value) for value in kept) + DONE


def in_each_delta(stream: bytes, **more: Any) -> bytes:
    kept = values(stream)
    for value in kept:
        for one in value["choices"]:
            one["delta"].update(more)
    return b"".join(event(value) for value in kept) + DONE


def numbered(stream: bytes) -> bytes:
    """Every chunk with an id and a time of its own, the first one's kept."""
    kept = values(stream)
    for place, value in enumerate(kept[1:], 1):
        value.update(id=f"other-{place}", created=ABOUT["created"] + place)
    return b"".join(event(value) for value in kept) + DONE


FRAMING: dict[str, Variant] = {
    "openai": Variant(OPENAI, SAID),
    "ends with \\r\\n": Variant(OPENAI.replace(b"\n", b"\r\n"), SAID),
    "ends with \\r": Variant(OPENAI.replace(b"\n", b"\r"), SAID),
    "line ends mixed": Variant(HELLO.replace(b"\n", b"\r\n") + STOP.replace(b"\n", b"\r") + TOTAL + DONE, SAID),
    "no space behind data:": Variant(OPENAI.replace(b"data: ", b"data:"), SAID),
    "several spaces behind data:": Variant(OPENAI.replace(b"data: ", b"data:   "), SAID),
    "json over several data lines": Variant(b"".join(map(over_lines, values(OPENAI))) + DONE, SAID),
    "comments of openrouter": Variant(each_with(OPENAI, b": OPENROUTER PROCESSING\n\n"), SAID),
    "comments inside events": Variant(each_with(OPENAI, b": keepalive 33/34\n"), SAID),
    "empty comments": Variant(each_with(OPENAI, b":\n\n"), SAID),
    "a byte order mark": Variant(b"\xef\xbb\xbf" + OPENAI, SAID),
    "event, id and retry lines": Variant(each_with(OPENAI, b"event: message\nid: 7\nretry: 3000\n"), SAID),
    "pings": Variant(each_with(OPENAI, b'event: ping\ndata: {"type": "ping"}\n\n'), SAID),
    "empty data": Variant(each_with(OPENAI, b"data:\n\ndata: \n\n"), SAID),
    "data that is null": Variant(each_with(OPENAI, b"data: null\n\n"), SAID),
    "blank lines first": Variant(b"\n\n" + OPENAI, SAID),
    "no blank line between events": Variant(OPENAI.replace(b"\n\n", b"\n"), SAID),
    "no line end behind the last line": Variant(OPENAI.rstrip(b"\n"), SAID),
    "line and paragraph separators": Variant(
        renamed(OPENAI, "lo, wörld", "lo\u2028\u2029\u0085 wörld"),
        chat(choice({"content": "Hello\u2028\u2029\u0085 wörld!"})),
    ),
    "escaped line breaks": Variant(
        chunk(text("a\nb\r\n\ndata: [DONE]")) + STOP + TOTAL + DONE,
        chat(choice({"content": "a\nb\r\n\ndata: [DONE]"})),
    ),
    "half an emoji": Variant(OPENAI.replace("wörld".encode(), b"\\ud83d"), chat(choice({"content": "Hello, \ufffd!"}))),
}

ENDS: dict[str, Variant] = {
    "no usage": Variant(HELLO + STOP + DONE, UNBILLED),
    "usage null in every chunk": Variant(
        b"".join(event({"usage": None, **value}) for value in values(OPENAI)) + DONE, SAID
    ),
    "usage on the finish chunk": Variant(HELLO + chunk(part(finish="stop"), usage=USAGE) + DONE, SAID),
    "usage in a chunk with an empty delta": Variant(HELLO + STOP + chunk(part(), usage=USAGE) + DONE, SAID),
    "usage in an object called chat.completion": Variant(
        HELLO + STOP + event({**ABOUT, "object": "chat.completion", "choices": [], "usage": USAGE}) + DONE, SAID
    ),
    "usage growing in every chunk": Variant(
        b"".join(
            event({**value, "usage": {**USAGE, "completion_tokens": place}})
            for place, value in enumerate(values(HELLO + STOP))
        )
        + TOTAL
        + DONE,
        SAID,
    ),
    "usage of groq": Variant(HELLO + chunk(part(finish="stop"), x_groq={"id": "r", "usage": USAGE}) + DONE, SAID),
    "usage of moonshot": Variant(HELLO + chunk(part(finish="stop", usage=USAGE)) + DONE, SAID),
    "usage before the end": Variant(FIRST + TOTAL + HELLO[len(FIRST) :] + STOP + DONE, SAID),
    "no [DONE]": Variant(HELLO + STOP + TOTAL, SAID),
    "no [DONE] and no usage": Variant(HELLO + STOP, UNBILLED),
    "[DONE] with more behind it": Variant(HELLO + STOP + DONE + TOTAL, SAID),
    "finish_reason with the last text": Variant(
        FIRST + chunk(text("Hello, wörld")) + chunk(part({"content": "!"}, "stop")) + TOTAL + DONE, SAID
    ),
    "finish_reason length": Variant(
        HELLO + chunk(part(finish="length")) + TOTAL + DONE, chat(choice({"content": "Hello, wörld!"}, "length"))
    ),
    "a finish_reason of anthropic": Variant(
        HELLO + chunk(part(finish="end_turn")) + TOTAL + DONE, chat(choice({"content": "Hello, wörld!"}, "end_turn"))
    ),
    "finish_reason empty until the end": Variant(
        renamed(HELLO, '"finish_reason": null', '"finish_reason": ""') + STOP + TOTAL + DONE, SAID
    ),
    "finish_reason absent until the end": Variant(without(HELLO, "finish_reason")[: -len(DONE)] + STOP + TOTAL, SAID),
    "an error behind the whole answer": Variant(OPENAI + event({"error": {"message": "cannot close"}}), SAID),
    "broken json behind the whole answer": Variant(HELLO + STOP + TOTAL + b'data: {"usa\n\n' + DONE, SAID),
    "one choice where two were asked": Variant(OPENAI, SAID, n=2),
    "one choice where two were asked, no [DONE]": Variant(HELLO + STOP + TOTAL, SAID, n=2),
    "an empty answer": Variant(FIRST + STOP + TOTAL + DONE, chat(choice({"content": ""}))),
}

HEADS: dict[str, Variant] = {
    "azure's first chunk": Variant(
        event({"id": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": []}) + OPENAI, SAID
    ),
    "an id and a time per chunk": Variant(numbered(OPENAI), SAID),
    "no role": Variant(renamed(OPENAI, '"role": "assistant", ', ""), SAID),
    "the role in every delta": Variant(in_each_delta(OPENAI, role="assistant"), SAID),
    "first content null": Variant(
        chunk(text(None, role="assistant")) + HELLO[len(FIRST) :] + STOP + TOTAL + DONE, SAID
    ),
    "text in the first delta": Variant(chunk(text("Hello, wörld!", role="assistant")) + STOP + TOTAL + DONE, SAID),
    "no index": Variant(without(OPENAI, "index"), SAID),
    "all members of openai": Variant(
        b"".join(
            event({**value, "system_fingerprint": "fp_1", "service_tier": "default", "obfuscation": "x7s"})
            for value in values(OPENAI)
        )
        + DONE,
        {**SAID, "system_fingerprint": "fp_1", "service_tier": "default"},
    ),
    "one whole message": Variant(chunk({**choice({"content": "Hello, wörld!"})}) + TOTAL + DONE, SAID),
    "the whole message behind its deltas": Variant(HELLO + chunk(choice({"content": "Hello, wörld!"})) + TOTAL, SAID),
    "the message so far beside each delta": Variant(
        b"".join(
            chunk({**part({"content": piece}, finish), "message": {"content": "Hello, wörld!"}})
            for piece, finish in (("Hello", None), (", wörld!", "stop"))
        )
        + TOTAL,
        SAID,
    ),
    "text of a plain completion": Variant(
        chunk({"index": 0, "text": "Hello, "}) + chunk({"index": 0, "text": "wörld!", "finish_reason": "stop"}) + TOTAL,
        SAID,
    ),
}

CHOICES: dict[str, Variant] = {
    "interleaved": Variant(
        chunk(text("le", 0))
        + chunk(text("rig", 1))
        + chunk(text("ft", 0))
        + chunk(text("ht", 1))
        + chunk(part(finish="stop", index=1))
        + chunk(part(finish="stop", index=0))
        + TOTAL
        + DONE,
        PAIR,
        n=2,
    ),
    "the second one first": Variant(
        chunk(text("right", 1))
        + chunk(part(finish="stop", index=1))
        + chunk(text("left", 0))
        + chunk(part(finish="stop", index=0))
        + TOTAL
        + DONE,
        PAIR,
        n=2,
    ),
    "several in a chunk": Variant(
        chunk(text("le", 0), text("rig", 1))
        + chunk(text("ht", 1), text("ft", 0))
        + chunk(part(finish="stop", index=0), part(finish="stop", index=1))
        + TOTAL
        + DONE,
        PAIR,
        n=2,
    ),
    "litellm ends the first one only": Variant(
        chunk(text("le", 0), text("rig", 1))
        + chunk(text("ft", 0), text("ht", 1))
        + chunk(part(finish="stop", index=0))
        + chunk(part(index=0), usage=USAGE)
        + DONE,
        chat(choice({"content": "left"}), choice({"content": "right"}, None, index=1)),
        n=2,
    ),
    "llama.cpp counts each one alone": Variant(
        chunk(text("right", 1))
        + chunk(text("le", 0))
        + chunk(part(finish="stop", index=1))
        + chunk(usage={"prompt_tokens": 19, "completion_tokens": 4, "total_tokens": 23})
        + chunk(text("ft", 0))
        + chunk(part(finish="stop", index=0))
        + chunk(usage={"prompt_tokens": 19, "completion_tokens": 6, "total_tokens": 25})
        + DONE,
        PAIR,
        n=2,
    ),
    "each one counted, then all": Variant(
        chunk(text("left", 0))
        + chunk(part(finish="stop", index=0), usage={**USAGE, "completion_tokens": 4})
        + chunk(text("right", 1))
        + chunk(part(finish="stop", index=1), usage={**USAGE, "completion_tokens": 6})
        + TOTAL
        + DONE,
        PAIR,
        n=2,
    ),
    "no index, several in a chunk": Variant(
        without(
            chunk(text("left", 0), text("right", 1))
            + chunk(part(finish="stop", index=0), part(finish="stop", index=1))
            + TOTAL,
            "index",
        ),
        PAIR,
        n=2,
    ),
}

WEATHER = ("call_1", "weather", '{"city": "Zürich"}')
CLOCK = ("call_2", "clock", "{}")

TOOLS: dict[str, Variant] = {
    "fragments of openai": Variant(
        calling(
            [fragment(0, "weather", "", id="call_1", type="function")],
            [fragment(0, arguments='{"city": ')],
            [fragment(0, arguments='"Zürich"}')],
        ),
        chat(called(WEATHER)),
    ),
    "two calls one after the other": Variant(
        calling(
            [fragment(0, "weather", "", id="call_1", type="function")],
            [fragment(0, arguments='{"city": "Zürich"}')],
            [fragment(1, "clock", "", id="call_2", type="function")],
            [fragment(1, arguments="{}")],
        ),
        chat(called(WEATHER, CLOCK)),
    ),
    "two calls interleaved, the second one first": Variant(
        calling(
            [fragment(1, "clock", "{", id="call_2"), fragment(0, "weather", '{"city": ', id="call_1")],
            [fragment(1, arguments="}")],
            [fragment(0, arguments='"Zürich"}')],
        ),
        chat(called(WEATHER, CLOCK)),
    ),
    "whole at once": Variant(calling([fragment(0, *WEATHER[1:], id="call_1")]), chat(called(WEATHER))),
    "two whole at once, no index": Variant(
        calling([fragment(None, *WEATHER[1:], id="call_1"), fragment(None, *CLOCK[1:], id="call_2")]),
        chat(called(WEATHER, CLOCK)),
    ),
    "two whole at once, neither index nor id": Variant(
        calling([fragment(None, *WEATHER[1:]), fragment(None, *CLOCK[1:])]),
        chat(called((None, *WEATHER[1:]), (None, *CLOCK[1:]))),
    ),
    "fragments without index": Variant(
        calling(
            [fragment(None, "weather", "", id="call_1")],
            [fragment(None, arguments='{"city": "Zür')],
            [fragment(None, arguments='ich"}')],
            [fragment(None, "clock", "{}", id="call_2")],
        ),
        chat(called(WEATHER, CLOCK)),
    ),
    "fragments known by their id": Variant(
        calling(
            [fragment(None, "weather", '{"city": ', id="call_1")],
            [fragment(None, "clock", "{", id="call_2")],
            [fragment(None, arguments='"Zürich"}', id="call_1")],
            [fragment(None, arguments="}", id="call_2")],
        ),
        chat(called(WEATHER, CLOCK)),
    ),
    "gemini calls them all 0": Variant(
        calling([fragment(0, *WEATHER[1:], id="call_1")], [fragment(0, *CLOCK[1:], id="call_2")]),
        chat(called(WEATHER, CLOCK)),
    ),
    "the name and the id in every fragment": Variant(
        calling([fragment(0, "weather", '{"city": ', id="call_1")], [fragment(0, "weather", '"Zürich"}', id="call_1")]),
        chat(called(WEATHER)),
    ),
    "the name in fragments": Variant(
        calling([fragment(0, "wea", "", id="call_1")], [fragment(0, "ther", WEATHER[2])]), chat(called(WEATHER))
    ),
    "arguments as an object": Variant(
        calling([fragment(0, "weather", {"city": "Zürich"}, id="call_1")]),
        chat(called(("call_1", "weather", '{"city":"Zürich"}'))),
    ),
    "a custom tool": Variant(
        calling(
            [{"index": 0, "id": "call_3", "type": "custom", "custom": {"name": "sql", "input": "select "}}],
            [{"index": 0, "custom": {"input": "1"}}],
        ),
        chat(
            choice(
                {"tool_calls": [{"id": "call_3", "type": "custom", "custom": {"name": "sql", "input": "select 1"}}]},
                "tool_calls",
            )
        ),
    ),
    "text and a call": Variant(
        HELLO
        + chunk(part({"tool_calls": [fragment(0, *CLOCK[1:], id="call_2")]}))
        + chunk(part(finish="tool_calls"))
        + TOTAL,
        chat(choice({"content": "Hello, wörld!", "tool_calls": called(CLOCK)["message"]["tool_calls"]}, "tool_calls")),
    ),
    "a legacy function call": Variant(
        chunk(text(None, role="assistant", function_call={"name": "weather", "arguments": ""}))
        + chunk(part({"function_call": {"arguments": '{"city": '}}))
        + chunk(part({"function_call": {"arguments": '"Zürich"}'}}))
        + chunk(part(finish="function_call"))
        + TOTAL
        + DONE,
        chat(
            choice(
                {"content": None, "function_call": {"name": "weather", "arguments": '{"city": "Zürich"}'}},
                "function_call",
            )
        ),
    ),
}


def thinking(*deltas: dict[str, Any]) -> bytes:
    return FIRST + b"".join(chunk(part(delta)) for delta in deltas) + HELLO[len(FIRST) :] + STOP + TOTAL + DONE


THOUGHT = chat(choice({"content": "Hello, wörld!", "reasoning_content": "Hm, well"}))

MEMBERS: dict[str, Variant] = {
    "reasoning_content": Variant(
        thinking({"reasoning_content": "Hm, ", "content": None}, {"reasoning_content": "well"}), THOUGHT
    ),
    "reasoning": Variant(thinking({"reasoning": "Hm, ", "content": ""}, {"reasoning": "well"}), THOUGHT),
    "thinking": Variant(thinking({"thinking": "Hm, "}, {"thinking": "well"}), THOUGHT),
    "reasoning_details": Variant(
        thinking(
            {"reasoning_details": [{"type": "reasoning.text", "text": "Hm, ", "index": 0}]},
            {"reasoning_details": [{"type": "reasoning.text", "text": "well", "index": 0}]},
        ),
        THOUGHT,
    ),
    "reasoning and its details": Variant(
        thinking(
            {"reasoning": "Hm, ", "reasoning_details": [{"type": "reasoning.text", "text": "Hm, "}]},
            {"reasoning": "well", "reasoning_details": [{"type": "reasoning.text", "text": "well"}]},
            {"reasoning_details": [{"type": "reasoning.encrypted", "data": "gAAAA"}]},
        ),
        THOUGHT,
    ),
    "several blocks of reasoning": Variant(
        thinking(
            {"reasoning_details": [{"summary": "on", "index": 0}]},
            {"reasoning_details": [{"summary": "e", "index": 0}, {"summary": "two", "index": 1}]},
        ),
        chat(choice({"content": "Hello, wörld!", "reasoning": "one\ntwo"})),
    ),
    "thinking_blocks": Variant(
        thinking(
            {"thinking_blocks": [{"type": "thinking", "thinking": "Hm, ", "signature": ""}]},
            {"thinking_blocks": [{"type": "thinking", "thinking": "well", "signature": "x"}]},
        ),
        THOUGHT,
    ),
    "content in parts": Variant(
        chunk(text([{"type": "text", "text": "Hello, "}]))
        + chunk(text([{"type": "text", "text": "wörld!"}]))
        + STOP
        + TOTAL,
        SAID,
    ),
    "thoughts among the parts": Variant(
        chunk(text([{"type": "thinking", "thinking": [{"type": "text", "text": "Hm, "}]}]))
        + chunk(text([{"type": "thinking", "thinking": [{"type": "text", "text": "well"}]}]))
        + chunk(text("Hello, wörld!"))
        + STOP
        + TOTAL,
        THOUGHT,
    ),
    "a refusal": Variant(
        FIRST + chunk(part({"refusal": "I cannot "})) + chunk(part({"refusal": "do that."})) + STOP + TOTAL + DONE,
        chat(choice({"content": None, "refusal": "I cannot do that."})),
    ),
    "logprobs": Variant(
        FIRST
        + chunk(part({"content": "He"}, logprobs={"content": [TOKEN], "refusal": None}))
        + chunk(part({"content": "y"}, logprobs={"content": [TOKEN_2]}))
        + STOP
        + TOTAL
        + DONE,
        chat(choice({"content": "Hey"}, logprobs={"content": [TOKEN, TOKEN_2], "refusal": None})),
    ),
    "logprobs of a refusal": Variant(
        FIRST + chunk(part({"refusal": "Hey"}, logprobs={"content": None, "refusal": [TOKEN, TOKEN_2]})) + STOP + TOTAL,
        chat(choice({"refusal": "Hey"}, logprobs={"content": None, "refusal": [TOKEN, TOKEN_2]})),
    ),
    "audio": Variant(
        chunk(part({"role": "assistant", "content": "", "audio": {"id": "a1", "transcript": "Hello, "}}))
        + chunk(part({"audio": {"data": "AAAA"}}))
        + chunk(part({"audio": {"transcript": "wörld!"}}))
        + chunk(part({"audio": {"expires_at": 9}}))
        + STOP
        + TOTAL
        + DONE,
        chat(choice({"content": None, "audio": {"id": "a1", "data": "AAAA", "transcript": "Hello, wörld!"}})),
    ),
}

#: Every stream that is an answer.
RECORDED: dict[str, Variant] = {
    f"{table}: {name}": variant
    for table, variants in (
        ("framing", FRAMING),
        ("end", ENDS),
        ("head", HEADS),
        ("choices", CHOICES),
        ("tools", TOOLS),
        ("members", MEMBERS),
    )
    for name, variant in variants.items()
}

UNFINISHED = "the stream ended before the answer did"
NO_CHUNK = "the event stream holds a line that is no JSON"
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}

#: Every stream that is none, though its connection ended in order.
BROKEN: dict[str, Broken] = {
    "ends inside the text": Broken(HELLO, Kind.BAD_REPLY, UNFINISHED),
    "ends inside the text, usage told": Broken(HELLO + TOTAL, Kind.BAD_REPLY, UNFINISHED, Billed.YES),
    "[DONE] without a finish_reason": Broken(HELLO + DONE, Kind.BAD_REPLY, UNFINISHED),
    "ends inside a line": Broken(HELLO + STOP[:40], Kind.BAD_REPLY, UNFINISHED),
    "ends inside a character": Broken(FIRST + chunk(text("ö")).split(b"\xb6")[0], Kind.BAD_REPLY, UNFINISHED),
    "the second choice does not end": Broken(
        chunk(text("left", 0)) + chunk(text("rig", 1)) + chunk(part(finish="stop", index=0)) + DONE,
        Kind.BAD_REPLY,
        UNFINISHED,
        n=2,
    ),
    "the second choice does not come": Broken(HELLO + STOP, Kind.BAD_REPLY, UNFINISHED, n=2),
    "nothing but comments": Broken(b": keepalive\n\n: keepalive\n\n", Kind.BAD_REPLY, UNFINISHED),
    "nothing but [DONE]": Broken(DONE, Kind.BAD_REPLY, "the reply has no choices"),
    "usage and no choices": Broken(TOTAL + DONE, Kind.BAD_REPLY, "the reply has no choices", Billed.YES),
    "error of openai": Broken(
        HELLO + event({"error": {"message": "The server had an error", "type": "server_error", "code": None}}),
        Kind.BAD_REPLY,
        "The server had an error",
    ),
    "error of litellm": Broken(
        HELLO + event({"error": {"message": "slow", "type": "throttling_error", "code": "429"}}) + DONE,
        Kind.RATE,
        "slow",
    ),
    "error first": Broken(
        event({"error": {"message": "no money", "code": "insufficient_quota"}}), Kind.QUOTA, "no money"
    ),
    "error behind the usage": Broken(
        HELLO + TOTAL + event({"error": {"message": "boom", "code": 502}}), Kind.SERVER, "boom", Billed.YES
    ),
    "error of old vllm": Broken(
        HELLO + event({"object": "error", "message": "out of memory", "type": "InternalServerError", "code": 500}),
        Kind.SERVER,
        "out of memory",
    ),
    "error of anthropic": Broken(HELLO + b"event: error\n" + event(OVERLOADED), Kind.OVERLOADED, "Overloaded"),
    "event: error without an error": Broken(
        HELLO + b'event: error\ndata: {"message": "gone"}\n\n', Kind.BAD_REPLY, "gone"
    ),
    "event: error without a message": Broken(
        HELLO + b"event: error\ndata: {}\n\n", Kind.BAD_REPLY, "the stream ended with an error"
    ),
    "error of openrouter": Broken(
        HELLO + chunk(part({"content": ""}, "error"), error={"code": 502, "message": "Provider disconnected"}),
        Kind.SERVER,
        "Provider disconnected",
    ),
    "error in the choice": Broken(
        HELLO + chunk(part(finish="error", error={"code": 429, "message": "Busy"})), Kind.RATE, "Busy"
    ),
    "finish_reason error alone": Broken(
        HELLO + chunk(part(finish="error")), Kind.SERVER, "the answer ended with finish_reason error"
    ),
    "error of gemini, in a list": Broken(
        HELLO + event([{"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}]),
        Kind.OVERLOADED,
        "overloaded",
    ),
    "error of fastapi": Broken(HELLO + event({"detail": "boom"}), Kind.BAD_REPLY, "boom"),
    "error without data:": Broken(
        HELLO + b'{"error": {"message": "upstream reset", "code": 504}}\n\n', Kind.SERVER, "upstream reset"
    ),
    "error and then a happy end": Broken(
        FIRST + event({"error": {"message": "boom"}}) + HELLO + STOP + DONE, Kind.BAD_REPLY, "boom"
    ),
    "half a chunk": Broken(FIRST + chunk(text("Hel"))[:60] + b"\n\n" + STOP + DONE, Kind.BAD_REPLY, NO_CHUNK),
    "half a chunk, usage told": Broken(
        FIRST + chunk(text("Hel"))[:60] + b"\n\n" + STOP + TOTAL + DONE, Kind.BAD_REPLY, NO_CHUNK, Billed.YES
    ),
    "a sentence for a chunk": Broken(
        HELLO + b"data: the server is overloaded\n\n", Kind.OVERLOADED, "the server is overloaded"
    ),
    "a quoted sentence for a chunk": Broken(HELLO + b'data: "gone"\n\n', Kind.BAD_REPLY, "gone"),
    "bytes that are no text": Broken(FIRST + b'data: {"choices": "\xff\xfe"}\n\n' + STOP, Kind.BAD_REPLY, NO_CHUNK),
}
