"""The job file read whole: defaults, every key, places, and the job written out again."""

from __future__ import annotations

import ast
import json
import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

import runner.spec
from runner.spec import EnvRef, JobSpec, PriceSpec, json_schema, parse
from runner.spec.model import OnInvalid, OnTruncation
from runner.spec.positions import Place
from runner.spec.read import read

SMALL = """\
input: {path: rows.jsonl}
request:
  model: gpt-4.1-mini
  messages:
    - {role: user, content: "{{ title }}"}
"""

#: Every key with a value that is not its default, as far as it is built.
FULL = """\
name: labels
tags: {team: support}
vars: {labels: [billing, login], deep: {a: [1, 2.5, null, true]}}
input:
  path: [a.csv, "b/*.csv"]
  format: csv
  id_column: ticket_id
  limit: 10
  on_bad_line: fail_row
  files_root: media
request:
  model: "{{ model }}"
  messages:
    - {role: system, content: "Label: {{ labels | join(', ') }}."}
    - {role: user, name: ann, content: "{{ title }}"}
  temperature: 0
  max_completion_tokens: 60
  extra_body: {thinking: {budget: 0}}
endpoint:
  base_url: http://localhost:8080/v1/
  api_key_env: OTHER_KEY
  dialect: none
  headers: {X-Title: labels, X-Team-Id: {env: TEAM}}
limits: {concurrency: 8, max_concurrency: 16, requests_per_minute: 500, tokens_per_minute: 1.5}
retry: {max_attempts: 3, max_backoff_s: 5, max_wait_s: 30}
timeouts: {connect_s: 1, attempt_s: 2, stall_s: 3, row_s: 4, outage_s: 5, auth_wait_s: 6, drain_s: 0.5}
pricing: {gpt-4.1-mini: {input: 0.40, cached_input: 0.1, cache_write: null, output: 1.6e0}, factor: 0.8}
output: {directory: ../runs, columns: [title], prefix: llm_, rows_per_part: 512, keep_raw: true}
notify: {on: [finished]}
"""


def read_no_file(path: str) -> str:
    raise AssertionError(path)


def job(text: str = SMALL, name: str = "jobs/x.yaml", **rest: Any) -> JobSpec:
    return parse(text, name, **{"read_file": read_no_file, **rest})


def test_what_the_file_leaves_out_has_the_documented_default() -> None:
    assert job().dump() == {
        "name": "x",
        "tags": {},
        "vars": {},
        "input": {
            "path": ["rows.jsonl"],
            "format": None,
            "id_column": None,
            "limit": None,
            "on_bad_line": "stop",
            "files_root": ".",
        },
        "request": {
            "model": "gpt-4.1-mini",
            "messages": [{"role": "user", "content": "{{ title }}"}],
            "extra_body": {},
        },
        "endpoint": {
            "base_url": "https://api.cometapi.com/v1",
            "api_key_env": "COMETAPI_KEY",
            "api_key_file": None,
            "dialect": "auto",
            "on_unsupported": "error",
            "headers": {},
        },
        "limits": {
            "concurrency": "auto",
            "max_concurrency": 1024,
            "requests_per_minute": None,
            "tokens_per_minute": None,
        },
        "retry": {
            "max_attempts": 6,
            "max_backoff_s": 60,
            "max_wait_s": 900,
            "on_truncation": "keep",
            "on_invalid": "keep",
        },
        "timeouts": {
            "connect_s": 10,
            "attempt_s": 300,
            "stall_s": 60,
            "row_s": 3600,
            "outage_s": 21600,
            "auth_wait_s": 600,
            "drain_s": 25,
        },
        "budget": {"max_usd": None, "confirm_above_usd": None},
        "pricing": {"factor": 1, "catalogue": None},
        "output": {"directory": None, "columns": "all", "prefix": "", "rows_per_part": "auto", "keep_raw": False},
        "notify": {"webhook_env": None, "on": ["finished", "stopped", "stalled"], "stalled_after_s": 600},
        "engine": "local",
    }


