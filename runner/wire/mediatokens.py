"""How many tokens an image, a recording or a file is reckoned at: by tables, never by its base64 text.

Rule: `likely` is for tokens_per_minute and the estimates of `check`, `most` for the reservation of money; replies
correct both. How much a file holds is not told by its size, and what a provider fetches or keeps itself is not here to
be measured, so their `most` is unknown, never 0; images are bounded whatever their bytes, because every provider scales
them down. Pure arithmetic.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Tokens(NamedTuple):
    likely: int
    most: int | None  #: None: unknown


class ImageRule(NamedTuple):
    """Tokens of one image. `low` is for detail: low, `high` for high and auto, at the largest size that counts; `most`
    whatever its detail, where that is more."""

    model: str  #: how the model's name begins, `vendor/` left out
    low: int
    high: int
    most: int = 0


#: The first that fits, from the providers' pages: OpenAI's tiles (85 + 170 for each of at most 8; gpt-4o-mini counts
#: 2833 + 5667), its patches (at most 1536, times the small models' factors), Claude's 1,600 (its newest models: 4,784),
#: Gemini's 258 × 16 tiles. Models that are not known here take up to 16,384, as Qwen's do, and most servers pass over
#: `detail`.
IMAGES: Final = (
    ImageRule("gpt-4o-mini", 2833, 48169),
    ImageRule("gpt-4.1-mini", 2489, 2489),
    ImageRule("gpt-4.1-nano", 3779, 3779),
    ImageRule("gpt-5-mini", 2489, 2489),
    ImageRule("gpt-5-nano", 3779, 3779),
    ImageRule("o4-mini", 2642, 2642),
    *(ImageRule(name, 85, 1536) for name in ("gpt-4o", "chatgpt-4o", "gpt-4.1", "gpt-4-", "o1", "o3")),
    ImageRule("claude", 1600, 1600, 4784),
    ImageRule("gemini", 4128, 4128),
    ImageRule("", 85, 1536, 16384),
)

#: Gemini counts 32 tokens a second, OpenAI fewer. Speech is 32 kB/s as WAV (16 kHz, 16 bit), and 1 kB/s as the least
#: MP3 that there is (8 kbit/s).
AUDIO_BYTES_PER_TOKEN: Final = (1000, 31)
#: As text.
FILE_BYTES_PER_TOKEN: Final = 4
#: What is not here to be measured: a file that the provider keeps, a recording behind a template.
UNSEEN: Final = Tokens(5000, None)


def image_tokens(model: str, detail: str | None) -> Tokens:
    name = model.rsplit("/", 1)[-1].lower()
    rule = next(rule for rule in IMAGES if name.startswith(rule.model))
    count = rule.low if detail == "low" else rule.high
    return Tokens(count, max(count, rule.most))


def audio_tokens(size: int) -> Tokens:
    """`size`: bytes of the recording itself, not of its base64 text."""
    return Tokens(*(-(-size // each) for each in AUDIO_BYTES_PER_TOKEN))


def file_tokens(size: int) -> Tokens:
    return Tokens(-(-size // FILE_BYTES_PER_TOKEN), None)
