"""Content parts that carry more than text: found, weighed, and named by file, size and time instead of their bytes.

    {"type": "image_url", "image_url": {"file": "cat.png", "detail": "low"}}                         the job
    {"type": "image_url", "image_url": {"file": "cat.png", "size": 68, "mtime_ns": …, "detail": …}}  hashed, kept, shown
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,…", "detail": "low"}}          sent

Rule: a body names its local files until the moment it is sent, so that nothing before that reads one, and a file that
changes makes another request. Strategy: `stamped` makes the middle form while the request is made, `cut` takes it apart
again when the request has its slot, `frame` says what stands around the base64 text. Pure: sizes and times come in
through a function.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from runner.records import Failure
from runner.wire.encode import input_failure
from runner.wire.mediatokens import UNSEEN, Tokens, audio_tokens, file_tokens, image_tokens
from runner.wire.mediatypes import AUDIO, IMAGES, media_type

#: The most bytes of one file; as base64 text still within what a request may have (encode.MAX_BODY_BYTES).
MAX_FILE_BYTES: Final = 20 * 1024 * 1024

#: By the part's type: where its bytes stand on the wire, and what else a part with a local file may say.
DATA: Final[Mapping[str, str]] = {"image_url": "url", "input_audio": "data", "file": "file_data"}
EXTRAS: Final[Mapping[str, str]] = {"image_url": "detail", "file": "filename"}

_TEXT_ONLY: Final = ("text", "refusal")
#: Half of the stamp. It cannot stand inside of a JSON text, where its quotes would be escaped.
_STAMP: Final = b'"mtime_ns":'


@dataclass(frozen=True, slots=True)
class Stamp:
    """What is known of a file that was not read."""

    size: int  #: bytes
    mtime_ns: int


#: (path as given, where the part stands) -> the file's stamp, or why it cannot be sent
Look = Callable[[str, str], Stamp | Failure]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a message that is no text."""

    message: int
    place: int
    kind: str  #: image_url, input_audio or file
    value: Mapping[str, Any]

    @property
    def where(self) -> str:
        return f"messages.{self.message}.content.{self.place}.{self.kind}"

    @property
    def is_local(self) -> bool:
        return self.value.get("file") is not None


@dataclass(frozen=True, slots=True)
class Local:
    """A file that a request is to carry."""

    where: str
    kind: str
    file: str
    stamp: Stamp
    extra: Any = None  #: detail of an image, filename of a file


@dataclass(frozen=True, slots=True)
class Weighed:
    """A body whose media have been looked at."""

    body: Mapping[str, Any]
    tokens: Tokens
    inline_bytes: int  #: of the body: base64 text, which is no prompt
    file_bytes: int  #: what local files will add to it


def carries(messages: Any) -> bool:
    """Whether messages, as a job writes them, may hold a part that is no text."""
    return may_come_from_data(messages) or any(part.get("type") not in _TEXT_ONLY for part in _written(messages))


def names_files(messages: Any) -> bool:
    """Whether a job's own messages name a local file."""
    kinds = ((part.get(kind) for kind in DATA) for part in _written(messages))
    return any(isinstance(value, Mapping) and value.get("file") is not None for found in kinds for value in found)


def kinds(messages: Any) -> frozenset[str]:
    """Of the parts that are no text in a job's own messages."""
    return frozenset(str(part.get("type")) for part in _written(messages)) & DATA.keys()


def may_come_from_data(messages: Any) -> bool:
    """Whether whole messages come out of the rows."""
    return isinstance(messages, str) or not all(isinstance(message, Mapping) for message in messages)


def _written(messages: Any) -> Iterator[Mapping[str, Any]]:
    """The parts that a job writes out."""
    for message in () if isinstance(messages, str) else messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, list | tuple):
            yield from (part for part in content if isinstance(part, Mapping))


def parts(body: Mapping[str, Any]) -> Iterator[Part]:
    """Every part of a rendered body that is an image, a recording or a file."""
    for number, message in enumerate(body["messages"]):
        content = message.get("content") if isinstance(message, Mapping) else None
        if not isinstance(content, list | tuple):
            continue
        for place, part in enumerate(content):
            kind = part.get("type") if isinstance(part, Mapping) else None
            value = part.get(kind) if isinstance(kind, str) and kind in DATA else None
            if isinstance(value, Mapping):
                yield Part(number, place, str(kind), value)


def stamped(body: Mapping[str, Any], look: Look) -> Weighed | Failure:
    """The body with every local file stamped, and what its media weigh. Failure(INPUT) says which part and why."""
    model = str(body.get("model", ""))
    values: dict[tuple[int, int], dict[str, Any]] = {}
    weights: list[Tokens] = []
    inline = added = 0
    for part in parts(body):
        size = None
        if part.is_local:
            stamp = _looked_at(part, look)
            if isinstance(stamp, Failure):
                return stamp
            values[part.message, part.place] = _named(part, stamp)
            size, added = stamp.size, added + _encoded(stamp.size)
        elif text := _base64(part):
            size, inline = len(text) * 3 // 4, inline + len(text)
        weights.append(_tokens(part, size, model))
    return Weighed(_with(body, values) if values else body, _sum(weights), inline, added)


