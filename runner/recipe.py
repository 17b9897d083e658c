"""How a row becomes a request: render, encode, and say what it can cost at most.

Rule: pure, and the same row gives the same request for ever; `check`, `render`, `run`, the plan of a changed job and
`show` all make requests here. Strategy: the hash is of the body as the job asks for it; whatever is changed for a
provider is changed after it. Local files are looked at and not read (`attach`): the body names them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from runner.dialect import Dialect
from runner.interchange.requests import Lines
from runner.pricing import Price
from runner.records import Failure, Kind, Request, Row
from runner.spec.body import PARAMETERS, faults
from runner.spec.positions import dotted
from runner.template import Prompt
from runner.wire.attach import Weighed
from runner.wire.encode import (
    BYTES_PER_TOKEN,
    MAX_BODY_BYTES,
    encode,
    encode_again,
    input_failure,
    too_large,
)
from runner.worstcase import worst_usd

UNBOUNDED = (
    "the job has a budget, and what this row costs at most is not known: its model needs a price (pricing.MODEL, of "
    "sound too where it hears or speaks) and a known context if it is sent files, its request an output cap "
    "(max_completion_tokens or max_tokens), and what its server does besides, such as a web search, a price a request "
    "(pricing.MODEL.per_request)"
)

Body = Mapping[str, Any]
Render = Callable[[Mapping[str, Any]], dict[str, Any] | Failure]
#: A rendered body -> the body that is hashed, and what its media weigh.
Attach = Callable[[Body], Weighed | Failure]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the job asks for a row, before it is fitted to the provider. `request.hash` is the row's for good."""

    request: Request
    body: Body
    weighed: Weighed | None = None  #: None: nothing but text


def as_written(body: Body) -> Body | Failure:
    """Fits nobody."""
    return body


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a row becomes a request."""

    model: str
    columns: frozenset[str] | None  #: None: all
    render: Render
    encode: Callable[[int, Body], Request | Failure]
    bound: Callable[[Request, Body], Decimal | None]  #: dollars at most; (request with its `prompt_most`, body)
    attach: Attach | None = None  #: None: no message can hold more than text
    asks_disk: bool = False  #: `attach` asks for sizes and times of files
    needs_bound: bool = False  #: a budget: what has no worst case is not sent
    fit: Callable[[Body], Body | Failure] = as_written  #: what the provider takes of a body; the same one: all of it

    def request(self, row: Row) -> Request | Failure:
        """What is sent for a row. Failure(INPUT): nothing can be."""
        asked = self.asked(row)
        return asked if isinstance(asked, Failure) else self.fitted(asked)

    def asked(self, row: Row) -> Asked | Failure:
        if row.data is None:
            return Failure(Kind.INPUT, row.error or "the input line cannot be read")
        rendered = self.render(row.data)
        if isinstance(rendered, Failure):
            return rendered
        weighed = self.attach(rendered) if self.attach else None
        if isinstance(weighed, Failure):
            return weighed
        body = weighed.body if weighed else rendered
        request = self.encode(row.index, body)
        return request if isinstance(request, Failure) else Asked(request, body, weighed)

    def fitted(self, asked: Asked) -> Request | Failure:
        body = self.fit(asked.body)
        if isinstance(body, Failure):
            return body
        request = asked.request if body is asked.body else encode_again(asked.request, body)
        if isinstance(request, Failure):
            return request
        made = self._with_media(request, body, asked.weighed) if asked.weighed else self._with_bound(request, body)
        unbounded = self.needs_bound and isinstance(made, Request) and made.reserved_usd is None
        return input_failure(UNBOUNDED) if unbounded else made

    def _with_bound(self, request: Request, body: Body) -> Request:
        return replace(request, reserved_usd=self.bound(request, body))

    def _with_media(self, request: Request, body: Body, weighed: Weighed) -> Request | Failure:
        """The request with its media reckoned by their tables, not by their base64 text."""
        size, text = len(request.body) + weighed.file_bytes, len(request.body) - weighed.inline_bytes
        if size > MAX_BODY_BYTES:
            return too_large(size)
        more = weighed.tokens.likely - weighed.inline_bytes // BYTES_PER_TOKEN
        most = None if weighed.tokens.most is None else text + weighed.tokens.most
        tokens, prompt_tokens = request.tokens + more, request.prompt_tokens + more
        request = replace(request, tokens=tokens, prompt_tokens=prompt_tokens, prompt_most=most)
        return replace(request, reserved_usd=self.bound(request, body))


@dataclass(frozen=True, slots=True)
class Means:
    """What the requests of a job need beside its prompt."""

    base_url: str
    price_of: Callable[[str], Price | None]
    dialect: Dialect
    attach: Attach | None = None
    asks_disk: bool = False


def recipe_of(model: str, prompt: Prompt | Lines, means: Means) -> Recipe:
    """The recipe of a job. `model` as the job writes it: it names the rows that cannot be rendered."""

    def bound(request: Request, body: Body) -> Decimal | None:
        return worst_usd(request, body, means.price_of(request.model), media=means.attach is not None)

    return Recipe(
        model=model,
        columns=None if prompt.whole_row else prompt.columns,
        render=_judged(prompt.render, sorted(means.dialect.bodies.differing & PARAMETERS.keys())),
        encode=lambda index, body: encode(index, body, means.base_url),
        bound=bound,
        attach=means.attach,
        asks_disk=means.asks_disk,
        fit=means.dialect.fit,
    )


def _judged(render: Render, names: Sequence[str]) -> Render:
    """`render`, whose values of the parameters `names` are of the right sort and in their range."""
    if not names:
        return render

    def judged(row: Mapping[str, Any]) -> dict[str, Any] | Failure:
        body = render(row)
        if isinstance(body, Failure):
            return body
        fault = next(faults(body, names), None)
        return input_failure(f"{dotted(fault[0])}: {fault[1]}") if fault else body

    return judged
