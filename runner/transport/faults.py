"""What can go wrong on a socket, in one table.

Rule: an exception is read from its causes: of the chain of these, the deepest one that has a row decides. A class
without a row of its own falls to its nearest ancestor's.
`billed` is NO only where the provider cannot have had the whole request.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator
from typing import NamedTuple

import aiohttp
from aiohttp.http_exceptions import (
    ContentLengthError,
    HttpProcessingError,
    LineTooLong,
    PayloadEncodingError,
    TransferEncodingError,
)

from runner.records import Billed, Failure, Kind
from runner.wire.oneline import one_line

_QUOTE = re.compile(r"""[\s:]+b?['"].*""", re.DOTALL)  # where a parser's message goes over to what the server sent


class Fault(NamedTuple):
    """A row: `words` may use {where} (host:port), {why} (the system's reason) and {received} (bytes of body so far)."""

    kind: Kind
    billed: Billed
    unreachable: bool
    words: str


def _unreachable(words: str) -> Fault:
    return Fault(Kind.NETWORK, Billed.NO, unreachable=True, words=words)


def _broken(words: str, kind: Kind = Kind.NETWORK) -> Fault:
    return Fault(kind, Billed.MAYBE, unreachable=False, words=words)


_NO_ADDRESS = Fault(Kind.CONFIG, Billed.NO, unreachable=False, words="endpoint.base_url is no address: {where}")
_CUT = _broken("the reply was cut after {received} bytes")
_LOST = _broken("the connection was lost before the answer came: {why}")
_NOT_HTTP = _broken("the reply is not HTTP: {why}", Kind.BAD_REPLY)
_LATE = _broken("no answer in time", Kind.TIMEOUT)

FAULTS: dict[type[BaseException], Fault] = {
    # Before a connection stood.
    aiohttp.ClientConnectorError: _unreachable("cannot connect to {where}: {why}"),
    aiohttp.ClientConnectorDNSError: _unreachable("cannot find the host of {where}: {why}"),
    aiohttp.ClientConnectorCertificateError: _unreachable("the certificate of {where} is not trusted: {why}"),
    aiohttp.ClientSSLError: _unreachable("no TLS with {where}: {why}"),
    aiohttp.ServerFingerprintMismatch: _unreachable("the certificate of {where} is another one"),
    aiohttp.ClientProxyConnectionError: _unreachable("cannot connect to the proxy {where}: {why}"),
    aiohttp.ClientHttpProxyError: _unreachable("the proxy refused to connect to {where}: {why}"),
    aiohttp.ConnectionTimeoutError: _unreachable("no connection to {where} within timeouts.connect_s"),
    aiohttp.InvalidURL: _NO_ADDRESS,
    aiohttp.NonHttpUrlClientError: _NO_ADDRESS,
    # The connection stood, and closed before the request was written to its end.
    aiohttp.ClientConnectionResetError: Fault(
        Kind.NETWORK, Billed.NO, unreachable=False, words="the connection was closed before the request was sent"
    ),
    # The request was on the wire.
    aiohttp.ServerDisconnectedError: _broken("the server closed the connection without an answer"),
    aiohttp.ServerConnectionError: _LOST,
    aiohttp.ClientOSError: _LOST,
    aiohttp.ClientConnectionError: _LOST,
    aiohttp.ServerTimeoutError: _LATE,
    # The reply had begun.
    aiohttp.ClientPayloadError: _CUT,
    ContentLengthError: _CUT,
    TransferEncodingError: _CUT,
    PayloadEncodingError: _NOT_HTTP,
    LineTooLong: _broken("the reply's headers are too long", Kind.BAD_REPLY),
    HttpProcessingError: _NOT_HTTP,
    aiohttp.ClientResponseError: _NOT_HTTP,
    # What has no better name; a test names the classes that may end here.
    aiohttp.ClientError: _LOST,
    OSError: _LOST,
}

#: What `failure_of` takes. Anything else is a bug and is raised.
FOREIGN = (aiohttp.ClientError, HttpProcessingError, OSError)


def failure_of(error: BaseException, where: str, received: int = 0) -> Failure:
    """The failure behind `error`. `where`: host:port of the endpoint; `received`: bytes of body so far."""
    source = list(_causes(error))[-1]
    fault = row_of(type(source))
    assert fault is not None, f"{type(error)} is not FOREIGN"
    place = f"{source.host}:{source.port}" if isinstance(source, aiohttp.ClientConnectorError) else where
    words = fault.words.format(where=place, why=_why(source), received=received)
    return Failure(fault.kind, one_line(words), billed=fault.billed, unreachable=fault.unreachable)


def row_of(kind: type[BaseException]) -> Fault | None:
    """The row of the nearest class up the tree that has one."""
    return next((FAULTS[ancestor] for ancestor in kind.__mro__ if ancestor in FAULTS), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and then its causes, as far down as they are libraries' words and not the system's."""
    yield error
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, aiohttp.ClientError | HttpProcessingError):
            yield cause
        cause = cause.__cause__


def _why(error: BaseException) -> str:
    """The reason in plain words; never bytes that the server sent, which may repeat our headers."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"status {error.status}"
    if isinstance(error, aiohttp.ClientResponseError | HttpProcessingError):
        return _QUOTE.sub("", error.message.removeprefix("Bad status line:")).strip()
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _system_words(error.certificate_error)
    return _system_words(error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error)


def _system_words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or "the handshake failed").replace("_", " ").lower()
    if not isinstance(error, OSError) or error.errno is None:
        return "the connection broke"
    # getaddrinfo's numbers are negative and its own (EAI_NONAME); the system's have their words in strerror.
    return str(error.strerror if error.errno < 0 else os.strerror(error.errno)).lower()
