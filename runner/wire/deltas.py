"""One choice of an event stream, growing delta by delta into the choice of an unstreamed reply.

Rule: what comes out is spelled as the server spells it, so that choices.py reads both alike; nothing is dropped that it
would read. Strategy: a table from the members of a delta to how each grows: texts are joined, blocks and tool calls
are joined by their index. Every row says whether the delta said anything, for the time of the first token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from runner.wire.choices import block_text, parts_of
from runner.wire.jsonbody import integer, mapping, mappings, string, text_of


@dataclass(slots=True)
class _Call:
    """A tool call whose arguments come in fragments."""

    index: int | None
    kind: str = "function"
    id: str | None = None
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    def value(self) -> dict[str, Any]:
        argument = "input" if self.kind == "custom" else "arguments"
        return {"id": self.id, "type": self.kind, self.kind: {"name": self.name, argument: "".join(self.pieces)}}


@dataclass(slots=True)
class Growing:
    """`finish`: the last finish_reason that says something; `alone`: it has had a chunk to itself."""

    finish: str | None = None
    alone: bool = False
    error: Any = None
    texts: dict[str, list[str]] = field(default_factory=dict)
    blocks: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    calls: list[_Call] = field(default_factory=list)
    legacy: _Call | None = None
    spoken: list[str] = field(default_factory=list)
    logprobs: dict[str, list[Any]] = field(default_factory=dict)

    def take(self, choice: Mapping[str, Any], *, alone: bool) -> bool:
        """Grow by one choice of a chunk; whether it said anything."""
        delta = choice.get("delta")
        if type(delta) is not dict:
            delta = self._whole(choice)
        said = False
        for name, value in delta.items():
            grow = GROWS.get(name)
            if grow is not None and value is not None:
                said |= grow(self, name, value)
        self.alone |= alone and said
        finish = choice.get("finish_reason")
        if finish:
            self.finish = string(finish) or self.finish
        if choice.get("logprobs"):
            self._likely(choice["logprobs"])
        self.error = self.error or choice.get("error")
        return said

    def choice(self, index: int) -> dict[str, Any]:
        """The choice as an unstreamed reply has it."""
        choice: dict[str, Any] = {"index": index, "message": self._message(), "finish_reason": self.finish}
        if self.logprobs:
            choice["logprobs"] = self.logprobs
        if self.error:
            choice["error"] = self.error
        return choice

    def _whole(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        """Where no delta is: a whole message, which replaces what has grown, or the text of a plain completion."""
        message = choice.get("message")
        if type(message) is not dict:
            return {"content": choice.get("text")}
        self.texts, self.blocks, self.calls, self.legacy, self.spoken = {}, {}, [], None, []
        return message

    def _message(self) -> dict[str, Any]:
        message: dict[str, Any] = {name: "".join(pieces) for name, pieces in self.texts.items()}
        for name, blocks in self.blocks.items():
            message[name] = [{"text": "".join(pieces)} for pieces in blocks.values()]
        if self.calls:
            placed = [(place if call.index is None else call.index, place) for place, call in enumerate(self.calls)]
            message["tool_calls"] = [self.calls[place].value() for _, place in sorted(placed)]
        elif self.legacy is not None:
            message["function_call"] = self.legacy.value()["function"]
        if self.spoken:
            message["audio"] = {"transcript": "".join(self.spoken)}
        if not message.get("content") and (self.calls or self.legacy or self.spoken or message.get("refusal")):
            message["content"] = None  # the first delta's "" stands for the null of an unstreamed reply
        return message

    def _likely(self, value: Any) -> None:
        for name in ("content", "refusal"):
            tokens = mapping(value).get(name)
            if type(tokens) is list:
                self.logprobs.setdefault(name, []).extend(tokens)


def _text(growing: Growing, name: str, value: Any) -> bool:
    if type(value) is not str:
        return False
    growing.texts.setdefault(name, []).append(value)
    return value != ""


def _content(growing: Growing, name: str, value: Any) -> bool:
    if type(value) is not list:
        return _text(growing, name, value if type(value) is str else text_of(value))
    said = False
    for member, text in zip(("content", "thinking", "refusal"), parts_of(value), strict=True):
        said |= _text(growing, member, text)
    return said


def _blocks(growing: Growing, name: str, value: Any) -> bool:
    said = False
    for block in mappings(value):
        text = block_text(block)
        if text:
            known = growing.blocks.setdefault(name, {})
            known.setdefault(integer(block.get("index")) or 0, []).append(text)
            said = True
    return said


def _calls(growing: Growing, _: str, value: Any) -> bool:
    fragments = mappings(value)
    for fragment in fragments:
        _add(_call_of(growing.calls, fragment), fragment)
    return bool(fragments)


def _call_of(calls: list[_Call], fragment: Mapping[str, Any]) -> _Call:
    """The call that a fragment goes on with, or a new one."""
    index, name, given = integer(fragment.get("index")), _named(fragment), string(fragment.get("id"))
    if index is not None:
        found = next((call for call in reversed(calls) if call.index == index), None)
        # Gemini's endpoint gives every call index 0, each with an id of its own and all at once.
        again = found is not None and found.id and given and given != found.id and name
    else:
        found = next((call for call in calls if given and call.id == given), None)
        again = found is None and (name or given)
        found = found or (calls[-1] if calls else None)
    if found is None or again:
        found = _Call(index)
        calls.append(found)
    return found


def _named(fragment: Mapping[str, Any]) -> str | None:
    return string(mapping(fragment.get("function") or fragment.get("custom")).get("name"))


def _add(call: _Call, fragment: Mapping[str, Any]) -> None:
    custom = fragment.get("custom")
    call.kind = "custom" if type(custom) is dict else call.kind
    call.id = call.id or string(fragment.get("id"))
    name = _named(fragment)
    if name and name != call.name:  # some servers name it again in every fragment
        call.name += name
    told = custom if type(custom) is dict else mapping(fragment.get("function"))
    argument = text_of(told.get("input") if told is custom else told.get("arguments"))
    if argument:
        call.pieces.append(argument)


def _legacy(growing: Growing, _: str, value: Any) -> bool:
    growing.legacy = growing.legacy or _Call(None)
    _add(growing.legacy, {"function": value})
    return True


def _audio(growing: Growing, _: str, value: Any) -> bool:
    transcript = string(mapping(value).get("transcript"))
    if transcript:
        growing.spoken.append(transcript)
    return transcript is not None


#: How each member of a delta grows: (choice, name, value) -> whether it said anything.
GROWS: Final[Mapping[str, Callable[[Growing, str, Any], bool]]] = {
    "content": _content,
    "refusal": _text,
    "reasoning_content": _text,
    "reasoning": _text,
    "thinking": _text,
    "reasoning_details": _blocks,
    "thinking_blocks": _blocks,
    "tool_calls": _calls,
    "function_call": _legacy,
    "audio": _audio,
}