def test_every_key_is_taken_as_written() -> None:
    full = job(FULL)
    assert (full.name, full.tags) == ("labels", {"team": "support"})
    assert full.vars == {"labels": ["billing", "login"], "deep": {"a": [1, 2.5, None, True]}}
    assert full.input.path == ("a.csv", "b/*.csv")
    assert full.input.model_dump(exclude={"path"}) == {
        "format": "csv",
        "id_column": "ticket_id",
        "limit": 10,
        "on_bad_line": "fail_row",
        "files_root": "media",
    }
    assert full.request.model == "{{ model }}"
    assert full.request.messages == (
        {"role": "system", "content": "Label: {{ labels | join(', ') }}."},
        {"role": "user", "name": "ann", "content": "{{ title }}"},
    )
    assert full.request.params == {"temperature": 0, "max_completion_tokens": 60}
    assert full.request.extra_body == {"thinking": {"budget": 0}}
    assert full.endpoint.base_url == "http://localhost:8080/v1"
    assert full.endpoint.headers == {"X-Title": "labels", "X-Team-Id": EnvRef(env="TEAM")}
    assert (full.endpoint.api_key_env, full.endpoint.dialect) == ("OTHER_KEY", "none")
    assert full.limits.model_dump() == {
        "concurrency": 8,
        "max_concurrency": 16,
        "requests_per_minute": 500.0,
        "tokens_per_minute": 1.5,
    }
    assert (full.retry.max_attempts, full.retry.max_backoff_s, full.retry.max_wait_s) == (3, 5, 30)
    assert list(full.timeouts.model_dump().values()) == [1, 2, 3, 4, 5, 6, 0.5]
    assert full.output.model_dump() == {
        "directory": "../runs",
        "columns": ("title",),
        "prefix": "llm_",
        "rows_per_part": 512,
        "keep_raw": True,
    }
    assert full.notify.on == ("finished",)


def test_a_tier_is_a_factor_or_rates_of_its_own() -> None:
    text = "pricing: {m: {input: 1, flex: 0.5, priority: {input: 2, output: 3}}}"
    made = job(SMALL + text)
    price = made.pricing.models["m"]
    assert price.batch is None and price.flex is not None and price.priority is not None
    assert (price.flex.factor, price.flex.input) == (Decimal("0.5"), None)
    assert (price.priority.factor, price.priority.input, price.priority.output) == (1, 2, 3)
    assert JobSpec.model_validate(made.dump()) == made


def test_prices_are_exact_decimals_by_model() -> None:
    pricing = job(FULL).pricing
    assert pricing.factor == Decimal("0.8")
    assert pricing.models == {
        "gpt-4.1-mini": PriceSpec(input=Decimal("0.4"), cached_input=Decimal("0.1"), output=Decimal("1.6"))
    }
    assert pricing.models["gpt-4.1-mini"].cache_write is None


def test_parameters_keep_the_type_they_were_written_with() -> None:
    params = job(SMALL + "  temperature: 0\n  top_p: 1.0\n  seed: 9007199254740993\n  store: null\n").request.params
    assert [(name, type(value)) for name, value in params.items()] == [
        ("temperature", int),
        ("top_p", float),
        ("seed", int),
        ("store", type(None)),
    ]


@pytest.mark.parametrize(
    "text", [SMALL, FULL, SMALL + "endpoint: {api_key_file: key.txt}\n", SMALL + "tags: {t😀: 😀}\n"]
)
def test_a_dump_is_json_and_reads_back_as_an_equal_job(text: str) -> None:
    first = job(text)
    again = parse(json.dumps(first.dump(), allow_nan=False), "elsewhere.json", read_file=read_no_file)
    assert again == first
    assert again.dump() == first.dump()


def test_a_key_file_stands_instead_of_the_default_variable() -> None:
    endpoint = job(SMALL + "endpoint: {api_key_file: key.txt}\n").endpoint
    assert (endpoint.api_key_env, endpoint.api_key_file) == (None, "key.txt")


def test_an_endpoint_may_need_no_key() -> None:
    assert job(SMALL + "endpoint: {api_key_env: null}\n").endpoint.api_key_env is None


def test_a_section_whose_keys_are_commented_out_has_its_defaults() -> None:
    assert job(SMALL + "limits:\n#  concurrency: 3\nretry:\n") == job()


def test_the_name_is_the_stem_of_the_file() -> None:
    assert job(SMALL, "jobs/classify.v2.yaml").name == "classify.v2"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("request.messages.0.content", 5),
        ("request.messages.0", 5),
        ("request.messages.7.content", 4),
        ("request.temperature", 2),
        ("pricing.gpt-4.1-mini.input", 6),
        ("pricing.gpt-4.1.input", 6),
        ("endpoint.headers.X-A.B", 9),
        ("nothing.at.all", 1),
        ("", 1),
    ],
)
def test_a_path_is_found_at_its_line_or_its_nearest_parents(path: str, line: int) -> None:
    text = SMALL + "pricing: {gpt-4.1-mini: {input: 1}}\nendpoint:\n  headers:\n    X-A.B: c\n"
    assert job(text).where(path) == f"jobs/x.yaml:{line}"


def test_places_neither_compare_nor_travel_in_the_dump() -> None:
    assert job("# one line lower\n" + SMALL) == job()
    assert job("# one line lower\n" + SMALL).where("request.model") == "jobs/x.yaml:4"
    assert "yaml" not in json.dumps(job().dump())
    assert "yaml" not in repr(job())


