"""The Jinja environment of all templates: strict, sandboxed, deterministic, bounded.

Rule: the same row renders the same text for ever. So nothing here depends on luck, on the clock, or on where an object
lies in memory: `random` and `lipsum` are gone, filters that answer lazily answer with lists, a method that was not
called cannot become text, and what is no plain value is refused instead of printed.

Strategy: text from the data only ever arrives as a value of a name; it is never compiled.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from functools import wraps
from typing import Any, NoReturn
from uuid import UUID

from jinja2 import StrictUndefined, Undefined
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace
from jinja2.utils import missing as unknown

#: The most characters that one string may render to: half of what a whole request may weigh (wire/encode.py).
MAX_TEXT = 16 * 1024 * 1024

#: The most bits that a product or a power may have: 1,200 digits, far beyond money, counts and ids.
MAX_BITS = 4096

#: Names that every template knows beside the row and the job's vars.
BUILTINS: Mapping[str, Any] = {"range": safe_range, "dict": dict, "namespace": Namespace}

_LAZY = ("batch", "items", "map", "reject", "rejectattr", "reverse", "select", "selectattr", "slice", "unique")
_METHODS = (types.BuiltinMethodType, types.MethodType, types.FunctionType)
_PRINTABLE = (str, int, float, Decimal, date, time, timedelta, UUID)


class RowView(dict[str, Any]):
    """What `row` is in a template: a row whose missing columns are told by name."""


class Absent(StrictUndefined):
    """A name that the row does not have; its message says what to type."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        name = self._undefined_name
        if self._undefined_hint is None and self._undefined_obj is unknown:
            return _no_column(name, str(name))
        if self._undefined_hint is None and isinstance(self._undefined_obj, RowView):
            return _no_column(name, f'row["{name}"]')
        return super()._undefined_message


class Method:
    """A method that a template may call, and cannot print: its text would be an address in memory."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._function(*args, **named)

    def __str__(self) -> NoReturn:
        raise TypeError("a method is not text; call it, as in {{ name.upper() }}")

    def __repr__(self) -> str:
        return "<method>"


class Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _BOUNDS[operator](left, right)
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        value = super().getattr(obj, attribute)
        return Method(value) if isinstance(value, _METHODS) else value

    def getitem(self, obj: Any, argument: Any) -> Any:
        value = super().getitem(obj, argument)
        return Method(value) if isinstance(value, _METHODS) else value


def as_text(value: Any) -> str:
    """What `{{ value }}` becomes: "" for null, JSON for lists and mappings, str() for scalars; the rest is refused."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    if isinstance(value, _PRINTABLE):
        return str(value)
    if isinstance(value, Mapping | list | tuple):
        return json_text(value)
    if isinstance(value, Undefined | Method):
        return str(value)  # raises, in its own words
    raise TypeError(f"{_kind(value)} cannot be written into text{_CURES.get(type(value), '')}")


def json_text(value: Any, indent: int | None = None) -> str:
    """Compact JSON in the data's own order, non-ASCII kept; Jinja's own `tojson` writes `<` as \\u003c, for HTML."""
    separators = (",", ":") if indent is None else None
    return json.dumps(value, ensure_ascii=False, separators=separators, indent=indent, default=_json_scalar)


def _json_scalar(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return as_text(value)


def _kind(value: Any) -> str:
    return f"a value of type {type(value).__name__}"


_CURES = {
    bytes: "; bytes have no one reading as text",
    range: "; add | list",
    type({}.keys()): "; add | list",
    type({}.values()): "; add | list",
    type({}.items()): "; add | list",
}


def _no_column(name: Any, typed: str) -> str:
    return f'the row has no column {name!r}; where it may be missing, write {{{{ {typed} | default("") }}}}'


def _bound_product(left: Any, right: Any) -> None:
    for sequence, times in ((left, right), (right, left)):
        if (
            isinstance(sequence, str | bytes | list | tuple)
            and isinstance(times, int)
            and len(sequence) * times > MAX_TEXT
        ):
            raise OverflowError(f"{len(sequence):,} × {times:,} is more than {MAX_TEXT:,} characters")
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > MAX_BITS:
        raise OverflowError("the product has too many digits")


def _bound_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MAX_BITS:
        raise OverflowError("the power has too many digits")


_BOUNDS = {"*": _bound_product, "**": _bound_power}


def _eager(lazy: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(lazy)
    def filter_to_list(*args: Any, **named: Any) -> Any:
        result = lazy(*args, **named)
        return list(result) if isinstance(result, Iterator) else result

    return filter_to_list


def _sandbox() -> Sandbox:
    sandbox = Sandbox(undefined=Absent, keep_trailing_newline=True, autoescape=False, finalize=as_text, cache_size=0)
    # Globals stay empty so that jinja2.meta reports every free name; BUILTINS join the names of each row.
    sandbox.globals.clear()
    sandbox.filters.update({name: _eager(sandbox.filters[name]) for name in _LAZY})
    sandbox.filters["tojson"] = json_text
    del sandbox.filters["random"]
    return sandbox


SANDBOX = _sandbox()
