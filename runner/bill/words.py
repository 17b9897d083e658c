"""A bill for people, for scripts and for spreadsheets.

Rule: JSON and CSV hold every digit, dollars as decimal text; the table for people rounds. CSV is RFC 4180, as in the
export, and text that a spreadsheet would run as a formula stands behind an apostrophe.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from unicodedata import combining, east_asian_width

from runner.bill import Bill, Sums
from runner.export.writers import defused
from runner.say import dollars

COUNTS = ("exchanges", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
FIELDS = ("rows", "ok", *COUNTS, "cost_usd", "wasted_usd", "unknown_exchanges")
_HEADS = {name: name.removesuffix("_tokens").removesuffix("_exchanges").removesuffix("_usd") for name in FIELDS}
NONE, UNKNOWN = "(none)", "unknown"
_NUMBER = re.compile(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?")


def _exact(usd: Decimal) -> str:
    """Without exponent or trailing zeros."""
    return f"{usd.normalize():f}"


def numbers(sums: Sums) -> dict[str, Any]:
    """The figures of a group under `FIELDS`."""
    plain = {name: getattr(sums, name) for name in (*COUNTS, "unknown_exchanges")}
    money = {"cost_usd": _exact(sums.cost_usd), "wasted_usd": _exact(sums.wasted_usd)}
    found = {"rows": sum(sums.rows.values()), "ok": sums.rows.get("ok", 0)} | plain | money
    return {name: found[name] for name in FIELDS}


def to_json(bill: Bill) -> dict[str, Any]:
    """The whole bill: `lines` have their `key`, `beside` holds what belongs to no final row."""
    return {
        "runs": bill.runs,
        "simulated": bool(bill.simulated),
        "by": list(bill.by),
        "lines": [{"key": dict(zip(bill.by, key, strict=True)), **_full(sums)} for key, sums in bill.lines.items()],
        "beside": {reason: _full(sums) for reason, sums in bill.beside.items()},
        "total": _full(bill.total)
        | {"unknown_usd_at_most": _exact(bill.total.unknown_usd), "unknown_bounded": bill.total.bounded},
    }


def _full(sums: Sums) -> dict[str, Any]:
    wasted = {reason: _exact(usd) for reason, usd in sorted(sums.wasted.items())}
    return numbers(sums) | {"statuses": dict(sorted(sums.rows.items())), "wasted_by_reason": wasted}


def to_csv(bill: Bill) -> str:
    """One line a group, the keys first; exchanges that belong to no final row last, named in the first column."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow([*(map(_cell, bill.by) if bill.by else ("part",)), *FIELDS])
    for key, sums in bill.lines.items():
        writer.writerow([*(map(_cell, key) if key else ("final rows",)), *numbers(sums).values()])
    for reason, sums in bill.beside.items():
        blank = [""] * (len(bill.by) - 1)
        writer.writerow([f"({reason})", *blank, *numbers(sums).values()])
    return out.getvalue()


def _cell(text: str | None) -> str | None:
    """Text of the data; a number below nothing is no formula."""
    if text is None:
        return None
    return text if _NUMBER.fullmatch(text) else defused(text)


def summary(bill: Bill) -> list[str]:
    """What all of it came to."""
    total = bill.total
    rows = ", ".join(f"{count:,} {status}" for status, count in sorted(total.rows.items(), key=_ok_first)) or "none yet"
    lines = [
        *bill.runs,
        *_made_up(bill),
        f"rows       {sum(total.rows.values()):,} final: {rows}",
        f"exchanges  {total.exchanges:,}",
        f"tokens     {total.prompt_tokens:,} prompt ({total.cached_tokens:,} of them cached), "
        f"{total.completion_tokens:,} completion ({total.reasoning_tokens:,} of them reasoning)",
        f"cost       {dollars(total.cost_usd)}",
    ]
    if total.wasted:
        reasons = ", ".join(f"{reason} {dollars(usd)}" for reason, usd in sorted(total.wasted.items(), key=_dearest))
        lines.append(f"wasted     {dollars(total.wasted_usd)} of it: {reasons}")
    if total.unknown_exchanges:
        count = f"{total.unknown_exchanges:,} of the exchanges are of unknown cost"
        lines.append(f"unknown    {count}, and not in it: {at_most(total)}")
    return lines


def _made_up(bill: Bill) -> list[str]:
    if bill.simulated == len(bill.runs):
        return ["simulated: these dollars are made up"] * bool(bill.simulated)
    share = f"{bill.simulated:,} of the {len(bill.runs):,} runs"
    return [f"simulated: {share}; what these have cost is made up, and in the sums"] if bill.simulated else []


def at_most(total: Sums) -> str:
    """What the exchanges of unknown cost may have cost."""
    if not total.bounded:
        return "no bound is known"
    most = f"at most {dollars(total.unknown_usd)}"
    free = total.unknown_exchanges - total.bounded
    return f"{most} for {total.bounded:,} of them, no bound is known for {free:,}" if free > 0 else f"{most} together"


def _ok_first(item: tuple[str, int]) -> tuple[bool, str]:
    return item[0] != "ok", item[0]


def _dearest(item: tuple[str, Decimal]) -> Decimal:
    return -item[1]


def table(bill: Bill) -> list[str]:
    """The groups as aligned columns, the total last."""
    rows = [(tuple(NONE if value is None else value for value in key), sums) for key, sums in bill.lines.items()]
    blank = ("",) * (len(bill.by) - 1)
    rows += [((f"({reason})", *blank), sums) for reason, sums in bill.beside.items()]
    rows.append((("total", *blank), bill.total))
    places = places_for(bill.total.cost_usd)
    shown = [[*bill.by, *_HEADS.values()], *([*key, *_cells(sums, places)] for key, sums in rows)]
    return _aligned(shown, max(1, len(bill.by)))


def places_for(usd: Decimal) -> int:
    """Decimals of a whole column of dollars, so that they stand under each other."""
    return 2 if usd >= 100 else 4 if usd >= 1 else 6


def _cells(sums: Sums, places: int) -> list[str]:
    money = {"cost_usd": sums.cost_usd, "wasted_usd": sums.wasted_usd}
    found = numbers(sums) | {name: f"${usd:,.{places}f}" for name, usd in money.items()}
    if not sums.cost_known:
        found["cost_usd"] = UNKNOWN
    return [value if isinstance(value, str) else f"{value:,}" for value in found.values()]


MOST_WIDE = 40


def _aligned(shown: Sequence[Sequence[str]], texts: int) -> list[str]:
    """The first `texts` columns to the left, numbers to the right."""
    cut = [[_cut(cell) if place < texts else cell for place, cell in enumerate(line)] for line in shown]
    widths = [max(_wide(line[place]) for line in cut) for place in range(len(cut[0]))]
    return [
        "  ".join(
            cell + room if place < texts else room + cell
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            for room in (" " * (width - _wide(cell)),)
        ).rstrip()
        for line in cut
    ]


def _cut(cell: str) -> str:
    line = " ".join(cell.split())
    if _wide(line) <= MOST_WIDE:
        return line
    while _wide(line) >= MOST_WIDE:
        line = line[: min(len(line), MOST_WIDE) - 1]
    return f"{line}…"


def _wide(text: str) -> int:
    """Columns of a terminal that it takes."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(letter) else 2 if east_asian_width(letter) in "WF" else 1 for letter in text)
