"""How a row becomes a request: render, encode, and say what it can cost at most.

Rule: pure, and the same row gives the same request for ever; `check`, `render`, `run`, the plan of a changed job and
`show` all make requests here. Strategy: the hash is of the body as the job asks for it; whatever is changed for a
provider is changed after it. Local files are looked at and not read (`attach`): the body names them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from runner.pricing import Price, upper_bound
from runner.records import Failure, Kind, Request, Row
from runner.template import Prompt
from runner.wire.attach import Weighed
from runner.wire.encode import BYTES_PER_TOKEN, MAX_BODY_BYTES, encode, output_cap, too_large

#: A rendered body -> the body that is hashed, and what its media weigh.
Attach = Callable[[Mapping[str, Any]], Weighed | Failure]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a row becomes a request."""

    model: str
    columns: frozenset[str] | None  #: None: all
    render: Callable[[Mapping[str, Any]], dict[str, Any] | Failure]
    encode: Callable[[int, Mapping[str, Any]], Request | Failure]
    bound: Callable[[Request, Mapping[str, Any], int | None], Decimal | None]  #: (…, body, prompt tokens at most)
    attach: Attach | None = None  #: None: no message can hold more than text
    asks_disk: bool = False  #: `attach` asks for sizes and times of files

    def request(self, row: Row) -> Request | Failure:
        if row.data is None:
            return Failure(Kind.INPUT, row.error or "the input line cannot be read")
        body = self.render(row.data)
        if isinstance(body, Failure):
            return body
        if self.attach:
            return self._with_media(row.index, body, self.attach)
        request = self.encode(row.index, body)
        if isinstance(request, Failure):
            return request
        return replace(request, reserved_usd=self.bound(request, body, len(request.body)))

    def _with_media(self, index: int, body: Mapping[str, Any], attach: Attach) -> Request | Failure:
        """The request with its media reckoned by their tables, not by their base64 text."""
        weighed = attach(body)
        if isinstance(weighed, Failure):
            return weighed
        request = self.encode(index, weighed.body)
        if isinstance(request, Failure):
            return request
        size, text = len(request.body) + weighed.file_bytes, len(request.body) - weighed.inline_bytes
        if size > MAX_BODY_BYTES:
            return too_large(size)
        more = weighed.tokens.likely - weighed.inline_bytes // BYTES_PER_TOKEN
        most = None if weighed.tokens.most is None else text + weighed.tokens.most
        return replace(
            request,
            tokens=request.tokens + more,
            prompt_tokens=request.prompt_tokens + more,
            reserved_usd=self.bound(request, body, most),
        )


def recipe_of(
    model: str,
    prompt: Prompt,
    base_url: str,
    price_of: Callable[[str], Price | None],
    attach: tuple[Attach | None, bool] = (None, False),
) -> Recipe:
    """The recipe of a job. `model` as the job writes it: it names the rows that cannot be rendered. `attach`: how media
    are looked at, and whether that asks a disk."""

    def bound(request: Request, body: Mapping[str, Any], prompt_tokens: int | None) -> Decimal | None:
        return upper_bound(prompt_tokens, output_cap(body), request.choices, price_of(request.model))

    return Recipe(
        model=model,
        columns=None if prompt.whole_row else prompt.columns,
        render=prompt.render,
        encode=lambda index, body: encode(index, body, base_url),
        bound=bound,
        attach=attach[0],
        asks_disk=attach[1],
    )
