"""Which columns an export has, and how their text is to be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import pyarrow as pa

from runner.errors import UsageError
from runner.outputs import compile_output
from runner.prepare import Prepared
from runner.sources.types import is_json_text


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of an export, of the run that it is taken from."""

    schema: Any  #: pa.Schema
    prepared: Prepared

    @property
    def reads(self) -> list[str]:
        return list(self.schema.names)

    @property
    def parsed(self) -> str:
        return self.prepared.job.output.prefix + "parsed"

    @property
    def json_texts(self) -> set[str]:
        """The columns whose text is JSON: input columns of mixed values, and answers of any form."""
        texts = jsonl_texts(self.prepared.survey) & set(self.prepared.input_columns)
        return texts | answer_texts(self.prepared)


def chosen(prepared: Prepared, columns: Sequence[str] | None) -> Layout:
    """The columns of the parts, or those of them that were asked for, in that order. Raises UsageError."""
    part = prepared.shape.part
    if columns is None:
        return Layout(part, prepared)
    refuse_unknown(columns, part.names)
    return Layout(pa.schema([part.field(name) for name in dict.fromkeys(columns)]), prepared)


def refuse_unknown(columns: Iterable[str], known: Sequence[str]) -> None:
    for name in columns:
        if name not in known:
            close = get_close_matches(name, known, 1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise UsageError(
                f"--columns: the results have no column `{name}`{meant}", hint=f"they have {', '.join(known)}"
            )


def jsonl_texts(survey: Any) -> set[str]:
    """The input columns that the survey turned into JSON text. A Parquet file's own metadata say nothing of it."""
    if any(file.format != "jsonl" for file in survey.files):
        return set()
    return {field.name for field in survey.schema if is_json_text(field)}


def answer_texts(prepared: Prepared) -> set[str]:
    """The result columns that hold JSON text: `parsed`, when the job's schema gives no one type, or there is none."""
    free = compile_output({"type": "json_object"})
    is_free = prepared.output is not None and replace(prepared.output, _validator=None) == free
    return {prepared.job.output.prefix + "parsed"} if is_free else set()
