"""Structured answers: the column's type from the schema, what is accepted, and that anything fits the column."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.errors import JobError
from runner.outputs import Output, compile_output, fit
from runner.outputs.schema import MAX_DEPTH, MAX_FIELDS, shape_of_schema
from runner.records import Billed, Choice, Completion, Failure, Kind, Status, ToolCall, Usage

LINE = {"type": "object", "properties": {"qty": {"type": "integer"}, "price": {"type": "number"}}, "required": ["qty"]}
INVOICE = {
    "type": "object",
    "properties": {"no": {"type": "string"}, "lines": {"type": "array", "items": LINE}},
    "required": ["no", "lines"],
    "additionalProperties": False,
}


def output(schema: Any) -> Output:
    compiled = compile_output({"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}})
    assert compiled is not None
    return compiled


def answer(content: str | None, status: Status = Status.OK, **choice: Any) -> Completion:
    return Completion(status, (Choice(0, content, **choice),), Usage(prompt_tokens=3), request_id="req_1")


def parsed(schema: Any, content: str) -> Any:
    checked = output(schema).check(answer(content))
    assert isinstance(checked, Completion), checked.message
    return checked.parsed


def refusal(schema: Any, content: str | None) -> str:
    given_answer = answer(content)
    failure = output(schema).check(given_answer)
    assert isinstance(failure, Failure)
    assert failure == Failure(
        Kind.OUTPUT,
        failure.message,
        status=200,
        billed=Billed.YES,
        request_id="req_1",
        answer=given_answer,
        usage=given_answer.usage,
    )
    assert len(failure.message) <= 500
    assert "\n" not in failure.message
    return failure.message


def through_parquet(value: Any, arrow_type: Any) -> Any:
    """As sealing does it: one JSON line, read by an explicit schema, written and read back."""
    line = orjson.dumps({"parsed": value}) + b"\n"
    table = pj.read_json(
        io.BytesIO(line),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(line) + 10),
        parse_options=pj.ParseOptions(
            explicit_schema=pa.schema([pa.field("parsed", arrow_type)]), unexpected_field_behavior="ignore"
        ),
    )
    file = io.BytesIO()
    pq.write_table(table, file)
    [row] = pq.read_table(io.BytesIO(file.getvalue())).to_pylist()
    return row["parsed"]


STRING, INT, FLOAT, BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()
TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
NODE = {"type": "object", "properties": {"v": TEXT, "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}


@pytest.mark.parametrize(
    ("schema", "arrow_type"),
    [
        (TEXT, STRING),
        ({"type": "string", "format": "date-time"}, STRING),
        ({"enum": ["a", "b", None]}, STRING),
        ({"const": 3}, INT),
        (WHOLE, INT),
        ({"enum": [1, 2]}, INT),
        ({"type": "string", "format": "date-time"}, STRING),
        ({"type": "number"}, FLOAT),
        ({"type": ["integer", "number", "null"]}, FLOAT),
        ({"enum": [1, 2.5]}, FLOAT),
        ({"type": "boolean"}, BOOL),
        ({"type": ["string", "null"]}, STRING),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}], "title": "x", "default": None}, INT),
        ({"oneOf": [{"const": "a"}, {"const": "b"}, {"const": None}]}, STRING),
        ({"anyOf": [{"type": "integer"}, {"type": "number"}]}, FLOAT),
        ({"type": "array", "items": TEXT, "minItems": 1}, pa.list_(STRING)),
        ({"properties": {"b": TEXT, "a": WHOLE}}, pa.struct([("b", STRING), ("a", INT)])),
        (
            INVOICE,
            pa.struct([("no", STRING), ("lines", pa.list_(pa.struct([("qty", INT), ("price", FLOAT)])))]),
        ),
        ({"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"$ref": "#/$defs/n"}, "n": WHOLE}}, INT),
        ({"allOf": [{"$ref": "#/$defs/n"}], "description": "x", "$defs": {"n": WHOLE}}, INT),
        ({"type": ["object", "null"], "properties": {"a": TEXT}}, pa.struct([("a", STRING)])),
    ],
)
def test_a_schema_gives_the_type_of_the_column(schema: Any, arrow_type: Any) -> None:
    assert output(schema).arrow_type == arrow_type
    assert output({"type": "object", "properties": {"x": schema}} if "$defs" not in schema else schema)


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"type": "null"},
        {"type": ["string", "integer"]},
        {"anyOf": [TEXT, WHOLE]},
        {"anyOf": [LINE, INVOICE]},
        {"enum": ["a", 1]},
        {"enum": [[1]]},
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"type": "object", "additionalProperties": TEXT},
        {"type": "object", "properties": {"a": TEXT}, "additionalProperties": TEXT},
        {"type": "object", "properties": {"a": TEXT}, "patternProperties": {"^x": TEXT}},
        {"type": "object", "properties": {"a": TEXT}, "anyOf": [{"properties": {"b": TEXT}}]},
        {"type": "array"},
        {"type": "array", "items": True},
        {"type": "array", "prefixItems": [TEXT], "items": WHOLE},
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [TEXT, WHOLE]},
        {"$ref": "#"},
        {"$ref": "#anchor", "$defs": {"x": {"$anchor": "anchor", "type": "string"}}},
        {"$ref": "#/$defs/x", "minLength": 3, "$defs": {"x": TEXT}},
        {"allOf": [TEXT, {"minLength": 3}]},
    ],
)
def test_what_no_one_type_holds_is_json_text(schema: Any) -> None:
    compiled = output(schema)
    assert compiled.arrow_type == STRING
    assert compiled._shape.fit("a") == '"a"'


def test_recursion_ends_in_json_text() -> None:
    schema = {"$ref": "#/$defs/node", "$defs": {"node": NODE}}
    assert output(schema).arrow_type == pa.struct([("v", STRING), ("kids", pa.list_(STRING))])
    assert parsed(schema, '{"v": "a", "kids": [{"v": "b", "kids": []}]}') == {
        "v": "a",
        "kids": ['{"v":"b","kids":[]}'],
    }


def test_too_deep_and_too_wide_end_in_json_text() -> None:
    deep: Any = WHOLE
    for _ in range(MAX_DEPTH + 5):
        deep = {"type": "array", "items": deep}
    arrow_type, depth = output(deep).arrow_type, 0
    while pa.types.is_list(arrow_type):
        arrow_type, depth = arrow_type.value_type, depth + 1
    assert (depth, arrow_type) == (MAX_DEPTH + 1, STRING)
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    assert through_parquet(value, output(deep).arrow_type) == value

    twice = {f"d{n}": {"properties": {key: {"$ref": f"#/$defs/d{n + 1}"} for key in "ab"}} for n in range(30)}
    wide = output({"$ref": "#/$defs/d0", "$defs": {**twice, "d30": TEXT}})
    assert str(wide.arrow_type).count("string") <= 2 * MAX_FIELDS
    assert output({"properties": {f"c{n}": TEXT for n in range(MAX_FIELDS + 1)}}).arrow_type == STRING


@pytest.mark.parametrize("name", ["", "a.b", "é", "\0", "a\nb", '"', " ", "list", "element"])
def test_any_name_of_a_field_survives_parquet(name: str) -> None:
    schema = {"type": "object", "properties": {"x": WHOLE, name: {"type": "array", "items": TEXT}}}
    value = parsed(schema, json.dumps({"x": 1, name: ["v"]}))
    assert through_parquet(value, output(schema).arrow_type) == {"x": 1, name: ["v"]}


@pytest.mark.parametrize("response_format", [None, {}, {"type": "text"}, {"type": "grammar", "grammar": "…"}])
def test_text_answers_have_no_output(response_format: Any) -> None:
    assert compile_output(response_format) is None


def test_json_object_takes_any_json_as_text() -> None:
    compiled = compile_output({"type": "json_object"})
    assert compiled is not None
    assert compiled.arrow_type == STRING
    checked = compiled.check(answer('```json\n{"b": 1.0, "a": ["é", NaN, 1e400, 12345678901234567890123]}\n```'))
    assert isinstance(checked, Completion)
    assert checked.parsed == '{"b":1.0,"a":["é",null,null,12345678901234567890123]}'
    assert isinstance(compiled.check(answer("Sure! {}")), Failure)


def test_a_json_schema_without_a_schema_takes_any_json() -> None:
    compiled = compile_output({"type": "json_schema", "json_schema": {"name": "x"}})
    assert compiled is not None
    assert isinstance(compiled.check(answer("[1]")), Completion)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (
            {"type": "objectt"},
            "at $.type: \"objectt\" is not valid under any of the schemas listed in the 'anyOf' keyword",
        ),
        ({"pattern": "("}, 'at $.pattern: "(" is not a "regex"'),
        ({"$ref": "#/$defs/x"}, "Pointer '/$defs/x' does not exist"),
        ({"$ref": "https://example.com/x.json"}, "it refers to https://example.com/x.json, and nothing is fetched"),
        ({"$ref": "file:///etc/passwd"}, "it refers to file:///etc/passwd, and nothing is fetched"),
        ({"items": {"$ref": "other.json"}}, "other.json"),
        ("{}", "it must be a mapping"),
        ({"const": "\ud800"}, "surrogates not allowed"),
    ],
)
def test_a_schema_that_cannot_be_used_is_a_mistake_of_the_job(schema: Any, said: str) -> None:
    with pytest.raises(JobError) as caught:
        output(schema)
    [mistake] = caught.value.mistakes
    assert mistake.startswith("request.response_format.json_schema.schema: not a usable JSON Schema: ")
    assert said in mistake


def test_a_json_schema_that_is_not_wrapped_is_a_mistake_of_the_job() -> None:
    with pytest.raises(JobError, match="json_schema must hold a name and a schema"):
        compile_output({"type": "json_schema", "schema": INVOICE})


@pytest.mark.parametrize(
    "wrapped",
    [
        "%s",
        " \n%s\n\n",
        "\ufeff%s",
        "```json\n%s\n```",
        "```\n%s\n```\n",
        "\n ```JSON\r\n%s\r\n``` ",
        "```json %s```",
        "Here it is:\n```json\n%s\n```\nShall I go on?",
        "```json\n%s\n```\n\nThat is all.",
        "Sure!\r\n\r\n  ````JSON\r\n%s\r\n  ````\r\n",
        "Here it is:\n```\n%s\n```",
    ],
)
def test_what_models_wrap_around_json_is_taken_off(wrapped: str) -> None:
    assert parsed(INVOICE, wrapped % '{"no": "```", "lines": []}') == {"no": "```", "lines": []}


def test_an_answer_is_fitted_to_the_column() -> None:
    content = '{"no": "\\ud800\\u0000", "lines": [{"qty": 3.0, "price": 2, "more": 1}, {"qty": 1}]}'
    assert parsed(INVOICE, content) == {
        "no": "\ufffd\0",
        "lines": [{"qty": 3, "price": 2.0}, {"qty": 1, "price": None}],
    }


def test_numbers_beyond_a_column_are_valid_and_null() -> None:
    lines = [{"qty": 10**30, "price": 10**30}, {"qty": 2**63 - 1}, {"qty": 2**63}]
    content = json.dumps({"no": "1", "lines": lines}).replace("}]", '}, {"qty": %s, "price": -1e999}]' % ("9" * 5000))
    assert parsed(INVOICE, content)["lines"] == [
        {"qty": None, "price": 1e30},
        {"qty": 2**63 - 1, "price": None},
        {"qty": None, "price": None},
        {"qty": None, "price": None},
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("nope", "the answer is not JSON: expecting value at character 1"),
        ('{"no": 1,}', "the answer is not JSON: "),
        ("Here it is:\n{}", "the answer is not JSON: expecting value at character 1"),
        ("```json\n{}\n```\nor\n```json\n[]\n```", "the answer is not JSON: "),
        ("see:\n```json\n{}\n```\nor\n```json\n[]\n```", "the answer is not JSON: "),
        ("```python\n{}\n```\nruns", "the answer is not JSON: "),
        ("```json\n{}", "the answer is not JSON: "),
        ("```", "the answer is not JSON: "),
        ('{"no": "1"} and more', "the answer is not JSON: extra data at character 13"),
        ("", "the answer is not JSON: it is empty"),
        (None, "the answer is not JSON: it is empty"),
        ("[" * 100_000, "the answer is not JSON: it is nested too deeply"),
        ('{"no": "1"}', 'the answer breaks the schema at $: "lines" is a required property'),
        (
            '{"no": "1", "lines": [{"qty": 1}, {"qty": "a\\nb"}]}',
            'the answer breaks the schema at $.lines[1].qty: "a\\nb" is not of type "integer"',
        ),
        ('{"no": "1", "lines": "%s"}' % ("x" * 9000), 'the answer breaks the schema at $.lines: "xxx'),
        ('{"no": "1", "lines": [{"qty": 1, "price": NaN}]}', "the answer breaks the schema at $.lines[0].price: "),
    ],
)
def test_an_answer_that_breaks_the_schema_is_a_billed_failure_that_keeps_it(content: str | None, said: str) -> None:
    assert refusal(INVOICE, content).startswith(said)


@pytest.mark.parametrize("status", [Status.TRUNCATED, Status.FILTERED, Status.REFUSED])
def test_an_incomplete_answer_passes_as_it_came(status: Status) -> None:
    incomplete = answer('{"no": "1', status)
    assert output(INVOICE).check(incomplete) is incomplete


def test_a_tool_call_is_not_the_answer_of_the_schema() -> None:
    call = answer(None, tool_calls=(ToolCall("1", "f", "{}"),))
    assert output(INVOICE).check(call) is call


def test_the_draft_is_the_one_the_schema_names() -> None:
    pair = {"type": "array", "items": [WHOLE], "additionalItems": False}
    draft_7 = {**pair, "$schema": "http://json-schema.org/draft-07/schema#"}
    assert parsed(draft_7, "[1]") == "[1]"
    assert "$" in refusal(draft_7, "[1, 2]")
    with pytest.raises(JobError):
        output(pair)


@pytest.mark.parametrize(
    ("value", "arrow_type", "fitted"),
    [
        (3.0, INT, 3),
        (3.5, INT, None),
        (True, INT, None),
        ("3", INT, None),
        (2**63, INT, None),
        (-(2**63), INT, -(2**63)),
        (math.inf, INT, None),
        (2, FLOAT, 2.0),
        (True, FLOAT, None),
        (10**400, FLOAT, None),
        (math.nan, FLOAT, None),
        (1, BOOL, None),
        (False, BOOL, False),
        ("\udc00a\0", STRING, "\ufffda\0"),
        (3, STRING, "3"),
        (
            {"\ud800": [10**30, math.inf, "\ud800"]},
            STRING,
            '{"\ufffd":[1000000000000000000000000000000,null,"\ufffd"]}',
        ),
        (None, STRING, None),
        ({}, pa.list_(INT), None),
        ([1, "a"], pa.list_(INT), [1, None]),
        ([], pa.struct([("a", INT)]), None),
        ({"b": 1}, pa.struct([("a", INT)]), {"a": None}),
        ("2024-01-01", pa.timestamp("us"), None),
    ],
)
def test_fit_makes_a_value_of_the_type_or_null(value: Any, arrow_type: Any, fitted: Any) -> None:
    result = fit(value, arrow_type)
    assert (result, type(result)) == (fitted, type(fitted))
    assert through_parquet(result, arrow_type) == fitted


awkward_texts = st.sampled_from(["\ud800", "a\udfffb", "\0", "1e400"])
awkward_numbers = st.sampled_from([3.0, 0.5, -0.0, 2**63, -(2**63), 10**400, math.inf, math.nan, True])
scalars = st.none() | st.integers() | st.floats() | st.text(max_size=8) | awkward_texts | awkward_numbers
names = st.sampled_from(["a", "b", "", "a.b", "é", "\0", "\ud800"])
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)
scalar_schemas = [TEXT, WHOLE, {"type": "number"}, {"type": "boolean"}, {"enum": ["a", None]}]
json_schemas: list[Any] = [{"enum": [1, "a"]}, {}, True, {"type": ["string", "integer"]}, {"type": "object"}]
references = [{"$ref": "#"}, {"$ref": "#/properties/a"}]
schemas = st.recursive(
    st.sampled_from([*scalar_schemas, *json_schemas, *references]),
    lambda inner: (
        inner.map(lambda items: {"type": "array", "items": items})
        | inner.map(lambda branch: {"anyOf": [branch, {"type": "null"}]})
        | st.dictionaries(names, inner, max_size=4).map(lambda members: {"type": "object", "properties": members})
    ),
    max_leaves=8,
)


def replies(arrow_type: Any) -> st.SearchStrategy[Any]:
    """Values with the containers of the type and any scalars in them; now and then something else altogether."""
    if pa.types.is_struct(arrow_type):
        alike: Any = st.fixed_dictionaries({field.name: replies(field.type) for field in arrow_type})
    elif pa.types.is_list(arrow_type):
        alike = st.lists(replies(arrow_type.value_type), max_size=3)
    else:
        alike = scalars
    # Not one_of, which gives every branch inside `anything` the weight of the whole of `alike`.
    return st.integers(0, 9).flatmap(lambda luck: anything if luck == 9 else alike)


@given(schema=schemas, data=st.data())
@settings(deadline=None, max_examples=EXAMPLES)
def test_any_reply_fits_any_schema_and_reaches_parquet(schema: Any, data: st.DataObject) -> None:
    # Every kind of scalar in every example: the generated part alone seldom reaches a number with a number.
    kinds = [TEXT, WHOLE, {"type": "number"}, {"type": "boolean"}, {}]
    every_kind = {str(number): kind for number, kind in enumerate(kinds)}
    shape = shape_of_schema({"properties": {**every_kind, "any": schema}})
    reply = data.draw(replies(shape.arrow_type))
    for fitted in (shape.fit(reply), fit(reply, shape.arrow_type)):
        assert through_parquet(fitted, shape.arrow_type) == fitted


@given(schema=schemas, reply=anything, nested=st.integers(0, 2000))
@settings(deadline=None, max_examples=60)
def test_any_text_is_parsed_or_refused(schema: Any, reply: Any, nested: int) -> None:
    if "\\ud800" in json.dumps(schema) or "$ref" in json.dumps(schema):
        schema = {"type": "array", "items": {}}
    content = "[" * nested + json.dumps(reply) + "]" * nested
    checked = output(schema).check(answer(content))
    if isinstance(checked, Completion):
        arrow_type = output(schema).arrow_type
        assert through_parquet(checked.parsed, arrow_type) == checked.parsed
    else:
        assert checked.kind is Kind.OUTPUT
