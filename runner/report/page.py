"""The page: what its sections say, put into the template.

Rule: one file that needs nothing beside it, runs nothing and asks nobody. The policy in its head lets no script run,
nothing load and no style apply but the sheet in it, by its hash; every text is escaped where it is put in.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from runner.bill import Sums
from runner.bill.words import at_most, places_for
from runner.records import Status
from runner.report import tables
from runner.report.about import LONG, ran, versions
from runner.report.charts import Chart, histogram
from runner.report.course import over_time, quiet, span_words
from runner.report.gather import Facts
from runner.report.tables import Table
from runner.report.text import cut, fit, length, moment, share_of, visible
from runner.say import dollars


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that stands by itself: what it is, the number, and what it is out of."""

    name: str
    value: str
    remark: str = ""


def page(found: Facts, now: datetime) -> str:
    """The whole page as HTML. now: when it was made."""
    sheet = _read("page.css")
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    made: str = _template().render(
        sheet=Markup(sheet),  # noqa: S704 - ours, not the data's
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        made_at=moment(now),
        **_sections(found),
    )
    return made


def _template() -> Any:
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters["fit"] = fit
    return environment.get_template("page.html")


def _read(name: str) -> str:
    return resources.files("runner.report").joinpath("templates", name).read_text(encoding="utf-8")


def _sections(found: Facts) -> dict[str, Any]:
    total, seen = found.models.total, found.seen
    places = places_for(total.cost_usd)
    course = seen.timeline.course()
    return {
        "name": cut(str(found.known.get("name", "")), LONG),
        "state": found.state,
        "simulated": bool(found.known.get("simulated")),
        "figures": _figures(found),
        "ran": ran(found),
        "outcomes": [
            tables.outcomes(total, found.rows),
            *([tables.kinds(seen.failings.kinds)] if seen.failings.kinds else []),
        ],
        "costs": _costs(found, places),
        "span": f"{span_words(course)}. {quiet(course)}" if course else "",
        "course": over_time(course, total.exchanges + sum(total.rows.values())) if course else [],
        "latency": _latency(found),
        "answers": [
            tables.answers(".".join(path), bill, found.choices[path], places)
            for path, bill in found.answers.items()
            if any(value is not None for (value,) in bill.lines)
        ],
        "failures": tables.failures(seen.failings.reasons) if seen.failings.reasons else None,
        "leaders": [
            tables.leaders(title, rows)
            for title, rows in (("The slowest rows", seen.slowest), ("The dearest rows", seen.dearest))
            if rows.rows
        ],
        "made_by": versions(found),
    }


def _figures(found: Facts) -> list[Figure]:
    total = found.models.total
    final = sum(total.rows.values())
    ok = total.rows.get(Status.OK, 0)
    wasted = f"{dollars(total.wasted_usd)} of it wasted ({share_of(float(total.wasted_usd), float(total.cost_usd))})"
    figures = [
        Figure("Rows final", f"{final:,}", f"of {found.rows:,}"),
        Figure("Not ok", f"{final - ok:,}", share_of(final - ok, final) if final else ""),
        Figure("Cost", dollars(total.cost_usd), wasted if total.wasted else _per_thousand(total.cost_usd, final)),
    ]
    if total.unknown_exchanges:
        figures.append(Figure("Cost unknown", f"{total.unknown_exchanges:,}", _unknown(total)))
    return [*figures, *_budget(found), *_speed(found, final)]


def _unknown(total: Sums) -> str:
    return f"{'exchange' if total.unknown_exchanges == 1 else 'exchanges'}, in no sum; {at_most(total)}"


def _budget(found: Facts) -> list[Figure]:
    """What is left of it: exchanges of unknown cost have taken their worst case. In flight, nothing is counted yet."""
    most, total = found.prepared.job.budget.max_usd, found.models.total
    if most is None:
        return []
    left = max(most - total.cost_usd - total.unknown_usd, Decimal(0))
    unknown = f", {dollars(total.unknown_usd)} kept for unknown" if total.unknown_usd else ""
    return [Figure("Budget left", dollars(left), f"of {dollars(most)}: {dollars(total.cost_usd)} spent{unknown}")]


def _per_thousand(usd: Decimal, rows: int) -> str:
    return f"{dollars(usd / rows * 1000)} per 1,000 rows" if rows and usd else ""


def _speed(found: Facts, final: int) -> list[Figure]:
    course = found.seen.timeline.course()
    if course is None:
        return []
    seconds = course.work_s
    speed = f"{final / seconds:,.3g} rows/s" if final else ""
    whole = (course.last_us - course.first_us) / 1e6
    return [
        Figure("Time at work", length(seconds), f"{speed}, within {length(whole)}" if whole > 1.1 * seconds else speed)
    ]


def _costs(found: Facts, places: int) -> list[Table]:
    days, total = found.days, found.models.total
    made = [
        tables.groups("By model", "Model", found.models, places),
        tables.groups("By day", "Day (UTC)", days, places, tables.DAYS),
    ]
    wasted = tables.reasons(found.reasons, total, places)
    return [*made, wasted] if wasted.lines else made


def _latency(found: Facts) -> list[Chart]:
    made = (
        ("Whole answer", "rows by the time from sending to the last byte", found.seen.latency),
        ("First token", "rows by the time from sending to the first text", found.seen.first_token),
    )
    return [histogram(title, unit, spread) for title, unit, spread in made if spread.count]
