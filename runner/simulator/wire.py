"""Responses that break the wire on purpose.

Rule: after breaking it each waits until the connection is gone, so that the server has nothing to finish or report.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


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
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body[: len(self.body) // 2], "more_body": True})
        transport_of(scope).close()
        await receive()
