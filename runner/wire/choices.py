"""One choice of a reply to an answer.

Rule: an answer that was paid for is kept, however oddly it is spelled; what is no answer is None. Strategy: ENDINGS
says how it ended, then each member of the message is read in every spelling that is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from runner.records import Choice, Kind, Status, ToolCall
from runner.wire.jsonbody import compact, mapping, mappings, number, string, text_of

Logprobs = tuple[Mapping[str, Any], ...] | None
Ending = tuple[str | None, Status | Kind | None]

#: OpenAI's word for how an answer ended, what becomes of the row (a Kind: there is no answer), and the words that say
#: so. Providers' own words leak through thin gateways. README's table is printed from this one.
ENDINGS: Final[tuple[tuple[str, Status | Kind, str], ...]] = (
    (
        "stop",
        Status.OK,
        "stop end_turn stop_sequence eos eos_token eos_found end complete completed finish done finish_reason_stop",
    ),
    ("tool_calls", Status.OK, "tool_calls tool_call tool_use"),
    ("function_call", Status.OK, "function_call"),
    (
        "length",
        Status.TRUNCATED,
        "length max_tokens max_output_tokens max_new_tokens max_length token_limit model_length "
        "model_context_window_exceeded finish_reason_max_tokens pause_turn",
    ),
    (
        "content_filter",
        Status.FILTERED,
        "content_filter content_filtered safety recitation blocklist spii prohibited_content image_safety "
        "guardrail_intervened sensitive error_toxic finish_reason_safety",
    ),
    ("refusal", Status.REFUSED, "refusal"),  # Anthropic; the five words of OpenAI have none for it
    ("error", Kind.SERVER, "error network_error"),
    ("error", Kind.OVERLOADED, "insufficient_system_resource"),  # DeepSeek
    ("error", Kind.BAD_REPLY, "abort aborted cancelled malformed_function_call"),
)
#: finish_reason in lower case -> what it says.
FINISH: Final[Mapping[str, Ending]] = {
    word: (canonical, outcome) for canonical, outcome, words in ENDINGS for word in words.split()
}
_THINK, _END_OF_THOUGHT = "<think>", "</think>"  #: of servers without a parser for reasoning
_STOP: Final = FINISH["stop"]


def ending(choice: Mapping[str, Any]) -> Ending:
    """The canonical finish_reason and what follows; an unknown word as it came, with None."""
    word = choice.get("finish_reason")
    if word == "stop":
        return _STOP
    word = string(word)
    return (None, None) if word is None else FINISH.get(word.lower(), (word, None))


def read_choice(choice: Mapping[str, Any], index: int, failed: bool) -> tuple[Status, Choice] | None:
    """The answer with its status; None for an error, or for nothing at all. `failed`: the body names an error too."""
    word, outcome = ending(choice)
    if isinstance(outcome, Kind):
        return None
    message = _message(choice)
    content, aside, refusal = _content(message)
    refusal = refusal or string(message.get("refusal"))
    calls = _tool_calls(message)
    if (outcome is None or failed) and not (content or refusal or calls):
        return None
    if outcome is None and failed:
        return None  # the start of an answer, cut by the error
    status = Status.REFUSED if refusal else outcome or Status.OK
    logprobs = _logprobs(choice.get("logprobs"))
    if content is not None and content.lstrip()[: len(_THINK)] == _THINK:
        content, thought, logprobs = _without_thought(content, logprobs)
        aside = aside or thought
    return status, Choice(index, content, word, refusal, _reasoning(message) or aside, calls, logprobs)


def _without_thought(content: str, logprobs: Logprobs) -> tuple[str, str | None, Logprobs]:
    """An answer that begins with thoughts which end: what stands behind them, the thoughts, and the tokens of what
    stands behind. Thoughts that never end may be the answer that was asked for, and stay."""
    thought, end, _ = content.partition(_END_OF_THOUGHT)
    if not end:
        return content, None, logprobs
    answer = content[len(thought) + len(end) :].lstrip()
    return answer, thought.lstrip()[len(_THINK) :].strip() or None, _last(logprobs, len(content) - len(answer))


def _last(logprobs: Logprobs, start: int) -> Logprobs:
    """The tokens from a place in the text on; all of them when their texts do not say where that is."""
    tokens, place = logprobs or (), 0
    for count, token in enumerate(tokens):
        if place >= start:
            return tokens[count:]
        place += len(token["token"] or "")
    return logprobs


def _message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in ("message", "delta"):
        message = choice.get(name)
        if type(message) is dict:
            return message
    return {"content": choice.get("text")}


def _content(message: Mapping[str, Any]) -> tuple[str | None, str | None, str | None]:
    """Text; reasoning among its parts; a refusal among its parts."""
    content = message.get("content")
    if type(content) is str:
        return content, None, None
    if content is None:
        return string(mapping(message.get("audio")).get("transcript")), None, None
    if type(content) is not list:
        return text_of(content), None, None
    return parts_of(content)


def parts_of(parts: list[Any]) -> tuple[str | None, str | None, str | None]:
    """Of content in parts: text; reasoning; a refusal."""
    texts = _texts(parts)
    objects = mappings(parts)
    aside = [_thought(part.get("thinking")) for part in objects if part.get("type") == "thinking"]
    refusals = [string(part.get("refusal")) for part in objects]
    if not texts and not aside and not any(refusals):
        return (compact(parts) if parts else None), None, None
    return ("".join(texts) if texts else None), _joined(aside), _joined(refusals)


def _texts(parts: Any) -> list[str]:
    if type(parts) is not list:
        return []
    found = [part.get("text") if type(part) is dict else part for part in parts]
    return [text for text in found if type(text) is str]


def _thought(value: Any) -> str | None:
    """Anthropic: "thinking" is the text; Mistral: it is a list of text parts."""
    return value if type(value) is str else "".join(_texts(value))


def _joined(texts: Sequence[str | None]) -> str | None:
    return "\n".join(filter(None, texts)) or None


def _reasoning(message: Mapping[str, Any]) -> str | None:
    """DeepSeek, vLLM, LiteLLM; newer vLLM and OpenRouter; then their lists of blocks."""
    for name in ("reasoning_content", "reasoning", "thinking"):
        text = string(message.get(name))
        if text is not None:
            return text
    for name in ("reasoning_details", "thinking_blocks"):
        if name in message:
            text = _joined([block_text(block) for block in mappings(message[name])])
            if text is not None:
                return text
    return None


def block_text(block: Mapping[str, Any]) -> str | None:
    """What a block of reasoning says."""
    return string(block.get("text")) or string(block.get("summary")) or string(block.get("thinking"))


def _tool_calls(message: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    calls = message.get("tool_calls")
    if calls:
        return tuple([_tool_call(call) for call in mappings(calls)])
    legacy = message.get("function_call")
    return (_tool_call({"function": legacy}),) if type(legacy) is dict else ()


def _tool_call(call: Mapping[str, Any]) -> ToolCall:
    custom = call.get("custom")
    if type(custom) is dict:
        return ToolCall(string(call.get("id")), string(custom.get("name")), text_of(custom.get("input")))
    function = mapping(call.get("function"))
    return ToolCall(string(call.get("id")), string(function.get("name")), text_of(function.get("arguments")))


def _logprobs(value: Any) -> Logprobs:
    if type(value) is not dict:
        return None
    tokens = value.get("content")
    if type(tokens) is not list:
        tokens = value.get("refusal")
    return tuple([_token(token) for token in mappings(tokens)]) if type(tokens) is list else None


def _token(token: Mapping[str, Any]) -> Mapping[str, Any]:
    top = token.get("top_logprobs")
    return {**_likely(token), "top": [_likely(other) for other in mappings(top)] if top else []}


def _likely(token: Mapping[str, Any]) -> dict[str, Any]:
    text = token.get("token")
    return {"token": text if type(text) is str else None, "logprob": number(token.get("logprob"))}
