"""The only room that talks HTTP: `send(body) -> Reply | Failure`.

Rule: httpx and aiohttp are imported in this package and nowhere else, and none of their exceptions leaves it.
Redirects are never followed, so the key never travels to an address that a server named; cookies are neither kept nor
sent; a reply is read up to a cap. What the replies mean is not known here: wire/ decides. Of an event stream what came
is handed over whatever ended it, for all of the answer may be in it; any other body comes whole or not at all.

Strategy: httpx knows addresses and certificates, aiohttp's session carries the exchanges. CPU of one exchange, 64 in
flight: an httpx.AsyncClient over aiohttp 454 µs, httpx's transport interface over aiohttp 167, this 135, a bare session
99. The address, the headers and the timeouts are built once; one timer an exchange carries the deadline and, once
headers came, the stall too.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

import aiohttp
import anyio
import yarl

from runner.credentials import Key, hider
from runner.records import Billed, Failure, Kind, Reply
from runner.transport.arriving import Arriving, arriving
from runner.transport.body import too_large, unpacked
from runner.transport.faults import FOREIGN, failure_of
from runner.transport.session import PORTS, address, open_pool
from runner.transport.upload import upload
from runner.wire.oneline import one_line
from runner.wire.sse import is_stream

CLOSE_S = 2.0

#: How long the end of a stream is waited for once it says that it is done: some servers leave the connection open.
LAST_WORD_S = 1.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go. `headers` and `hidden`: as `credentials.resolve_headers` gives them; they win over ours."""

    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    hidden: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """TransportLimits()                  # 10 s to connect, 300 s for all of it, 60 s without a byte of a begun reply
    TransportLimits(attempt_s=20)      # no exchange takes longer, however it drips

    An event stream has begun with the first byte of its body: before that, its head sent, a model may think for long.
    """

    connect_s: float = 10.0
    attempt_s: float = 300.0
    stall_s: float = 60.0
    max_body_bytes: int = 64 * 1024 * 1024


@dataclass(slots=True)
class _Exchange:
    """What is known so far of one exchange, for the failure that may end it."""

    started: float
    deadline: float
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    received: int = 0
    chunks: list[bytes] = field(default_factory=list)
    events: Arriving | None = None  #: the body of an event stream, in place of chunks
    wound: float = -math.inf  #: when an event stream last wound the stall clock


