"""Which provider answers a model, and what models of one kind have in common.

Rule: a model is known by its name alone, whatever vendors are written before it; a name that no pattern knows has no
rules at all. Strategy: one ordered table of families; the first whose pattern the name begins with is the model's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Provider(StrEnum):
    """Who answers behind an OpenAI-compatible endpoint, as `endpoint.dialect` calls it."""

    OPENAI = "openai"
    CLAUDE = "claude"
    GEMINI = "gemini"

    @property
    def label(self) -> str:
        return {"openai": "OpenAI", "claude": "Claude", "gemini": "Gemini"}[self]


AUTO, NONE = "auto", "none"  #: the other words of `endpoint.dialect`
OLD_CAP, NEW_CAP = "max_tokens", "max_completion_tokens"

#: Sampling that models refuse while they reason, and what they refuse in any case.
SAMPLING = ("temperature", "top_p", "logprobs", "top_logprobs")
WEIGHTS = ("presence_penalty", "frequency_penalty", "logit_bias")
STOP = ("stop",)


@dataclass(frozen=True, slots=True)
class Family:
    """What sets models of one kind apart within their provider's column of the table."""

    names: str  #: what a name of the family begins with, as a pattern
    provider: Provider
    label: str  #: in sentences
    cap: str | None = None  #: the one name under which the output is capped; None: both are taken
    developer: bool = True  #: knows the role
    reasons: bool = False
    refused: tuple[str, ...] = ()
    sampled_at: tuple[str | None, ...] = ()  #: values of reasoning_effort with which SAMPLING is taken all the same
    efforts: tuple[str, ...] | None = ()  #: what reasoning_effort may be; None: whatever is asked


OPENAI, CLAUDE, GEMINI = Provider
LOW_TO_HIGH = ("low", "medium", "high")
REFUSED = (*SAMPLING, *WEIGHTS)

EARLY_GPT_5 = Family(
    r"gpt-5(?![\d.])",
    OPENAI,
    "OpenAI's gpt-5",
    cap=NEW_CAP,
    reasons=True,
    refused=(*REFUSED, *STOP),
    efforts=("minimal", *LOW_TO_HIGH),
)
ANY_CLAUDE = Family(r"claude(?![a-z\d])", CLAUDE, "Claude", cap=OLD_CAP, developer=False)
ANY_GEMINI = Family(r"gemini(?![a-z\d])", GEMINI, "Gemini", cap=OLD_CAP, developer=False)

#: GPT-5.1 to 5.4 do not reason unless they are asked to, later ones do unless they are asked not to; -chat, -codex,
#: -pro and -search variants always do.
FAMILIES: tuple[Family, ...] = (
    Family(r"gpt-5-chat", OPENAI, "OpenAI's gpt-5-chat"),
    Family(
        r"gpt-5\.[1-4](?!\d)(?!.*-(chat|codex|pro|search))",
        OPENAI,
        "OpenAI's GPT-5.1 to 5.4 while they reason",
        cap=NEW_CAP,
        reasons=True,
        refused=(*REFUSED, *STOP),
        sampled_at=(None, "none"),
        efforts=None,
    ),
    Family(
        r"gpt-(5\.\d|[6-9]|1\d)(?!.*-(chat|codex|pro|search))",
        OPENAI,
        "OpenAI's GPT-5.5 and later while they reason",
        cap=NEW_CAP,
        reasons=True,
        refused=(*REFUSED, *STOP),
        sampled_at=("none",),
        efforts=None,
    ),
    Family(
        r"gpt-(5\.\d|[6-9]|1\d)",
        OPENAI,
        "OpenAI's reasoning models",
        cap=NEW_CAP,
        reasons=True,
        refused=(*REFUSED, *STOP),
        efforts=None,
    ),
    EARLY_GPT_5,
    Family(
        r"o3(?!-mini)(?![a-z\d])|o4(?![a-z\d])",
        OPENAI,
        "OpenAI's o3 and o4-mini",
        cap=NEW_CAP,
        reasons=True,
        refused=(*REFUSED, *STOP),
        efforts=LOW_TO_HIGH,
    ),
    Family(
        r"o\d+(?![a-z\d])",
        OPENAI,
        "OpenAI's o-series",
        cap=NEW_CAP,
        reasons=True,
        refused=REFUSED,
        efforts=LOW_TO_HIGH,
    ),
    Family(r"gpt-3|gpt-4(?![a-z\d.])", OPENAI, "OpenAI's GPT-3.5, GPT-4 and GPT-4 Turbo", cap=OLD_CAP, developer=False),
    Family(r"chatgpt-|gpt-(?!oss|j-|neo)", OPENAI, "OpenAI's GPT-4o, GPT-4.1 and their like"),
    ANY_CLAUDE,
    ANY_GEMINI,
)
#: What `endpoint.dialect` means for a name that says nothing (a deployment): the column of the table.
PLAIN = {OPENAI: Family("", OPENAI, "OpenAI", efforts=None), CLAUDE: ANY_CLAUDE, GEMINI: ANY_GEMINI}

#: `ft:gpt-4o-mini:org::id` is fine-tuned, `us.anthropic.claude-…` lives at Bedrock.
_BEFORE = re.compile(r"ft:|(?:[a-z-]+\.)+(?=claude)")
_PATTERNS = tuple((re.compile(family.names), family) for family in FAMILIES)


@dataclass(frozen=True, slots=True)
class Model:
    """A model that rules are known for."""

    name: str
    provider: Provider
    family: Family


def provider_of(model: str, asked: str = AUTO) -> Provider | None:
    """Whose rules hold for a model; `asked` is `endpoint.dialect`. None: nobody's, it is sent as written.

    provider_of("openrouter/anthropic/claude-sonnet-4")        Provider.CLAUDE
    provider_of("llama-3.3-70b")                               None
    provider_of("my-deployment", "openai")                     Provider.OPENAI
    """
    if asked == AUTO:
        family = _family(model)
        return family.provider if family else None
    return None if asked == NONE else Provider(asked)


def model_of(name: str, provider: Provider) -> Model:
    """A model answered by `provider`. A name of another's, or of nobody's, gets the provider's plain rules."""
    family = _family(name)
    own = family is not None and family.provider is provider
    return Model(name, provider, family if family and own else PLAIN[provider])


def _family(model: str) -> Family | None:
    short = _BEFORE.sub("", model.strip().lower().rpartition("/")[2], count=1)
    return next((family for pattern, family in _PATTERNS if pattern.match(short)), None)
