"""Every way a socket can fail, shown on real sockets, and told apart."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import socket
import ssl
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import aiohttp.http_exceptions
import anyio
import httpx
import httpx_aiohttp.transport
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from socket_server import Act, Seen, answer, cut_off, drip, listen, reply, say, serve

from runner.credentials import Key
from runner.errors import JobError
from runner.records import Billed, Failure, Kind, Reply
from runner.transport import Endpoint, Transport, TransportLimits
from runner.transport.body import MEMBERS_MAX, unpacked
from runner.transport.faults import FAULTS, FOREIGN, failure_of, one_line, row_of
from runner.transport.session import address, is_loopback, proxy_for

pytestmark = pytest.mark.anyio

SECRET = "sk-0123456789abcdef"
BODY = b'{"model":"m","messages":[]}'
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
LIMITS = TransportLimits(connect_s=2, attempt_s=5, stall_s=3, max_body_bytes=100_000)
QUICK = TransportLimits(connect_s=0.2, attempt_s=0.4, stall_s=0.2, max_body_bytes=100_000)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def key() -> Key:
    return Key.from_env("K", {"K": SECRET})


def to(seen: Seen, limits: TransportLimits = LIMITS, key: Key | None = None, scheme: str = "http") -> Transport:
    return Transport(Endpoint(f"{scheme}://127.0.0.1:{seen.port}/v1"), key, limits)


async def fails(transport: Transport, body: bytes = BODY) -> Failure:
    async with transport:
        outcome = await transport.send(body)
    assert isinstance(outcome, Failure), outcome
    return outcome


def told(failure: Failure) -> tuple[Kind, Billed, bool, str]:
    return failure.kind, failure.billed, failure.unreachable, failure.message


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
        "the reply is not HTTP: Expected HTTP/, RTSP/ or ICE/",
    ),
    "malformed_status_code": (
        say(b"HTTP/1.1 fine OK\r\n\r\n"),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply is not HTTP: Invalid status code",
    ),
    "malformed_header": (
        say(HEAD + b"not a header\r\n\r\n"),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply is not HTTP: Invalid header token",
    ),
    "header_with_a_nul": (
        say(HEAD + b"x: a\0b\r\n\r\n"),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply is not HTTP: Invalid HTTP header",
    ),
    "two_lengths": (
        say(HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        LIMITS,
        Kind.BAD_REPLY,
        "the reply is not HTTP: Duplicate Content-Length",
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
        "the reply is not HTTP: Invalid character in chunk size",
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
    "silence": (say(b"", hang=True), QUICK, Kind.TIMEOUT, "no answer within 0.4 s"),
    "stalled_body": (
        say(HEAD + b"content-length: 9\r\n\r\nabc", hang=True),
        QUICK,
        Kind.TIMEOUT,
        "the reply stalled: not a byte for 0.2 s after 3 bytes",
    ),
    "stalled_before_the_body": (
        say(CHUNKED, hang=True),
        QUICK,
        Kind.TIMEOUT,
        "the reply stalled: not a byte for 0.2 s after 0 bytes",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_request_that_was_on_the_wire_may_have_been_billed(name: str) -> None:
    act, limits, kind, words = BROKEN[name]
    async with serve(act) as seen:
        assert told(await fails(to(seen, limits))) == (kind, Billed.MAYBE, False, words)
        assert seen.bodies == [BODY]


@pytest.mark.parametrize("name", BROKEN)
def test_uvloop_tells_the_same_faults_apart(name: str) -> None:
    act, limits, kind, words = BROKEN[name]

    async def run() -> Failure:
        async with serve(act) as seen:
            return await fails(to(seen, limits))

    failure = uvloop.run(run())
    assert told(failure)[:3] == (kind, Billed.MAYBE, False)
    assert failure.message == words


async def test_a_dripping_body_cannot_outlive_the_attempt() -> None:
    limits = TransportLimits(connect_s=1, attempt_s=0.5, stall_s=0.4)
    async with serve(drip(HEAD + b"\r\n", every_s=0.05)) as seen:
        started = asyncio.get_running_loop().time()
        failure = await fails(to(seen, limits))
        assert asyncio.get_running_loop().time() - started < 1
    assert failure.kind is Kind.TIMEOUT
    assert failure.billed is Billed.MAYBE
    assert failure.message.startswith("the reply was not complete within 0.5 s, after ")


async def test_bytes_that_keep_coming_wind_the_stall_clock() -> None:
    async def slowly(writer: asyncio.StreamWriter, _number: int) -> bool:
        writer.write(HEAD + b"content-length: 8\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.1)
            writer.write(b"x")
        return True

    async with serve(slowly) as seen, to(seen, TransportLimits(attempt_s=5, stall_s=0.3)) as transport:
        outcome = await transport.send(BODY)
        assert isinstance(outcome, Reply)
        assert outcome.body == b"x" * 8
        assert outcome.seconds > 0.7


async def test_framing_that_breaks_in_the_middle_ends_with_the_stall() -> None:
    """aiohttp closes the socket and tells the waiting reader nothing; our own clock ends it."""

    async def later(writer: asyncio.StreamWriter, _number: int) -> bool:
        writer.write(CHUNKED + b"5\r\nabcde\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"zz\r\nabc\r\n")
        await asyncio.sleep(60)
        return False

    async with serve(later) as seen:
        failure = await fails(to(seen, QUICK))
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
        failure = await fails(Transport(Endpoint(f"http://127.0.0.1:{port}"), None, TransportLimits(connect_s=0.2)))
        for one in waiting:
            one.close()
    words = f"no connection to 127.0.0.1:{port} within timeouts.connect_s"
    assert told(failure) == (Kind.NETWORK, Billed.NO, True, words)


async def test_a_handshake_that_never_ends_meets_the_connect_deadline() -> None:
    async with serve(answer()) as seen:  # waits for the end of an HTTP head, which TLS never sends
        failure = await fails(to(seen, QUICK, scheme="https"))
    words = f"no connection to 127.0.0.1:{seen.port} within timeouts.connect_s"
    assert told(failure) == (Kind.NETWORK, Billed.NO, True, words)


async def test_tls_against_a_server_that_speaks_plain_http() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(reply(status="400 Bad Request"))

    async with listen(talk) as port:
        failure = await fails(Transport(Endpoint(f"https://127.0.0.1:{port}"), None, LIMITS))
    # OpenSSL 1.1 and 3 call it "wrong version number", newer ones "record layer failure" or "packet length too long".
    assert told(failure)[:3] == (Kind.NETWORK, Billed.NO, True)
    assert failure.message.startswith(f"no TLS with 127.0.0.1:{port}: ")


async def test_a_reset_inside_the_tls_handshake() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        cut_off(writer)

    async with listen(talk) as port:
        failure = await fails(Transport(Endpoint(f"https://127.0.0.1:{port}"), None, LIMITS))
    words = f"cannot connect to 127.0.0.1:{port}: connection reset by peer"
    assert told(failure) == (Kind.NETWORK, Billed.NO, True, words)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key in the same file."""
    folder = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    command = ["openssl", *words.split(), "-keyout", str(folder / "key"), "-out", str(folder / "cert")]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    both = folder / "both.pem"
    both.write_text((folder / "key").read_text() + (folder / "cert").read_text())
    return both


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_a_certificate_that_nobody_vouches_for(tls: ssl.SSLContext, key: Key) -> None:
    async with serve(answer(), tls) as seen:
        failure = await fails(to(seen, key=key, scheme="https"))
        assert seen.heads == []
    words = f"the certificate of 127.0.0.1:{seen.port} is not trusted: self-signed certificate"
    assert told(failure)[:3] == (Kind.NETWORK, Billed.NO, True)
    assert failure.message.replace("self signed", "self-signed") == words