class Transport:
    """async with Transport(Endpoint("https://api.cometapi.com/v1"), key, TransportLimits()) as transport:
    outcome = await transport.send(b'{"model": …}')      # a Reply of any status, or a Failure
    """

    def __init__(self, endpoint: Endpoint, key: Key | None, limits: TransportLimits) -> None:
        """Raises JobError when base_url is no http address."""
        self._endpoint = endpoint
        self._hide = hider(*endpoint.hidden)
        self._key = key
        self._limits = limits
        self._url = address(endpoint.base_url)
        self._where = f"{self._url.host}:{self._url.port or PORTS[self._url.scheme]}"
        self._address = yarl.URL(str(self._url))
        # What aiohttp calls connect: DNS, TCP, TLS and a proxy's CONNECT together.
        self._connecting = aiohttp.ClientTimeout(connect=limits.connect_s)
        self._session: aiohttp.ClientSession

    def __repr__(self) -> str:
        return f"<Transport {self._url}>"

    def rekey(self) -> None:
        """Build the headers from the key as it is now; the next request carries it."""
        headers = self._session.headers
        headers.clear()
        headers.update(
            {
                "accept": "application/json",
                "accept-encoding": "gzip",
                "content-type": "application/json",
                "user-agent": f"runner/{_version()}",
            }
        )
        if self._key is not None:
            headers["authorization"] = self._key.bearer()
        headers.update(self._endpoint.headers)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._session = open_pool(self._url)
        self.rekey()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.move_on_after(CLOSE_S, shield=True):
            await self._session.close()

    async def send(self, body: bytes) -> Reply | Failure:
        """POST `body` to /chat/completions. Cancelling closes the connection."""
        # Two clocks: a latency deserves better than the whole milliseconds that uvloop's own clock counts.
        exchange = _Exchange(time.monotonic(), self._loop.time() + self._limits.attempt_s)
        try:
            async with asyncio.timeout_at(exchange.deadline) as timer:
                return await self._talk(body, exchange, timer)
        except FOREIGN as error:
            ours = type(error) is TimeoutError  # aiohttp's own timeouts are of classes below it
            failure = self._late(exchange, timer) if ours else self._broken(error, exchange)
        events = exchange.events
        if events is None or not events.body:
            return failure
        return self._streamed(events, exchange, None if events.done and failure.kind is Kind.TIMEOUT else failure)

    async def _talk(self, body: bytes, exchange: _Exchange, timer: asyncio.Timeout) -> Reply | Failure:
        sending = self._session.post(self._address, data=upload(body), timeout=self._connecting, allow_redirects=False)
        async with sending as response:
            exchange.status = response.status
            exchange.headers = self._headers(response.raw_headers)
            exchange.events = arriving(exchange.headers)
            whole = exchange.events is None and await self._receive(response.content, exchange, timer)
            if exchange.events is not None:
                await self._follow(response.content, exchange.events, exchange, timer)
        if exchange.events is not None:
            return self._streamed(exchange.events, exchange, None)
        return self._outcome(response.status, exchange, whole)

    def _headers(self, raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
        """Names in lower case; the secrets are looked for in all values at once."""
        names = b"\n".join([name for name, _ in raw]).lower().decode("latin-1").split("\n")
        values = self._blacked_out(b"\n".join([value for _, value in raw])).decode("latin-1").split("\n")
        return dict(zip(names, values, strict=False)) if raw else {}

    async def _receive(self, content: aiohttp.StreamReader, exchange: _Exchange, timer: asyncio.Timeout) -> bool:
        """Read the body into `exchange`; false when it is larger than the cap. Bytes wind the stall clock.

        Stops at the first bytes when they are an event stream's, which some servers send as text/plain.
        """
        clock, stall_s, cap = self._loop.time, self._limits.stall_s, self._limits.max_body_bytes
        wound = clock()
        if not content.is_eof():  # most replies are here whole by now, and winding costs 4 µs
            timer.reschedule(min(exchange.deadline, wound + stall_s))
        async for chunk in content.iter_any():
            if not exchange.received and is_stream(chunk):
                exchange.events = Arriving()
                self._take(chunk, exchange.events, exchange, timer)
                break
            exchange.chunks.append(chunk)
            exchange.received += len(chunk)
            if exchange.received > cap:
                return False
            if clock() - wound > stall_s / 16:
                wound = clock()
                timer.reschedule(min(exchange.deadline, wound + stall_s))
        return True

    async def _follow(
        self, content: aiohttp.StreamReader, events: Arriving, exchange: _Exchange, timer: asyncio.Timeout
    ) -> None:
        """Read an event stream to its end, or to what it calls its end."""
        async for chunk in content.iter_any():
            self._take(chunk, events, exchange, timer)
            if events.wrong is not None:
                break

    def _take(self, chunk: bytes, events: Arriving, exchange: _Exchange, timer: asyncio.Timeout) -> None:
        exchange.received += len(chunk)
        events.take(chunk, time.monotonic() - exchange.started, self._limits.max_body_bytes)
        now, stall_s = self._loop.time(), self._limits.stall_s
        if events.done or now - exchange.wound > stall_s / 16:
            exchange.wound = -math.inf if events.done else now
            rest_s = min(stall_s, LAST_WORD_S) if events.done else stall_s
            timer.reschedule(min(exchange.deadline, now + rest_s))

    def _streamed(self, events: Arriving, exchange: _Exchange, cut: Failure | None) -> Reply | Failure:
        if events.wrong is not None:
            return _known(Failure(Kind.BAD_REPLY, one_line(events.wrong), billed=Billed.MAYBE), exchange)
        body, seconds = self._blacked_out(bytes(events.body)), time.monotonic() - exchange.started
        return Reply(exchange.status or 0, exchange.headers, body, seconds, tuple(events.times), cut)

    def _outcome(self, status: int, exchange: _Exchange, whole: bool) -> Reply | Failure:
        cap = self._limits.max_body_bytes
        encoding = exchange.headers.get("content-encoding", "")
        content = unpacked(b"".join(exchange.chunks), encoding, cap) if whole else too_large(cap)
        if isinstance(content, str):
            return _known(Failure(Kind.BAD_REPLY, one_line(content), billed=Billed.MAYBE), exchange)
        content = self._blacked_out(content)  # servers like to quote the key that they refuse, some with status 200
        return Reply(status, exchange.headers, content, time.monotonic() - exchange.started)

    def _blacked_out(self, body: bytes) -> bytes:
        body = self._hide(body)
        return body if self._key is None else self._key.black_out(body)

    def _broken(self, error: BaseException, exchange: _Exchange) -> Failure:
        return _known(failure_of(error, self._where, exchange.received), exchange)

    def _late(self, exchange: _Exchange, timer: asyncio.Timeout) -> Failure:
        stalled = (timer.when() or 0.0) < exchange.deadline
        limits, got = self._limits, f"after {exchange.received} bytes"
        if exchange.status is None:
            words = f"no answer within {limits.attempt_s:g} s"
        elif stalled:
            words = f"the reply stalled: not a byte for {limits.stall_s:g} s {got}"
        else:
            words = f"the reply was not complete within {limits.attempt_s:g} s, {got}"
        return _known(Failure(Kind.TIMEOUT, words, billed=Billed.MAYBE), exchange)


def _known(failure: Failure, exchange: _Exchange) -> Failure:
    """`failure` with what the reply's head already told."""
    return replace(failure, status=exchange.status, request_id=exchange.headers.get("x-request-id"))


def _version() -> str:
    try:
        return importlib.metadata.version("bulk-runner")
    except importlib.metadata.PackageNotFoundError:
        return "0"  # run from a checkout that was never installed
