"""Event streams on real sockets: what came is handed over, whatever ended it."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest
import uvloop
from exchanges import BODY, BRIEF, CHUNKED, HEAD, LIMITS, SECRET, STALLED, Wait, fails, hours, to
from socket_server import Act, answer, say, serve
from streams import BROKEN, DONE, FIRST, HELLO, OPENAI, RECORDED, STOP, TOTAL

from runner import transport
from runner.credentials import Key
from runner.records import Billed, Completion, Failure, Kind, Reply
from runner.transport import TransportLimits
from runner.transport.arriving import ARRIVALS_MAX, Arriving
from runner.wire.decode import decode

pytestmark = pytest.mark.anyio

SSE = HEAD + b"content-type: text/event-stream\r\n"
TEXT = HEAD + b"content-type: text/plain; charset=utf-8\r\n"
IN_CHUNKS = b"transfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def framed(data: bytes) -> bytes:
    """One chunk of HTTP's own chunks."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def dribble(
    head: bytes, pieces: Iterable[bytes], every_s: float = 0.0, *, hang: bool = False, wait: Wait = asyncio.sleep
) -> Act:
    """The pieces one by one, each in a packet of its own; then a close, or silence."""

    async def act(writer: asyncio.StreamWriter, _number: int) -> bool:
        writer.write(head)
        for piece in pieces:
            await writer.drain()
            await wait(every_s)
            writer.write(piece)
        await writer.drain()
        if hang:
            await asyncio.sleep(60)
        return False

    return act


async def sent(act: Act, limits: TransportLimits = LIMITS) -> Reply:
    async with serve(act) as seen, to(seen, limits) as line:
        outcome = await line.send(BODY)
    assert isinstance(outcome, Reply), outcome
    return outcome


def decoded(reply: Reply) -> Completion | Failure:
    return decode(reply, choices=1, now=0.0)


async def test_a_stream_comes_back_with_the_times_of_its_bytes() -> None:
    pieces = [HELLO[:10], HELLO[10:], STOP, TOTAL + DONE]
    reply = await sent(dribble(SSE + IN_CHUNKS, [*map(framed, pieces), LAST_CHUNK], 0.02))
    assert (reply.status, reply.body, reply.cut) == (200, OPENAI, None)
    sizes, times = zip(*reply.arrivals, strict=True)
    assert sizes == (10, len(HELLO), len(HELLO + STOP), len(OPENAI))
    assert all(earlier < later for earlier, later in pairwise(times))
    assert 0.02 <= times[0] < times[-1] <= reply.seconds


async def test_the_first_token_is_timed_where_it_arrives() -> None:
    reply = await sent(
        dribble(SSE + IN_CHUNKS, [framed(FIRST), framed(HELLO[len(FIRST) :] + STOP + DONE), LAST_CHUNK], 0.1)
    )
    answer = decoded(reply)
    assert isinstance(answer, Completion)
    assert answer.first_token_s is not None
    assert 0.2 <= answer.first_token_s == round(reply.arrivals[1][1], 6)


async def test_a_stream_byte_by_byte_is_the_same_stream() -> None:
    """UTF-8 cut inside its characters, lines inside their ends."""
    stream = RECORDED["framing: ends with \\r\\n"].stream
    reply = await sent(dribble(SSE + IN_CHUNKS, [*(framed(stream[i : i + 1]) for i in range(len(stream))), LAST_CHUNK]))
    assert reply.body == stream
    assert isinstance(decoded(reply), Completion)
    assert len(reply.arrivals) <= ARRIVALS_MAX


async def test_a_stream_until_the_connection_closes_is_a_stream() -> None:
    reply = await sent(dribble(SSE + b"\r\n", [HELLO, STOP + TOTAL]))
    assert (reply.body, reply.cut) == (HELLO + STOP + TOTAL, None)


async def test_a_stream_that_calls_itself_text_is_known_by_its_first_bytes() -> None:
    reply = await sent(dribble(TEXT + IN_CHUNKS, map(framed, [b": hi\n\n" + FIRST, HELLO[len(FIRST) :]])))
    assert reply.body == b": hi\n\n" + HELLO
    assert reply.cut is not None
    assert reply.cut.kind is Kind.NETWORK
    assert len(reply.arrivals) >= 1


async def test_json_that_calls_itself_a_stream_comes_back_as_it_is() -> None:
    body = json.dumps(RECORDED["framing: openai"].body).encode()
    reply = await sent(answer(body, headers={"content-type": "text/event-stream"}))
    assert reply.body == body
    assert isinstance(decoded(reply), Completion)


