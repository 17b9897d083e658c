"""The charts over time: spend, throughput, requests in flight, 429s, other failures.

Rule: all have the same axis of time, so that they are read one below the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from runner.report.charts import Chart, Clock, clock_of, rates, rising, steps, y_ticks
from runner.report.text import length, moment, moment_us
from runner.report.timeline import Course
from runner.scales import axis_to

PICO = 10**12
#: The unit of rates is the first in which the peak is no fraction.
_UNITS = (("second", 1), ("minute", 60), ("hour", 3600))


@dataclass(frozen=True, slots=True)
class Rate:
    """A chart of how often something happened; of `series`, in front of them all `bad`."""

    title: str
    things: str
    series: tuple[str, ...]
    bad: tuple[str, ...] = ()
    remark: str = ""


ROWS = Rate("Throughput", "rows that became final", ("ok", "not_ok"), ("not_ok",), "the lower, red area: not ok")
LIMITED = Rate("Replies 429", "replies that said to slow down", ("limited",), ("limited",))
BROKEN = Rate("Other failed exchanges", "exchanges that failed otherwise", ("broken",), ("broken",))


def over_time(course: Course, events: int) -> list[Chart]:
    """events: how many exchanges there were; they decide how fine the charts are."""
    clock = clock_of(course.drawn(events))
    spent = [_spend(clock)] if course.series["spent_pico"].any() else []
    failing = [_rate(clock, wanted) for wanted in (LIMITED, BROKEN) if course.series[wanted.series[0]].any()]
    return [*spent, _rate(clock, ROWS), _in_flight(clock), *failing]


def quiet(course: Course) -> str:
    """What has no chart because it never happened."""
    never = {"spent_pico": "Nothing of known cost was spent.", "limited": "No reply said 429."}
    return " ".join(sentence for name, sentence in never.items() if not course.series[name].any())


def span_words(course: Course) -> str:
    """`2026-03-01 14:05:09 UTC to … UTC`."""
    return f"{moment(moment_us(course.first_us))} to {moment(moment_us(course.last_us))}"


def _width(clock: Clock) -> str:
    course = clock.course
    bins = len(course.series["ok"])
    return length(course.width_us / 1e6 if bins > 1 else max(course.seconds(0), 1e-6))


def _spend(clock: Clock) -> Chart:
    values = [pico / PICO for pico in clock.course.series["spent_pico"].tolist()]
    total = sum(values)
    axis = axis_to(total)
    half = next((n for n, sums in enumerate(accumulate(values)) if sums >= total / 2), 0)
    told = f"It rises to ${total:,.6g}; half of it was spent by {moment(moment_us(clock.course.start_us(half + 1)))}."
    return Chart(
        "Spend",
        "dollars, running total of all exchanges of known cost",
        told,
        y_ticks(axis, "$"),
        clock.ticks(),
        rising(clock, values, axis),
        gaps=clock.gaps(),
    )


def _rate(clock: Clock, wanted: Rate) -> Chart:
    peak = max(rates(clock, wanted.series))
    unit, scale = next(((unit, scale) for unit, scale in _UNITS if peak * scale >= 1), _UNITS[0])
    values = rates(clock, wanted.series, scale)
    bad = rates(clock, wanted.bad, scale) if wanted.bad else []
    axis = axis_to(max(values))
    several = wanted.bad != wanted.series
    shapes = steps(clock, values, axis) if several else []
    shapes += steps(clock, bad, axis, "bad") if any(bad) else []
    remark = f"; {wanted.remark}" if several and any(bad) else ""
    return Chart(
        wanted.title,
        f"{wanted.things} per {unit}, mean of every {_width(clock)}{remark}",
        _told(values, f"per {unit}"),
        y_ticks(axis),
        clock.ticks(),
        shapes if peak else [],
        gaps=clock.gaps(),
    )


def _in_flight(clock: Clock) -> Chart:
    values = rates(clock, ["busy_us"], 1e-6)
    axis = axis_to(max(values), least_step=1)
    return Chart(
        "Requests in flight",
        f"requests on the wire at a time, mean of every {_width(clock)}",
        _told(values, "at a time"),
        y_ticks(axis),
        clock.ticks(),
        steps(clock, values, axis),
        gaps=clock.gaps(),
    )


def _told(values: Sequence[float], what: str) -> str:
    peak = max(values)
    return f"At most {peak:,.4g} {what}." if peak else "None."
