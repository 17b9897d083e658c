"""Every way a socket can fail, shown on real sockets, and told apart."""

from __future__ import annotations

import asyncio
import gzip
import socket
from dataclasses import replace

import aiohttp
import aiohttp.http_exceptions
import pytest
import uvloop
from exchanges import BODY, BRIEF, CHUNKED, HEAD, LIMITS, STALLED, UNCONNECTED, fails, hours, to, told
from socket_server import Act, answer, reply, say, serve

from runner.records import Billed, Failure, Kind, Reply
from runner.transport import Endpoint, Transport, TransportLimits
from runner.transport.faults import failure_of

pytestmark = pytest.mark.anyio


BROKEN: dict[str, tuple[Act, TransportLimits, Kind, str]] = {
    "closed_without_an_answer": (say(b""), LIMITS, Kind.NETWORK, "the server closed the connection without an answer"),
    "closed_inside_the_headers": (
        say(HEAD + b"content-le"),
        LIMITS,
        Kind.NETWORK,
        "the server closed the connection without an answer",
    ),
    "reset_without_an_answer": (
        say(b"", reset=True),
        LIMITS,
        Kind.NETWORK,
        "the connection was lost before the answer came: connection reset by peer",
    ),
    "cut_with_a_length": (
        say(HEAD + b"content-length: 100\r\n\r\nabc"),
        LIMITS,
        Kind.NETWORK,
        "the reply was cut after 3 bytes",
    ),
    "reset_with_a_length": (
        say(HEAD + b"content-length: 100\r\n\r\nabc", reset=True),
        LIMITS,
        Kind.NETWORK,
        "the reply was cut after 3 bytes",
    ),
    "cut_inside_a_chunk": (
        say(CHUNKED + b"5\r\nabcde\r\n9\r\nab"),
        LIMITS,
        Kind.NETWORK,
        "the reply was cut after 7 bytes",
    ),
    "cut_between_chunks": (
        say(CHUNKED + b"5\r\nabcde\r\n"),
        LIMITS,
        Kind.NETWORK,
        "the reply was cut after 5 bytes",
    ),
    "reset_inside_a_chunk": (
        say(CHUNKED + b"5\r\nabcde\r\n9\r\nab", reset=True),
        LIMITS,
        Kind.NETWORK,
        "the reply was cut after 7 bytes",
    ),
    "malformed_status_line": (
        say(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply is not HTTP: ",
    ),
    "malformed_status_code": (
        say(b"HTTP/1.1 fine OK\r\n\r\n"),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply is not HTTP: ",
    ),
    "malformed_header": (
        say(HEAD + b"not a header\r\n\r\n"),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply is not HTTP: ",
    ),
    "header_with_a_nul": (
        say(HEAD + b"x: a\0b\r\n\r\n"),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply is not HTTP: ",
    ),
    "two_lengths": (
        say(HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply is not HTTP: ",
    ),
    "oversized_header": (
        say(HEAD + b"x: " + b"a" * 70_000 + b"\r\n\r\n"),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply's headers are too long",
    ),
    "malformed_chunk": (
        say(CHUNKED + b"zz\r\nabc\r\n", hang=True),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply is not HTTP: ",
    ),
    "plain_text_instead_of_gzip": (
        answer(b"{}", headers={"content-encoding": "gzip"}),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply says it is gzip, and is not",
    ),
    "half_of_a_gzip": (
        answer(gzip.compress(b'{"a": 1}' * 99)[:-9], headers={"content-encoding": "gzip"}),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply's gzip data ends too early",
    ),
    "damaged_gzip": (
        answer(gzip.compress(b'{"a": 1}')[:-8] + b"\1" * 8, headers={"content-encoding": "gzip"}),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply says it is gzip, and is not",
    ),
    "gzip_bomb": (
        answer(gzip.compress(b" " * 50_000_000), headers={"content-encoding": "gzip"}),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply is larger than 100,000 bytes",
    ),
    "another_encoding": (
        answer(b"\x8b\x02\x80{}\x03", headers={"content-encoding": "br"}),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply is encoded as 'br', and only gzip was asked for",
    ),
    "larger_than_the_cap": (
        answer(b"x" * 100_001),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply is larger than 100,000 bytes",
    ),
    "endless_body": (
        say(HEAD + b"\r\n" + b"x" * 5_000_000, hang=True),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply is larger than 100,000 bytes",
    ),
    "silence": (say(b"", hang=True), BRIEF, Kind.TIMEOUT, "no answer within 1 s"),
    "stalled_body": (
        say(HEAD + b"content-length: 9\r\n\r\nabc", hang=True),
        STALLED,
        Kind.TIMEOUT,
        "the reply stalled: not a byte for 0.2 s after 3 bytes",
    ),
    "stalled_before_the_body": (
        say(CHUNKED, hang=True),
        STALLED,
        Kind.TIMEOUT,
        "the reply stalled: not a byte for 0.2 s after 0 bytes",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_request_that_was_on_the_wire_may_have_been_billed(name: str) -> None:
    act, limits, kind, words = BROKEN[name]
    async with serve(act) as seen:
        failure = await fails(to(seen, limits))
        assert told(failure) == (kind, Billed.MAYBE, False, failure.message)
        assert failure.message.startswith(words)
        assert seen.bodies == [BODY]


@pytest.mark.parametrize("name", BROKEN)
def test_uvloop_tells_the_same_faults_apart(name: str) -> None:
    act, limits, kind, words = BROKEN[name]

    async def run() -> Failure:
        async with serve(act) as seen:
            return await fails(to(seen, limits))

    failure = uvloop.run(run())
    assert told(failure) == (kind, Billed.MAYBE, False, failure.message)
    assert failure.message.startswith(words)


async def test_a_dripping_body_cannot_outlive_the_attempt() -> None:
    wait = hours()

    async def dripping(writer: asyncio.StreamWriter, _number: int) -> bool:
        writer.write(HEAD + b"\r\n")
        for _ in range(20):
            await wait(LIMITS.stall_s / 4)
            writer.write(b" ")
        return False

    async with serve(dripping) as seen:
        failure = await fails(to(seen))
    assert failure.kind is Kind.TIMEOUT
    assert failure.billed is Billed.MAYBE
    assert failure.message.startswith("the reply was not complete within 50 s, after ")


async def test_bytes_that_keep_coming_wind_the_stall_clock() -> None:
    wait = hours()

    async def slowly(writer: asyncio.StreamWriter, _number: int) -> bool:
        writer.write(HEAD + b"content-length: 8\r\n\r\n")
        for _ in range(8):
            await wait(LIMITS.stall_s / 2)
            writer.write(b"x")
        return True

    async with serve(slowly) as seen, to(seen, replace(LIMITS, attempt_s=1000)) as transport:
        outcome = await transport.send(BODY)
        assert isinstance(outcome, Reply)
        assert outcome.body == b"x" * 8


async def test_framing_that_breaks_in_the_middle_ends_with_the_stall() -> None:
    """aiohttp closes the socket and tells the waiting reader nothing; our own clock ends it."""

    async def later(writer: asyncio.StreamWriter, _number: int) -> bool:
        writer.write(CHUNKED + b"5\r\nabcde\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"zz\r\nabc\r\n")
        await asyncio.sleep(60)
        return False

    async with serve(later) as seen:
        failure = await fails(to(seen, STALLED))
    assert failure.kind in (Kind.TIMEOUT, Kind.BAD_REPLY)
    assert failure.billed is Billed.MAYBE


async def test_a_cut_body_without_a_length_comes_back_as_it_is() -> None:
    async with serve(say(HEAD + b"\r\n" + b'{"choices": [{"mess')) as seen, to(seen) as transport:
        outcome = await transport.send(BODY)
    assert isinstance(outcome, Reply)
    assert outcome.body == b'{"choices": [{"mess'


async def test_what_the_head_told_stays_with_a_failure() -> None:
    cut = say(b"HTTP/1.1 503 Busy\r\nX-Request-ID: req_7\r\ncontent-length: 9\r\n\r\nabc")
    async with serve(cut) as seen:
        failure = await fails(to(seen))
    assert (failure.status, failure.request_id) == (503, "req_7")


# Before the request was sent.


async def test_a_refused_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        failure = await fails(Transport(Endpoint(f"http://127.0.0.1:{port}"), None, LIMITS))
    words = f"cannot connect to 127.0.0.1:{port}: connection refused"
    assert told(failure) == (Kind.NETWORK, Billed.NO, True, words)


async def test_a_host_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_args: object, **_kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)  # the resolver itself would ask a network
    failure = await fails(Transport(Endpoint("http://api.nowhere.invalid/v1"), None, LIMITS))
    words = "cannot find the host of api.nowhere.invalid:80: name or service not known"
    assert told(failure) == (Kind.NETWORK, Billed.NO, True, words)


async def test_an_address_that_aiohttp_cannot_use() -> None:
    failure = await fails(Transport(Endpoint("http://127.1:80"), None, LIMITS))
    assert told(failure) == (Kind.CONFIG, Billed.NO, False, "endpoint.base_url is no address: 127.1:80")


async def test_the_connect_deadline() -> None:
    """A listener that never accepts, its queue full: the kernel drops what comes, as a dead host would."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        failure = await fails(Transport(Endpoint(f"http://127.0.0.1:{port}"), None, UNCONNECTED))
        for one in waiting:
            one.close()
    words = f"no connection to 127.0.0.1:{port} within timeouts.connect_s"
    assert told(failure) == (Kind.NETWORK, Billed.NO, True, words)


async def test_a_handshake_that_never_ends_meets_the_connect_deadline() -> None:
    async with serve(answer()) as seen:  # waits for the end of an HTTP head, which TLS never sends
        failure = await fails(to(seen, UNCONNECTED, scheme="https"))
    words = f"no connection to 127.0.0.1:{seen.port} within timeouts.connect_s"
    assert told(failure) == (Kind.NETWORK, Billed.NO, True, words)


# A kept connection that the server closed.


async def test_a_connection_closed_before_the_request_is_no_bill() -> None:
    """The end of the kept connection arrives between its choice and the write. Where tasks start eagerly (3.12) no
    such moment exists: the request is written, and may have been billed."""
    async with serve(say(reply())) as seen, to(seen) as transport:
        assert isinstance(await transport.send(BODY), Reply)
        failure = await transport.send(BODY)
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.unreachable) == (Kind.NETWORK, False)
        if len(seen.bodies) == 1 and failure.billed is Billed.NO:
            assert failure.message == "the connection was closed before the request was sent"
        else:
            assert failure.billed is Billed.MAYBE
        assert isinstance(await transport.send(BODY), Reply)
        assert seen.connections == 2


async def test_a_write_to_a_closing_connection_is_no_bill() -> None:
    late = aiohttp.ClientOSError(None, "Can not write request body for http://h/")
    late.__cause__ = aiohttp.ClientConnectionResetError("Cannot write to closing transport")
    words = "the connection was closed before the request was sent"
    assert told(failure_of(late, "h:80")) == (Kind.NETWORK, Billed.NO, False, words)


async def test_an_idle_connection_that_was_closed_is_replaced_in_silence() -> None:
    async with serve(say(reply())) as seen, to(seen) as transport:
        for _ in range(3):
            assert isinstance(await transport.send(BODY), Reply)
            await asyncio.sleep(0.05)
        assert seen.connections == 3


async def test_a_server_that_closes_a_kept_connection_upon_the_request_may_have_billed() -> None:
    async def once(writer: asyncio.StreamWriter, number: int) -> bool:
        writer.write(reply() if number == 1 else b"")
        return number == 1

    async with serve(once) as seen, to(seen) as transport:
        assert isinstance(await transport.send(BODY), Reply)
        failure = await transport.send(BODY)
        assert isinstance(failure, Failure)
        words = "the server closed the connection without an answer"
        assert told(failure) == (Kind.NETWORK, Billed.MAYBE, False, words)
        assert len(seen.bodies) == 2
