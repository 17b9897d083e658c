"""What one exchange can cost at most: the worst case that a budget reserves.

Rule: a bound, never a guess; what has none is None, and a budget sends no such request. A token covers at least one
byte, so a prompt takes no more tokens than its body has bytes, and what stands around each text in the body (28 bytes
a message at the least) is more than the few tokens that mark a message for the model. Images, recordings and files are
reckoned by wire/mediatokens.py. Beside these:

- what servers add to a prompt by themselves when tools are offered or a form is asked for (HIDDEN_TOKENS);
- a file's size does not tell how much it holds (a PDF's text is packed, and its pages are shown as pictures): a prompt
  with one is taken to fill the whole context of its model, where the public list knows that;
- predicted text that is not used is billed as output, beside the cap;
- sound is dearer than text wherever it has a price of its own, so without one nobody knows what it costs;
- what the server does beside answering (serverside.py: a web search, tools of its own) costs what no price of tokens
  tells; where the job prices a request (per_request), that is taken to hold it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from runner.pricing import Price, at_tier, context_window, upper_bound
from runner.reask import CAPS
from runner.records import Request
from runner.serverside import MEMBERS, extras, searches
from runner.wire.attach import parts

#: By how a model's name begins: with tools, with a form of the answer. Anthropic's page: 264 to 804 tokens by model and
#: tool_choice, and a prompt of its own for a form. Chat templates of open models introduce tools with some 60 to 200.
HIDDEN_TOKENS: Final = (("claude", 1024, 1024), ("", 256, 0))
#: Members of a body that may make it dearer than its bytes and its cap.
SPECIAL: Final = MEMBERS | {"tools", "functions", "response_format", "prediction", "modalities"}


def worst_usd(request: Request, body: Mapping[str, Any], price: Price | None, *, media: bool) -> Decimal | None:
    """Dollars; None: unknown. body: as it is sent, request: made of it, with the most tokens that its messages may
    take in `prompt_most`. media: whether its messages may hold more than text."""
    prompt, output = request.prompt_most, output_most(body)
    if media and prompt is None:
        prompt = context_window(request.model)
    if not media and SPECIAL.isdisjoint(body) and not searches(request.model):  # most rows, at no further cost
        return upper_bound(prompt, output, request.choices, price, request.service_tier)
    hears = media and any(part.kind == "input_audio" for part in parts(body))
    if unpriced_extra(body, price) or _lacks_sound(price, body, hears=hears):
        return None
    if body.get("prediction") is not None and output is not None:
        output += len(request.body)
    if prompt is not None:
        prompt += _hidden_tokens(request.model, body)
    return upper_bound(prompt, output, request.choices, price, request.service_tier)


def output_most(body: Mapping[str, Any]) -> int | None:
    """Tokens that a choice may answer with: of two caps the larger, since servers differ in which they read."""
    caps = [body[name] for name in CAPS if body.get(name) is not None]
    return max(caps) if caps and all(type(cap) is int and cap >= 1 for cap in caps) else None


def _hidden_tokens(model: str, body: Mapping[str, Any]) -> int:
    with_tools, with_form = _hidden_of(model)
    if body.get("tools") or body.get("functions"):
        return with_tools
    return with_form if body.get("response_format") else 0


@lru_cache(maxsize=1024)
def _hidden_of(model: str) -> tuple[int, int]:
    name = model.rsplit("/", 1)[-1].lower()
    return next((tools, form) for start, tools, form in HIDDEN_TOKENS if name.startswith(start))


def _lacks_sound(price: Price | None, body: Mapping[str, Any], *, hears: bool) -> bool:
    if price is None or price.by_request_alone:
        return False
    return (hears and price.input_audio is None) or (_speaks(body) and price.output_audio is None)


def _speaks(body: Mapping[str, Any]) -> bool:
    return "audio" in (body.get("modalities") or ())


def unpriced_extra(body: Mapping[str, Any], price: Price | None) -> str | None:
    """In words, what of a request is billed beside its tokens though its price has no rate for it; None: nothing."""
    extra = None if price is not None and price.per_request is not None else extras(body)
    return f"what {extra} costs beside its tokens is in no price" if extra else None


def lacking(
    constants: Mapping[str, Any], given: Collection[str], price: Price | None, kinds: Collection[str] = ()
) -> Iterator[str]:
    """What a job with a budget lacks so that the worst case of its requests can be known.

    constants: the parameters that are the same for every row; given: all that there are; price: of a constant model;
    kinds: of the parts that the job's own messages hold.
    """
    model = constants.get("model")
    if model is not None and (price is None or not at_tier(price, constants.get("service_tier")).is_known):
        yield f"no price is known for {model}; give pricing.{model} with input and output"
    elif model is not None and price is not None:
        yield from _lacking_media(str(model), constants, price, kinds)
    by_row = [name for name in CAPS if name in given and name not in constants]
    if not by_row and output_most(constants) is None:
        yield "the output is not capped; give request.max_completion_tokens (or max_tokens)"
    if extra := unpriced_extra(constants, price):
        yield f"{extra}; leave it out, or give pricing.{model or 'MODEL'}.per_request"


def _lacking_media(model: str, constants: Mapping[str, Any], price: Price, kinds: Collection[str]) -> Iterator[str]:
    for name, needed in (("input_audio", "input_audio" in kinds), ("output_audio", _speaks(constants))):
        if needed and getattr(price, name) is None and not price.by_request_alone:
            yield f"no price of sound is known for {model}; give pricing.{model}.{name}"
    if "file" in kinds and not price.by_request_alone and context_window(model) is None:
        yield f"how much a file holds is not known before it is sent, and neither is the context of {model}"
