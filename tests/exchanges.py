"""What the tests of the transport share: short limits, small bodies, and the sentence `fails(to(seen))`."""

from __future__ import annotations

from socket_server import Seen

from runner.credentials import Key
from runner.records import Billed, Failure, Kind
from runner.transport import Endpoint, Transport, TransportLimits

SECRET = "sk-0123456789abcdef"
BODY = b'{"model":"m","messages":[]}'
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
LIMITS = TransportLimits(connect_s=2, attempt_s=5, stall_s=3, max_body_bytes=100_000)
QUICK = TransportLimits(connect_s=0.2, attempt_s=0.4, stall_s=0.2, max_body_bytes=100_000)


def to(seen: Seen, limits: TransportLimits = LIMITS, key: Key | None = None, scheme: str = "http") -> Transport:
    return Transport(Endpoint(f"{scheme}://127.0.0.1:{seen.port}/v1"), key, limits)


async def fails(transport: Transport, body: bytes = BODY) -> Failure:
    async with transport:
        outcome = await transport.send(body)
    assert isinstance(outcome, Failure), outcome
    return outcome


def told(failure: Failure) -> tuple[Kind, Billed, bool, str]:
    return failure.kind, failure.billed, failure.unreachable, failure.message
