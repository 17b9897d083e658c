"""YAML as version 1.2 says, and files that are none."""

from __future__ import annotations

from typing import Any

import pytest
from small_job import SMALL, mistakes, read_no_file

from runner.spec import JobSpec, parse


def job(text: str) -> JobSpec:
    return parse(text, "jobs/x.yaml", read_file=read_no_file)


YAML_12 = [
    ("no", "no"),
    ("Yes", "Yes"),
    ("on", "on"),
    ("y", "y"),
    ("2024-01-31", "2024-01-31"),
    ("12:30:45", "12:30:45"),
    ("1_000", "1_000"),
    ("010", 10),
    ("0o17", 15),
    ("0x1F", 31),
    ("+5", 5),
    (".5", 0.5),
    ("1e3", 1000.0),
    ("1.", 1.0),
    ("'5'", "5"),
    ("! 5", "5"),
    ("true", True),
    ("~", None),
    ("", None),
    ('""', ""),
    ('"a\u2028b"', "a\u2028b"),
    ("|\n    one\n    two\n", "one\ntwo\n"),
]


@pytest.mark.parametrize(("written", "value"), YAML_12)
def test_yaml_means_what_version_1_2_says(written: str, value: Any) -> None:
    read = job(SMALL + f"vars:\n  x: {written}\n").vars["x"]
    assert read == value
    assert type(read) is type(value)


def test_keys_are_text_whatever_they_look_like() -> None:
    text = SMALL + "  logit_bias: {50256: -100}\nvars: {data: {no: 1, 1.0: 2, null: 3}}\n"
    assert job(text).request.params == {"logit_bias": {"50256": -100}}
    assert job(text).vars["data"] == {"no": 1, "1.0": 2, "null": 3}


def test_anchors_aliases_and_merges_stand_for_what_they_name() -> None:
    text = (
        SMALL
        + "vars:\n  a: &base {x: 1, y: 2}\n  b: *base\n  c:\n    <<: *base\n    y: 3\n  d: {<<: [*base, {z: 4}]}\n"
    )
    assert job(text).vars == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1, "y": 3},
        "d": {"x": 1, "y": 2, "z": 4},
    }


def test_a_quoted_merge_mark_is_a_key() -> None:
    assert job(SMALL + "vars: {a: {'<<': 1}}\n").vars == {"a": {"<<": 1}}


NOT_A_JOB = [
    ("", "1: the file is empty; a job needs input and request"),
    ("# nothing\n", "1: the file is empty; a job needs input and request"),
    ("- a\n", "1: a job file must be a mapping (input: …, request: …)"),
    ("hello\n", "1: a job file must be a mapping (input: …, request: …)"),
    ("a: 1\nb: [1\n", "3: not YAML: expected ',' or ']', but got '<stream end>'"),
    ("a: 1\nb: c: d\n", "2: not YAML: mapping values are not allowed here"),
    ("a: 1\n\tb: 2\n", "2: not YAML: found character '\\t' that cannot start any token"),
    ("a: 1\nb: \x00\n", "2: not YAML: the character U+0000 is not allowed"),
    ('a: "\\UFFFFFFFF"\n', "1: not YAML: an escape in a quoted text names no character"),
    ("a: 1\nb: *gone\n", "2: this alias (`*…`) was never defined with `&`"),
    ("a: 1\nb: &b [*b]\n", "2: this alias (`*…`) stands for itself"),
    ("a: " + "[" * 100, "1: nested deeper than 60 levels"),
]


@pytest.mark.parametrize(("text", "said"), NOT_A_JOB)
def test_a_file_that_cannot_be_read_at_all_is_one_clear_mistake(text: str, said: str) -> None:
    assert mistakes(text) == [f"jobs/x.yaml:{said}"]


def test_aliases_that_multiply_are_stopped() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert mistakes("\n".join(lines)) == ["jobs/x.yaml:5: aliases stand for more than 100,000 values"]


def test_two_documents_are_one_too_many() -> None:
    assert mistakes(SMALL + "---\na: 1\n") == ["jobs/x.yaml:6: a second document starts here; a job file holds one"]