async def test_an_ordinary_reply_has_no_arrivals() -> None:
    reply = await sent(answer(b'{"choices": []}', headers={"content-type": "application/json"}))
    assert (reply.arrivals, reply.cut) == ((), None)


# -- streams that break ------------------------------------------------------------------------------------------

CUTS: dict[str, tuple[Act, TransportLimits, Kind, str]] = {
    "closed": (say(SSE + IN_CHUNKS + framed(HELLO)), LIMITS, Kind.NETWORK, "the reply was cut after "),
    "reset": (say(SSE + IN_CHUNKS + framed(HELLO), reset=True), LIMITS, Kind.NETWORK, "the reply was cut after "),
    "cut inside a chunk": (
        say(SSE + IN_CHUNKS + framed(HELLO) + b"99\r\ndata: {"),
        LIMITS,
        Kind.NETWORK,
        "the reply was cut after ",
    ),
    "stalled": (
        say(SSE + IN_CHUNKS + framed(HELLO), hang=True),
        STALLED,
        Kind.TIMEOUT,
        f"the reply stalled: not a byte for 0.2 s after {len(HELLO)} bytes",
    ),
    "stalled as text": (
        say(TEXT + IN_CHUNKS + framed(HELLO), hang=True),
        STALLED,
        Kind.TIMEOUT,
        f"the reply stalled: not a byte for 0.2 s after {len(HELLO)} bytes",
    ),
    "never complete": (
        dribble(SSE + IN_CHUNKS + framed(HELLO), [framed(b": keepalive\n\n")] * 99, 0.05),
        BRIEF,
        Kind.TIMEOUT,
        "the reply was not complete within 1 s, after ",
    ),
}


def assert_cut(reply: Reply, kind: Kind, words: str) -> None:
    assert reply.body.startswith(HELLO)
    assert reply.cut is not None
    assert (reply.cut.kind, reply.cut.billed, reply.cut.status) == (kind, Billed.MAYBE, 200)
    assert reply.cut.message.startswith(words)
    failure = decoded(reply)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.message) == (kind, reply.cut.message)


@pytest.mark.parametrize("name", CUTS)
async def test_a_stream_that_breaks_hands_over_what_came(name: str) -> None:
    act, limits, kind, words = CUTS[name]
    assert_cut(await sent(act, limits), kind, words)


@pytest.mark.parametrize("name", CUTS)
def test_uvloop_hands_over_what_came_too(name: str) -> None:
    act, limits, kind, words = CUTS[name]
    assert_cut(uvloop.run(sent(act, limits)), kind, words)


async def test_a_stream_without_a_byte_is_a_failure() -> None:
    async with serve(say(SSE + IN_CHUNKS)) as seen:
        failure = await fails(to(seen))
    assert (failure.kind, failure.message) == (Kind.NETWORK, "the reply was cut after 0 bytes")


async def test_before_its_first_byte_a_stream_may_take_as_long_as_the_attempt() -> None:
    thinking = dribble(SSE + IN_CHUNKS, [framed(OPENAI) + LAST_CHUNK], 2 * LIMITS.stall_s, wait=hours())
    reply = await sent(thinking, replace(LIMITS, attempt_s=1000))
    assert (reply.body, reply.cut) == (OPENAI, None)
    async with serve(dribble(SSE + IN_CHUNKS, [b""], LIMITS.attempt_s, hang=True, wait=hours())) as seen:
        failure = await fails(to(seen))
    assert failure.kind is Kind.TIMEOUT
    assert failure.message == "the reply was not complete within 50 s, after 0 bytes"


async def test_a_whole_answer_is_an_answer_though_its_connection_breaks() -> None:
    reply = await sent(say(SSE + IN_CHUNKS + framed(HELLO + STOP + TOTAL), reset=True))
    assert reply.cut is not None
    assert isinstance(decoded(reply), Completion)


async def test_keepalives_wind_the_stall_clock() -> None:
    pieces = [framed(HELLO), *[framed(b": keepalive\n\n")] * 8, framed(STOP + DONE), LAST_CHUNK]
    slowly = dribble(SSE + IN_CHUNKS, pieces, LIMITS.stall_s / 2, wait=hours())
    reply = await sent(slowly, replace(LIMITS, attempt_s=1000))
    assert (reply.cut, reply.body.count(b"keepalive")) == (None, 8)


