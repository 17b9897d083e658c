"""Numbers and strangers' text as a report shows them.

Rule: text of the data, of models and of servers is shown as it is, but moves nothing: control characters and those that
turn the direction of writing are made visible, and what is too long is cut. Escaping is the template's.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal

from runner.scales import Axis

#: Control characters but tab and newline; embeddings and overrides of direction; lone surrogates; what is no character.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
SHORT, LONG_WORD = 16, 20
MOST_DECIMALS = 6
#: Marks that stand above and below letters, beyond the fourth: they would run over the lines around.
_MARKS = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_STACKED = re.compile(f"({_MARKS}{{4}}){_MARKS}+")
_PICTURES = 0x2400  #: ␀ ␁ … of the controls below the space
_COMPACT = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def visible(text: str) -> str:
    """`text` with everything that could hide or move something made visible."""
    return _UNSEEN.sub(lambda found: _picture(ord(found[0])), _STACKED.sub(r"\1", text))


def _picture(code: int) -> str:
    if code < 0x20:
        return chr(_PICTURES + code)
    if code == 0x7F:
        return "␡"
    return f"⟨U+{code:04X}⟩" if code < 0xD800 else "\ufffd"


def cut(text: str, most: int) -> str:
    """At most so many characters, the last one … where there were more."""
    return text if len(text) <= most else text[: most - 1] + "…"


def fit(text: str) -> str:
    """How a text is broken into lines: a `short` one not at all, a `long` word somewhere, else `words` between them."""
    if len(text) <= SHORT:
        return "short"
    return "long" if any(len(word) > LONG_WORD for word in text.split()) else "words"


def count_of(number: int, thing: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def share_of(part: float, whole: float) -> str:
    """`12 %`, `0.4 %`; more digits near the ends, so that only nothing is 0 % and only all is 100 %."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    if percent in (0, 100):
        return f"{percent:.0f} %"
    near = min(percent, 100 - percent)
    return "<0.01 %" if percent < 0.01 else ">99.99 %" if near < 0.01 else f"{percent:.{2 if near < 0.1 else 1}f} %"


def money(usd: Decimal, places: int) -> str:
    """With so many decimals, so that sums of one table stand under each other."""
    return f"${usd:,.{places}f}" if usd else "$0"


def length(seconds: float) -> str:
    """`180 ms`, `2.4 s`, `14 min`, `2 h 05 min`, `3 d 4 h`."""
    if seconds < 1e-3:
        return f"{seconds * 1e3:.2g} ms"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 90:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    return f"{minutes // 60} h {minutes % 60:02d} min" if hours < 48 else f"{hours // 24:,} d {hours % 24} h"


def tick_length(seconds: float) -> str:
    """Of a round length: `20 ms`, `5 s`, `10 min`."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if seconds >= unit:
            return f"{seconds / unit:.4g} {name}"
    return f"{seconds * 1e6:.4g} µs"


def tick_numbers(axis: Axis, sign: str = "") -> list[str]:
    """The ticks of an axis with one unit and as many decimals as their step needs."""
    if axis.top >= 1e15:
        return [f"{sign}{tick:.3g}" if tick else f"{sign}0" for tick in axis.ticks]
    unit, name = next(((unit, name) for unit, name in _COMPACT if axis.top >= 10 * unit), (1.0, ""))
    places = _decimals(axis.step / unit)
    if sign and places == 1 and not name:
        places = 2  # $0.50, as money is written
    if places > MOST_DECIMALS:
        return [f"{sign}{tick:.2g}" for tick in axis.ticks]
    nothing = f"{sign}0" if sign else f"{0:.{places}f}"
    return [f"{sign}{tick / unit:,.{places}f}{name}" if tick else nothing for tick in axis.ticks]


def _decimals(step: float) -> int:
    return next((places for places in range(13) if abs(round(step, places) - step) < step * 1e-6), 12)


def moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def moment_us(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us / 1e6, UTC)


def tick_day(at_us: int) -> str:
    """`2 Mar`"""
    at = datetime.fromtimestamp(at_us // 1_000_000, UTC)
    return f"{at.day} {at:%b}"


def tick_moment(at_us: int, step_us: int) -> str:
    """`14:05` on an axis with ticks so far apart, the day at midnight; with seconds where they differ in these, a
    date where they differ in days."""
    at = datetime.fromtimestamp(at_us // 1_000_000, UTC)
    if step_us >= 86_400_000_000:
        return f"{at:%Y-%m-%d}"
    if step_us >= 60_000_000:
        midnight = at_us % 86_400_000_000 == 0
        return tick_day(at_us) if midnight else f"{at:%H:%M}"
    return f"{at:%H:%M:%S}" + (f".{at_us % 1_000_000 // 100_000}" if step_us < 1_000_000 else "")
