"""Jobs over a batch file, whose lines hold whole requests.

Rule: a line runs as it stands, so such a job has no request of its own; what stands in its place says where each
line's is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runner.spec.positions import Path

FORMAT = "openai_batch"
ID_COLUMN = "custom_id"
REQUEST = {"model": "{{ body.model }}", "messages": "{{ body.messages }}"}


def is_of_lines(job: Any) -> bool:
    """Whether a plain job tree is over a batch file."""
    given = job.get("input")
    return isinstance(given, dict) and given.get("format") == FORMAT


def mistakes(job: Any) -> Iterator[tuple[Path, str]]:
    if is_of_lines(job) and job["request"] not in (REQUEST, REQUEST | {"extra_body": {}}):
        yield ("request",), f"each line of an {FORMAT} file holds its whole request; leave this out"
