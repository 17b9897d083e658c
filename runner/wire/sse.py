"""An event stream to the body that the same answer would have had unstreamed.

Rule: pure and total. Any bytes give a `Streamed`; whether a stream is whole is read off its choices, never off its last
line, for `[DONE]` is missing from some whole streams and present in some broken ones. Strategy: lines to events as the
HTML standard has them, and as servers bend them; events to chunks; chunks into growing choices (deltas.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

from runner.wire.deltas import Growing
from runner.wire.jsonbody import integer, load, mapping, mappings
from runner.wire.shapes import read_error

NO_CHUNK: Final = "the event stream holds a line that is no JSON"

_BOM: Final = b"\xef\xbb\xbf"
_BEGINS: Final = (b"data:", b"event:", b":", b"id:", b"retry:")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_DONE: Final = b"[DONE]"
_DONE_LINE: Final = re.compile(rb"(?:^|[\r\n])data: *\[DONE\]\s*$")
_SNIFFED_BYTES: Final = 512
_SILENT: Final = (b"", b"null")  #: data that keeps a connection alive and says nothing
_ONCE: Final = ("id", "model", "created", "system_fingerprint", "service_tier")


@dataclass(frozen=True, slots=True)
class Streamed:
    """`failed`: the object that came in place of a chunk and tells an error; `why` speaks where it has no message."""

    body: dict[str, Any]  #: as an unstreamed reply has it: choices, usage, id, model …
    complete: bool  #: every choice that was due has ended
    first_token_at: int | None  #: bytes of the stream up to the first text, reasoning, refusal or tool call
    failed: dict[str, Any] | None = None
    why: str = ""


class _Event(NamedTuple):
    name: bytes
    data: bytes
    lines: int  #: of the stream, this event's last data line included
    whole: bool  #: False: the stream ended inside its last line


def is_stream(start: bytes) -> bool:
    """Whether a body that starts so is an event stream, whatever its content-type says."""
    if start[:1] == b"{":
        return False
    return start[:_SNIFFED_BYTES].removeprefix(_BOM).lstrip().startswith(_BEGINS)


def says_done(body: bytes | bytearray) -> bool:
    """Whether the last line so far is `data: [DONE]`."""
    return _DONE_LINE.search(body, max(0, len(body) - 64)) is not None


def assemble(body: bytes, asked: int, *, cut: bool = False) -> Streamed:
    """The answer in an event stream. `asked` is n; `cut`: the stream did not end, it broke."""
    grown = _Answer(asked)
    for event in _events(body):
        grown.take(event)
    complete = grown.complete(cut)
    return Streamed(
        grown.body(),
        complete,
        None if grown.first_line is None else _end_of_line(body, grown.first_line),
        grown.failed if complete or grown.failed is not None else grown.stray,
        grown.why,
    )


@dataclass(slots=True)
class _Answer:
    """What the chunks have come to so far."""

    asked: int
    once: dict[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = _ONCE  #: of these the first that says something holds
    choices: dict[int, Growing] = field(default_factory=dict)
    reports: list[tuple[dict[str, Any], int]] = field(default_factory=list)  #: usage, and choices ended by then
    done: bool = False
    first_line: int | None = None
    failed: dict[str, Any] | None = None
    why: str = ""
    stray: dict[str, Any] | None = None  #: no chunk, and reads like an error; believed when the answer does not end

    def take(self, event: _Event) -> None:
        if event.data in _SILENT:
            return
        value = load(event.data)
        if type(value) is dict:
            self._chunk(value, event)
        elif event.data.startswith(_DONE):
            self.done = True
        elif type(value) is str or mappings(value):
            self._fail({"message": value} if type(value) is str else mappings(value)[0], NO_CHUNK)
        elif value is None:
            self._broken(event)

    def _broken(self, event: _Event) -> None:
        *lines, last = event.data.split(b"\n")
        if lines and load(lines[0]) is not None:  # events without the blank line between them
            for line in lines:
                self.take(event._replace(data=line.strip(), whole=True))
            self.take(event._replace(data=last.strip()))
        elif event.whole:
            # A text is the server's own word for what went wrong; of half a chunk nothing is quoted.
            text = "" if event.data.startswith((b"{", b"[")) else event.data.decode("utf-8", "replace")
            self._fail({"message": text}, NO_CHUNK)

    def body(self) -> dict[str, Any]:
        choices = [growing.choice(index) for index, growing in sorted(self.choices.items())]
        return {**self.once, "choices": choices, "usage": self._usage()}

    def complete(self, cut: bool) -> bool:
        if self.failed is not None:
            return False
        if not self.choices:
            return self.done and self.stray is None
        going = [choice for choice in self.choices.values() if choice.finish is None]
        # LiteLLM steps through several choices in common chunks, and then ends the first one for all of them.
        if going and (not self.done or self._ended() == 0 or any(choice.alone for choice in going)):
            return False
        return len(self.choices) >= self.asked or self.done or (bool(self.reports) and not cut)

    def _chunk(self, chunk: dict[str, Any], event: _Event) -> None:
        if chunk.get("error") or event.name == b"error" or chunk.get("object") == "error":
            self._fail(chunk, "")
        elif self.stray is None and "choices" not in chunk and read_error(chunk).message:
            self.stray = chunk
        for name in self.missing:
            if chunk.get(name):
                self.once[name] = chunk[name]
                self.missing = tuple([other for other in self.missing if other != name])
        choices = mappings(chunk.get("choices"))
        for place, choice in enumerate(choices):
            index = choice.get("index")
            growing = self.choices.get(index) if type(index) is int else None
            said = (growing or self._growing(index, place)).take(choice, alone=len(choices) == 1)
            if said and self.first_line is None:
                self.first_line = event.lines
        usage = chunk.get("usage") or _usage_aside(chunk, choices)
        if usage and type(usage) is dict:
            self.reports.append((usage, self._ended()))

    def _growing(self, said: Any, place: int) -> Growing:
        """The choice of an index; without one, of its place in the chunk."""
        index = integer(said)
        return self.choices.setdefault(place if index is None else index, Growing())

    def _fail(self, value: dict[str, Any], why: str) -> None:
        """An error that follows the whole answer takes nothing from it."""
        if self.failed is None and (self._ended() < self.asked or self._ended() < len(self.choices)):
            self.failed, self.why = value, why

    def _ended(self) -> int:
        return sum(choice.finish is not None for choice in self.choices.values())

    def _usage(self) -> dict[str, Any] | None:
        """The last word on it; llama.cpp has one for each choice, told when that choice ends."""
        if not self.reports:
            return None
        by_then = [ended for _, ended in self.reports]
        if len(self.choices) > 1 and by_then == list(range(1, len(self.choices) + 1)):
            return _summed([usage for usage, _ in self.reports])
        return self.reports[-1][0]


def _usage_aside(chunk: Mapping[str, Any], choices: list[dict[str, Any]]) -> Any:
    """Groq has a member of its own for it, Moonshot puts it into the choice."""
    if "x_groq" in chunk:
        return mapping(chunk["x_groq"]).get("usage")
    return choices[-1].get("usage") if choices else None


def _summed(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """All choices answer one prompt, which is counted once."""
    counts = [integer(report.get("completion_tokens")) for report in reports]
    known = [count for count in counts if count is not None and count >= 0]
    if len(known) < len(counts):
        return reports[-1]
    prompt = integer(reports[-1].get("prompt_tokens"))
    total = None if prompt is None else prompt + sum(known)
    return {**reports[-1], "completion_tokens": sum(known), "total_tokens": total}


def _events(body: bytes) -> Iterator[_Event]:
    text = body.removeprefix(_BOM)
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    *blocks, last = text.split(b"\n\n")
    lines = 0
    for block in blocks:
        more = block.count(b"\n")
        if not more and block.startswith(b"data: "):
            yield _Event(b"", block[6:].strip(), lines + 1, True)
        elif event := _event(block, lines, whole=True):
            yield event
        lines += more + 2
    if event := _event(last, lines, whole=last.endswith(b"\n")):
        yield event


def _event(block: bytes, lines: int, *, whole: bool) -> _Event | None:
    """The event of the lines between two blank ones; `lines` are before it."""
    name, data, at = b"", [], 0
    for number, line in enumerate(block.split(b"\n"), 1):
        if line.startswith(b"event:"):
            name = line[6:].strip()
        elif line.startswith((b"data:", b"{")):  # a proxy writes its error into the stream as it is
            data.append(line.removeprefix(b"data:").removeprefix(b" "))
            at = number
    return _Event(name, b"\n".join(data).strip(), lines + at, whole) if data else None


def _end_of_line(body: bytes, number: int) -> int:
    end = next(islice(_LINE_END.finditer(body), number - 1, None), None)
    return len(body) if end is None else end.end()
