"""A request's body as aiohttp likes to send it: a file, in pieces, when it is large.

Rule: the body is in memory once. aiohttp asks a BytesIO for its buffer to know its length, and that alone makes BytesIO
copy what it holds: 7 MB more for every image of 5 MB on the wire.
"""

from __future__ import annotations

import io

#: aiohttp warns about larger bytes: writing them at once would hold up the loop.
LARGE_BODY_BYTES = 1 << 20


class _Shared(io.BytesIO):
    """Bytes as a file that nobody writes to."""

    def getbuffer(self) -> memoryview:
        return memoryview(self.getvalue())  # the very bytes it was made of, as long as they are not changed


def upload(content: bytes) -> bytes | io.BytesIO:
    return content if len(content) <= LARGE_BODY_BYTES else _Shared(content)
