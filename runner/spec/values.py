"""The sorts of values that a job file is made of, each with its bounds.

Rule: a number is a number and a text is a text: nothing is converted on the way in but the money, which becomes exact.
Every sort says what it wants in our words and describes itself as JSON Schema for editors.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictFloat,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)

from runner.spec import endpoint as rules
from runner.spec.endpoint import said
from runner.spec.words import must_be


class Section(BaseModel):
    """A closed mapping of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EnvRef(Section):
    """The name of an environment variable that holds the value."""

    env: str


def _file_name(value: str) -> str:
    """The run's directory carries it: no way out of the parent, nothing hidden, nothing a shell would trip over."""
    if not value.isprintable() or any(mark in value for mark in '/\\:*?"<>|'):
        raise said('must be a plain name: no / \\ : * ? " < > | and no special characters')
    if value[0] in ".- " or value[-1] in ". " or len(value.encode()) > 100:
        raise said("must be at most 100 bytes, not start with . or - or a space, not end with . or a space")
    return value


def _path(value: str) -> str:
    if "\0" in value or not value.strip():
        raise said("must be a path")
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _filled(value: Any) -> Any:
    if isinstance(value, list) and not value:
        raise said("must not be empty")
    return value


def _number(value: Any) -> Any:
    """YAML's number as pydantic's Decimal takes it; a float by its shortest text, so 0.4 is 0.4."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise said(must_be("a number", value))
    return str(value)


def _exact(value: Decimal) -> int | float:
    """Back to the number that was written; reading it again gives the same Decimal."""
    return int(value) if value == value.to_integral_value() else float(value)


def _auto_or_whole(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise said("must be auto or a whole number of at least 1")


def _columns(value: Any) -> Any:
    if value in ("all", "none"):
        return value
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise said("must be all, none or a list of column names")


def _messages(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(message, str | dict) for message in value):
        return tuple(value)
    raise said("must be a list of messages, or one {{ expression }} that gives it")


def _header(value: Any) -> Any:
    if isinstance(value, str):
        return rules.header(value)
    if isinstance(value, dict) and list(value) == ["env"] and isinstance(value["env"], str):
        return EnvRef(env=rules.variable(value["env"]))
    raise said("must be text or {env: NAME}")


def _variables(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        if not name.isidentifier() or name == "row":
            raise said(f"`{name}` cannot name a variable: letters, digits and _ only, and `row` is the row itself")
    return value


def _kept(value: Any) -> Any:
    if value == "keep":
        return None
    if isinstance(value, dict):
        return value
    raise said("must be keep or a mapping")


def keep_or(section: type[Section]) -> tuple[Any, ...]:
    """What makes `section | None` of a model the words `keep` or a mapping in the file, and back."""
    return (
        BeforeValidator(_kept),
        PlainSerializer(lambda value: "keep" if value is None else value.model_dump()),
        _schema({"const": "keep"}, section.model_json_schema()),
    )


def number_or(section: type[Section], key: str) -> tuple[Any, ...]:
    """What makes a number of the file the `key` of a section, and a section with nothing else a number."""

    def taken(value: Any) -> Any:
        return value if isinstance(value, dict | section) else {key: value}

    def given(value: Any) -> Any:
        members = value.model_dump(mode="json", exclude_none=True)
        return members[key] if list(members) == [key] else members

    kinds = ({"type": "number", "exclusiveMinimum": 0}, section.model_json_schema())
    return BeforeValidator(taken), PlainSerializer(given), _schema(*kinds)


def _schema(*kinds: Mapping[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": list(kinds)})


Name = Annotated[StrictStr, Field(min_length=1), AfterValidator(_file_name)]
PathText = Annotated[StrictStr, AfterValidator(_path)]
BaseUrl = Annotated[StrictStr, AfterValidator(rules.base_url)]
Variables = Annotated[dict[str, Any], AfterValidator(_variables)]
Filled = Annotated[StrictStr, Field(min_length=1)]
Variable = Annotated[StrictStr, AfterValidator(rules.variable)]
Count = Annotated[StrictInt, Field(ge=1)]
Few = Annotated[StrictInt, Field(ge=1, le=10)]
Growth = Annotated[StrictFloat, Field(gt=1, le=100)]
Room = Annotated[StrictInt, Field(ge=1, le=10_000_000)]
Seconds = Annotated[StrictFloat, Field(gt=0)]
Rate = Annotated[StrictFloat, Field(gt=0)]
Dollars = Annotated[
    Decimal,
    Field(ge=0, le=1_000_000),
    BeforeValidator(_number),
    PlainSerializer(_exact),
    WithJsonSchema({"type": "number", "minimum": 0}),
]
Factor = Annotated[
    Decimal,
    Field(gt=0, le=1_000),
    BeforeValidator(_number),
    PlainSerializer(_exact),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0}),
]
AutoOrWhole = Annotated[
    Literal["auto"] | int,
    BeforeValidator(_auto_or_whole),
    _schema({"const": "auto"}, {"type": "integer", "minimum": 1}),
]
Columns = Annotated[
    Literal["all", "none"] | tuple[str, ...],
    BeforeValidator(_columns),
    _schema({"enum": ["all", "none"]}, {"type": "array", "items": {"type": "string"}}),
]
Messages = Annotated[str | tuple[dict[str, Any] | str, ...], BeforeValidator(_messages)]
Paths = Annotated[
    tuple[PathText, ...],
    BeforeValidator(_filled),
    BeforeValidator(_listed),
    _schema({"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}),
]


HeaderValue = Annotated[
    str | EnvRef,
    BeforeValidator(_header),
    _schema({"type": "string"}, {"type": "object", "properties": {"env": {"type": "string"}}, "required": ["env"]}),
]
