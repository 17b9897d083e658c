"""The connection pool: an aiohttp session that keeps nothing but connections.

Rule: no cookies, no redirects, no `trust_env`. aiohttp would look for a proxy and for ~/.netrc anew in two threads a
request, and refuse our Authorization header when it finds the host there; the proxy is looked up once, here.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import urllib.request

import aiohttp
import httpx

from runner.errors import JobError

#: nginx closes an idle connection after 75 s, node and uvicorn after 5 s; a closed one is noticed and dropped.
KEEPALIVE_S = 15

DNS_TTL_S = 300

#: aiohttp's 8,190 bytes a line would lose a paid answer over one long cookie or policy header.
HEADER_LINE_MAX_BYTES = 64 * 1024

_EXAMPLE = "an address looks like https://api.cometapi.com/v1"


PORTS = {"http": 80, "https": 443}


def address(base_url: str) -> httpx.URL:
    """Where requests are posted: base_url with /chat/completions behind its path, the query kept. Raises JobError."""
    try:
        url = httpx.URL(base_url)
        url.host.encode("idna")
    except (httpx.InvalidURL, UnicodeError):
        raise JobError("endpoint.base_url is not an address", hint=_EXAMPLE) from None
    if not 0 <= (url.port or 0) < 65536:
        raise JobError("endpoint.base_url holds a port beyond 65535", hint=_EXAMPLE)
    if url.scheme not in PORTS or not url.host:
        raise JobError("endpoint.base_url does not begin with http:// or https:// and a host", hint=_EXAMPLE)
    if url.userinfo:
        raise JobError("endpoint.base_url holds a password", hint="use endpoint.api_key_env or endpoint.headers")
    return url.copy_with(path=url.path.rstrip("/") + "/chat/completions", fragment=None)


def open_pool(url: httpx.URL) -> aiohttp.ClientSession:
    """Must be called inside the running loop. The caller closes the session."""
    proxy = proxy_for(url)
    # Nothing is loaded (40 ms) for a server that is spoken to in plain HTTP: a context that trusts nobody.
    plain = url.scheme == "http" and proxy is None
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else trusted()
    return aiohttp.ClientSession(
        # The engine decides how many requests are in flight; a second limit here would only queue in secret.
        connector=aiohttp.TCPConnector(
            limit=0, ssl=trust, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=DNS_TTL_S, use_dns_cache=True
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        proxy=proxy,
        auto_decompress=False,
        max_line_size=HEADER_LINE_MAX_BYTES,
        max_field_size=HEADER_LINE_MAX_BYTES,
    )


def trusted() -> ssl.SSLContext:
    """Certificates that we believe: $SSL_CERT_FILE or $SSL_CERT_DIR alone where set; else certifi's and the system's,
    for a company's own root lives there, and Python from python.org has no store at all."""
    context = httpx.create_ssl_context()
    if not os.environ.get("SSL_CERT_FILE") and not os.environ.get("SSL_CERT_DIR"):
        context.load_default_certs()
    context.set_alpn_protocols(["http/1.1"])
    return context


def proxy_for(url: httpx.URL) -> str | None:
    """The proxy that the environment (https_proxy, all_proxy, no_proxy; on macOS the system) names for `url`.
    Never one for this machine itself: the simulator lives there."""
    if is_loopback(url.host) or urllib.request.proxy_bypass(url.host):
        return None
    known = urllib.request.getproxies()
    proxy = known.get(url.scheme) or known.get("all")
    if proxy is None:
        return None
    address = httpx.URL(proxy if "://" in proxy else f"http://{proxy}")
    if address.scheme not in ("http", "https"):
        raise JobError(
            f"the environment names a {address.scheme} proxy for {url.host}, and only http proxies work",
            hint=f"no_proxy={url.host} goes without it",
        )
    return str(address)


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
