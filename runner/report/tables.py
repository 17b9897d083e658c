"""The tables of a report: outcomes, money, answers, failures, rows that stand out.

Rule: a table is words and numbers as text; nothing is computed when it is drawn. A bar shows its line's share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.bill import Bill, Sums
from runner.bill.exchanges import REPLACED, TRUNCATED
from runner.bill.exchanges import dollars as of_pico
from runner.bill.words import UNKNOWN, places_for
from runner.records import Status
from runner.report.examples import Leaders, Reason
from runner.report.text import cut, length, money, share_of
from runner.retry import RULES

NAME, MESSAGE = 80, 300  #: characters of a stranger's text that are shown
NONE = "(none)"
DAYS = 31
VALUES = 24
_WASTE = {kind.value: f"{kind.value}: {rule.signals}" for kind, rule in RULES.items()}
_WASTE |= {TRUNCATED: "cut off, and asked for again", REPLACED: "replaced by a later answer"}


@dataclass(frozen=True, slots=True)
class Line:
    """`cells`: one for each head. bar: its share, 0 to 1; look: how it is drawn, as area, bad or rest."""

    cells: Sequence[str]
    bar: float | None = None
    look: str = "area"


@dataclass(frozen=True, slots=True)
class Table:
    """texts: so many columns hold words and stand left, the others hold numbers."""

    title: str
    heads: Sequence[str]
    lines: Sequence[Line]
    foot: Sequence[str] = ()
    texts: int = 1
    note: str = ""

    @property
    def barred(self) -> bool:
        return any(line.bar is not None for line in self.lines)


def outcomes(total: Sums, rows: int) -> Table:
    """Final rows by status, ok first; and those that are not final yet."""
    counts = {status.value: total.rows[status] for status in Status if status in total.rows}
    left = rows - sum(counts.values())
    lines = [
        Line((name, f"{count:,}", share_of(count, rows)), count / rows, "area" if name == Status.OK else "bad")
        for name, count in counts.items()
        if rows
    ]
    if left > 0:
        lines.append(Line(("not final yet", f"{left:,}", share_of(left, rows)), left / rows, "rest"))
    return Table("Rows by status", ("Status", "Rows", "Share"), lines, ("all rows", f"{rows:,}", ""))


def kinds(found: Mapping[str, int]) -> Table:
    total = sum(found.values())
    ordered = sorted(found.items(), key=lambda item: -item[1])
    top = max(found.values(), default=1)
    lines = [Line((kind, f"{n:,}", share_of(n, total)), n / top, "bad") for kind, n in ordered]
    return Table("Failed rows by kind", ("Kind", "Rows", "Share"), lines, ("all failed rows", f"{total:,}", ""))


_MONEY = ("Rows", "Cost", "Wasted", "Cost unknown", "Exchanges", "Tokens in", "Tokens out")


def groups(title: str, head: str, bill: Bill, places: int, most: int | None = None) -> Table:
    """Rows, exchanges, tokens and dollars by the one thing that a bill is grouped by. most: lines, the last ones."""
    named = [(NONE if key[0] is None else cut(key[0], NAME), sums) for key, sums in bill.lines.items()]
    hidden = len(named) - most if most and len(named) > most else 0
    note = f"The last {most:,} of {len(named):,}; `runner cost` has them all." if hidden else ""
    named = named[hidden:] + [(_BESIDE[reason], sums) for reason, sums in bill.beside.items()]
    lines = [Line((name, *_money(sums, places))) for name, sums in named]
    return Table(title, (head, *_MONEY), lines, ("total", *_money(bill.total, places)), note=note)


_BESIDE = {"not final": "rows not final yet", "removed": "rows that left the input"}


def _money(sums: Sums, places: int) -> list[str]:
    counts = (sums.unknown_exchanges, sums.exchanges, sums.prompt_tokens, sums.completion_tokens)
    cost = money(sums.cost_usd, places) if sums.cost_known else UNKNOWN
    return [f"{_rows(sums):,}", cost, money(sums.wasted_usd, places), *(f"{number:,}" for number in counts)]


def reasons(lines: Sequence[Mapping[str, Any]], total: Sums, places: int) -> Table:
    """Exchanges of final rows that are no row's answer, by why, the dearest first."""
    wasted = sorted((line for line in lines if line["reason"] is not None), key=lambda line: -line["wasted_pico"])
    return Table(
        "Exchanges that are no row’s answer",
        ("Why", "Exchanges", "Cost unknown", "Wasted", "Share of the cost"),
        [Line(_reason(line, total, places)) for line in wasted[:VALUES]],
        note="Waste is what was paid for them. A cost that is not known is in no sum.",
    )


