"""From a row to its request: rendered values are judged, the hash is of what was asked, the body what is taken."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import orjson
import pytest
from test_spec_request import RANGES, THE_DATAS_OWN

from runner.prepare import dialect_of
from runner.pricing import Prices
from runner.recipe import Asked, Means, Recipe, recipe_of
from runner.records import Failure, Kind, Request, Row
from runner.spec import parse
from runner.template import compile_prompt

URL = "https://api.cometapi.com/v1"


def recipe(endpoint: dict[str, Any] | None = None, **request: Any) -> Recipe:
    base = {"model": "m", "messages": [{"role": "user", "content": "x"}], **request}
    members = {"name": "x", "input": {"path": "a"}, "request": base, "endpoint": endpoint or {}}
    members["pricing"] = {"claude-x": {"input": 1, "output": 10}}
    job = parse(json.dumps(members), "x.yaml", read_file=lambda name: "")
    prompt = compile_prompt(job.request, job.vars, job.where)
    return recipe_of(job.request.model, prompt, Means(URL, Prices(job.pricing).of, dialect_of(job, prompt)))


def made(recipe: Recipe, **row: Any) -> Request:
    request = recipe.request(Row(0, row))
    assert isinstance(request, Request), request
    return request


def body(recipe: Recipe, **row: Any) -> dict[str, Any]:
    members: dict[str, Any] = orjson.loads(made(recipe, **row).body)
    return members


def refused(recipe: Recipe, **row: Any) -> str:
    failure = recipe.request(Row(0, row))
    assert isinstance(failure, Failure), failure
    assert failure.kind is Kind.INPUT
    return failure.message


#: What a row may decide.
BY_ROW = sorted(RANGES.keys() - {"stream", "stream_options"})
GOOD = [(name, value) for name in BY_ROW for value in RANGES[name][0]]
BAD = [(name, value) for name in BY_ROW for value in RANGES[name][1] if (name, value) not in THE_DATAS_OWN]


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_any_parameter_of_a_row_keeps_its_type(name: str, value: Any) -> None:
    sent = body(recipe(**{name: "{{ value }}"}), value=value)[name]
    assert (sent, type(sent)) == (value, type(value))


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_of_a_row_is_told_and_never_sent(name: str, value: Any) -> None:
    said = refused(recipe(**{name: "{{ value }}"}), value=value)
    assert said.startswith((f"{name}: ", f"{name}."))


def test_a_rows_values_are_told_with_the_cure() -> None:
    warm = recipe(temperature="{{ t }}")
    assert body(warm, t=0.5)["temperature"] == 0.5
    assert body(warm, t=None)["temperature"] is None
    assert refused(warm, t=2.5) == "temperature: must be from 0 to 2"
    cast = "must be a number, not text; let the template end in | float or | int"
    assert refused(warm, t="0.5") == f"temperature: {cast}"
    assert refused(warm, t="{{ 1 }}") == "temperature: must be a number, not text"
    assert refused(recipe(temperature="0.{{ t }}"), t=5) == f"temperature: {cast}"
    alone = recipe(logprobs="{{ l }}", top_logprobs=5)
    assert refused(alone, l=False) == "top_logprobs: needs logprobs: true"
    assert body(alone, l=True)["top_logprobs"] == 5


def test_the_hash_is_of_what_the_job_asks_whatever_the_dialect() -> None:
    request = {"model": "{{ m }}", "n": 2, "max_completion_tokens": 7}
    plain = recipe({"dialect": "none"}, **request)
    fitted = recipe({"on_unsupported": "drop"}, **request)
    for model in ("gpt-4.1", "claude-x", "gemini-x", "o3", "llama"):
        assert made(plain, m=model).hash == made(fitted, m=model).hash
    assert made(plain, m="gpt-4.1").body == made(fitted, m="gpt-4.1").body
    assert json.loads(made(plain, m="claude-x").body)["n"] == 2


def test_what_is_reckoned_is_the_body_that_is_sent() -> None:
    fitted = recipe({"on_unsupported": "drop"}, model="claude-x", n=4, max_completion_tokens=100)
    request = made(fitted)
    sent = {"model": "claude-x", "messages": [{"role": "user", "content": "x"}], "max_tokens": 100}
    assert orjson.loads(request.body) == sent
    assert (request.choices, request.prompt_tokens) == (1, len(request.body) // 4)
    assert request.tokens == request.prompt_tokens + 100
    assert request.reserved_usd == (len(request.body) * 1 + Decimal(100) * 10) / 1_000_000


def test_a_body_that_its_provider_takes_keeps_its_bytes() -> None:
    plain = recipe(model="gpt-4.1", temperature=0)
    asked = plain.asked(Row(0, {}))
    assert isinstance(asked, Asked)
    request = plain.fitted(asked)
    assert isinstance(request, Request)
    assert request.body is asked.request.body


def test_a_refused_row_still_has_the_hash_of_what_was_asked() -> None:
    strict, plain = recipe(model="{{ m }}", n=2), recipe({"dialect": "none"}, model="{{ m }}", n=2)
    assert refused(strict, m="claude-x").startswith("n: Claude takes only 1; ")
    asked = strict.asked(Row(0, {"m": "claude-x"}))
    assert isinstance(asked, Asked)
    assert asked.request.hash == made(plain, m="claude-x").hash


def test_roles_of_a_row_are_fitted_too() -> None:
    messages = [{"role": "{{ role }}", "content": "x"}]
    fitted = recipe(model="claude-x", messages=messages)
    assert body(fitted, role="developer")["messages"] == [{"role": "system", "content": "x"}]
    assert body(fitted, role="user")["messages"] == [{"role": "user", "content": "x"}]
