"""Rows that are in memory -> an input file beside the run, so that a run of them can go on like any other.

Rule: the file is named by what is in it (`NAME.input/3f2a….parquet` beside the run NAME): the same rows are the same
file, other rows never overwrite it, and what a run was started with stays. Strategy: data frames become Parquet with
their Arrow types, dicts become JSON lines.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from runner import files
from runner.errors import InputError

#: Rows of a row group: the most that one part holds, so a range never reads much more than itself.
GROUP_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Spooled:
    """Rows that are a file now. `made`: this call has made it; `directories`: and these for it, the innermost first."""

    path: Path
    format: str
    made: bool
    directories: Sequence[Path] = ()

    def forget(self) -> None:
        """Remove what was made for a run that could not start."""
        if self.made:
            files.remove(self.path)
        for directory in self.directories:
            with suppress(OSError):  # somebody else has put something there
                directory.rmdir()


def is_rows(data: Any) -> bool:
    """Whether `data` is a data frame (pandas, polars, Arrow) or a list of dicts, and no path."""
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return all(isinstance(row, Mapping) for row in data)
    return hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__") or _is_pandas(data)


def spool(data: Any, folder: Path) -> Spooled:
    """Write the rows into `folder`, unless the same rows are there. Raises InputError for what no file can hold,
    StorageError when the disk refuses."""
    if isinstance(data, Sequence):
        body = b"".join(_line(number, row) for number, row in enumerate(data))
        return _kept(folder, "jsonl", hashlib.sha256(body).hexdigest(), lambda path: path.write_bytes(body))
    table = _table(data)
    return _kept(folder, "parquet", _digest(table), lambda path: _write_parquet(table, path))


def _line(number: int, row: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"
    except TypeError:  # integers beyond 64 bit and halves of characters, which JSON holds; or what it does not
        return _by_the_standard_library(number, row)


def _by_the_standard_library(number: int, row: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(row, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"row {number} of the input cannot be written as JSON: {error}") from error


def _is_pandas(data: Any) -> bool:
    pandas = sys.modules.get("pandas")  # who has a frame of it has imported it
    return pandas is not None and isinstance(data, pandas.DataFrame)


def _table(data: Any) -> Any:
    """The frame as Arrow, without what pandas notes of itself: its version is not part of the rows."""
    try:
        table = pa.Table.from_pandas(data, preserve_index=False) if _is_pandas(data) else pa.table(data)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(f"the data frame has no Arrow types: {error}", hint="give each column one type") from error
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise InputError(f"the data frame has two columns of one name: {', '.join(twice)}")
    return table.replace_schema_metadata(None)


class _Digest:
    """A file that keeps nothing of what is written but its hash."""

    closed = False

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return len(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _digest(table: Any) -> str:
    """Over the rows and types, not over a file: a later pyarrow may write another file of the same rows."""
    digest = _Digest()
    with pa.ipc.new_stream(pa.PythonFile(digest, mode="w"), table.schema) as stream:
        for batch in table.to_batches(max_chunksize=GROUP_ROWS):
            stream.write_batch(batch)
    return digest.hash.hexdigest()


def _write_parquet(table: Any, path: Path) -> None:
    try:
        pq.write_table(table, path, row_group_size=GROUP_ROWS, compression="zstd")
    except pa.ArrowException as error:
        raise InputError(f"the data frame cannot be kept as Parquet: {error}") from error


def _kept(folder: Path, suffix: str, digest: str, write: Callable[[Path], object]) -> Spooled:
    path = folder / f"{digest[:32]}.{suffix}"
    if path.exists():
        return Spooled(path, suffix, made=False)
    directories = [place for place in (folder, *folder.parents) if not place.exists()]
    files.make_directory(folder)
    temporary = folder / f".{path.name}.tmp"
    files.remove(temporary)
    files.touch(temporary)
    try:
        write(temporary)
    except (OSError, InputError) as error:
        Spooled(temporary, suffix, made=True, directories=directories).forget()
        raise error if isinstance(error, InputError) else files.storage_error("cannot write", path, error) from error
    files.append(temporary, b"")  # durable
    files.rename(temporary, path)
    files.sync_directory(folder)
    return Spooled(path, suffix, made=True, directories=directories)