async def test_a_certificate_for_another_host(
    certificate: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with serve(answer(), tls) as seen:
        failure = await fails(Transport(Endpoint(f"https://localhost:{seen.port}"), None, LIMITS))
    assert told(failure)[:3] == (Kind.NETWORK, Billed.NO, True)
    assert failure.message.startswith(f"the certificate of localhost:{seen.port} is not trusted: Hostname mismatch")


async def test_ssl_cert_file_names_what_to_trust(
    certificate: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with serve(answer(b'{"ok":1}'), tls) as seen, to(seen, scheme="https") as transport:
        outcomes = [await transport.send(BODY) for _ in range(3)]
        assert [o.body for o in outcomes if isinstance(o, Reply)] == [b'{"ok":1}'] * 3
        assert seen.connections == 1


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
    shown = httpx.ConnectTimeout("")
    shown.__cause__ = late
    words = "the connection was closed before the request was sent"
    assert told(failure_of(shown, "h:80")) == (Kind.NETWORK, Billed.NO, False, words)


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
        outcome = await transport.send(BODY)
    assert isinstance(outcome, Reply)
    assert outcome.status == 429
    assert outcome.body == b"no"
    assert outcome.headers["x-request-id"] == "R1"
    assert outcome.headers["retry-after"] == "7"
    assert type(outcome.headers) is dict
    assert 0 < outcome.seconds < 5


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
    limits = TransportLimits(stall_s=1)
    async with serve(answer(text)) as seen, to(seen, limits) as transport:
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


@pytest.mark.parametrize("act", [say(b"", hang=True), say(HEAD + b"content-length: 9\r\n\r\nabc", hang=True)])
async def test_cancelling_closes_the_connection(act: Act) -> None:
    async with serve(act) as seen, to(seen) as transport:
        with anyio.move_on_after(0.1) as scope:
            await transport.send(BODY)
        assert scope.cancelled_caught
        started = asyncio.create_task(transport.send(BODY))
        await asyncio.sleep(0.1)
        started.cancel()
        with pytest.raises(asyncio.CancelledError):
            await started
        assert transport._session.connector is not None
        assert not transport._session.connector._acquired  # nothing is held
        assert not transport._session.connector._conns  # nothing is kept
        assert seen.connections == 2


async def test_nothing_is_left_open(caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder) -> None:
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


@pytest.mark.parametrize(
    ("base_url", "words"),
    [
        ("ftp://host/v1", "endpoint.base_url does not begin with http:// or https:// and a host"),
        ("api.cometapi.com/v1", "endpoint.base_url does not begin with http:// or https:// and a host"),
        ("http://", "endpoint.base_url does not begin with http:// or https:// and a host"),
        ("http://host:99999/", "endpoint.base_url holds a port beyond 65535"),
        ("http://a..b/v1", "endpoint.base_url is not an address"),
        ("https://me:secret@host/v1", "endpoint.base_url holds a password"),
    ],
)
def test_a_base_url_that_cannot_work_is_refused_in_words(base_url: str, words: str) -> None:
    with pytest.raises(JobError) as caught:
        Transport(Endpoint(base_url), None, LIMITS)
    assert caught.value.message == words
    assert "secret" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api.cometapi.com/v1", "https://api.cometapi.com/v1/chat/completions"),
        ("https://api.cometapi.com/v1/", "https://api.cometapi.com/v1/chat/completions"),
        ("http://[::1]:8000", "http://[::1]:8000/chat/completions"),
        ("https://h/openai?api-version=2", "https://h/openai/chat/completions?api-version=2"),
        ("https://h/v1#x", "https://h/v1/chat/completions"),
    ],
)
def test_requests_go_to_chat_completions_under_the_base(base_url: str, url: str) -> None:
    assert str(address(base_url)) == url


