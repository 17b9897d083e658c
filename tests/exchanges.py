"""What the tests of the transport share: limits, small bodies, and the sentence `fails(to(seen))`.

Rule: a test waits for one limit alone, which is short; the others are longer than any machine stalls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from socket_server import Seen

from runner.credentials import Key
from runner.records import Billed, Failure, Kind
from runner.transport import Endpoint, Transport, TransportLimits

Wait = Callable[[float], Awaitable[None]]
SECRET = "sk-0123456789abcdef"
BODY = b'{"model":"m","messages":[]}'
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
LIMITS = TransportLimits(connect_s=20, attempt_s=50, stall_s=40, max_body_bytes=100_000)
UNCONNECTED = replace(LIMITS, connect_s=0.2)
BRIEF = replace(LIMITS, attempt_s=1)
STALLED = replace(LIMITS, stall_s=0.2)


def to(seen: Seen, limits: TransportLimits = LIMITS, key: Key | None = None, scheme: str = "http") -> Transport:
    return Transport(Endpoint(f"{scheme}://127.0.0.1:{seen.port}/v1"), key, limits)


async def fails(transport: Transport, body: bytes = BODY) -> Failure:
    async with transport:
        outcome = await transport.send(body)
    assert isinstance(outcome, Failure), outcome
    return outcome


def hours() -> Wait:
    """What to wait with: seconds that pass for the timers of this loop (asyncio's) alone, once all sent has arrived."""
    loop, ahead_s = asyncio.get_running_loop(), 0.0
    clock = loop.time
    loop.time = lambda: clock() + ahead_s  # type: ignore[method-assign]

    async def wait(seconds: float) -> None:
        nonlocal ahead_s
        await asyncio.sleep(0.02)
        ahead_s += seconds
        await asyncio.sleep(0.02)

    return wait


def told(failure: Failure) -> tuple[Kind, Billed, bool, str]:
    return failure.kind, failure.billed, failure.unreachable, failure.message
