"""Plain words for answers that nobody will read closely.

Rule: ASCII only, so that a byte is a character and four of them are a token.
"""

from __future__ import annotations

from random import Random

SUBJECTS = (
    "The customer",
    "This message",
    "The second paragraph",
    "Our support team",
    "The invoice",
    "A later remark",
    "The account",
    "The order",
    "The writer",
    "One detail",
    "The attached note",
    "The last line",
)
VERBS = (
    "asks about",
    "describes",
    "confirms",
    "leaves open",
    "mentions",
    "depends on",
    "points to",
    "repeats",
    "questions",
    "summarises",
    "rules out",
    "comes back to",
)
OBJECTS = (
    "a delayed refund",
    "the delivery date",
    "two earlier payments",
    "a login that fails on the phone",
    "the terms of the contract",
    "a missing item",
    "the new address",
    "an unexpected fee",
    "the settings of the account",
    "a plan that was cancelled in March",
    "what was agreed before",
    "the total at the bottom",
)
ENDINGS = (
    ".",
    ", without giving a reason.",
    ", and expects an answer this week.",
    ", which fits the rest of the text.",
    "; nothing else is urgent.",
    ", although the numbers differ slightly.",
    ".",
    ", as far as one can tell.",
)
WORDS = tuple(sorted({word for phrase in OBJECTS for word in phrase.split() if len(word) > 3}))


def sentence(rng: Random) -> str:
    return f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)}{rng.choice(ENDINGS)}"


def paragraph(rng: Random, size: int) -> str:
    """Whole sentences, about `size` characters: at least one, and none begun beyond it."""
    parts = [sentence(rng)]
    length = len(parts[0])
    while length < size:
        parts.append(sentence(rng))
        length += 1 + len(parts[-1])
    return " ".join(parts)


def phrase(rng: Random, shortest: int, longest: int | None) -> str:
    """A few words of `shortest` to `longest` characters."""
    text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 4)))
    while len(text) < shortest:
        text += " " + rng.choice(WORDS)
    return text if longest is None else text[:longest]
