"""The requests of a job as lines: for people, and for the batch API and vLLM's `run_batch`.

Rule: a line of a batch file is whole: it holds the bytes of local files, and names its row. What cannot be rendered is
no line of it; it is told apart. One row at a time is held.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from runner.export.naming import custom_ids
from runner.interchange.requests import request_line
from runner.media import Folder, folder_of
from runner.prepare import Prepared
from runner.records import Failure, Request
from runner.wire.attach import Local, cut

#: The batch API answers no streams, and refuses lines that ask for one.
_STREAMING = ("stream", "stream_options")


@dataclass(slots=True)
class Rendered:
    """What has been rendered so far, and is not in the file."""

    failed: int = 0
    first: str = ""  #: the first failure in words

    def add(self, row: int, failure: Failure) -> None:
        self.failed += 1
        self.first = self.first or f"row {row}: {failure.message}"

    def words(self) -> str | None:
        """The sentence about it."""
        return (
            f"{self.failed:,} rows cannot be rendered and are not in it; first: {self.first}" if self.failed else None
        )


def requests(prepared: Prepared, most: int, seen: Rendered) -> Iterator[bytes]:
    """The first requests as they would be sent, local files by their names and types; a row that cannot be rendered
    says why in its line."""
    folder = folder_of(prepared.job, prepared.loaded.base)
    for _, row, made in _made(prepared, most):
        if isinstance(made, Failure):
            yield _line({"row": row, "error": made.message})
        else:
            files = {"files": _files(folder, made)} if folder else {}
            yield _line({"row": row, "request_hash": made.hash, "body": orjson.Fragment(made.body), **files})


def batch_lines(prepared: Prepared, most: int, seen: Rendered) -> Iterator[bytes]:
    """The lines of a batch file for the first rows; `seen` takes those that are none."""
    folder, named, names = folder_of(prepared.job, prepared.loaded.base), -1, [""]
    for number, row, made in _made(prepared, most):
        body = _body(made, folder)
        if isinstance(body, Failure):
            seen.add(row, body)
            continue
        if number != named:
            named, names = number, custom_ids(prepared, number)
        yield request_line(names[row - prepared.survey.ranges[number].first], body)


def _made(prepared: Prepared, most: int) -> Iterator[tuple[int, int, Request | Failure]]:
    """(range, row, request) of the first rows."""
    for number, part in enumerate(prepared.survey.ranges):
        if part.first >= most:
            return
        for row in prepared.reader.rows(number, prepared.recipe.columns):
            if row.index >= most:
                return
            yield number, row.index, prepared.recipe.request(row)


def _body(made: Request | Failure, folder: Folder | None) -> bytes | Failure:
    body = made if isinstance(made, Failure) else folder.fill(cut(made.body)) if folder else made.body
    if isinstance(body, Failure) or b'"stream' not in body:
        return body
    members = json.loads(body)  # not orjson, which makes floats of integers beyond 64 bit
    kept = {name: value for name, value in members.items() if name not in _STREAMING}
    return body if kept == members else json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()


def _files(folder: Folder, request: Request) -> list[dict[str, Any]]:
    """The local files that a request would carry: only their first bytes are read."""
    found: list[dict[str, Any]] = []
    for local in cut(request.body):
        if isinstance(local, Local):
            kind = folder.type_of(local)
            said = {"error": kind.message} if isinstance(kind, Failure) else {"type": kind}
            found.append({"at": local.where, "file": local.file, "bytes": local.stamp.size, **said})
    return found


def _line(members: dict[str, Any]) -> bytes:
    return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)
