"""Event streams to answers: every way in which servers send them, and every way in which they break."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import ABOUT, BROKEN, DONE, FIRST, HELLO, OPENAI, RECORDED, STOP, TOTAL, chunk, part, text
from thorough import EXAMPLES

from runner.records import NO_USAGE, Billed, Completion, Failure, Kind, Reply, Usage
from runner.wire.decode import decode
from runner.wire.sse import is_stream, says_done

NOW = 1_741_305_590.0
STREAM = {"content-type": "text/event-stream; charset=utf-8", "x-request-id": "req_1"}
RESET = Failure(Kind.NETWORK, "the reply was cut after 700 bytes", status=200, billed=Billed.MAYBE)
STALL = Failure(Kind.TIMEOUT, "the reply stalled: not a byte for 60 s", status=200, billed=Billed.MAYBE)


def outcome(stream: bytes, n: int = 1, cut: Failure | None = None, status: int = 200) -> Completion | Failure:
    return decode(Reply(status, STREAM, stream, 1.5, cut=cut), choices=n, now=NOW)


def answer(stream: bytes, n: int = 1, cut: Failure | None = None) -> Completion:
    found = outcome(stream, n, cut)
    assert isinstance(found, Completion), found
    return found


def failure(stream: bytes, n: int = 1, cut: Failure | None = None) -> Failure:
    found = outcome(stream, n, cut)
    assert isinstance(found, Failure), found
    return found


def unstreamed(body: dict[str, Any], n: int = 1) -> Completion | Failure:
    reply = Reply(200, {"x-request-id": "req_1"}, json.dumps(body).encode(), 1.5)
    return decode(reply, choices=n, now=NOW)


# -- answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDED)
def test_a_stream_gives_what_the_unstreamed_reply_gives(name: str) -> None:
    variant = RECORDED[name]
    assert answer(variant.stream, variant.n) == unstreamed(variant.body, variant.n)


@pytest.mark.parametrize("name", RECORDED)
def test_every_recorded_stream_is_told_from_json_by_its_first_bytes(name: str) -> None:
    assert is_stream(RECORDED[name].stream)


@pytest.mark.parametrize("body", [b"", b"{", b'{"data": 1}', b"<html>", b"Internal Server Error", b"[]", b"null"])
def test_other_bodies_are_no_streams(body: bytes) -> None:
    assert not is_stream(body)


def test_json_that_calls_itself_a_stream_is_read_as_json() -> None:
    body = json.dumps(RECORDED["framing: openai"].body).encode()
    assert answer(body) == unstreamed(RECORDED["framing: openai"].body)


def test_the_raw_stream_is_kept_when_asked_for() -> None:
    kept = decode(Reply(200, {}, OPENAI, 1.5), choices=1, now=NOW, keep_raw=True)
    assert isinstance(kept, Completion)
    assert kept.raw == OPENAI.decode()


# -- streams that are no answer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BROKEN)
def test_a_stream_that_breaks_is_a_failure(name: str) -> None:
    broken = BROKEN[name]
    found = failure(broken.stream, broken.n)
    assert (found.kind, found.message, found.billed) == (broken.kind, broken.message, broken.billed)
    assert (found.status, found.request_id) == (200, "req_1")
    assert found.usage == (Usage(19, None, None, 10, None, 29) if broken.billed is Billed.YES else NO_USAGE)


@pytest.mark.parametrize("cut", [RESET, STALL])
def test_a_cut_stream_fails_as_its_connection_did(cut: Failure) -> None:
    assert failure(HELLO, cut=cut) == replace(cut, request_id="req_1")


def test_a_cut_stream_whose_usage_was_told_was_billed() -> None:
    found = failure(FIRST + TOTAL + chunk(text("Hel")), cut=RESET)
    assert (found.kind, found.billed, found.usage.completion_tokens) == (Kind.NETWORK, Billed.YES, 10)


def test_a_stream_cut_before_its_first_byte_fails_as_its_connection_did() -> None:
    assert failure(b"", cut=STALL) == replace(STALL, request_id="req_1")


@pytest.mark.parametrize("end", [STOP, STOP + TOTAL, STOP + TOTAL + DONE, STOP + TOTAL[:30]])
def test_a_whole_answer_is_kept_though_its_connection_breaks(end: bytes) -> None:
    assert answer(HELLO + end, cut=RESET).choices == answer(OPENAI).choices


def test_a_cut_stream_with_fewer_choices_than_asked_is_no_answer() -> None:
    assert failure(HELLO + STOP + TOTAL, n=2, cut=RESET).kind is Kind.NETWORK
    assert answer(HELLO + STOP + TOTAL + DONE, n=2, cut=RESET).choices == answer(OPENAI).choices


def test_json_that_was_cut_fails_as_its_connection_did() -> None:
    assert failure(b'{"choices": [{"mess', cut=RESET) == replace(RESET, request_id="req_1")


def test_whole_json_is_kept_though_its_connection_breaks() -> None:
    body = RECORDED["framing: openai"].body
    assert answer(json.dumps(body).encode(), cut=RESET) == unstreamed(body)


@pytest.mark.parametrize(
    ("status", "stream", "kind", "message"),
    [
        (429, b'data: {"error": {"message": "slow down"}}\n\n', Kind.RATE, "slow down"),
        (500, b'event: error\ndata: {"message": "boom"}\n\n', Kind.SERVER, "boom"),
        (503, b": nothing\n\n", Kind.OVERLOADED, "HTTP 503 Service Unavailable"),
        (400, OPENAI, Kind.REQUEST, "HTTP 400 Bad Request"),
    ],
)
def test_an_error_status_is_an_error_also_in_a_stream(status: int, stream: bytes, kind: Kind, message: str) -> None:
    found = outcome(stream, status=status)
    assert isinstance(found, Failure)
    assert (found.kind, found.message, found.status) == (kind, message, status)


# -- the first token ---------------------------------------------------------------------------------------------


def first_token_s(stream: bytes, *marks: int) -> float | None:
    """With each `marks` bytes arriving a second after those before."""
    arrivals = tuple((mark, float(second)) for second, mark in enumerate(marks, 1))
    found = decode(Reply(200, STREAM, stream, 9.0, arrivals), choices=1, now=NOW)
    assert isinstance(found, Completion)
    return found.first_token_s


@pytest.mark.parametrize(
    "said",
    [
        part({"content": "H"}),
        part({"reasoning_content": "H"}),
        part({"refusal": "H"}),
        part({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]}),
        part({"function_call": {"name": "f", "arguments": ""}}),
        part({"audio": {"transcript": "H"}}),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_first_token_is_the_first_thing_that_is_said(said: dict[str, Any], end: bytes) -> None:
    head = b": wait\n\n" + FIRST
    whole = [piece.replace(b"\n", end) for piece in (head, head + chunk(said), head + chunk(said) + STOP + DONE)]
    sizes = [len(piece) for piece in whole]
    assert first_token_s(whole[-1], *sizes) == 2.0
    assert first_token_s(whole[-1], sizes[0], sizes[1] - 9, sizes[2]) == 3.0  # inside the event
    assert first_token_s(whole[-1], sizes[2]) == 1.0


def test_an_answer_that_says_nothing_has_no_first_token() -> None:
    assert first_token_s(FIRST + STOP + DONE, 9999) is None


def test_an_unstreamed_reply_has_no_first_token() -> None:
    found = unstreamed(RECORDED["framing: openai"].body)
    assert isinstance(found, Completion)
    assert found.first_token_s is None


# -- the last line -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"data: [DONE]", b"data:[DONE]\r\n\r\n", b"data: [DONE]\n", DONE])
def test_the_last_line_is_known(end: bytes) -> None:
    assert says_done(bytearray(HELLO + end))
    assert says_done(end)


@pytest.mark.parametrize("end", [b"data: [DON", b'data: "[DONE]"\n\n', b"", chunk(text("\ndata: [DONE]"))[:-9]])
def test_other_lines_are_not_the_last(end: bytes) -> None:
    assert not says_done(HELLO + end)


# -- any framing, any bytes --------------------------------------------------------------------------------------

NOISE = [b": ping", b":", b"event: message", b"id: 1", b"retry: 9", b"unknown: x", b"\xff\xfe"]


@st.composite
def reframed(draw: st.DrawFn) -> tuple[str, bytes]:
    """A recorded stream in another framing that means the same."""
    name = draw(st.sampled_from([name for name in RECORDED if not name.startswith(("framing", "end: broken json"))]))
    out: list[bytes] = [draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))]
    for event in re.split(rb"\n\n", RECORDED[name].stream.rstrip(b"\n")):
        end = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
        lines = [*draw(st.lists(st.sampled_from(NOISE), max_size=2)), *_data(draw, event), b""]
        out += [line + end for line in lines]
    return name, b"".join(out)


def _data(draw: st.DrawFn, event: bytes) -> list[bytes]:
    """The data of an event over one or several lines, cut where JSON allows blanks."""
    data = event.removeprefix(b"data: ")
    pieces = re.split(rb"(?<=[,{]) ?(?=\")", data) if draw(st.booleans()) and b"\\" not in data else [data]
    if any(piece.count(b'"') % 2 for piece in pieces):
        pieces = [data]  # inside a text no line may end
    return [draw(st.sampled_from([b"data: ", b"data:"])) + piece for piece in pieces]


@settings(deadline=None, max_examples=EXAMPLES)
@given(reframed())
def test_no_framing_changes_the_answer(sample: tuple[str, bytes]) -> None:
    name, stream = sample
    variant = RECORDED[name]
    assert answer(stream, variant.n) == unstreamed(variant.body, variant.n)


ALL = [variant.stream for variant in RECORDED.values()] + [broken.stream for broken in BROKEN.values()]


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda data: b"data: " + data)))
def test_any_bytes_give_an_outcome(body: bytes) -> None:
    assert isinstance(outcome(body), Completion | Failure)
    assert isinstance(outcome(body, 3, RESET), Completion | Failure)


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.data())
def test_any_damage_to_a_stream_gives_an_outcome(data: st.DataObject) -> None:
    stream = bytearray(data.draw(st.sampled_from(ALL)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(stream)))
        stream[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=6))
    assert isinstance(outcome(bytes(stream), data.draw(st.integers(1, 3))), Completion | Failure)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**20) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = ["index", "delta", "message", "text", "finish_reason", "logprobs", "content", "role", "refusal", "audio"]
MEMBERS += ["reasoning", "reasoning_details", "thinking_blocks", "tool_calls", "function_call", "function", "custom"]
MEMBERS += ["id", "name", "arguments", "input", "choices", "usage", "error", "object", "model", "x_groq", "type"]
odd_values = st.recursive(
    json_values,
    lambda inner: st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=5) | st.lists(inner, max_size=3),
    max_leaves=20,
)


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(odd_values, max_size=4), st.integers(1, 3))
def test_any_json_in_a_stream_gives_an_outcome(values: list[Any], n: int) -> None:
    events = [b"data: " + json.dumps(value).encode() + b"\n\n" for value in values]
    wrapped = [chunk(value, value) for value in values] + [chunk(part(value)) for value in values]
    assert isinstance(outcome(b"".join(events + wrapped), n), Completion | Failure)


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.sampled_from(sorted(RECORDED)), st.data())
def test_a_stream_cut_anywhere_is_its_answer_or_a_failure(name: str, data: st.DataObject) -> None:
    """Never part of the text."""
    variant = RECORDED[name]
    found = outcome(variant.stream[: data.draw(st.integers(0, len(variant.stream)))], variant.n, RESET)
    whole = unstreamed(variant.body, variant.n)
    assert isinstance(whole, Completion)
    if isinstance(found, Completion):
        assert found.choices == whole.choices
    else:
        assert found.kind in (Kind.NETWORK, Kind.BAD_REPLY)


def test_members_of_the_first_chunk_that_say_nothing_wait_for_the_next() -> None:
    stream = chunk(text("Hi"), id=None, created=0, model="") + chunk(part(finish="stop"), model="later")
    found = answer(stream)
    assert (found.response_id, found.created, found.model) == (ABOUT["id"], ABOUT["created"], "later")
