"""What a file is, by its first bytes.

Rule: a name proves nothing: the suffix is asked only among kinds whose bytes are alike (texts, Office files, which are
all zip archives). Strategy: one table of signatures, in order; pure, bytes in, media type out.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Final

#: As much of a file as `media_type` wants to see.
HEAD_BYTES: Final = 4096
PLAIN: Final = "text/plain"
UNKNOWN: Final = "application/octet-stream"

Sign = Callable[[bytes], bool]


def _starts(*marks: bytes) -> Sign:
    return lambda head: head.startswith(marks)


def _riff(form: bytes) -> Sign:
    return lambda head: head[:4] == b"RIFF" and head[8:12] == form


def _mp3(head: bytes) -> bool:
    """An ID3 tag, or a frame of MPEG audio layer III: 11 set bits, the layer, and no reserved rate."""
    if head.startswith(b"ID3"):
        return True
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return False
    return head[1] & 0x18 != 0x08 and head[2] >> 4 not in (0, 15) and head[2] & 0x0C != 0x0C


#: (media type, sign), tried in this order.
SIGNS: Final[tuple[tuple[str, Sign], ...]] = (
    ("image/png", _starts(b"\x89PNG\r\n\x1a\n")),
    ("image/jpeg", _starts(b"\xff\xd8\xff")),
    ("image/gif", _starts(b"GIF87a", b"GIF89a")),
    ("image/webp", _riff(b"WEBP")),
    ("audio/wav", _riff(b"WAVE")),
    ("audio/mpeg", _mp3),
    ("application/pdf", _starts(b"%PDF-")),
    ("application/zip", _starts(b"PK\x03\x04", b"PK\x05\x06")),
    ("application/gzip", _starts(b"\x1f\x8b")),
)
IMAGES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
#: The wire's own words for the audio that it takes.
AUDIO: Final[Mapping[str, str]] = {"audio/wav": "wav", "audio/mpeg": "mp3"}

_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
ZIPS: Final[Mapping[str, str]] = {
    ".docx": _OFFICE + "wordprocessingml.document",
    ".pptx": _OFFICE + "presentationml.presentation",
    ".xlsx": _OFFICE + "spreadsheetml.sheet",
    ".epub": "application/epub+zip",
}
TEXTS: Final[Mapping[str, str]] = {
    ".csv": "text/csv",
    ".htm": "text/html",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".tsv": "text/tab-separated-values",
    ".xml": "application/xml",
}


def media_type(head: bytes, name: str) -> str:
    """The media type of a file that begins with `head` (HEAD_BYTES of it, or all); `name` settles what bytes cannot."""
    found = next((kind for kind, sign in SIGNS if sign(head)), None)
    suffix = PurePath(name).suffix.lower()
    if found == "application/zip":
        return ZIPS.get(suffix, found)
    if found is None and _is_text(head):
        return TEXTS.get(suffix, PLAIN)
    return found or UNKNOWN


def _is_text(head: bytes) -> bool:
    """UTF-8 without NUL; the last character of a longer file may be cut off."""
    if b"\0" in head:
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < HEAD_BYTES)
    except UnicodeDecodeError:
        return False
    return True
