"""A JSON Schema becomes a validator (jsonschema_rs: about 1 µs an answer), and a violation one sentence.

Rule: nothing is ever fetched; a schema that refers to another document is none.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn


class NotASchemaError(ValueError):
    """It cannot be used as a JSON Schema; the message says why."""


def plain(schema: Any) -> Any:
    """The schema in plain dicts and lists: YAML's own mappings are none to jsonschema_rs. Raises NotASchemaError."""
    try:
        return json.loads(json.dumps(schema, default=dict))
    except (ValueError, TypeError, RecursionError) as error:
        raise NotASchemaError(f"it cannot be written as JSON: {error}") from error


def validator_of(schema: Any) -> Any:
    """A jsonschema_rs validator of a plain schema. Raises NotASchemaError."""
    import jsonschema_rs  # 30 ms that a job without a schema has no use for

    fetched: list[str] = []

    def refuse(uri: str) -> NoReturn:
        fetched.append(uri)
        raise LookupError(uri)

    try:
        return jsonschema_rs.validator_for(schema, retriever=refuse)
    except jsonschema_rs.ValidationError as error:
        reason = f"it refers to {fetched[0]}, and nothing is fetched" if fetched else _said(error)
        raise NotASchemaError(reason) from error
    except ValueError as error:
        raise NotASchemaError(str(error)) from error


def violation(validator: Any, value: Any) -> str | None:
    """`at $.items[0].total: "x" is not of type "number"`; None: the value is valid."""
    try:
        return None if validator.is_valid(value) else _said(next(validator.iter_errors(value)))
    except ValueError as error:  # "Recursion limit reached": it writes and compares values of at most 255 levels
        return f"at $: {error}"


def _said(error: Any) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
    return f"at ${''.join(steps)}: {error.message}"
