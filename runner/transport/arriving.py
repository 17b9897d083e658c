"""The body of an event stream as it comes: what has arrived, when, and whether the server has said its last word.

Rule: nothing here waits. What arrived is kept whatever ends the stream, for part of it may be all of the answer.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.transport.body import CODINGS, GZIP, NO_GZIP, too_large
from runner.wire.sse import says_done

#: The first token lies among them: keepalives come once a second or less, and the time of each costs 100 bytes.
ARRIVALS_MAX = 1024


@dataclass(slots=True)
class Arriving:
    """`wrong`: the sentence that says why it cannot be read on."""

    inflate: Any = None  #: zlib's decompressor, where the stream is packed
    body: bytearray = field(default_factory=bytearray)
    times: list[tuple[int, float]] = field(default_factory=list)  #: (bytes so far, seconds since the request was sent)
    wrong: str | None = None
    done: bool = False

    def take(self, chunk: bytes, at_s: float, cap_bytes: int) -> None:
        text = chunk if self.inflate is None else self._inflated(chunk, cap_bytes + 1 - len(self.body))
        if text:
            self.body += text
            if len(self.times) < ARRIVALS_MAX:
                self.times.append((len(self.body), at_s))
            self.done = says_done(self.body)
        if len(self.body) > cap_bytes:
            self.wrong = too_large(cap_bytes)

    def _inflated(self, chunk: bytes, room: int) -> bytes:
        try:
            text: bytes = self.inflate.decompress(chunk, room)
        except zlib.error:
            self.wrong = NO_GZIP
            return b""
        return text


def arriving(headers: Mapping[str, str]) -> Arriving | None:
    """For a reply whose head says that it is an event stream, in a coding that can be read as it comes."""
    packed = CODINGS.get(headers.get("content-encoding", "").strip().lower())
    if "event-stream" not in headers.get("content-type", "").lower() or packed is None:
        return None
    return Arriving(zlib.decompressobj(GZIP) if packed else None)
