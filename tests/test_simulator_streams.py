"""The simulator's event streams: put together again they are its answers, and they break as they are told to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.records import NO_USAGE, Completion, Failure, Kind, Reply, Status
from runner.simulator import Child, SimulatorOptions
from runner.simulator.answers import Blemish, choices_of, usage_of
from runner.simulator.refusals import refusal_of
from runner.simulator.streaming import events_of
from runner.transport import Endpoint, Transport, TransportLimits
from runner.wire.decode import decode

ASK: dict[str, Any] = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "Label this."}]}
STREAM: dict[str, Any] = ASK | {"stream": True, "stream_options": {"include_usage": True}}
FUNCTION = {"type": "function", "function": {"name": "label", "parameters": {"properties": {"l": {"type": "string"}}}}}
CUSTOM = {"type": "custom", "custom": {"name": "say"}}
KINDS: dict[str, dict[str, Any]] = {
    "text": {},
    "three choices": {"n": 3},
    "probabilities": {"logprobs": True, "top_logprobs": 2, "n": 2},
    "cut": {"max_tokens": 3},
    "an object": {"response_format": {"type": "json_object"}},
    "a function": {"tools": [FUNCTION], "tool_choice": "required"},
    "a custom tool": {"tools": [CUSTOM], "tool_choice": "required", "n": 2},
    "nothing at all": {"stop": [" ", "e", "a", "o"]},
}


def decoded(body: bytes, n: int = 1) -> Completion | Failure:
    return decode(Reply(200, {}, body, 0.1), choices=n, now=0.0)


def completion_of(body: dict[str, Any], entropy: int, blemish: Blemish) -> dict[str, Any]:
    choices = choices_of(body, entropy, blemish)
    about = {"id": "c1", "object": "chat.completion", "created": 7, "model": "simulated-m"}
    return {**about, "choices": choices, "usage": usage_of(body, choices, 0)}


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.sampled_from(sorted(KINDS)), st.integers(0, 2**32), st.booleans())
def test_a_stream_put_together_is_the_completion(kind: str, entropy: int, refused: bool) -> None:
    body = ASK | KINDS[kind]
    completion = completion_of(body, entropy, Blemish(refused=refused))
    n = body.get("n", 1)
    stream = decoded(b"".join(events_of(completion, include_usage=True)), n)
    assert isinstance(stream, Completion)
    assert stream == decoded(orjson.dumps(completion), n)


def test_usage_comes_only_when_it_is_asked_for() -> None:
    completion = completion_of(ASK, 1, Blemish())
    events = events_of(completion, include_usage=False)
    found = decoded(b"".join(events))
    assert isinstance(found, Completion)
    assert found.usage == NO_USAGE
    assert not any(b'"usage"' in event for event in events)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": False, "stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": 3}, "stream_options"),
    ],
)
def test_a_mistaken_stream_is_refused(change: dict[str, Any], param: str) -> None:
    refusal = refusal_of(ASK | change)
    assert refusal is not None
    assert (refusal.status, refusal.param) == (400, param)


@pytest.mark.parametrize("change", [{"stream": True}, {"stream": False}, {"stream": None}, {"stream_options": None}])
def test_a_stream_may_be_asked_for(change: dict[str, Any]) -> None:
    assert refusal_of(ASK | change) is None


# -- served ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with Child(SimulatorOptions(latency_ms=0, no_auth=True)) as child:
        yield child.base_url


async def sent(base_url: str, body: dict[str, Any], stall_s: float = 60.0) -> Completion | Failure:
    limits = TransportLimits(connect_s=60, attempt_s=120, stall_s=stall_s)
    async with Transport(Endpoint(base_url), None, limits) as transport:
        reply = await transport.send(orjson.dumps(body))
    return reply if isinstance(reply, Failure) else decode(reply, choices=body.get("n", 1), now=0.0)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_the_streamed_answer_is_the_unstreamed_answer(base_url: str, kind: str) -> None:
    whole, stream = await sent(base_url, ASK | KINDS[kind]), await sent(base_url, STREAM | KINDS[kind])
    assert isinstance(whole, Completion)
    assert isinstance(stream, Completion)
    assert (stream.status, stream.choices, stream.usage) == (whole.status, whole.choices, whole.usage)
    assert whole.first_token_s is None
    assert stream.first_token_s is not None or kind == "nothing at all"


@pytest.mark.anyio
async def test_the_first_token_comes_before_the_last_one() -> None:
    for latency_s in (
        0.3,
        3.0,
        30.0,
    ):  # a stalled reader meets first and last at once: slower, then
        with Child(SimulatorOptions(latency_ms=1000 * latency_s, sigma=0, no_auth=True)) as child:
            started = time.monotonic()
            answer = await sent(child.base_url, STREAM)
            whole_s = time.monotonic() - started
            stats = httpx.get(child.base_url.removesuffix("/v1") + "/stats", trust_env=False, timeout=60).json()
        assert isinstance(answer, Completion)
        assert answer.first_token_s is not None
        assert (stats["in_flight"], stats["max_in_flight"]) == (0, 1)
        assert 0.48 * latency_s < answer.first_token_s
        if answer.first_token_s < whole_s - latency_s / 3:
            return
    pytest.fail(f"the first token came after {answer.first_token_s:.2f} s of {whole_s:.2f} s")


FAULTS: list[tuple[str, bool, Kind | None, str]] = [
    ("rate_cut", True, Kind.NETWORK, "the reply was cut after "),
    ("rate_reset", True, Kind.NETWORK, ""),
    ("rate_stall", True, Kind.TIMEOUT, "the reply stalled: not a byte for 0.4 s after "),
    ("rate_stall", False, Kind.TIMEOUT, "the reply stalled: not a byte for 0.4 s after "),
    ("rate_error_inside", True, Kind.BAD_REPLY, "The server had an error while processing your request."),
    ("rate_error_inside", False, Kind.BAD_REPLY, "The server had an error while processing your request."),
    ("rate_bad_json", True, Kind.BAD_REPLY, "the event stream holds a line that is no JSON"),
    ("rate_500", True, Kind.SERVER, "The server had an error while processing your request."),
    ("rate_refusal", True, None, ""),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("rate", "streamed", "kind", "words"), FAULTS)
async def test_faults_by_rate_break_the_stream(rate: str, streamed: bool, kind: Kind | None, words: str) -> None:
    rates: dict[str, Any] = {rate: 1.0}
    with Child(SimulatorOptions(latency_ms=0, no_auth=True, **rates)) as child:
        outcome = await sent(child.base_url, STREAM if streamed else ASK, 0.4 if rate == "rate_stall" else 60.0)
    if kind is None:
        assert isinstance(outcome, Completion)
        assert outcome.status is Status.REFUSED
    else:
        assert isinstance(outcome, Failure)
        assert outcome.kind is kind
        assert outcome.message.startswith(words)