@pytest.mark.parametrize("last", [[DONE], [DONE[:8], DONE[8:]], [DONE.strip()]])
async def test_a_server_that_stays_open_behind_its_last_line_costs_a_second(last: list[bytes]) -> None:
    pieces = [framed(HELLO + STOP + TOTAL), *map(framed, last)]
    reply = await sent(dribble(SSE + IN_CHUNKS, pieces, 0.01, hang=True))
    assert reply.cut is None
    assert 0.9 < reply.seconds < LIMITS.stall_s / 2
    assert isinstance(decoded(reply), Completion)


async def test_what_follows_the_last_line_within_its_second_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert transport.LAST_WORD_S == 1
    monkeypatch.setattr(transport, "LAST_WORD_S", 30)
    pieces = [framed(HELLO + STOP + DONE), framed(TOTAL), LAST_CHUNK]
    reply = await sent(dribble(SSE + IN_CHUNKS, pieces, 0.1))
    assert reply.body == HELLO + STOP + DONE + TOTAL
    assert reply.seconds < 15


async def test_the_connection_of_a_finished_stream_is_used_again() -> None:
    async def act(writer: asyncio.StreamWriter, _number: int) -> bool:
        writer.write(SSE + IN_CHUNKS + framed(OPENAI) + LAST_CHUNK)
        return True

    async with serve(act) as seen, to(seen) as transport:
        for _ in range(3):
            assert isinstance(await transport.send(BODY), Reply)
        assert seen.connections == 1


# -- packed, large, secret ---------------------------------------------------------------------------------------


def packed(*pieces: bytes) -> list[bytes]:
    """Each piece as a server that flushes packs it."""
    packer = zlib.compressobj(wbits=31)
    out = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    return [*out, packer.flush()]


GZIP = SSE + b"content-encoding: gzip\r\n" + IN_CHUNKS


async def test_a_packed_stream_is_unpacked_as_it_comes() -> None:
    reply = await sent(dribble(GZIP, [*map(framed, packed(HELLO, STOP + TOTAL, DONE)), LAST_CHUNK], 0.02))
    assert (reply.body, reply.cut) == (OPENAI, None)
    assert [size for size, _ in reply.arrivals] == [len(HELLO), len(HELLO + STOP + TOTAL), len(OPENAI)]


async def test_a_packed_stream_that_is_cut_hands_over_what_came() -> None:
    reply = await sent(dribble(GZIP, map(framed, packed(HELLO)[:1])))
    assert (reply.body, reply.cut and reply.cut.kind) == (HELLO, Kind.NETWORK)


@pytest.mark.parametrize(
    ("head", "data", "words"),
    [
        (SSE, b"data: " + b"x" * 100_000, "the reply is larger than 100,000 bytes"),
        (SSE + b"content-encoding: gzip\r\n", gzip.compress(b" " * 100_001), "the reply is larger than 100,000 bytes"),
        (SSE + b"content-encoding: gzip\r\n", OPENAI, "the reply says it is gzip, and is not"),
        (
            SSE + b"content-encoding: br\r\n",
            b"\x8b\x02\x80{}\x03",
            "the reply is encoded as 'br', and only gzip was asked for",
        ),
    ],
)
async def test_what_cannot_be_read_on_is_a_failure(head: bytes, data: bytes, words: str) -> None:
    async with serve(say(head + IN_CHUNKS + framed(data) + LAST_CHUNK)) as seen:
        failure = await fails(to(seen))
    assert (failure.kind, failure.message, failure.billed) == (Kind.BAD_REPLY, words, Billed.MAYBE)


async def test_the_key_is_blacked_out_of_a_stream() -> None:
    stream = BROKEN["error of openai"].stream.replace(b"The server", SECRET.encode())
    key = Key.from_env("K", {"K": SECRET})
    async with serve(say(SSE + IN_CHUNKS + framed(stream))) as seen, to(seen, key=key) as transport:
        reply = await transport.send(BODY)
    assert isinstance(reply, Reply)
    assert SECRET.encode() not in reply.body
    assert b"******** had an error" in reply.body


def test_a_stream_of_many_pieces_keeps_the_times_of_the_first_ones() -> None:
    arriving = Arriving()
    for place in range(3 * ARRIVALS_MAX):
        arriving.take(b":\n", float(place), 1 << 20)
    assert len(arriving.times) == ARRIVALS_MAX
    assert len(arriving.body) == 6 * ARRIVALS_MAX


async def test_an_interrupted_ordinary_body_is_a_failure_as_ever() -> None:
    async with serve(say(CHUNKED + framed(b'{"choices": ['))) as seen:
        failure = await fails(to(seen))
    assert failure.kind is Kind.NETWORK