def _reason(line: Mapping[str, Any], total: Sums, places: int) -> list[str]:
    usd, why = of_pico(line["wasted_pico"]), line["reason"]
    counts = [f"{line['exchanges']:,}", f"{line['unknown_exchanges']:,}"]
    if line["unknown_exchanges"] and not usd:
        return [_WASTE.get(why, why), *counts, UNKNOWN, "–"]
    return [_WASTE.get(why, why), *counts, money(usd, places), share_of(float(usd), float(total.cost_usd))]


def answers(name: str, bill: Bill, choices: Sequence[str], places: int) -> Table:
    """What was answered for one member of `parsed`, the most frequent first, with what those rows cost."""
    found = sorted(bill.lines.items(), key=lambda item: (item[0][0] is None, -_rows(item[1])))
    total = sum(_rows(sums) for _, sums in found)
    top = max([_rows(sums) for _, sums in found], default=0) or 1
    lines = [
        Line(
            (
                "no value" if key[0] is None else cut(key[0], NAME),
                f"{_rows(sums):,}",
                share_of(_rows(sums), total),
                money(sums.cost_usd, places) if sums.cost_known else UNKNOWN,
            ),
            _rows(sums) / top,
            "bad" if key[0] is None else "area",
        )
        for key, sums in found
    ]
    shown, rest = lines[:VALUES], lines[VALUES:]
    given = {key[0] for key, _ in found}
    never = [cut(value, NAME) for value in choices if value not in given]
    note = f"Never answered: {', '.join(never)}." if never and found else ""
    note = f"{len(rest):,} rarer values are left out. {note}".strip() if rest else note
    return Table(cut(name, NAME), ("Answer", "Rows", "Share", "Cost"), shown, note=note)


def _rows(sums: Sums) -> int:
    return sum(sums.rows.values())


def failures(found: Sequence[Reason], most: int = 20) -> Table:
    """Why rows failed, each sentence with examples."""
    lines = [
        Line((_kind(reason), _sentence(reason), ", ".join(cut(row, 40) for row in reason.rows), f"{reason.count:,}"))
        for reason in found[:most]
    ]
    rest = found[most:]
    note = "Sentences that differ only in numbers are counted as one; the first is shown."
    if rest:
        note += f" {sum(reason.count for reason in rest):,} more rows failed in {len(rest):,} other ways."
    return Table("", ("Kind", "What was said", "Such as row", "Rows"), lines, texts=3, note=note)


def _kind(reason: Reason) -> str:
    return reason.kind if reason.http_status is None else f"{reason.kind}, HTTP {reason.http_status}"


def _sentence(reason: Reason) -> str:
    return "(other sentences)" if reason.message is None else cut(reason.message, MESSAGE)


def leaders(title: str, found: Leaders) -> Table:
    places = places_for(of_pico(max((row["spent_pico"] for row in found.rows), default=0)))
    heads = ("Row", "Status", "Exchanges", "Tokens in", "Tokens out", "Latency", "Cost")
    return Table(title, heads, [Line(_leader(row, places)) for row in found.rows], texts=2)


def _leader(row: Mapping[str, Any], places: int) -> list[str]:
    tokens = ("–" if row[name] is None else f"{row[name]:,}" for name in ("prompt_tokens", "completion_tokens"))
    latency = "–" if row["latency_s"] is None else length(row["latency_s"])
    name = NONE if row["name"] is None else cut(row["name"], 40)
    cost = money(of_pico(row["spent_pico"]), places)
    if row["cost_unknown"]:
        cost = f"over {cost}" if row["spent_pico"] else UNKNOWN
    return [name, row["status"], f"{row['exchanges']:,}", *tokens, latency, cost]
