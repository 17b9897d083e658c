"""The table of faults is complete over the exceptions of aiohttp."""

from __future__ import annotations

from collections.abc import Iterator

import aiohttp
import aiohttp.http_exceptions
import pytest

from runner.records import Billed
from runner.transport.faults import FAULTS, FOREIGN, failure_of, row_of

#: aiohttp's classes that no plain POST without redirects can raise; what is new in the library must be put somewhere.
NEVER = {
    "RedirectClientError",  # redirects are never followed
    "UploadAbortedError",  # set on an UploadTracker only
    "ClientError",  # the root
}


def _tree(root: type[BaseException]) -> Iterator[type[BaseException]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


@pytest.mark.parametrize("kind", sorted(set(_tree(aiohttp.ClientError)), key=str))
def test_every_exception_of_aiohttp_has_a_row(kind: type[BaseException]) -> None:
    nearest = next(ancestor for ancestor in kind.__mro__ if ancestor in FAULTS)
    if kind.__module__.startswith("aiohttp.") and kind.__name__ not in NEVER:
        assert nearest is not aiohttp.ClientError
    assert issubclass(kind, FOREIGN)


@pytest.mark.parametrize("kind", sorted(set(_tree(aiohttp.http_exceptions.HttpProcessingError)), key=str))
def test_every_exception_of_the_parser_has_a_row(kind: type[BaseException]) -> None:
    fault = row_of(kind)
    assert fault is not None
    assert fault.billed is Billed.MAYBE
    assert issubclass(kind, FOREIGN)


def test_no_bill_is_claimed_only_where_the_request_cannot_have_arrived() -> None:
    free = {kind.__name__ for kind, fault in FAULTS.items() if fault.billed is Billed.NO}
    assert free == {
        "ClientConnectorError",
        "ClientConnectorDNSError",
        "ClientConnectorCertificateError",
        "ClientSSLError",
        "ServerFingerprintMismatch",
        "ClientProxyConnectionError",
        "ClientHttpProxyError",
        "ConnectionTimeoutError",
        "ClientConnectionResetError",
        "InvalidURL",
        "NonHttpUrlClientError",
    }
    assert all(fault.billed is Billed.NO for fault in FAULTS.values() if fault.unreachable)


def test_what_is_said_of_a_place_is_one_line() -> None:
    said = failure_of(aiohttp.InvalidURL("no"), "a\nb\x00 \x1b[1mc" + "x" * 600).message
    assert said.isprintable() and len(said) == 500
    assert "a b cxxx" in said
