"""A small job file and what reading one tells, for the tests of the job file."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from runner.errors import JobError
from runner.spec import parse

SMALL = """\
input: {path: rows.jsonl}
request:
  model: m
  messages:
    - {role: user, content: "{{ title }}"}
"""


def read_no_file(path: str) -> str:
    raise FileNotFoundError(2, "No such file or directory")


def mistakes(text: str, overrides: Sequence[str] = ()) -> list[str]:
    """Every mistake of a job file that has some."""
    with pytest.raises(JobError) as raised:
        parse(text, "jobs/x.yaml", read_file=read_no_file, overrides=overrides)
    assert str(raised.value) == "\n".join(raised.value.mistakes)
    return list(raised.value.mistakes)
