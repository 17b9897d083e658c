"""`--set`: one value replaced, judged like the file, and named as itself."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from runner.errors import JobError
from runner.spec import JobSpec, parse

TEXT = """\
vars: {labels: [a, b], deep: {a.b: {x: 1}}}
input: {path: rows.jsonl}
request:
  model: m
  messages:
    - {role: system, content: rules}
    - {role: user, content: "{{ title }}"}
  response_format: null
pricing: {gpt-4.1-mini: {input: 1}}
limits:
"""
FILES = {"prompt.txt": "from a file {{ title }}"}


def job(*overrides: str, text: str = TEXT) -> JobSpec:
    return parse(text, "jobs/x.yaml", read_file=FILES.__getitem__, overrides=overrides)


def mistakes(*overrides: str, text: str = TEXT) -> list[str]:
    with pytest.raises(JobError) as raised:
        job(*overrides, text=text)
    return list(raised.value.mistakes)


def reach(spec: JobSpec, path: str) -> Any:
    value: Any = spec.dump()
    for part in path.split("/"):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


SETS = [
    ("name=other", "name", "other"),
    ("engine=local", "engine", "local"),
    ("input.path=a.csv", "input/path", ["a.csv"]),
    ("input.path=[a.csv, b.csv]", "input/path", ["a.csv", "b.csv"]),
    ("input.limit=5", "input/limit", 5),
    ("input.id_column=no", "input/id_column", "no"),
    ("request.model=gpt=4", "request/model", "gpt=4"),
    ("request.model={{ model }}", "request/model", "{{ model }}"),
    ("request.temperature=0.5", "request/temperature", 0.5),
    ("request.messages.0.content=other", "request/messages/0/content", "other"),
    ("request.messages.1.content={{ body }}", "request/messages/1/content", "{{ body }}"),
    ("request.messages.1.content={file: prompt.txt}", "request/messages/1/content", "from a file {{ title }}"),
    ("request.messages.1.content={% if a %}b{% endif %}", "request/messages/1/content", "{% if a %}b{% endif %}"),
    ("request.messages=[{role: user, content: x}]", "request/messages", [{"role": "user", "content": "x"}]),
    ("request.response_format.type=json_object", "request/response_format", {"type": "json_object"}),
    ("limits.concurrency=7", "limits/concurrency", 7),
    ("limits.requests_per_minute=", "limits/requests_per_minute", None),
    ("endpoint.headers.X-A.B=c", "endpoint/headers", {"X-A.B": "c"}),
    ("tags.cost.center=x", "tags", {"cost.center": "x"}),
    ("vars.labels.1=c", "vars/labels", ["a", "c"]),
    ("vars.deep.a.b.x=2", "vars/deep", {"a.b": {"x": 2}}),
    ("vars.new.inner=2", "vars/new", {"inner": 2}),
    ("pricing.gpt-4.1-mini.input=0.5", "pricing/gpt-4.1-mini/input", 0.5),
    ("pricing.gpt-4.1.output=2", "pricing/gpt-4.1/output", 2),
    ("pricing.gpt-4.1={output: 3}", "pricing/gpt-4.1/output", 3),
    ("pricing.factor=0.8", "pricing/factor", 0.8),
    ("pricing.gpt-4.1-mini.flex=0.5", "pricing/gpt-4.1-mini/flex", 0.5),
    ("pricing.gpt-4.1.priority.output=2", "pricing/gpt-4.1/priority/output", 2),
    ("pricing.catalogue=prices.json", "pricing/catalogue", "prices.json"),
    ("retry.on_truncation=keep", "retry/on_truncation", "keep"),
]


@pytest.mark.parametrize(("override", "path", "value"), SETS)
def test_an_override_replaces_one_value(override: str, path: str, value: Any) -> None:
    assert reach(job(override), path) == value


def test_everything_else_stays() -> None:
    assert job("request.model=n").model_copy(update={"request": job().request}) == job()
    assert job("pricing.gpt-4.1-mini.output=2").pricing.models["gpt-4.1-mini"].input == Decimal(1)


def test_later_overrides_win_and_build_on_earlier_ones() -> None:
    assert reach(job("name=a", "name=b"), "name") == "b"
    assert reach(job("vars.k={a: 1}", "vars.k.a=2"), "vars/k") == {"a": 2}


def test_an_override_can_supply_what_the_file_lacks() -> None:
    spec = job("input.path=a", "request.model=m", "request.messages=[{role: user, content: x}]", text="tags: {a: b}\n")
    assert (spec.input.path, spec.request.model) == (("a",), "m")


def test_the_place_of_an_override_is_its_name() -> None:
    spec = job("request.messages.1.content=x", "vars.labels=[c]")
    assert spec.where("request.messages.1.content") == "--set request.messages.1.content=…"
    assert spec.where("request.messages.1.role") == "jobs/x.yaml:7"
    assert spec.where("vars.labels.0") == "--set vars.labels=…"


REFUSED = [
    ("foo", "--set: write it as dotted.path=value, in UTF-8"),
    ("name={{ \udc80 }}", "--set name=…: write it as dotted.path=value, in UTF-8"),
    ("=x", "--set =…: unknown key"),
    ("model=x", "--set model=…: unknown key; did you mean request.model?"),
    ("request.modle=x", "--set request.modle=…: unknown key; did you mean request.model?"),
    ("output.prefx=x", "--set output.prefx=…: unknown key; did you mean output.prefix?"),
    ("retry=1", "--set retry=…: retry is a section; set one of its keys, retry.max_attempts for example"),
    ("request={}", "--set request=…: request is a section; set one of its keys, request.model for example"),
    (
        "request.messages.2.content=x",
        "--set request.messages.2.content=…: there is no item 2: request.messages holds 2, counted from 0",
    ),
    (
        "request.messages.last.content=x",
        "--set request.messages.last.content=…: there is no item last: request.messages holds 2, counted from 0",
    ),
    ("request.model.x=1", "--set request.model.x=…: request.model is one value and has nothing inside"),
    ("request..x=1", "--set request..x=…: unknown key; did you mean request.n?"),
    ("vars.a..b=1", "--set vars.a..b=…: a dotted path has no empty steps"),
    ("vars.a.=1", "--set vars.a.=…: a dotted path has no empty steps"),
    ("output.prefix=[", "--set output.prefix=…: not YAML: expected the node content, but found '<stream end>'"),
    ("output.prefix={a: 1, a: 2}", "--set output.prefix=…: written twice; first at --set output.prefix=…"),
    ("input.limit=abc", "--set input.limit=…: input.limit: must be a whole number, not text"),
    (
        "limits.concurrency=0",
        "--set limits.concurrency=…: limits.concurrency: must be auto or a whole number of at least 1",
    ),
    ("engine=ray", "--set engine=…: engine: only the local engine is built yet; write local"),
]


@pytest.mark.parametrize(("override", "said"), REFUSED)
def test_an_override_that_cannot_be_is_told_by_its_own_name(override: str, said: str) -> None:
    assert mistakes(override) == [said]


def test_mistakes_of_overrides_come_after_those_of_the_file() -> None:
    assert mistakes("input.limit=x", text=TEXT + "surprise: 1\n") == [
        "jobs/x.yaml:11: surprise: unknown key",
        "--set input.limit=…: input.limit: must be a whole number, not text",
    ]


def test_the_value_of_an_override_is_never_repeated() -> None:
    for path in ("endpoint.api_key", "endpoint.headers.Authorization", "endpoint.base_url", "endpoint.api_key_env"):
        (said, *more) = mistakes(f"{path}=Bearer sk-abcdefgh12345678")
        assert said.startswith(f"--set {path}=…: ")
        assert "sk-abc" not in "".join([said, *more])
