"""The endpoint's key, and header values that come from the environment.

Rule: a secret lives in a `Key` or in `Headers.hidden`; nothing here shows one. It becomes text only in
`Key.bearer()`, called when a request's headers are built.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol

from runner.errors import JobError

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: what a header's name may be

#: Headers that say how the message is framed or decoded; the transport sets them, and a second opinion would break it.
RESERVED = frozenset(
    {"accept-encoding", "connection", "content-encoding", "content-length", "content-type", "cookie"}
    | {"expect", "te", "trailer", "transfer-encoding", "upgrade"}
)


class Named(Protocol):
    """`{env: NAME}` of the job file."""

    @property
    def env(self) -> str: ...


class Key:
    """A secret that hides itself: `repr`, `str`, `format`, `vars` and pickle do not give it away.

    Key.from_env("COMETAPI_KEY", os.environ)    # fixed for this process
    Key.from_file(Path("~/.keys/comet"))        # read again by `reload()`
    """

    __slots__ = ("__forms", "__read", "__value", "origin")

    def __init__(self, read: Callable[[], str], origin: str) -> None:
        """`read` gives the value now, or raises JobError. `origin` says where it comes from, in words."""
        self.__read = read
        self.__value = read()
        self.__forms = forms(self.__value)
        self.origin = origin

    @classmethod
    def from_env(cls, name: str, environ: Mapping[str, str]) -> Key:
        """Raises JobError when the variable is missing or holds nothing that can be a key."""
        value = _checked(environ.get(name), f"endpoint.api_key_env: the environment variable {name}", name)
        return cls(lambda: value, f"the environment variable {name}")

    @classmethod
    def from_file(cls, path: Path) -> Key:
        """Raises JobError when the file cannot be read or holds nothing that can be a key."""
        return cls(lambda: _read(path.expanduser()), f"the file {path}")

    def bearer(self) -> str:
        """The value of an Authorization header."""
        return f"Bearer {self.__value}"

    def black_out(self, data: bytes) -> bytes:
        """`data` without this key."""
        return black_out(data, self.__forms)

    def reload(self) -> bool:
        """Read the source again; true when the key is another one. A file that cannot be read now keeps the old key:
        it may be in the middle of being replaced, and the next probe looks again."""
        try:
            value = self.__read()
        except JobError:
            return False
        if value == self.__value:
            return False
        self.__value = value
        self.__forms += forms(value)  # replies to requests that carried the old key may still come
        return True

    def __repr__(self) -> str:
        return f"<Key ******** from {self.origin}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is never pickled or copied")


@dataclass(frozen=True, slots=True)
class Headers:
    """Header values ready to send. `hidden`: those that came from the environment, for whoever must black them out."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    hidden: tuple[str, ...] = field(default=(), repr=False)


def forms(*secrets: str) -> tuple[bytes, ...]:
    """The ways in which a reply may quote secrets: plain and as JSON. Under 8 characters it is a word, no secret."""
    escaped = [(secret, json.dumps(secret)[1:-1]) for secret in secrets if len(secret) >= 8]
    return tuple({form.encode() for plain, text in escaped for form in (plain, text, text.replace("/", "\\/"))})


def hider(*secrets: str) -> Callable[[bytes], bytes]:
    """A function that blacks `secrets` out, and shows them to nobody who looks at it."""
    known = forms(*secrets)
    return lambda data: black_out(data, known)


def black_out(data: bytes, secrets: tuple[bytes, ...]) -> bytes:
    """`data` with every one of `secrets` (see `forms`) replaced by stars."""
    for form in secrets:
        if form in data:
            data = data.replace(form, b"********")
    return data


def resolve_headers(headers: Mapping[str, str | Named], environ: Mapping[str, str]) -> Headers:
    """Replace `{env: NAME}` by the variable's value. Raises JobError with every mistake at once."""
    mistakes = [why for name, value in headers.items() if (why := _mistake(name, value, environ))]
    if mistakes:
        raise JobError(mistakes=tuple(mistakes))
    values = {name: _plain(value, environ) for name, value in headers.items()}
    hidden = tuple(values[name] for name, value in headers.items() if not isinstance(value, str))
    return Headers(values, hidden)


def _plain(value: str | Named, environ: Mapping[str, str]) -> str:
    return (value if isinstance(value, str) else environ.get(value.env, "")).strip()


def _mistake(name: str, value: str | Named, environ: Mapping[str, str]) -> str | None:
    where = f"endpoint.headers.{name}"
    if not _TOKEN.fullmatch(name):
        return f"{where}: this is not a header's name"
    if name.lower() in RESERVED:
        return f"{where}: this header cannot be set: it belongs to the transport"
    if not isinstance(value, str) and not _plain(value, environ):
        return f"{where}: the environment variable {value.env} is not set"
    return None if _sendable(_plain(value, environ)) else f"{where}: the value holds characters no header can carry"


def _read(path: Path) -> str:
    where = f"endpoint.api_key_file: {path}"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise JobError(f"{where} cannot be read: {error.strerror}", hint="name a file that holds the key") from None
    except UnicodeDecodeError:
        raise JobError(f"{where} is not a text file", hint="name a file that holds the key") from None
    return _checked(text, where, None)


def _checked(value: str | None, what: str, variable: str | None) -> str:
    hint = f"export {variable}=…" if variable else "write the key into it, alone on one line"
    if value is None:
        raise JobError(f"{what} is not set", hint=hint)
    key = value.strip()
    if not key:
        raise JobError(f"{what} is empty", hint=hint)
    if not key.isascii() or not key.isprintable() or " " in key:
        raise JobError(f"{what} holds a space, a line break or a character that no key has", hint=hint)
    return key


def _sendable(value: str) -> bool:
    return value.isascii() and value.isprintable()
