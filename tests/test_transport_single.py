"""One exchange with an address that is no endpoint: capped, never redirected, without a key."""

from __future__ import annotations

import gzip
import json

import pytest
from exchanges import HEAD
from socket_server import Seen, answer, drip, say, serve

from runner.records import Failure, Kind, Reply
from runner.transport.single import Caps, is_private, once, web_address

pytestmark = pytest.mark.anyio

CAPS = Caps(total_s=60, body_bytes=10_000)


async def fetched(
    seen: Seen, caps: Caps = CAPS, body: bytes | None = None, path: str = "/api/models?a=%2F&b=c%3D"
) -> Reply | Failure:
    url = web_address(f"http://127.0.0.1:{seen.port}{path}")
    assert url is not None
    return await once(url, caps, body)


async def test_a_get_carries_no_key_and_no_cookie() -> None:
    async with serve(answer(b'{"a": 1}', headers={"set-cookie": "a=b"})) as seen:
        reply = await fetched(seen)
        assert isinstance(reply, Reply)
        assert (reply.status, json.loads(reply.body)) == (200, {"a": 1})
        await fetched(seen)
    for head in seen.heads:
        lines = head.decode().lower().split("\r\n")
        assert lines[0] == "get /api/models?a=%2f&b=c%3d http/1.1"
        assert not any(line.startswith(("authorization", "cookie", "content-")) for line in lines)


async def test_a_post_carries_its_body_as_json() -> None:
    async with serve(answer(b"ok")) as seen:
        reply = await fetched(seen, body=b'{"event": "finished"}')
    assert isinstance(reply, Reply)
    assert seen.bodies == [b'{"event": "finished"}']
    assert seen.heads[0].startswith(b"POST /api/models?a=%2F&b=c%3D HTTP/1.1\r\n")
    assert b"\r\ncontent-type: application/json\r\n" in seen.heads[0].lower()


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async with serve(answer(b"", status="301 Moved", headers={"location": "/elsewhere"})) as seen:
        reply = await fetched(seen)
    assert isinstance(reply, Reply)
    assert (reply.status, len(seen.heads)) == (301, 1)


async def test_a_packed_answer_is_unpacked_up_to_the_cap() -> None:
    async with serve(answer(gzip.compress(b"x" * 9_000), headers={"content-encoding": "gzip"})) as seen:
        reply = await fetched(seen)
    assert isinstance(reply, Reply)
    assert reply.body == b"x" * 9_000
    async with serve(answer(gzip.compress(b"x" * 90_000), headers={"content-encoding": "gzip"})) as seen:
        bomb = await fetched(seen)
    assert isinstance(bomb, Failure)
    assert bomb.message == "the reply is larger than 10,000 bytes"


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (
            HEAD + b"content-length: 90000\r\n\r\n" + b"x" * 90_000,
            Kind.BAD_REPLY,
            "the reply is larger than 10,000 bytes",
        ),
        (HEAD + b"content-length: 100\r\n\r\nxx", Kind.NETWORK, "the reply was cut after 0 bytes"),
        (b"", Kind.NETWORK, "the server closed the connection without an answer"),
        (b"SMTP ready\r\n\r\n", Kind.BAD_REPLY, "the reply is not HTTP"),
    ],
)
async def test_what_is_no_whole_answer_is_a_failure(data: bytes, kind: Kind, words: str) -> None:
    async with serve(say(data)) as seen:
        failure = await fetched(seen)
    assert isinstance(failure, Failure)
    assert failure.kind is kind
    assert failure.message.startswith(words)


async def test_an_answer_that_drips_ends_in_time() -> None:
    async with serve(drip(HEAD + b"content-length: 9000\r\n\r\n", 0.02)) as seen:
        failure = await fetched(seen, Caps(total_s=0.3))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.message) == (Kind.TIMEOUT, "no whole answer within 0.3 s")


@pytest.mark.parametrize("url", ["", "ftp://x/y", "https://", "x", "http://[::1", "http://a:99999/", "http://\x00/"])
async def test_what_is_no_web_address(url: str) -> None:
    assert web_address(url) is None


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("https://hooks.slack.com/services/T/B/x", True),
        ("http://127.0.0.1:9/x", True),
        ("http://localhost/x", True),
        ("http://[::1]:8/x", True),
        ("http://hooks.slack.com/x", False),
        ("http://10.0.0.1/x", False),
    ],
)
async def test_plain_http_is_read_on_the_way_except_on_this_machine(url: str, private: bool) -> None:
    address = web_address(url)
    assert address is not None
    assert is_private(address) is private