def _looked_at(part: Part, look: Look) -> Stamp | Failure:
    path = part.value["file"]
    if not isinstance(path, str) or not path or "\0" in path:
        return input_failure(f"{part.where}.file: the path of a file must be text, and not empty")
    return look(path, part.where)


def _named(part: Part, stamp: Stamp) -> dict[str, Any]:
    named = {"file": part.value["file"], "size": stamp.size, "mtime_ns": stamp.mtime_ns}
    extra = EXTRAS.get(part.kind, "")
    return named | ({extra: part.value[extra]} if part.value.get(extra) is not None else {})


def _base64(part: Part) -> str:
    """The base64 text that stands in the body itself; none for what is elsewhere."""
    text = part.value.get(DATA[part.kind])
    if not isinstance(text, str) or (part.kind == "image_url" and text[:5].lower() != "data:"):
        return ""
    return text


def _tokens(part: Part, size: int | None, model: str) -> Tokens:
    if part.kind == "image_url":
        return image_tokens(model, part.value.get("detail"))
    if size is None:
        return UNSEEN
    return audio_tokens(size) if part.kind == "input_audio" else file_tokens(size)


def _sum(weights: Sequence[Tokens]) -> Tokens:
    known = [each.most for each in weights if each.most is not None]
    return Tokens(sum(each.likely for each in weights), sum(known) if len(known) == len(weights) else None)


def _encoded(size: int) -> int:
    """Bytes of base64 text for so many bytes."""
    return -(-size // 3) * 4


def _with(body: Mapping[str, Any], values: Mapping[tuple[int, int], Any]) -> dict[str, Any]:
    """`body` with other values for some parts. What it shares with other rows is copied, not changed."""
    messages = list(body["messages"])
    for (number, place), value in values.items():
        content = list(messages[number]["content"])
        content[place] = {**content[place], content[place]["type"]: value}
        messages[number] = {**messages[number], "content": content}
    return {**body, "messages": messages}


def cut(body: bytes) -> list[bytes | Local]:
    """A body at the places of its local files: text, file, text, … One piece when it has none."""
    if _STAMP not in body:
        return [body]
    # By the standard library: orjson would make floats of integers beyond 64 bits.
    members = json.loads(body)
    found = [part for part in parts(members) if part.is_local and "mtime_ns" in part.value]
    word = "media"
    while word.encode() in body:
        word += "_"
    words = {(part.message, part.place): f"{word}{number}" for number, part in enumerate(found)}
    text = json.dumps(_with(members, words), ensure_ascii=False, separators=(",", ":")).encode()
    pieces = re.split(rb'"%b(\d+)"' % word.encode(), text)
    return [_local(found[int(piece)]) if number % 2 else piece for number, piece in enumerate(pieces)]


def _local(part: Part) -> Local:
    value = part.value
    stamp = Stamp(value["size"], value["mtime_ns"])
    return Local(part.where, part.kind, value["file"], stamp, value.get(EXTRAS.get(part.kind, "")))


def weight(pieces: Sequence[bytes | Local]) -> int:
    """Bytes of the whole request."""
    return sum(_encoded(piece.stamp.size) if isinstance(piece, Local) else len(piece) for piece in pieces)


def frame(local: Local, head: bytes) -> tuple[bytes, bytes] | Failure:
    """What stands before and after the base64 text of a file that begins with `head`. Failure(INPUT): it is not what
    the part says."""
    kind = media_type(head, local.file)
    if local.kind == "image_url" and kind not in IMAGES:
        return _wrong(local, kind, "an image; PNG, JPEG, GIF and WebP can be sent")
    if local.kind == "input_audio":
        return (
            _framed(local, "", format=AUDIO[kind]) if kind in AUDIO else _wrong(local, kind, "a WAV or MP3 recording")
        )
    return _framed(local, f"data:{kind};base64,", **_extra(local))


def _extra(local: Local) -> dict[str, Any]:
    if local.kind == "file":
        return {"filename": local.extra or PurePath(local.file).name}
    return {} if local.extra is None else {"detail": local.extra}


def _framed(local: Local, prefix: str, **rest: Any) -> tuple[bytes, bytes]:
    before = json.dumps({DATA[local.kind]: prefix}, separators=(",", ":"))[:-2]
    after = json.dumps(rest, ensure_ascii=False, separators=(",", ":"))[1:]
    return before.encode(), (b'"' if after == "}" else b'",') + after.encode()


def _wrong(local: Local, kind: str, due: str) -> Failure:
    return input_failure(f"{local.where}.file: by its first bytes the file is {kind}, and not {due}: {local.file}")