def test_a_job_is_frozen_and_pickles() -> None:
    first = job(FULL)
    with pytest.raises(ValueError, match="frozen"):
        setattr(first, "name", "other")  # noqa: B010  # mypy knows that it is frozen; this asks at run time
    again = pickle.loads(pickle.dumps(first))
    assert again == first
    assert again.where("request.model") == first.where("request.model")


@pytest.mark.parametrize("text", ["\ufeff" + FULL, FULL.replace("\n", "\r\n")])
def test_a_byte_order_mark_and_crlf_change_nothing(text: str) -> None:
    assert job(text) == job(FULL)


MENDING = "retry:\n  on_invalid: {attempts: 3, feedback: false}\n  on_truncation: {factor: 1.5, max_tokens: 4096}\n"


def test_asking_again_is_keep_or_a_mapping() -> None:
    plain = job().retry
    assert (plain.on_invalid, plain.on_truncation) == (None, None)
    assert job(SMALL + "retry: {on_invalid: keep, on_truncation: keep}\n").retry == plain
    asked = job(SMALL + MENDING)
    assert (asked.retry.on_invalid, asked.retry.on_truncation) == (
        OnInvalid(attempts=3, feedback=False),
        OnTruncation(factor=1.5, max_tokens=4096),
    )
    assert asked.dump()["retry"]["on_invalid"] == {"attempts": 3, "feedback": False}
    assert JobSpec.model_validate(asked.dump()) == asked
    short = job(SMALL + "retry: {on_invalid: {attempts: 1}, on_truncation: {max_tokens: 9}}\n").retry
    assert (short.on_invalid, short.on_truncation) == (OnInvalid(attempts=1), OnTruncation(max_tokens=9))
    assert OnInvalid(attempts=1).feedback and OnTruncation(max_tokens=9).factor == 2


@pytest.mark.parametrize(("value", "valid"), [("keep", True), ({"attempts": 2}, True), ({}, False), (None, False)])
def test_editors_know_both_forms_and_the_default(value: Any, valid: bool) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    whole = {"input": {"path": "a"}, "request": body, "retry": {"on_invalid": value}}
    assert jsonschema_rs.is_valid(json_schema(), whole) == valid
    assert json_schema()["$defs"]["RetrySpec"]["properties"]["on_invalid"]["default"] == "keep"


@pytest.mark.parametrize("text", [SMALL, FULL, SMALL + MENDING, SMALL + "limits:\n  stream_nothing: 1\n"])
def test_the_schema_for_editors_agrees_with_the_parser(text: str) -> None:
    schema = json_schema()
    jsonschema_rs.meta.validate(schema)
    written = read(text, lambda line: Place.line("x", line))[0].plain()
    assert jsonschema_rs.is_valid(schema, written) == ("stream_nothing" not in text)


def test_the_schema_knows_file_references_and_templates() -> None:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": {"file": "a.txt"}}], "n": "{{ n }}"}
    assert jsonschema_rs.is_valid(json_schema(), {"input": {"path": "a"}, "request": body})
    assert not jsonschema_rs.is_valid(json_schema(), {"input": {"path": "a"}, "request": {**body, "n": "5"}})


def test_the_public_names_are_these() -> None:
    assert sorted(runner.spec.__all__) == [
        "EnvRef",
        "JobSpec",
        "PriceSpec",
        "RequestSpec",
        "json_schema",
        "kept",
        "parse",
    ]


def test_the_parser_calls_nothing_that_opens_a_file() -> None:
    for file in Path(runner.spec.__file__).parent.glob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        assert "open" not in {getattr(call, "id", getattr(call, "attr", "")) for call in calls}, file


@pytest.mark.parametrize(
    ("members", "fits"),
    [
        ({"input": {"path": "a", "format": "openai_batch"}}, True),
        ({"input": {"path": "a", "format": "openai_batch"}, "request": {"model": "m", "messages": "{{ h }}"}}, False),
        ({"input": {"path": "a"}, "request": {"model": "m", "messages": "{{ h }}"}}, True),
        ({"input": {"path": "a"}, "request": {"model": "m", "messages": ["{{ h }}"]}}, True),
        ({"input": {"path": "a"}}, False),
    ],
)
def test_editors_know_where_the_requests_stand(members: dict[str, Any], fits: bool) -> None:
    assert jsonschema_rs.is_valid(json_schema(), members) is fits


def test_a_batch_file_needs_no_request_and_names_its_rows() -> None:
    plain = job("input: {path: a, format: openai_batch}\n")
    assert plain.input.id_column == "custom_id"
    assert plain.request.messages == "{{ body.messages }}"
    again = parse(plain.dump(), "run.json", read_file=read_no_file, overrides=["limits.concurrency=2"])
    assert again.request == plain.request
    assert job("input: {path: a, format: openai_batch, id_column: other}\nrequest:\n").input.id_column == "other"
