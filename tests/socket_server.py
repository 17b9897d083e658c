"""A server of a few lines that breaks HTTP in every way a socket can, on an ephemeral port of 127.0.0.1.

Rule: it reads one whole request, writes it down, then lets an act do what it likes with the socket. An act is
`async (writer, number) -> bool`: `number` counts requests from 1, true means that the connection goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

Act = Callable[[asyncio.StreamWriter, int], Awaitable[bool]]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Seen:
    """What the server saw: heads and bodies of whole requests, and how many connections were opened."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0


def reply(body: bytes = b"{}", status: str = "200 OK", headers: Mapping[str, str] | None = None) -> bytes:
    """A whole, correct reply with a content-length."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answer(*args: object, **kwargs: object) -> Act:
    """A correct reply (`reply`'s arguments), and the connection stays open."""
    data = reply(*args, **kwargs)  # type: ignore[arg-type]  # passed through as they are

    async def act(writer: asyncio.StreamWriter, _number: int) -> bool:
        writer.write(data)
        return True

    return act


def say(data: bytes, *, reset: bool = False, hang: bool = False) -> Act:
    """These bytes, then a close, a reset, or silence."""

    async def act(writer: asyncio.StreamWriter, _number: int) -> bool:
        writer.write(data)
        await writer.drain()
        if hang:
            await asyncio.sleep(60)
        if reset:
            await asyncio.sleep(0.05)  # or the reset would overtake the bytes
            cut_off(writer)
        return False

    return act


def drip(head: bytes, every_s: float) -> Act:
    """A head, then one byte at a time for ever."""

    async def act(writer: asyncio.StreamWriter, _number: int) -> bool:
        writer.write(head)
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(every_s)
        return False

    return act


def cut_off(writer: asyncio.StreamWriter) -> None:
    """Close with a reset: a linger of zero seconds makes the kernel send RST instead of FIN."""
    held = writer.get_extra_info("socket")
    held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _requests(reader: asyncio.StreamReader, seen: Seen) -> AsyncIterator[None]:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((line[16:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: ")), b"0")
        seen.bodies.append(await reader.readexactly(int(length)))
        seen.heads.append(head)
        yield


@contextlib.asynccontextmanager
async def listen(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run `talk` for each connection until the block ends; gives the port. Nothing is left open."""
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=tls, limit=2**20, backlog=512)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.001)  # the loop closes aborted transports in its next round


@contextlib.asynccontextmanager
async def serve(act: Act, tls: ssl.SSLContext | None = None) -> AsyncIterator[Seen]:
    """Run `act` for each request until the block ends."""
    seen = Seen()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        async for _ in _requests(reader, seen):
            if not await act(writer, len(seen.heads)):
                break

    async with listen(talk, tls) as seen.port:
        yield seen
