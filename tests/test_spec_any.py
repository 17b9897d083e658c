"""Whatever a job file holds, it is a job or a JobError."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from small_job import read_no_file
from thorough import EXAMPLES

from runner.errors import JobError
from runner.spec import parse
from runner.spec.model import SECTIONS, JobSpec, keys_of

FULL = """\
input: {path: rows.jsonl}
request:
  model: m
  messages:
    - {role: user, content: "{{ title }}"}
    - {role: user, content: {file: a.txt}}
limits: {concurrency: 3}
vars: {x: &x [1, {y: z}]}
pricing: {m: {input: 1.5}, factor: 2}
endpoint: {headers: {X-A: {env: B}}}
"""
SCRAPS = """{ } [ ] : ' " | ~ ? & * # - null true 1e999 -1 &x *x !t --- [[]] {a: {b: c}} {file: a.json} {{ x }} é"""
PIECES: list[str] = [*SCRAPS.split(), "- ", "\n", "  ", "\t", "\0", "\u2028", "\x85", "<<: ", "%YAML 1.1\n", "9" * 5000]
PIECES += ['"\\ud800"', '"\\UFFFFFFFF"', "{{ x }}", "sk-abcdefghij"]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
WHERE = [(name, key) for name in JobSpec.model_fields for key in ("", *(keys_of((name,)) if name in SECTIONS else ()))]


def read(text: str) -> JobSpec | tuple[str, ...]:
    """The job, or what is wrong with it."""
    try:
        return parse(text, "jobs/x.yaml", read_file=read_no_file)
    except JobError as error:
        return error.mistakes


def in_words(said: str) -> bool:
    """One line with its place, and not the sentence for what nobody has thought of."""
    return said.startswith("jobs/x.yaml:") and "\n" not in said and "cannot be used as it is written" not in said


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.integers(0, 2**32), st.lists(st.sampled_from(PIECES), min_size=1, max_size=4))
def test_a_damaged_file_gives_a_job_or_a_job_error_and_nothing_else(seed: int, pieces: list[str]) -> None:
    luck, text = random.Random(seed), FULL
    for piece in pieces:
        start = luck.randrange(len(text))
        text = text[:start] + piece + text[start + luck.choice((0, 0, 1, 5, 30)) :]
    found = read(text)
    assert isinstance(found, JobSpec) or (found and all(map(in_words, found)))


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.dictionaries(st.sampled_from(WHERE), VALUES, min_size=1, max_size=4))
def test_any_value_in_any_place_is_taken_or_refused_in_words(values: dict[tuple[str, str], Any]) -> None:
    tree: dict[str, Any] = {"input": {"path": "a"}, "request": {"model": "m", "messages": [{"role": "system"}]}}
    for (section, key), value in values.items():
        tree[section] = {key: value} if key else value
    found = read(json.dumps(tree))
    assert isinstance(found, JobSpec) or (found and all(map(in_words, found)))
