"""An HTTP server of a few lines, on a thread of the test with a loop of its own.

Rule: a request counts from the instant its last byte is here; what is answered, and when, is its subclass's affair.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Heard:
    """A whole request."""

    path: str
    headers: Mapping[str, str]  #: names in lower case
    body: bytes


PATIENCE_S = 60.0


class Served:
    """`with Served() as server:` serves on `server.base_url`."""

    port: int = 0
    connections: int = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def exchange(self, heard: Heard, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        raise NotImplementedError

    def now(self, act: Callable[[], Any]) -> None:
        """Do something in the server's own loop; it is done when this returns."""

        async def acting() -> None:
            act()

        asyncio.run_coroutine_threadsafe(acting(), self._loop).result(PATIENCE_S)

    def hear(self) -> None:
        """What had left its senders has been heard when this returns."""
        asyncio.run_coroutine_threadsafe(_turns(), self._loop).result(PATIENCE_S)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._talk, "127.0.0.1", 0, backlog=256))
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    async def _end(self) -> None:
        for listening in self._server.sockets:
            self._loop.remove_reader(listening.fileno())
        await _turns()  # who was just accepted begins, and can be closed
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await _turns()  # the loop closes aborted transports in its next one

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            while True:
                await self.exchange(await _heard(reader), writer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()


async def _turns() -> None:
    """Of the loop: enough to accept a connection, to read from it and to take up what was read."""
    for _ in range(20):
        await asyncio.sleep(0)


async def _heard(reader: asyncio.StreamReader) -> Heard:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Heard(first.split(" ")[1], headers, body)


def reply(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    """The bytes of a reply, with a content-length unless the headers have one of their own."""
    sized = {"content-length": str(len(body)), **headers}
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in sized.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
