"""The settled rows of a run as one table, the way a person asks for it: some columns, `parsed` opened up."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from runner.errors import UsageError
from runner.export.writers import flattened
from runner.reading import prepared_of, read_table
from runner.store import RunDirectory


def read(directory: RunDirectory, columns: Sequence[str] | None = None, *, flatten: bool = False) -> Any:
    """A pa.Table; columns: only these, in this order. Raises UsageError for one that is not there."""
    prepared = prepared_of(directory)
    _refuse_unknown(columns or (), prepared.shape.part.names)
    table = read_table(directory, columns)
    return flattened(table, prepared.job.output.prefix + "parsed") if flatten else table


def _refuse_unknown(columns: Sequence[str], known: Sequence[str]) -> None:
    for name in columns:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
            raise UsageError(f"the results have no column `{name}`", hint=hint)
