"""What is sent, what comes back, and how one leaves."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
import uvloop
from exchanges import BODY, HEAD, LIMITS, SECRET, fails, to
from socket_server import Act, Seen, answer, listen, reply, say, serve

from runner.credentials import Key
from runner.records import Reply
from runner.transport import Endpoint, Transport, TransportLimits

pytestmark = pytest.mark.anyio


@pytest.fixture
def key() -> Key:
    return Key.from_env("K", {"K": SECRET})


# What is sent.


async def test_the_request_is_one_post_with_our_headers(key: Key) -> None:
    async with serve(answer()) as seen:
        endpoint = Endpoint(f"http://127.0.0.1:{seen.port}/v1/?api-version=3", {"X-Team": "support", "Accept": "a/b"})
        async with Transport(endpoint, key, LIMITS) as transport:
            await transport.send(BODY)
        lines = seen.heads[0].decode().rstrip().split("\r\n")
    assert lines[0] == "POST /v1/chat/completions?api-version=3 HTTP/1.1"
    headers = sorted((n.lower(), v) for n, _, v in (line.partition(": ") for line in lines[1:]))
    agent = dict(headers)["user-agent"]
    assert agent.startswith("runner/")
    assert headers == [
        ("accept", "a/b"),
        ("accept-encoding", "gzip"),
        ("authorization", f"Bearer {SECRET}"),
        ("content-length", str(len(BODY))),
        ("content-type", "application/json"),
        ("host", f"127.0.0.1:{seen.port}"),
        ("user-agent", agent),
        ("x-team", "support"),
    ]
    assert seen.bodies == [BODY]


async def test_a_body_of_megabytes_arrives_whole() -> None:
    body = b"x" * 5_000_000
    async with serve(answer()) as seen, to(seen) as transport:
        assert isinstance(await transport.send(body), Reply)
        assert seen.bodies == [body]


async def test_an_answer_before_the_whole_body_was_read_comes_back() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(reply(b"too large", "413 Payload Too Large"))
        while await reader.read(1 << 20):  # a close with unread bytes would be a reset
            pass

    async with listen(talk) as port, Transport(Endpoint(f"http://127.0.0.1:{port}"), None, LIMITS) as transport:
        outcome = await transport.send(b"x" * 30_000_000)
    assert isinstance(outcome, Reply)
    assert (outcome.status, outcome.body) == (413, b"too large")


async def test_a_reloaded_key_goes_with_the_next_request(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("first-key\n")
    key = Key.from_file(file)
    async with serve(answer()) as seen, to(seen, key=key) as transport:
        await transport.send(BODY)
        file.write_text("second-key\n")
        assert key.reload()
        transport.rekey()
        await transport.send(BODY)
        assert b"Bearer first-key\r\n" in seen.heads[0] + b"\r\n"
        assert b"Bearer second-key\r\n" in seen.heads[1] + b"\r\n"
        assert b"first-key" not in seen.heads[1]


async def test_cookies_are_neither_kept_nor_sent() -> None:
    async with serve(answer(headers={"Set-Cookie": "a=b; Path=/"})) as seen, to(seen) as transport:
        for _ in range(3):
            await transport.send(BODY)
        assert not any(b"cookie" in head.lower() for head in seen.heads)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_comes_back_and_the_key_stays_at_home(status: str, key: Key) -> None:
    async with serve(answer()) as other:
        there = f"http://127.0.0.1:{other.port}/v1/chat/completions"
        async with serve(answer(status=status, headers={"Location": there})) as seen, to(seen, key=key) as transport:
            outcome = await transport.send(BODY)
            assert isinstance(outcome, Reply)
            assert outcome.status == int(status[:3])
            assert outcome.headers["location"] == there
        assert other.connections == 0


# What comes back.


async def test_header_names_are_lower_case() -> None:
    headers = {"X-Request-ID": "R1", "RETRY-AFTER": "7", "x-note": "caf\u00e9"}
    async with serve(answer(b"no", "429 Too Many", headers)) as seen, to(seen) as transport:
        started = time.monotonic()
        outcome = await transport.send(BODY)
        seconds = time.monotonic() - started
    assert isinstance(outcome, Reply)
    assert outcome.status == 429
    assert outcome.body == b"no"
    assert outcome.headers["x-request-id"] == "R1"
    assert outcome.headers["retry-after"] == "7"
    assert type(outcome.headers) is dict
    assert 0 < outcome.seconds <= seconds


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip"])
async def test_gzip_is_unpacked(coding: str) -> None:
    packed = gzip.compress(b'{"text": "' + b"long " * 9000 + b'"}')
    async with serve(answer(packed, headers={"Content-Encoding": coding})) as seen, to(seen) as transport:
        outcome = await transport.send(BODY)
    assert isinstance(outcome, Reply)
    assert outcome.body == gzip.decompress(packed)


async def test_interim_replies_are_passed_over() -> None:
    async with serve(say(b"HTTP/1.1 103 Early Hints\r\n\r\n" + reply(b"{}"), hang=True)) as seen, to(seen) as transport:
        outcome = await transport.send(BODY)
    assert isinstance(outcome, Reply)
    assert (outcome.status, outcome.body) == (200, b"{}")


async def test_a_large_reply_in_many_pieces() -> None:
    text = bytes(range(256)) * 40_000
    async with serve(answer(text)) as seen, to(seen, TransportLimits()) as transport:
        outcome = await transport.send(BODY)
    assert isinstance(outcome, Reply)
    assert outcome.body == text


# Many at once.


async def echo(writer: asyncio.StreamWriter, number: int) -> bool:
    await asyncio.sleep(0.001)
    writer.write(reply(b"%d" % number))
    return True


async def test_two_hundred_one_after_the_other_share_a_connection() -> None:
    async with serve(answer()) as seen, to(seen) as transport:
        for _ in range(200):
            assert isinstance(await transport.send(BODY), Reply)
        assert (seen.connections, len(seen.bodies)) == (1, 200)


async def test_many_at_once_each_get_their_own_answer() -> None:
    async with serve(echo) as seen, to(seen) as transport:
        outcomes = await asyncio.gather(*[transport.send(BODY) for _ in range(200)])
        assert sorted(int(o.body) for o in outcomes if isinstance(o, Reply)) == list(range(1, 201))
        again = await asyncio.gather(*[transport.send(BODY) for _ in range(64)])
        assert all(isinstance(o, Reply) for o in again)
        assert seen.connections == 200


def test_uvloop_carries_it_too() -> None:
    async def run() -> list[int]:
        async with serve(echo) as seen, to(seen) as transport:
            one_by_one = [await transport.send(BODY) for _ in range(20)]
            together = await asyncio.gather(*[transport.send(BODY) for _ in range(64)])
            return [int(o.body) for o in (*one_by_one, *together) if isinstance(o, Reply)]

    assert sorted(uvloop.run(run())) == list(range(1, 85))


# Leaving.


async def cancelling(cancel: Callable[[], object], seen: Seen, requests: int = 1) -> None:
    """Once so many requests are with the server, and what it has said of the last one has come."""
    while len(seen.bodies) < requests:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    cancel()


@pytest.mark.parametrize("act", [say(b"", hang=True), say(HEAD + b"content-length: 9\r\n\r\nabc", hang=True)])
async def test_cancelling_closes_the_connection(act: Act) -> None:
    async with serve(act) as seen, to(seen) as transport:
        with anyio.CancelScope() as scope:
            leaving = asyncio.create_task(cancelling(scope.cancel, seen))
            await transport.send(BODY)
        await leaving
        assert scope.cancelled_caught
        started = asyncio.create_task(transport.send(BODY))
        await cancelling(started.cancel, seen, 2)
        with pytest.raises(asyncio.CancelledError):
            await started
        assert transport._session.connector is not None
        assert not transport._session.connector._acquired  # nothing is held
        assert not transport._session.connector._conns  # nothing is kept
        assert seen.connections == 2


async def test_nothing_is_left_open(caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder) -> None:
    gc.collect()  # what other tests have left is theirs
    recwarn.clear()
    caplog.clear()
    async with serve(say(HEAD + b"\r\n" + b"x" * 1_000_000, hang=True)) as seen:
        await fails(to(seen))
    gc.collect()
    await asyncio.sleep(0)
    assert [str(w.message) for w in recwarn] == []
    assert caplog.records == []


async def test_leaving_under_cancellation_still_closes_the_session() -> None:
    async with serve(say(b"", hang=True)) as seen:
        transport = to(seen)
        with anyio.move_on_after(0.05):
            async with transport:
                await transport.send(BODY)
        assert transport._session.closed


# Secrets.


async def test_the_key_shows_nowhere(key: Key, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    quoting = answer(f'{{"error": "wrong key {SECRET} of team-7f3a9c21"}}'.encode(), "401 Unauthorized")
    async with serve(quoting) as seen:
        endpoint = Endpoint(f"http://127.0.0.1:{seen.port}", {"X-Team-Key": "team-7f3a9c21"}, ("team-7f3a9c21",))
        async with Transport(endpoint, key, LIMITS) as transport:
            outcome = await transport.send(BODY)
            shown = [repr(transport), repr(endpoint), str(vars(transport)), repr(outcome)]
    assert isinstance(outcome, Reply)
    assert outcome.body == b'{"error": "wrong key ******** of ********"}'
    for act in (say(f"HTTP/1.1 {SECRET}\r\n\r\n".encode()), say(HEAD + f"{SECRET} x\r\n\r\n".encode())):
        async with serve(act) as seen:
            shown.append(repr(await fails(to(seen, key=key))))
    text = "".join(shown) + caplog.text
    assert SECRET not in text
    assert "team-7f3a9c21" not in text
