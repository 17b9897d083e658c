"""One exchange with an address that is no endpoint of rows: a list that is fetched, a message that is posted.

Rule: as for rows, redirects are never followed, cookies neither kept nor sent, time and size are capped, and no foreign
exception leaves. No key travels here. A failure names host and port at most, never the path, which may be a secret.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import anyio
import httpx
import yarl

from runner.records import Billed, Failure, Kind, Reply
from runner.transport.body import too_large, unpacked
from runner.transport.faults import FOREIGN, failure_of
from runner.transport.session import PORTS, is_loopback, open_pool

CLOSE_S = 2.0


@dataclass(frozen=True, slots=True)
class Caps:
    """All of the exchange, and its reply."""

    total_s: float = 30.0
    body_bytes: int = 32 * 1024 * 1024


def web_address(url: str) -> httpx.URL | None:
    """The parts of an http(s) address; None when it is none."""
    try:
        parts = httpx.URL(url)
        parts.host.encode("idna")
    except (httpx.InvalidURL, UnicodeError):
        return None
    return parts if parts.scheme in PORTS and parts.host and 0 <= (parts.port or 0) < 65536 else None


def is_private(url: httpx.URL) -> bool:
    """Whether what is sent there is read by nobody else on the way."""
    return url.scheme == "https" or is_loopback(url.host)


async def once(url: httpx.URL, caps: Caps, body: bytes | None = None) -> Reply | Failure:
    """GET `url`, or POST `body` there as JSON: a Reply of any status. Raises JobError for an unusable proxy."""
    session = open_pool(url)
    try:
        async with asyncio.timeout(caps.total_s):
            return await _talk(session, url, caps, body)
    except TimeoutError:
        return Failure(Kind.TIMEOUT, f"no whole answer within {caps.total_s:g} s", billed=Billed.MAYBE)
    except FOREIGN as error:
        return failure_of(error, f"{url.host}:{url.port or PORTS[url.scheme]}")
    finally:
        with anyio.move_on_after(CLOSE_S, shield=True):
            await session.close()


async def _talk(session: aiohttp.ClientSession, url: httpx.URL, caps: Caps, body: bytes | None) -> Reply | Failure:
    started = time.monotonic()
    method, address = "GET" if body is None else "POST", yarl.URL(str(url), encoded=True)  # a signature stays as given
    asked: dict[str, Any] = {"allow_redirects": False, "timeout": aiohttp.ClientTimeout(), "headers": _headers(body)}
    async with session.request(method, address, data=body, **asked) as got:
        headers = {name.lower(): value for name, value in got.headers.items()}
        packed = await _read(got, caps.body_bytes)
    encoding, most = headers.get("content-encoding", ""), caps.body_bytes
    content = too_large(most) if packed is None else unpacked(packed, encoding, most)
    if isinstance(content, str):
        return Failure(Kind.BAD_REPLY, content, status=got.status)
    return Reply(got.status, headers, content, time.monotonic() - started)


async def _read(got: aiohttp.ClientResponse, most: int) -> bytes | None:
    """The body; None: it is larger."""
    data = bytearray()
    async for chunk in got.content.iter_any():
        data += chunk
        if len(data) > most:
            return None
    return bytes(data)


def _headers(body: bytes | None) -> Mapping[str, str]:
    sent = {"accept": "application/json", "accept-encoding": "gzip", "user-agent": "runner"}
    return sent if body is None else sent | {"content-type": "application/json"}
