"""Structured answers: parsed, checked against the job's schema, and made to fit the `parsed` column.

Rule: a paid answer is never thrown away. An answer that breaks the schema is a Failure(OUTPUT) that carries it, its
usage and the word that it was billed. Truncated, filtered and refused answers, and tool calls, pass unparsed.

Strategy: the schema is compiled twice before the first reply: into a validator (jsonschema_rs: about 1 µs an answer)
and into a shape (schema.py). Nothing is ever fetched: a schema that refers to another document is a mistake.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import jsonschema_rs

from runner.errors import JobError
from runner.outputs.answer import NotJsonError, parse_answer
from runner.outputs.schema import shape_of_schema
from runner.outputs.shape import JSON, Shape, fit
from runner.records import Billed, Completion, Failure, Kind, Status
from runner.wire.oneline import one_line

__all__ = ["Output", "compile_output", "fit"]

_PATH = "request.response_format.json_schema.schema"


@dataclass(frozen=True, slots=True)
class Output:
    """What the answers of a job must look like."""

    _shape: Shape
    _validator: Any  #: jsonschema_rs validator; None: any JSON will do

    @property
    def arrow_type(self) -> Any:
        """pa.DataType of the `parsed` column."""
        return self._shape.arrow_type

    def check(self, completion: Completion) -> Completion | Failure:
        """The completion with `parsed` filled, or Failure(OUTPUT); incomplete answers and tool calls as they came."""
        answer = completion.choices[0] if completion.choices else None
        if completion.status is not Status.OK or answer is None or answer.tool_calls:
            return completion
        try:
            value = parse_answer(answer.content or "")
        except NotJsonError as error:
            return _broken(completion, f"the answer is not JSON: {error}")
        violation = None if self._validator is None else _violation(self._validator, value)
        if violation is not None:
            return _broken(completion, f"the answer breaks the schema {violation}")
        return replace(completion, parsed=self._shape.fit(value))


def compile_output(response_format: Mapping[str, Any] | None) -> Output | None:
    """None for text answers. Raises JobError for a schema that is no JSON Schema or refers to another document."""
    kind = (response_format or {}).get("type")
    if kind == "json_object":
        return Output(JSON, None)
    if response_format is None or kind != "json_schema":
        return None
    schema = _schema_in(response_format)
    return Output(JSON, None) if schema is None else Output(shape_of_schema(schema), _validator(schema))


def _schema_in(response_format: Mapping[str, Any]) -> Any:
    """The schema in plain dicts and lists: YAML's own mappings are none to jsonschema_rs. None: no schema is given."""
    wrapper = response_format.get("json_schema")
    if not isinstance(wrapper, Mapping):
        raise _mistake("json_schema must hold a name and a schema")
    schema = wrapper.get("schema")
    if not isinstance(schema, Mapping | bool | None):
        raise _mistake("it must be a mapping")
    try:
        return json.loads(json.dumps(schema, default=dict))
    except (ValueError, TypeError, RecursionError) as error:
        raise _mistake(f"it cannot be written as JSON: {error}") from error


def _validator(schema: Any) -> Any:
    fetched: list[str] = []

    def refuse(uri: str) -> NoReturn:
        fetched.append(uri)
        raise LookupError(uri)

    try:
        return jsonschema_rs.validator_for(schema, retriever=refuse)
    except jsonschema_rs.ValidationError as error:
        reason = f"it refers to {fetched[0]}, and nothing is fetched" if fetched else _said(error)
        raise _mistake(reason) from error
    except ValueError as error:
        raise _mistake(str(error)) from error


def _mistake(reason: str) -> JobError:
    return JobError(
        mistakes=(one_line(f"{_PATH}: not a usable JSON Schema: {reason}"),),
        hint="write what other documents hold under $defs, and refer to it as #/$defs/NAME",
    )


def _violation(validator: Any, value: Any) -> str | None:
    try:
        return None if validator.is_valid(value) else _said(next(validator.iter_errors(value)))
    except ValueError as error:  # "Recursion limit reached": it writes and compares values of at most 255 levels
        return f"at $: {error}"


def _said(error: Any) -> str:
    """`at $.items[0].total: "x" is not of type "number"`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
    return f"at ${''.join(steps)}: {error.message}"


def _broken(completion: Completion, message: str) -> Failure:
    return Failure(
        Kind.OUTPUT,
        one_line(message),
        status=200,
        billed=Billed.YES,
        request_id=completion.request_id,
        answer=completion,
        usage=completion.usage,
    )
