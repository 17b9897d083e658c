"""The job file as JSON Schema, for editors that complete and check while one types."""

from __future__ import annotations

from typing import Any

from runner.spec import batchfile, body
from runner.spec.model import SECTIONS, JobSpec, RequestSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FORMAT = {"properties": {"format": {"const": batchfile.FORMAT}}, "required": ["format"]}
_OF_LINES = {"properties": {"input": _FORMAT}, "required": ["input"]}


def json_schema() -> dict[str, Any]:
    """JSON Schema of a job file as it is written: the name may be left out, an empty section is null."""
    schema = JobSpec.model_json_schema()
    schema["$defs"][RequestSpec.__name__] = body.schema()
    schema["required"] = [name for name in schema["required"] if name not in ("name", "request")]
    schema |= {"if": _OF_LINES, "then": {"not": {"required": ["request"]}}, "else": {"required": ["request"]}}
    for section in SECTIONS.keys() - {"input", "request"}:
        schema["properties"][section] = {"anyOf": [schema["properties"][section], {"type": "null"}]}
    return {"$schema": DIALECT, **schema}
