"""Every mistake of a job file: its words, its line, all at once, and never a secret in them."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from pydantic_core.core_schema import ErrorType
from small_job import SMALL, mistakes

from runner.spec import complaints


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = """\
name: a/b
input:
  pth: x
  limit: 0
request:
  messages:
    - {role: usr, content: x}
    - role: user
  temprature: 1
  temperature: 3
retry:
  max_atempts: 6
  max_attempts: 1.5
  max_attempts: 2
pricing:
  gpt-4.1:
    input: -1
    ouput: 2
surprise: 1
"""
    assert mistakes(text) == [
        'jobs/x.yaml:1: name: must be a plain name: no / \\ : * ? " < > | and no special characters',
        "jobs/x.yaml:2: input.path: is required",
        "jobs/x.yaml:3: input.pth: unknown key; did you mean path?",
        "jobs/x.yaml:4: input.limit: must be at least 1",
        "jobs/x.yaml:5: request.model: is required",
        "jobs/x.yaml:7: request.messages.0.role: must be system, developer, user, assistant or tool; "
        "did you mean user?",
        "jobs/x.yaml:8: request.messages.1.content: is required",
        "jobs/x.yaml:9: request.temprature: unknown key; did you mean temperature? newer parameters go into extra_body",
        "jobs/x.yaml:10: request.temperature: must be from 0 to 2",
        "jobs/x.yaml:12: retry.max_atempts: unknown key; did you mean max_attempts?",
        "jobs/x.yaml:13: retry.max_attempts: must be a whole number",
        "jobs/x.yaml:14: retry.max_attempts: written twice; first at jobs/x.yaml:13",
        "jobs/x.yaml:17: pricing.gpt-4.1.input: must be at least 0",
        "jobs/x.yaml:18: pricing.gpt-4.1.ouput: unknown key; did you mean output?",
        "jobs/x.yaml:19: surprise: unknown key",
    ]


def test_missing_sections_name_the_keys_that_are_needed() -> None:
    assert mistakes("tags: {a: b}\n") == [
        "jobs/x.yaml:1: input.path: is required",
        "jobs/x.yaml:1: request.model: is required",
        "jobs/x.yaml:1: request.messages: is required",
    ]


WORDS = [
    ("limits: {concurrency: 0}", "limits.concurrency: must be auto or a whole number of at least 1"),
    ("limits: {concurrency: many}", "limits.concurrency: must be auto or a whole number of at least 1"),
    ("limits: {concurrency: true}", "limits.concurrency: must be auto or a whole number of at least 1"),
    ("limits: {max_concurrency: true}", "limits.max_concurrency: must be a whole number, not true or false"),
    ("limits: {max_concurrency: '5'}", "limits.max_concurrency: must be a whole number, not text; remove the quotes"),
    ("limits: {max_concurrency: null}", "limits.max_concurrency: must be a whole number, not null"),
    ("limits: {requests_per_minute: 0}", "limits.requests_per_minute: must be more than 0"),
    ("limits: {requests_per_minute: fast}", "limits.requests_per_minute: must be a number, not text"),
    ("limits: {tokens_per_minut: 5}", "limits.tokens_per_minut: unknown key; did you mean tokens_per_minute?"),
    ("limits: {tokens_per_minute: .inf}", "limits.tokens_per_minute: must be a finite number"),
    ("limits: {tokens_per_minute: 1e999}", "limits.tokens_per_minute: must be a finite number"),
    ("limits: {tokens_per_minute: " + "9" * 400 + "}", "limits.tokens_per_minute: must be a number"),
    ("limits: 3", "limits: must be a mapping, not a number"),
    ("limits: [a]", "limits: must be a mapping, not a list"),
    ("timeouts: {drain_s: 0}", "timeouts.drain_s: must be more than 0"),
    ("timeouts: {row_s: true}", "timeouts.row_s: must be a number, not true or false"),
    ("retry: {max_attempts: 0}", "retry.max_attempts: must be at least 1"),
    ("retry: {max_wait_s: -1}", "retry.max_wait_s: must be more than 0"),
    ("retry: {on_invalid: twice}", "retry.on_invalid: must be keep or a mapping"),
    ("retry: {on_invalid: null}", "retry.on_invalid: must be keep or a mapping"),
    ("retry: {on_invalid: {}}", "retry.on_invalid.attempts: is required"),
    ("retry: {on_invalid: {attempts: 0}}", "retry.on_invalid.attempts: must be at least 1"),
    ("retry: {on_invalid: {attempts: 11}}", "retry.on_invalid.attempts: must be at most 10"),
    (
        "retry: {on_invalid: {attempts: 2, feedback: yes}}",
        "retry.on_invalid.feedback: must be true or false, not text",
    ),
    (
        "retry: {on_invalid: {attempts: 2, feedbak: true}}",
        "retry.on_invalid.feedbak: unknown key; did you mean feedback?",
    ),
    ("retry: {on_truncation: [2]}", "retry.on_truncation: must be keep or a mapping"),
    ("retry: {on_truncation: {factor: 2}}", "retry.on_truncation.max_tokens: is required"),
    ("retry: {on_truncation: {factor: 1, max_tokens: 9}}", "retry.on_truncation.factor: must be more than 1"),
    ("retry: {on_truncation: {factor: 101, max_tokens: 9}}", "retry.on_truncation.factor: must be at most 100"),
    ("retry: {on_truncation: {max_tokens: 0}}", "retry.on_truncation.max_tokens: must be at least 1"),
    ("retry: {on_truncation: {max_tokens: 1e9}}", "retry.on_truncation.max_tokens: must be a whole number"),
    (
        "retry: {on_truncation: {max_tokens: 1000000000}}",
        "retry.on_truncation.max_tokens: must be at most 10,000,000",
    ),
    ("tags: {year: 2026}", "tags.year: must be text, not a number"),
    ("tags: [a]", "tags: must be a mapping, not a list"),
    (
        "vars: {row: 1}",
        "vars: `row` cannot name a variable: letters, digits and _ only, and `row` is the row itself",
    ),
    ("name: ''", "name: must not be empty"),
    ("name: 7", "name: must be text, not a number"),
    ("name: .x", "name: must be at most 100 bytes, not start with . or - or a space, not end with . or a space"),
    ("name: ..", "name: must be at most 100 bytes, not start with . or - or a space, not end with . or a space"),
    ("engine: locl", "engine: must be local, batch or ray; did you mean local?"),
    ("output: {columns: some}", "output.columns: must be all, none or a list of column names"),
    ("output: {columns: [1]}", "output.columns: must be all, none or a list of column names"),
    ("output: {rows_per_part: 0}", "output.rows_per_part: must be auto or a whole number of at least 1"),
    ("output: {directory: ''}", "output.directory: must be a path"),
    ("output: {keep_raw: no}", "output.keep_raw: must be true or false, not text"),
    ("output: {prefix: null}", "output.prefix: must be text, not null"),
    ("notify: {on: [finshed]}", "notify.on.0: must be finished, stopped or stalled; did you mean finished?"),
    ("notify: {on: finished}", "notify.on: must be a list, not text"),
    ("pricing: {m: {input: '1'}}", "pricing.m.input: must be a number, not text; remove the quotes"),
    ("pricing: {m: {input: true}}", "pricing.m.input: must be a number, not true or false"),
    ("pricing: {m: {output: 10000000}}", "pricing.m.output: must be at most 1,000,000"),
    ("pricing: {m: 3}", "pricing.m: must be a mapping, not a number"),
    ("pricing: {factor: 0}", "pricing.factor: must be more than 0"),
    ("pricing: {catalogue: 3}", "pricing.catalogue: must be text, not a number"),
    ("pricing: {m: {flx: 0.5}}", "pricing.m.flx: unknown key; did you mean flex?"),
    ("pricing: {m: {flex: half}}", "pricing.m.flex.factor: must be a number, not text"),
    ("pricing: {m: {flex: 0}}", "pricing.m.flex.factor: must be more than 0"),
    ("pricing: {m: {priority: {inptu: 1}}}", "pricing.m.priority.inptu: unknown key; did you mean input?"),
    ("notify: {on: [ended]}", "notify.on.0: must be finished, stopped or stalled"),
    ("notify: {stalled_after_s: 0}", "notify.stalled_after_s: must be more than 0"),
    ('? "a\\nb"\n: 1', "a\\nb: unknown key"),
    ("vars: {x: !!set {a}}", "vars.x: a YAML tag (`!…`) has no meaning here"),
    ('vars: {x: "\\ud800"}', "vars.x: holds half a character (a lone surrogate escape)"),
]


@pytest.mark.parametrize(("line", "said"), WORDS)
def test_a_mistake_is_told_in_plain_words_with_its_line(line: str, said: str) -> None:
    assert mistakes(f"{SMALL}{line}\n") == [f"jobs/x.yaml:6: {said}"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("[]", "input.path: must not be empty"),
        ("''", "input.path: must be a path"),
        ("3", "input.path: must be a list, not a number"),
        ("[a, 3]", "input.path.1: must be text, not a number"),
    ],
)
def test_an_input_path_is_one_text_or_a_list_of_texts(path: str, said: str) -> None:
    assert mistakes(SMALL.replace("rows.jsonl", path)) == [f"jobs/x.yaml:1: {said}"]


JARGON = re.compile(r"(?i)pydantic|input should|valid dictionary|instance of|extra inputs|literal|\bint\b|decimal")


def test_no_sentence_is_the_validators_own() -> None:
    lines = [line for line, _ in WORDS]
    assert [said for line in lines for said in mistakes(f"{SMALL}{line}\n") if JARGON.search(said)] == []


def test_every_row_of_the_table_of_sentences_is_a_sort_of_objection_that_exists() -> None:
    assert set(complaints.SENTENCES) - {"said"} <= set(get_args(ErrorType))
