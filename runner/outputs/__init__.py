"""What an answer must be to be used: JSON of the job's schema, or calls of the tools that its request offers.

Rule: a paid answer is never thrown away. One that cannot be used is a Failure(OUTPUT) that carries it, its usage and
the word that it was billed. Truncated, filtered and refused answers pass unjudged. Of several choices the first is
judged, and it alone fills the `parsed` column.

Strategy: the schema is compiled twice before the first reply: into a validator (validate.py) and into a shape
(schema.py); the tools once (calls.py), unless they hang on the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from runner.errors import JobError
from runner.outputs.answer import NotJsonError, parse_answer
from runner.outputs.calls import NAMES, Offer, offer_in, offer_of
from runner.outputs.schema import shape_of_schema
from runner.outputs.shape import JSON, Shape, fit
from runner.outputs.validate import NotASchemaError, plain, validator_of, violation
from runner.records import Billed, Completion, Failure, Kind, Status
from runner.wire.oneline import one_line

__all__ = ["Expected", "Offer", "Output", "compile_offer", "compile_output", "fit"]

_PATH = "request.response_format.json_schema.schema"
_HINT = "write what other documents hold under $defs, and refer to it as #/$defs/NAME"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the answers of a job are held against. `offer` None: the tools hang on the row."""

    output: Output | None
    offer: Offer | None

    def check(self, completion: Completion, body: bytes) -> Completion | Failure:
        """`body`: of the request. The completion, `parsed` where it is JSON by a schema, or Failure(OUTPUT)."""
        if completion.status is not Status.OK or not completion.choices:
            return completion
        answer, offer = completion.choices[0], self.offer or offer_in(body)
        wrong = offer.complaint(answer) if offer else None
        if wrong:
            return _broken(completion, wrong)
        return self.output.check(completion) if self.output else completion


@dataclass(frozen=True, slots=True)
class Output:
    """What the structured answers of a job must look like."""

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
        wrong = None if self._validator is None else violation(self._validator, value)
        if wrong is not None:
            return _broken(completion, f"the answer breaks the schema {wrong}")
        return replace(completion, parsed=self._shape.fit(value))


def compile_output(response_format: Mapping[str, Any] | None, *, typed: bool = True) -> Output | None:
    """None for text answers. typed: the schema types the column, which holds JSON text otherwise. Raises JobError for a
    schema that is no JSON Schema or refers to another document."""
    kind = (response_format or {}).get("type")
    if kind == "json_object":
        return Output(JSON, None)
    if response_format is None or kind != "json_schema":
        return None
    schema = _schema_in(response_format)
    if schema is None:
        return Output(JSON, None)
    schema = _usable(plain, schema)
    return Output(shape_of_schema(schema) if typed else JSON, _usable(validator_of, schema))


def _schema_in(response_format: Mapping[str, Any]) -> Any:
    """None: no schema is given."""
    wrapper = response_format.get("json_schema")
    if not isinstance(wrapper, Mapping):
        raise _mistake("json_schema must hold a name and a schema")
    schema = wrapper.get("schema")
    if not isinstance(schema, Mapping | bool | None):
        raise _mistake("it must be a mapping")
    return schema


def _usable(make: Callable[[Any], Any], schema: Any) -> Any:
    try:
        return make(schema)
    except NotASchemaError as error:
        raise _mistake(str(error)) from error


def _mistake(reason: str) -> JobError:
    return JobError(mistakes=(one_line(f"{_PATH}: not a usable JSON Schema: {reason}"),), hint=_HINT)


def compile_offer(
    constants: Mapping[str, Any], varying: Iterable[str], where: Callable[[str], str]
) -> tuple[Offer | None, list[str]]:
    """What every request of a job offers (None: that hangs on the row), and the tools whose parameters are no usable
    JSON Schema, one line each.

    constants: the parameters that are the same for all rows; varying: the names of the others; where: the file and
    line of a dotted path.
    """
    mistakes: list[str] = []

    def complain(place: str, reason: str) -> None:
        path = f"request.{place}"
        mistakes.append(one_line(f"{where(path)}: {path}: not a usable JSON Schema: {reason}"))

    if not set(NAMES).isdisjoint(varying):
        return None, mistakes
    return offer_of(plain({name: constants[name] for name in NAMES if name in constants}), complain), mistakes


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
