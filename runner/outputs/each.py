"""What the answers must look like where each row says it itself: the requests of a batch file.

Rule: one column holds them all, so `parsed` is JSON text; each answer is held against its own schema. Strategy: files
repeat a few schemas over a million rows, so what was compiled is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from runner.outputs import Output, compile_output

_MEMBER = b'"response_format"'
_KEPT = 256


def output_of(response_format: Any) -> Output | None:
    """None for text answers. Raises JobError for a schema that is no JSON Schema or refers to another document."""
    # By the standard library: orjson refuses integers beyond 64 bits, or makes floats of them.
    return _compiled(json.dumps(response_format)) if isinstance(response_format, Mapping) else None


def output_asked_by(body: bytes) -> Output | None:
    """The same for the JSON body of a request. Bodies may be megabytes: most need not be read for it."""
    return output_of(json.loads(body).get("response_format")) if _MEMBER in body else None


@lru_cache(maxsize=_KEPT)
def _compiled(response_format: str) -> Output | None:
    return compile_output(json.loads(response_format), typed=False)
