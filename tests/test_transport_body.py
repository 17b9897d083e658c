"""Unpacking gives the whole body, or says why not."""

from __future__ import annotations

import gzip
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.transport.body import MEMBERS_MAX, unpacked

# Unpacking.


@settings(deadline=None, max_examples=EXAMPLES)
@given(parts=st.lists(st.binary(max_size=300), max_size=5), cap=st.integers(0, 1500))
def test_unpacking_gives_all_or_says_too_large(parts: list[bytes], cap: int) -> None:
    whole = b"".join(parts)
    got = unpacked(b"".join(gzip.compress(p) for p in parts), "gzip", cap)
    assert got == (whole if len(whole) <= cap else f"the reply is larger than {cap:,} bytes")


@settings(deadline=None, max_examples=EXAMPLES)
@given(raw=st.binary(max_size=200), cap=st.integers(0, 1000))
def test_unpacking_takes_any_bytes(raw: bytes, cap: int) -> None:
    for data in (raw, gzip.compress(raw)[:10] + raw):
        got = unpacked(data, "gzip", cap)
        assert isinstance(got, str) or len(got) <= cap


def test_a_bomb_of_members_is_bounded() -> None:
    assert unpacked(gzip.compress(b"") * (MEMBERS_MAX + 1), "gzip", 10) == "the reply's gzip data is in too many pieces"
    assert unpacked(gzip.compress(b"a") + bytes(512), "gzip", 10) == b"a"
    assert unpacked(zlib.compress(b"a"), "gzip", 10) == "the reply says it is gzip, and is not"
    assert unpacked(b"", "gzip", 10) == b""
    assert unpacked(gzip.compress(bytes(64 << 20)), "gzip", 5 << 20) == "the reply is larger than 5 MiB"
