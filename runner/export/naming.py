"""What the rows of a run are called in batch files: the value of the id column, or else the row's position.

Rule: results are joined to requests by these names, so one that stands twice is told before anything is sent. Strategy:
a pass over the input keeps eight bytes of each name, however many rows there are; only when some are alike does a
second one say which.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
import orjson

from runner.export.layout import jsonl_texts
from runner.export.plain import values
from runner.interchange.requests import custom_id
from runner.prepare import Prepared

_SHOWN = 3


def custom_ids(prepared: Prepared, number: int) -> list[str]:
    """The names of a range's rows, in order. Raises ChangedError when the input is not what was surveyed."""
    part, column = prepared.survey.ranges[number], prepared.job.input.id_column
    found = [None] * part.rows
    if column is not None and column in prepared.survey.columns:
        prepared.reader.verify(number)
        found = plain_ids(prepared, prepared.reader.table(number, [column])[column].combine_chunks())
    return [custom_id(value, part.first + place) for place, value in enumerate(found)]


def plain_ids(prepared: Prepared, ids: Any) -> list[Any]:
    """The values of the id column as plain ones; `ids`: its pa.Array, in a slice of the input or of the results."""
    if prepared.job.input.id_column in jsonl_texts(prepared.survey):
        return [None if text is None else orjson.loads(text) for text in ids.to_pylist()]
    return values(ids)


def shared_ids(prepared: Prepared) -> list[str]:
    """`a (rows 0, 5, …)` for the first names that several lines of a batch file have, and how many more there are."""
    if not prepared.job.input.is_of_lines:
        return []
    again = np.sort(np.fromiter((key for _, _, key in _keyed(prepared)), np.uint64, prepared.survey.rows))
    alike = {int(key) for key in again[1:][again[1:] == again[:-1]]}
    if not alike:
        return []
    rows: dict[str, list[int]] = {}
    for row, name, key in _keyed(prepared):
        if key in alike and (name in rows or len(rows) < _SHOWN) and len(rows.setdefault(name, [])) <= _SHOWN:
            rows[name].append(row)
    found = [f"{name} (rows {_listed(places)})" for name, places in rows.items()]
    return found + ([f"{len(alike) - _SHOWN:,} more"] if len(alike) > _SHOWN else [])


def _listed(rows: list[int]) -> str:
    return ", ".join([*map(str, rows[:_SHOWN]), *(["…"] if len(rows) > _SHOWN else [])])


def _keyed(prepared: Prepared) -> Iterator[tuple[int, str, int]]:
    """(row, name, eight bytes of its hash) of every row."""
    for number, part in enumerate(prepared.survey.ranges):
        for place, name in enumerate(custom_ids(prepared, number)):
            digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            yield part.first + place, name, int.from_bytes(digest, "little")
