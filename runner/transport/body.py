"""Reply bodies: what the wire carried -> what it says. Pure.

Rule: no more than `cap_bytes` ever come out, whatever a few kilobytes claim to unpack to.
"""

from __future__ import annotations

import zlib

#: RFC 1952 lets members follow each other. Real replies hold one; each costs a copy of the rest, so not thousands.
MEMBERS_MAX = 64

GZIP = 31  #: zlib's wbits for "a gzip header, the largest window"

#: content-encoding -> whether it is packed; there are no others that we ask for
CODINGS = {"": False, "identity": False, "gzip": True, "x-gzip": True}

NO_GZIP = "the reply says it is gzip, and is not"


def unpacked(raw: bytes, encoding: str, cap_bytes: int) -> bytes | str:
    """The decoded body, or a sentence that says why there is none. `encoding`: the content-encoding header or ''."""
    packed = CODINGS.get(encoding.strip().lower())
    if packed is None:
        return f"the reply is encoded as {encoding!r}, and only gzip was asked for"
    if not packed:
        return raw
    try:
        return _gunzip(raw, cap_bytes)
    except zlib.error:
        return NO_GZIP


def _gunzip(data: bytes, cap_bytes: int) -> bytes | str:
    out: list[bytes] = []
    room = cap_bytes + 1  # one byte more tells "full" from "too large"
    for _ in range(MEMBERS_MAX):
        if not data:
            return b"".join(out)
        member = zlib.decompressobj(GZIP)
        out.append(member.decompress(data, room))
        room -= len(out[-1])
        if room <= 0:
            return too_large(cap_bytes)
        if not member.eof:
            return "the reply's gzip data ends too early"
        data = member.unused_data.lstrip(b"\0")  # padding, as gzip itself ignores it
    return "the reply's gzip data is in too many pieces"


def too_large(cap_bytes: int) -> str:
    size = f"{cap_bytes >> 20} MiB" if cap_bytes >= 1 << 20 else f"{cap_bytes:,} bytes"
    return f"the reply is larger than {size}"
