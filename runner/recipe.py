"""How a row becomes a request: render, encode, and say what it can cost at most.

Rule: pure, and the same row gives the same request for ever; `check`, `render`, `run`, the plan of a changed job and
`show` all make requests here. Strategy: the hash is of the body as the job asks for it; whatever is changed for a
provider is changed after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from runner.pricing import Price, upper_bound
from runner.records import Failure, Kind, Request, Row
from runner.template import Prompt
from runner.wire.encode import encode, output_cap


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a row becomes a request."""

    model: str
    columns: frozenset[str] | None  #: None: all
    render: Callable[[Mapping[str, Any]], dict[str, Any] | Failure]
    encode: Callable[[int, Mapping[str, Any]], Request | Failure]
    bound: Callable[[Request, Mapping[str, Any]], Decimal | None]

    def request(self, row: Row) -> Request | Failure:
        if row.data is None:
            return Failure(Kind.INPUT, row.error or "the input line cannot be read")
        body = self.render(row.data)
        if isinstance(body, Failure):
            return body
        request = self.encode(row.index, body)
        if isinstance(request, Failure):
            return request
        return replace(request, reserved_usd=self.bound(request, body))


def recipe_of(model: str, prompt: Prompt, base_url: str, price_of: Callable[[str], Price | None]) -> Recipe:
    """The recipe of a job. `model` as the job writes it: it names the rows that cannot be rendered."""

    def bound(request: Request, body: Mapping[str, Any]) -> Decimal | None:
        return upper_bound(len(request.body), output_cap(body), request.choices, price_of(request.model))

    return Recipe(
        model=model,
        columns=None if prompt.whole_row else prompt.columns,
        render=prompt.render,
        encode=lambda index, body: encode(index, body, base_url),
        bound=bound,
    )