# Proxies.


async def test_the_environments_proxy_is_used(monkeypatch: pytest.MonkeyPatch, key: Key) -> None:
    async with serve(answer(b"by proxy")) as seen:
        monkeypatch.setenv("http_proxy", f"http://me:pass@127.0.0.1:{seen.port}")
        async with Transport(Endpoint("http://provider.invalid/v1"), key, LIMITS) as transport:
            outcome = await transport.send(BODY)
        head = seen.heads[0].lower()
    assert isinstance(outcome, Reply)
    assert head.startswith(b"post http://provider.invalid/v1/chat/completions http/1.1\r\n")
    assert b"\r\nproxy-authorization: basic bwu6cgfzcw==\r\n" in head


async def test_a_proxy_that_is_down_or_refuses_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(answer(status="407 Proxy Authentication Required")) as seen:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{seen.port}")
        refused = await fails(Transport(Endpoint("https://provider.invalid/v1"), None, LIMITS))
    assert told(refused) == (
        Kind.NETWORK,
        Billed.NO,
        True,
        "the proxy refused to connect to provider.invalid:443: status 407",
    )
    down = await fails(Transport(Endpoint("https://provider.invalid/v1"), None, LIMITS))
    words = f"cannot connect to the proxy 127.0.0.1:{seen.port}: connection refused"
    assert told(down) == (Kind.NETWORK, Billed.NO, True, words)


