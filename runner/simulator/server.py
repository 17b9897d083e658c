"""The simulator as a process: a listening socket, uvicorn on it, and an end that comes with the parent's.

Strategy: its address is told when it accepts connections and obeys signals, so neither can come too early. A child's
stdin is a pipe that only its parent can write to: when the parent ends, however it dies, the pipe ends too.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from runner.errors import UsageError
from runner.simulator.app import application
from runner.simulator.options import SimulatorOptions

BACKLOG = 4096  #: as many may connect at once; the kernel lowers it to net.core.somaxconn


def serve(options: SimulatorOptions, announce: Callable[[str], None], *, with_parent: bool = False) -> None:
    """Serve until a signal comes; `announce` gets the base_url as soon as connections are accepted.

    Raises UsageError when the address or the log cannot be used.
    """
    app = application(options)
    listener = _listening(options.host, options.port)
    if with_parent:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    base_url = f"http://{options.host}:{listener.getsockname()[1]}/v1"
    config = uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=75,  # nginx's
        timeout_graceful_shutdown=1,
    )
    _Server(config, lambda: announce(base_url)).run(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()


class _Connection(AutoHTTPProtocol):  # type: ignore[valid-type, misc]  # uvicorn picks httptools or h11 at import
    """Shows requests their connection (`scope["state"]`), which faults of the wire need."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.app_state: dict[str, Any] = {**self.app_state, "transport": transport}


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        hint = "another port, or `--port 0` for a free one"
        raise UsageError(f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}", hint=hint) from error


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)
