"""Responses that take their time, and responses that break the wire on purpose.

Rule: after breaking it each waits until the connection is gone, so that the server has nothing to finish or report.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

BURSTS = 8  #: in which a stream arrives; a timer for every token would keep the simulator busy with timers


def transport_of(scope: Scope) -> asyncio.Transport:
    """The connection of a request; server.py puts it into the scope."""
    transport: asyncio.Transport = scope["state"]["transport"]
    return transport


class Reset(Response):
    """Ends the connection with RST: what a crashed server or an impatient middlebox does."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = transport_of(scope)
        # uvloop's socket object refuses options, so a duplicate of the descriptor takes them.
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await receive()


class Cut(Response):
    """Promises the whole body and breaks off half-way."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _begin(self, send, self.body[: len(self.body) // 2])
        transport_of(scope).close()
        await receive()


class Stall(Response):
    """Promises the whole body and falls silent half-way; the connection stays until the client has enough."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _begin(self, send, self.body[: len(self.body) // 2])
        await receive()


class Stream(Response):
    """An event stream over `seconds`, which ends, or breaks where its events end."""

    def __init__(self, events: Sequence[bytes], seconds: float, breaks: type[Response] | None = None) -> None:
        super().__init__(media_type="text/event-stream")
        del self.headers["content-length"]
        self.events, self.seconds, self.breaks = events, seconds, breaks
        self.at_end: Callable[[], None] = lambda: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._flow(send)
            if self.breaks is None:
                await send({"type": "http.response.body", "body": b""})
                return
            if self.breaks is Cut:
                transport_of(scope).close()
            await receive()
        finally:
            self.at_end()

    async def _flow(self, send: Send) -> None:
        size = -(-len(self.events) // BURSTS)
        await _begin(self, send, b"")
        for place in range(0, len(self.events), size):
            for one in self.events[place : place + size]:
                await send({"type": "http.response.body", "body": one, "more_body": True})
            await asyncio.sleep(self.seconds / BURSTS)


async def _begin(response: Response, send: Send, body: bytes | memoryview) -> None:
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
