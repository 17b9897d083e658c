"""Addresses, proxies and certificates: where a connection goes, and whom it trusts."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from exchanges import BODY, LIMITS, SECRET, fails, to, told
from socket_server import answer, cut_off, listen, reply, serve

from runner.credentials import Key
from runner.errors import JobError
from runner.records import Billed, Kind, Reply
from runner.transport import Endpoint, Transport
from runner.transport.session import address, is_loopback, proxy_for

pytestmark = pytest.mark.anyio


@pytest.fixture
def key() -> Key:
    return Key.from_env("K", {"K": SECRET})


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_tls_against_a_server_that_speaks_plain_http() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(reply(status="400 Bad Request"))

    async with listen(talk) as port:
        failure = await fails(Transport(Endpoint(f"https://127.0.0.1:{port}"), None, LIMITS))
    # OpenSSL 1.1 and 3 call it "wrong version number", newer ones "record layer failure" or "packet length too long".
    assert told(failure)[:3] == (Kind.NETWORK, Billed.NO, True)
    assert failure.message.startswith(f"no TLS with 127.0.0.1:{port}: ")


async def test_a_reset_inside_the_tls_handshake() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        cut_off(writer)

    async with listen(talk) as port:
        failure = await fails(Transport(Endpoint(f"https://127.0.0.1:{port}"), None, LIMITS))
    words = f"cannot connect to 127.0.0.1:{port}: connection reset by peer"
    assert told(failure) == (Kind.NETWORK, Billed.NO, True, words)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key in the same file."""
    folder = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    command = ["openssl", *words.split(), "-keyout", str(folder / "key"), "-out", str(folder / "cert")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    both = folder / "both.pem"
    both.write_text((folder / "key").read_text() + (folder / "cert").read_text())
    return both


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_a_certificate_that_nobody_vouches_for(tls: ssl.SSLContext, key: Key) -> None:
    async with serve(answer(), tls) as seen:
        failure = await fails(to(seen, key=key, scheme="https"))
        assert seen.heads == []
    words = f"the certificate of 127.0.0.1:{seen.port} is not trusted: self-signed certificate"
    assert told(failure)[:3] == (Kind.NETWORK, Billed.NO, True)
    assert failure.message.replace("self signed", "self-signed") == words


async def test_a_certificate_for_another_host(
    certificate: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with serve(answer(), tls) as seen:
        failure = await fails(Transport(Endpoint(f"https://localhost:{seen.port}"), None, LIMITS))
    assert told(failure)[:3] == (Kind.NETWORK, Billed.NO, True)
    assert failure.message.startswith(f"the certificate of localhost:{seen.port} is not trusted: Hostname mismatch")


async def test_ssl_cert_file_names_what_to_trust(
    certificate: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with serve(answer(b'{"ok":1}'), tls) as seen, to(seen, scheme="https") as transport:
        outcomes = [await transport.send(BODY) for _ in range(3)]
        assert [o.body for o in outcomes if isinstance(o, Reply)] == [b'{"ok":1}'] * 3
        assert seen.connections == 1


@pytest.mark.parametrize(
    ("base_url", "words"),
    [
        ("ftp://host/v1", "endpoint.base_url does not begin with http:// or https:// and a host"),
        ("api.cometapi.com/v1", "endpoint.base_url does not begin with http:// or https:// and a host"),
        ("http://", "endpoint.base_url does not begin with http:// or https:// and a host"),
        ("http://host:99999/", "endpoint.base_url holds a port beyond 65535"),
        ("http://a..b/v1", "endpoint.base_url is not an address"),
        ("https://me:secret@host/v1", "endpoint.base_url holds a password"),
    ],
)
def test_a_base_url_that_cannot_work_is_refused_in_words(base_url: str, words: str) -> None:
    with pytest.raises(JobError) as caught:
        Transport(Endpoint(base_url), None, LIMITS)
    assert caught.value.message == words
    assert "secret" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api.cometapi.com/v1", "https://api.cometapi.com/v1/chat/completions"),
        ("https://api.cometapi.com/v1/", "https://api.cometapi.com/v1/chat/completions"),
        ("http://[::1]:8000", "http://[::1]:8000/chat/completions"),
        ("https://h/openai?api-version=2", "https://h/openai/chat/completions?api-version=2"),
        ("https://h/v1#x", "https://h/v1/chat/completions"),
    ],
)
def test_requests_go_to_chat_completions_under_the_base(base_url: str, url: str) -> None:
    assert str(address(base_url)) == url


# Proxies.


async def test_the_environments_proxy_is_used(monkeypatch: pytest.MonkeyPatch, key: Key) -> None:
    async with serve(answer(b"by proxy")) as seen:
        monkeypatch.setenv("http_proxy", f"http://me:pass@127.0.0.1:{seen.port}")
        async with Transport(Endpoint("http://provider.invalid/v1"), key, LIMITS) as transport:
            outcome = await transport.send(BODY)
        head = seen.heads[0].lower()
    assert isinstance(outcome, Reply)
    assert head.startswith(b"post http://provider.invalid/v1/chat/completions http/1.1\r\n")
    assert b"\r\nproxy-authorization: basic bwu6cgfzcw==\r\n" in head


async def test_a_proxy_that_is_down_or_refuses_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(answer(status="407 Proxy Authentication Required")) as seen:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{seen.port}")
        refused = await fails(Transport(Endpoint("https://provider.invalid/v1"), None, LIMITS))
    assert told(refused) == (
        Kind.NETWORK,
        Billed.NO,
        True,
        "the proxy refused to connect to provider.invalid:443: status 407",
    )
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proxy = f"127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("https_proxy", proxy)
        down = await fails(Transport(Endpoint("https://provider.invalid/v1"), None, LIMITS))
    words = f"cannot connect to the proxy {proxy}: connection refused"
    assert told(down) == (Kind.NETWORK, Billed.NO, True, words)


@pytest.mark.parametrize(
    ("base_url", "environ", "proxy"),
    [
        ("https://h/v1", {}, None),
        ("https://h/v1", {"http_proxy": "http://p:1"}, None),
        ("https://h/v1", {"https_proxy": "http://p:1"}, "http://p:1"),
        ("https://h/v1", {"all_proxy": "p:1"}, "http://p:1"),
        ("https://h/v1", {"https_proxy": "http://p:1", "no_proxy": "h"}, None),
        ("http://127.0.0.1:8000", {"http_proxy": "http://p:1"}, None),
        ("http://localhost:8000", {"all_proxy": "http://p:1"}, None),
        ("http://[::1]:8000", {"http_proxy": "http://p:1"}, None),
    ],
)
def test_which_proxy(
    base_url: str, environ: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(httpx.URL(base_url)) == proxy


def test_a_socks_proxy_is_refused_without_showing_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://me:pass@p:1")
    with pytest.raises(JobError) as caught:
        proxy_for(httpx.URL("https://h/v1"))
    assert caught.value.message == "the environment names a socks5 proxy for h, and only http proxies work"
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.9", True), ("::1", True), ("a.localhost", True), ("10.0.0.1", False), ("h", False)]
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
