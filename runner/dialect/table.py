"""The provider differences: parameter by parameter, what OpenAI, Claude and Gemini take.

Rule: this table is the only place where they stand; the README's is printed from it. Strategy: a cell says itself in
the words of the table, and judges a value that is not null in one sentence, or None when it may be sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from runner.dialect.models import Provider


class Cell(Protocol):
    @property
    def text(self) -> str: ...
    @property
    def cure(self) -> str: ...
    def objection(self, value: Any) -> str | None:
        """What the provider does: `takes 0–1`, `does not take it`; None: it takes the value."""
        ...


@dataclass(frozen=True, slots=True)
class Yes:
    text: str = "yes"
    cure: str = ""

    def objection(self, value: Any) -> str | None:
        return None


@dataclass(frozen=True, slots=True)
class No:
    """Taken by nobody's asking: false asks for nothing."""

    text: str = "no"
    cure: str = "leave it out"

    def objection(self, value: Any) -> str | None:
        return None if value is False else "does not take it"


@dataclass(frozen=True, slots=True)
class Range:
    low: int
    high: int

    @property
    def text(self) -> str:
        return f"only {self.low}" if self.low == self.high else f"{self.low}–{self.high}"

    @property
    def cure(self) -> str:
        return f"give {self.low}" if self.low == self.high else f"give a number from {self.low} to {self.high}"

    def objection(self, value: Any) -> str | None:
        fits = isinstance(value, int | float) and self.low <= value <= self.high
        return None if fits else f"takes {self.text}"


@dataclass(frozen=True, slots=True)
class UpTo:
    """A text, or a list of at most so many. `blank`: one of nothing but white space will do."""

    most: int
    blank: bool = True

    @property
    def text(self) -> str:
        return f"up to {self.most}"

    @property
    def cure(self) -> str:
        return "give fewer texts" if self.blank else "give fewer texts, each with more than white space"

    def objection(self, value: Any) -> str | None:
        texts = value if isinstance(value, list) else [value]
        if len(texts) > self.most:
            return f"takes {self.text}"
        if not self.blank and any(isinstance(text, str) and not text.strip() for text in texts):
            return "takes no text of white space alone"
        return None


@dataclass(frozen=True, slots=True)
class Formats:
    """Every response_format but json_object."""

    text: str = "yes (json_schema)"
    cure: str = "ask for json_schema"

    def objection(self, value: Any) -> str | None:
        asked = isinstance(value, Mapping) and value.get("type") == "json_object"
        return "does not take json_object" if asked else None


THINKING = "leave it out; Claude's own `thinking` goes into extra_body"
OPENAI, CLAUDE, GEMINI = Provider
NOWHERE_BLANK = UpTo(4, blank=False)

HEADINGS = {OPENAI: "OpenAI GPT", CLAUDE: "Claude (compat)", GEMINI: "Gemini (compat)"}
TABLE: dict[str, dict[Provider, Cell]] = {
    "temperature": {OPENAI: Range(0, 2), CLAUDE: Range(0, 1), GEMINI: Range(0, 2)},
    "top_p": {OPENAI: Range(0, 1), CLAUDE: Range(0, 1), GEMINI: Range(0, 1)},
    "n": {OPENAI: Range(1, 128), CLAUDE: Range(1, 1), GEMINI: Range(1, 8)},
    "stop": {OPENAI: UpTo(4), CLAUDE: NOWHERE_BLANK, GEMINI: UpTo(5)},
    "tools": {OPENAI: Yes(), CLAUDE: Yes(), GEMINI: Yes()},
    "response_format": {OPENAI: Yes(), CLAUDE: Formats(), GEMINI: Yes()},
    "logprobs": {OPENAI: Yes(), CLAUDE: No(), GEMINI: No()},
    "reasoning_effort": {
        OPENAI: Yes("o-series, GPT-5.1+"),  # which of its values, the model's family says
        CLAUDE: No(cure=THINKING),
        GEMINI: No("no (native `thinking`, through extra_body)", "leave it out; `thinking` goes into extra_body"),
    },
}
#: Parameters that stand and fall with another's row.
ALIKE = {"top_logprobs": "logprobs"}

#: What Claude's compatible endpoint reads over without a word.
IGNORED: dict[Provider, tuple[str, ...]] = {
    CLAUDE: (
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "seed",
        "service_tier",
        "user",
        "metadata",
        "store",
        "modalities",
        "audio",
        "prediction",
    ),
}


def lines() -> list[str]:
    """The table as Markdown."""
    heads = ["| parameter | " + " | ".join(HEADINGS.values()) + " |", "|---" * (len(HEADINGS) + 1) + "|"]
    rows = (f"| {name} | " + " | ".join(row[each].text for each in HEADINGS) + " |" for name, row in TABLE.items())
    return [*heads, *rows]
