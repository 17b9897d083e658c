"""What a survey knows of its input: files, ranges, columns.

    Survey
    ├── files     File(path, format, size, mtime_ns, rows, hash)
    ├── ranges    Range(first, rows, hash, segments)      fixed blocks of consecutive ordinals
    │             └── Segment(file, start, end, …)        where its rows lie; a range may span files
    └── schema    the Arrow type that fits every row of every column

Rule: frozen values and their JSON; nothing is read here. Ordinals count from 0 over all files, lines from 1 in each.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from runner.errors import RunDirectoryError

VERSION = 1
#: What `-` becomes: a path that people know, and that names itself `stdin` in messages.
STDIN = Path("/dev/stdin")


@dataclass(frozen=True, slots=True)
class SurveyOptions:
    """`format`: jsonl, parquet or csv; None: from the suffix. `limit`: only the first N rows; None: all."""

    format: str | None = None
    limit: int | None = None
    on_bad_line: Literal["stop", "fail_row"] = "stop"
    rows_per_part: int | Literal["auto"] = "auto"


class Frame(NamedTuple):
    """A piece of the copy of a file that cannot be sought, that is read alone: the rows of a range."""

    end: int  #: byte of the text behind what it holds; of a Parquet file the row
    stop: int  #: byte of the copy behind it
    hash: str  #: of its bytes in the copy


@dataclass(frozen=True, slots=True)
class File:
    """One input file as it stood. `hash` covers its surveyed rows, not the bytes between them."""

    path: Path
    format: str
    size: int  #: bytes
    mtime_ns: int
    rows: int
    hash: str
    columns: tuple[str, ...] = ()  #: of a CSV header, of a Parquet schema; empty for JSONL
    groups: tuple[int, ...] = ()  #: rows of each row group of a Parquet file
    spool: str = ""  #: the name of its copy in the run's input/; empty: it is read where it lies
    frames: tuple[Frame, ...] = ()  #: of the copy


@dataclass(frozen=True, slots=True)
class Segment:
    """The part of a range that lies in one file."""

    file: int  #: its number in `Survey.files`
    start: int  #: byte of the (unpacked) text where its first row begins; in a Parquet file the number of that row
    end: int  #: byte behind its last row, newline not counted; in a Parquet file a row number too
    first: int  #: ordinal of its first row
    rows: int
    line: int = 0  #: line number of its first row; 0 in a Parquet file


@dataclass(frozen=True, slots=True)
class Range:
    """Consecutive ordinals: the unit of survey, journal, part and resume."""

    first: int
    rows: int
    hash: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class BadLines:
    """Lines that are no rows: how many, and the first 20 in words, `tickets.jsonl:42 (byte 1234): …`."""

    count: int = 0
    first: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Survey:
    """The one pass over the input. A field of `schema` with metadata {b"json": b"1"} holds JSON text of any value."""

    files: tuple[File, ...]
    rows: int
    rows_per_part: int
    ranges: tuple[Range, ...]
    schema: Any  #: pa.Schema of the input columns, in first-seen order
    bad_lines: BadLines = field(default_factory=BadLines)
    options: SurveyOptions = field(default_factory=SurveyOptions)

    @property
    def from_stdin(self) -> bool:
        """Whether some of the rows were piped in: only their copy has them."""
        return any(file.path == STDIN for file in self.files)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.schema.names)

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values; ranges and segments as lists, since there may be a million."""
        return {
            "version": VERSION,
            "options": _fields(self.options),
            "files": [{**_fields(file), "path": str(file.path)} for file in self.files],
            "rows": self.rows,
            "rows_per_part": self.rows_per_part,
            "schema": base64.b64encode(self.schema.serialize().to_pybytes()).decode(),
            "bad_lines": _fields(self.bad_lines),
            "ranges": [[r.first, r.rows, r.hash, [list(_fields(s).values()) for s in r.segments]] for r in self.ranges],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Survey:
        """The survey that `to_json` wrote. Raises RunDirectoryError when it is damaged or of another version."""
        if data.get("version") != VERSION:
            raise RunDirectoryError(
                f"the survey has version {data.get('version')}, this program reads {VERSION}",
                hint="go on with the version of the program that started the run",
            )
        try:
            return _rebuild(data)
        except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
            raise RunDirectoryError(
                f"the survey is damaged: {type(error).__name__}: {error}",
                hint="put it back from a copy, or start anew with `--fresh`",
            ) from error


def labels(paths: Sequence[Path]) -> list[str]:
    """How messages name the files: by name alone where that is enough."""
    times = Counter(path.name for path in paths)
    return [path.name if times[path.name] == 1 else str(path) for path in paths]


def _fields(value: Any) -> dict[str, Any]:
    # dataclasses.asdict copies deeply, at 10 µs a segment
    pairs = ((name, getattr(value, name)) for name in value.__dataclass_fields__)
    return {name: list(item) if isinstance(item, tuple) else item for name, item in pairs}


def _rebuild(data: Mapping[str, Any]) -> Survey:
    return Survey(
        files=tuple(File(**{**file, **_paths_and_tuples(file)}) for file in data["files"]),
        rows=data["rows"],
        rows_per_part=data["rows_per_part"],
        ranges=tuple(Range(a, b, c, tuple(Segment(*s) for s in d)) for a, b, c, d in data["ranges"]),
        schema=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(data["schema"], validate=True))),
        bad_lines=BadLines(data["bad_lines"]["count"], tuple(data["bad_lines"]["first"])),
        options=SurveyOptions(**data["options"]),
    )


def _paths_and_tuples(file: Mapping[str, Any]) -> dict[str, Any]:
    path, frames = Path(file["path"]), tuple(Frame(*frame) for frame in file.get("frames", ()))
    return {"path": path, "columns": tuple(file["columns"]), "groups": tuple(file["groups"]), "frames": frames}