@pytest.mark.parametrize(
    ("base_url", "environ", "proxy"),
    [
        ("https://h/v1", {}, None),
        ("https://h/v1", {"http_proxy": "http://p:1"}, None),
        ("https://h/v1", {"https_proxy": "http://p:1"}, "http://p:1"),
        ("https://h/v1", {"all_proxy": "p:1"}, "http://p:1"),
        ("https://h/v1", {"https_proxy": "http://p:1", "no_proxy": "h"}, None),
        ("http://127.0.0.1:8000", {"http_proxy": "http://p:1"}, None),
        ("http://localhost:8000", {"all_proxy": "http://p:1"}, None),
        ("http://[::1]:8000", {"http_proxy": "http://p:1"}, None),
    ],
)
def test_which_proxy(
    base_url: str, environ: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(httpx.URL(base_url)) == proxy


def test_a_socks_proxy_is_refused_without_showing_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://me:pass@p:1")
    with pytest.raises(JobError) as caught:
        proxy_for(httpx.URL("https://h/v1"))
    assert caught.value.message == "the environment names a socks5 proxy for h, and only http proxies work"
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.9", True), ("::1", True), ("a.localhost", True), ("10.0.0.1", False), ("h", False)]
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


# The table.

#: aiohttp's classes that no plain POST without redirects can raise; what is new in the library must be put somewhere.
NEVER = {
    "RedirectClientError",  # redirects are never followed
    "UploadAbortedError",  # set on an UploadTracker only
    "ClientError",  # the root
}


def _tree(root: type[BaseException]) -> Iterator[type[BaseException]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


@pytest.mark.parametrize("kind", sorted(set(_tree(aiohttp.ClientError)), key=str))
def test_every_exception_of_aiohttp_has_a_row(kind: type[BaseException]) -> None:
    nearest = next(ancestor for ancestor in kind.__mro__ if ancestor in FAULTS)
    if kind.__module__.startswith("aiohttp.") and kind.__name__ not in NEVER:
        assert nearest is not aiohttp.ClientError
    assert issubclass(kind, FOREIGN)


@pytest.mark.parametrize("kind", sorted(set(_tree(aiohttp.http_exceptions.HttpProcessingError)), key=str))
def test_every_exception_of_the_parser_has_a_row(kind: type[BaseException]) -> None:
    fault = row_of(kind)
    assert fault is not None
    assert fault.billed is Billed.MAYBE
    assert issubclass(kind, FOREIGN)


def test_every_exception_that_httpx_aiohttp_raises_is_taken() -> None:
    for theirs, shown in httpx_aiohttp.transport.AIOHTTP_EXC_MAP.items():
        assert issubclass(shown, FOREIGN)
        assert row_of(theirs) is not None
    for kind in _tree(httpx.TransportError):
        assert row_of(kind) is not None


def test_no_bill_is_claimed_only_where_the_request_cannot_have_arrived() -> None:
    free = {kind.__name__ for kind, fault in FAULTS.items() if fault.billed is Billed.NO}
    assert free == {
        "ClientConnectorError",
        "ClientConnectorDNSError",
        "ClientConnectorCertificateError",
        "ClientSSLError",
        "ServerFingerprintMismatch",
        "ClientProxyConnectionError",
        "ClientHttpProxyError",
        "ConnectionTimeoutError",
        "ClientConnectionResetError",
        "InvalidURL",
        "NonHttpUrlClientError",
    }
    assert all(fault.billed is Billed.NO for fault in FAULTS.values() if fault.unreachable)


@pytest.mark.parametrize(
    ("text", "line"), [("a\nb\r\n c", "a b c"), ("a\x00\x1b[1mb", "a [1mb"), ("x" * 600, "x" * 500), ("é", "é")]
)
def test_messages_are_one_line(text: str, line: str) -> None:
    assert one_line(text) == line


# Unpacking.


@settings(deadline=None, max_examples=100)
@given(parts=st.lists(st.binary(max_size=300), max_size=5), cap=st.integers(0, 1500))
def test_unpacking_gives_all_or_says_too_large(parts: list[bytes], cap: int) -> None:
    whole = b"".join(parts)
    got = unpacked(b"".join(gzip.compress(p) for p in parts), "gzip", cap)
    assert got == (whole if len(whole) <= cap else f"the reply is larger than {cap:,} bytes")


@settings(deadline=None, max_examples=200)
@given(raw=st.binary(max_size=200), cap=st.integers(0, 1000))
def test_unpacking_takes_any_bytes(raw: bytes, cap: int) -> None:
    for data in (raw, gzip.compress(raw)[:10] + raw):
        got = unpacked(data, "gzip", cap)
        assert isinstance(got, str) or len(got) <= cap


def test_a_bomb_of_members_is_bounded() -> None:
    assert unpacked(gzip.compress(b"") * (MEMBERS_MAX + 1), "gzip", 10) == "the reply's gzip data is in too many pieces"
    assert unpacked(gzip.compress(b"a") + bytes(512), "gzip", 10) == b"a"
    assert unpacked(zlib.compress(b"a"), "gzip", 10) == "the reply says it is gzip, and is not"
    assert unpacked(b"", "gzip", 10) == b""
    assert unpacked(gzip.compress(bytes(64 << 20)), "gzip", 5 << 20) == "the reply is larger than 5 MiB"
