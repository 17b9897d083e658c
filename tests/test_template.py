"""Templates: what compiles, what a row makes of it, which columns it needs, and that nothing else can get out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import TemplateError
from runner.records import Billed, Failure, Kind
from runner.template import Prompt, compile_prompt
from runner.template.sandbox import MAX_TEXT
from tests.thorough import EXAMPLES


@dataclass(frozen=True)
class Asked:
    """The request of a job, as the spec gives it."""

    model: str = "m"
    messages: str | tuple[dict[str, Any] | str, ...] = ({"role": "user", "content": "hi"},)
    params: dict[str, Any] = field(default_factory=dict)
    extra_body: dict[str, Any] = field(default_factory=dict)


def where(dotted: str) -> str:
    return f"jobs/x.yaml:{len(dotted)}"


def prompt(content: str = "hi", variables: Mapping[str, Any] | None = None, **asked: Any) -> Prompt:
    asked.setdefault("messages", ({"role": "user", "content": content},))
    return compile_prompt(Asked(**asked), variables or {}, where)


def text(template: str, **row: Any) -> str:
    body = prompt(template).render(row)
    assert isinstance(body, dict), body
    return str(body["messages"][0]["content"])


def refusal(template: str, **row: Any) -> str:
    failure = prompt(template).render(row)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.billed) == (Kind.INPUT, Billed.NO)
    return failure.message


def mistakes(template: str = "hi", variables: Mapping[str, Any] | None = None, **asked: Any) -> list[str]:
    with pytest.raises(TemplateError) as caught:
        prompt(template, variables, **asked)
    return caught.value.message.split("\n")


def test_a_row_becomes_a_body_in_canonical_order() -> None:
    compiled = prompt(
        "{{ title }}\n\n{{ body }}\n",
        params={"temperature": 0, "max_completion_tokens": 60},
        extra_body={"seed": 7, "top_k": "{{ k }}"},
    )
    body = compiled.render({"title": "Zürich", "body": "…", "k": 3})
    assert isinstance(body, dict)
    assert list(body) == ["model", "messages", "max_completion_tokens", "seed", "temperature", "top_k"]
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Zürich\n\n…\n"}],
        "max_completion_tokens": 60,
        "seed": 7,
        "temperature": 0,
        "top_k": 3,
    }


@pytest.mark.parametrize("data", ["{{ 7*7 }}", "{% raw %}", "{# no comment #}", "{{", "%}", "{{ row }}", "\u2028{%"])
def test_text_from_the_data_is_never_a_template(data: str) -> None:
    assert text("{{ x }}|{{ row['x'] }}", x=data) == f"{data}|{data}"


@given(st.dictionaries(st.sampled_from("xyz"), st.text(), min_size=3))
@settings(deadline=None, max_examples=30)
def test_any_text_arrives_unchanged(row: dict[str, str]) -> None:
    assert text("{{ x }}<{{ y }}>{{ z }}", **row) == f"{row['x']}<{row['y']}>{row['z']}"


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        (None, ""),
        (1.5, "1.5"),
        (True, "True"),
        ({"b": "é", "a": [1, None, True]}, '{"b":"é","a":[1,null,true]}'),
        (["<x>"], '["<x>"]'),
        ((1, 2), "[1,2]"),
        ([datetime(2024, 1, 2, 3, 4, 5), Decimal("1.50")], '["2024-01-02 03:04:05","1.50"]'),
        (date(2024, 1, 2), "2024-01-02"),
        (Decimal("1.50"), "1.50"),
    ],
)
def test_values_become_text(value: Any, rendered: str) -> None:
    assert text("{{ x }}", x=value) == rendered


@pytest.mark.parametrize(
    ("template", "row", "said"),
    [
        (
            "{{ x }}",
            {"x": b"a"},
            "a value of type bytes cannot be written into text; bytes have no one reading as text",
        ),
        ("{{ x }}", {"x": [b"a"]}, "a value of type bytes cannot be written into text"),
        ("{{ x }}", {"x": object()}, "a value of type object cannot be written into text"),
        ("{{ x.upper }}", {"x": "a"}, "a method is not text; call it, as in {{ name.upper() }}"),
        ("{{ 'a' ~ x['upper'] }}", {"x": "a"}, "a method is not text"),
        ("{{ 'a' ~ x.format }}", {"x": "a"}, "a method is not text"),
        ("{{ x.items() }}", {"x": {}}, "a value of type dict_items cannot be written into text; add | list"),
        ("{{ x }}{{ range }}", {"x": 1}, "the row has no column 'range'"),
        ("{{ x.y.z }}", {"x": {}}, "'dict object' has no attribute 'y'"),
        ("{{ 1 / x }}", {"x": 0}, "ZeroDivisionError: division by zero"),
        ("{{ x | sort }}", {"x": [1, "a"]}, "'<' not supported between instances of 'str' and 'int'"),
        ("{{ x.__class__ }}", {"x": 1}, "access to attribute '__class__' of 'int' object is unsafe."),
        ("{{ x.append(1) }}", {"x": []}, "access to attribute 'append' of 'list' object is unsafe."),
        ("{{ x * n }}", {"x": "ab", "n": 10**9}, "2 × 1,000,000,000 is more than 16,777,216 characters"),
        ("{{ n * x }}", {"x": [0], "n": 10**9}, "1 × 1,000,000,000 is more than 16,777,216 characters"),
        ("{{ n ** n }}", {"n": 10**9}, "the power has too many digits"),
        ("{{ n * n }}", {"n": 10**1000}, "the product has too many digits"),
        ("{% for i in range(n) %}{% endfor %}", {"n": 10**9}, "Range too big."),
        ("{% for i in range(99999) %}{{ x }}{% endfor %}", {"x": "a" * 999}, "longer than 16,777,216 characters"),
        ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(x) }}", {"x": 1}, "RecursionError: "),
        ("{{ x | map('nothing') }}", {"x": [1]}, "No filter named 'nothing'."),
    ],
)
def test_what_a_row_cannot_render_is_a_failure_that_names_the_message(
    template: str, row: dict[str, Any], said: str
) -> None:
    message = refusal(template, **row)
    assert message.startswith("messages.0.content: ")
    assert said in message
    assert "\n" not in message


def test_a_missing_column_is_named_with_the_cure() -> None:
    assert refusal("{{ subject }}", x=1) == (
        "messages.0.content: the row has no column 'subject'; "
        'where it may be missing, write {{ subject | default("") }}'
    )
    assert refusal("{{ row['First name'] }}", x=1) == (
        "messages.0.content: the row has no column 'First name'; "
        'where it may be missing, write {{ row["First name"] | default("") }}'
    )


def test_the_cap_of_a_text_is_exact() -> None:
    assert len(text("{{ x }}", x="a" * MAX_TEXT)) == MAX_TEXT
    assert "longer than" in refusal("{{ x }}b", x="a" * MAX_TEXT)


@pytest.mark.parametrize(
    ("template", "columns", "required", "whole_row"),
    [
        ("{{ a }} {{ b }}", "ab", "ab", False),
        ("{{ a | default('') }}{{ b|d(c) }}", "abc", "c", False),
        ("{% if a is defined %}{{ a }}{% endif %}", "a", "", False),
        ("{{ a.b | default('') }}", "a", "a", False),
        ("{{ row['a'] }}{{ row.b }}", "ab", "ab", False),
        ("{{ row['a'] | default('') }}{{ row.get('b', 1) }}", "ab", "", False),
        ("{{ row.get('a')['b'] }}", "a", "", False),
        ("{% for k in row %}{{ k }}{% endfor %}", "", "", True),
        ("{{ row[a] }}", "a", "a", True),
        ("{{ row.items() | list }}", "", "", True),
        ("{% set z = a %}{{ z }}{% for y in b %}{{ y }}{{ loop.index }}{% endfor %}", "ab", "ab", False),
        ("{% for row in a %}{{ row.q }}{% endfor %}", "a", "a", False),
        ("{% for row in a %}{{ row.q }}{% endfor %}{{ row.b }}", "a", "a", True),
        ("{{ v }}{{ a }}", "a", "a", False),
        ("{% for i in range(2) %}{{ a }}{% endfor %}", "a", "a", False),
        ("{{ range }}", ["range"], ["range"], False),
    ],
)
def test_the_columns_of_a_template_are_known_without_a_row(
    template: str, columns: str, required: str, whole_row: bool
) -> None:
    compiled = prompt(template, {"v": 1})
    assert compiled.columns == set(columns)
    assert compiled.required == set(required)
    assert compiled.whole_row is whole_row


def test_a_guard_in_one_message_does_not_excuse_another() -> None:
    compiled = prompt(messages=({"content": "{{ a | default('') }}"}, {"content": "{{ a }}"}))
    assert compiled.required == {"a"}


def test_a_name_with_two_meanings_is_found() -> None:
    compiled = prompt("{{ labels }}{{ row.x }}{% for i in range(2) %}{% endfor %}", {"labels": [1], "unused": 2})
    assert compiled.variables == {"labels"}
    assert compiled.clashes(["x", "labels", "unused", "row", "range", "dict"]) == ["labels", "range", "row"]
    assert prompt("{{ a }}").clashes(["row", "range", "a"]) == []


def test_vars_alone_make_constants_of_every_type() -> None:
    schema = {"type": "json_schema", "json_schema": {"schema": {"enum": "{{ labels }}"}}}
    compiled = prompt("{{ x }}", {"labels": ["a", "b"]}, params={"response_format": schema, "stop": "{{ x }}"})
    assert compiled.constants == {
        "model": "m",
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": ["a", "b"]}}},
    }
    first, second = compiled.render({"x": "1"}), compiled.render({"x": "2"})
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["response_format"] is second["response_format"]


@pytest.mark.parametrize(
    ("template", "value", "sent"),
    [
        ("{{ t }}", 0.5, 0.5),
        ("{{ t }}", "0.5", "0.5"),
        ("{{ t | float }}", "0.5", 0.5),
        ("{{- t -}}", 3, 3),
        (" {{ t }}", 0.5, " 0.5"),
        ("{{ t }}{{ t }}", 1, "11"),
        ("{{ t }}", None, None),
        ("{{ t }}", [1, (2, {"a": Decimal("3")})], [1, [2, {"a": 3}]]),
        ("{{ t }}", Decimal("2.50"), 2.5),
        ("{{ t }}", Decimal("1E+3"), 1000),
        ("{{ t }}", Decimal("1E+30"), 1e30),
        ("{% if t > 1 %}high{% else %}low{% endif %}", 2, "high"),
        ("{{ t | map('upper') }}", ["a"], ["A"]),
    ],
)
def test_a_parameter_that_is_one_expression_keeps_its_type(template: str, value: Any, sent: Any) -> None:
    body = prompt(params={"p": {"deep": [template]}}).render({"t": value})
    assert isinstance(body, dict), body
    got = body["p"]["deep"][0]
    assert (got, type(got)) == (sent, type(sent))


@pytest.mark.parametrize("value", [date(2024, 1, 1), b"a", {1: 2}, object()])
def test_a_parameter_that_is_not_json_is_refused(value: Any) -> None:
    failure = prompt(extra_body={"p": "{{ t }}"}).render({"t": value})
    assert isinstance(failure, Failure)
    assert failure.message.startswith("extra_body.p: a ")
    assert "is not JSON" in failure.message


def test_messages_and_model_are_text_and_tool_calls_keep_their_type() -> None:
    message = {"role": "{{ r }}", "name": "{{ n }}", "content": [{"type": "text", "text": "{{ n }}"}]}
    calls = {"role": "assistant", "content": "{{ nothing }}", "tool_calls": "{{ calls }}"}
    answer = {"role": "tool", "content": "{{ n }}", "tool_call_id": "{{ calls[0].id }}"}
    compiled = prompt(model="{{ n }}", messages=(message, calls, answer))
    assert compiled.model_is_template
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = compiled.render({"r": "user", "n": 4, "nothing": None, "calls": [call]})
    assert body == {
        "model": "4",
        "messages": [
            {"role": "user", "name": "4", "content": [{"type": "text", "text": "4"}]},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "4", "tool_call_id": "a"},
        ],
    }


def test_a_model_from_vars_is_no_template_and_an_empty_one_fails_its_row() -> None:
    assert not prompt(model="{{ which }}", variables={"which": "m"}).model_is_template
    failure = prompt(model="{{ which }}").render({"which": None})
    assert isinstance(failure, Failure)
    assert failure.message == "model: the template gives an empty name for this row"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ x } }}", "unexpected '}'"),
        ("a\n{{ x \n", "unexpected end of template, expected 'end of print statement' (line 2 of the text)"),
        ("{{ x | bogus }}", "No filter named 'bogus'"),
        ("{{ x | random }}", "No filter named 'random': the same row must give the same request for ever"),
        ("{{ x is bogus }}", "No test named 'bogus'"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ 'a' * 10**9 }}", "1 × 1,000,000,000 is more than 16,777,216 characters"),
        ("{{ namespace(a=1) }}", "a value of type Namespace cannot be written into text"),
        ("{% include 'x' %}", "`include` is not available"),
        ("{% for a in x %}" * 30 + "{% endfor %}" * 30, "too large or too deep to compile"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_path(template: str, said: str) -> None:
    [line] = mistakes(template)
    assert line.startswith("jobs/x.yaml:26: request.messages.0.content: ")
    assert said in line


def test_all_mistakes_are_told_at_once() -> None:
    lines = mistakes(
        "{{ x } }}",
        {"row": 1},
        model="{{",
        params={"seed": 1, "stop": ["ok", "{% if %}"]},
        extra_body={"seed": 2, "model": "other"},
    )
    paths = ["vars.row", "request.extra_body.seed", "request.extra_body.model", "request.model"]
    paths += ["request.messages.0.content", "request.stop.1"]
    assert [line.split(": ")[1] for line in lines] == paths


@pytest.mark.parametrize("name", ["lipsum", "cycler", "joiner"])
def test_what_depends_on_luck_or_on_memory_is_an_ordinary_name(name: str) -> None:
    assert prompt("{{ " + name + " }}").columns == {name}


def test_the_same_row_renders_the_same_text_in_another_process() -> None:
    template = "{{ x | map('upper') ~ x | reverse | join ~ x | unique ~ d ~ d | dictsort ~ x | groupby(0) }}"
    here = text(template, x=["b", "a"], d={"b": 1, "a": 2})
    program = f"from tests.test_template import text; print(text({template!r}, x=['b', 'a'], d={{'b': 1, 'a': 2}}))"
    there = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        env={"PYTHONHASHSEED": "1", "PYTHONPATH": "."},
    )
    assert here == there.stdout.removesuffix("\n")
    assert " at 0x" not in here


names = st.sampled_from(["x", "y", "row", "x.upper", "x|list", "x|tojson", "x*y", "y~x", "x[y]", "x|first", "x|int"])
values = st.recursive(
    st.none() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=5,
)


@given(expression=names, x=values, y=values, native=st.booleans())
@settings(deadline=None, max_examples=EXAMPLES)
def test_rendering_never_raises(expression: str, x: Any, y: Any, native: bool) -> None:
    template = "{{ " + expression + " }}"
    compiled = prompt(params={"p": template}) if native else prompt(template)
    assert isinstance(compiled.render({"x": x, "y": y}), dict | Failure)
