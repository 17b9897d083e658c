"""What the answers must look like where each row says it itself: the requests of a batch file.

Rule: one column holds them all, so `parsed` is JSON text; each answer is held against its own schema. Strategy: files
repeat a few schemas over a million rows, so what was compiled is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import orjson

from runner.outputs import Output, compile_output
from runner.outputs.shape import JSON

_MEMBER = b'"response_format"'
_KEPT = 256


def output_of(response_format: Any) -> Output | None:
    """None for text answers. Raises JobError for a schema that is no JSON Schema or refers to another document."""
    return _compiled(orjson.dumps(response_format)) if isinstance(response_format, Mapping) else None


def output_asked_by(body: bytes) -> Output | None:
    """The same for the JSON body of a request. Bodies may be megabytes: most need not be read for it."""
    return output_of(orjson.loads(body).get("response_format")) if _MEMBER in body else None


@lru_cache(maxsize=_KEPT)
def _compiled(response_format: bytes) -> Output | None:
    output = compile_output(orjson.loads(response_format))
    return output and replace(output, _shape=JSON)
