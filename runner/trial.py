"""A sample of a run: some rows drawn at random, sent like any others, and what they say about the whole job.

Rule: a sample is drawn from the rows that are not final, by the run's own luck, and written down before its first row
is sent; so the same command goes on with the same rows, and a larger one draws more of them. It is forgotten when
anything else has been sent since. Its answers are the run's: the run goes on without these rows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any

from runner import notes
from runner.answered import of_rows
from runner.demand import Answer, Limits
from runner.forecast import Rest, limits_of, rest_of
from runner.keep import Keeper
from runner.notes import NOTES, Reopened, Sampled
from runner.opening import Run
from runner.records import Status
from runner.recovery import Standing
from runner.sampling import Interval, Stretch, draw, mean_of, quantile, share_of
from runner.store import RunDirectory
from runner.wire.encode import output_cap


@dataclass(frozen=True, slots=True)
class Drawn:
    """The rows of a sample by the number of their range, and of how many they were drawn."""

    by_range: Mapping[int, frozenset[int]]
    population: int
    note: Sampled | None  #: that is to be written before the first of them is sent

    @property
    def rows(self) -> int:
        return sum(map(len, self.by_range.values()))

    def left(self, rest: Rest) -> list[frozenset[int]]:
        """What of it is still to be sent, of each range."""
        return [frozenset(row for row in self.by_range.get(n, ()) if row in part) for n, part in enumerate(rest)]

    def left_by_range(self, rest: Rest) -> dict[int, frozenset[int]]:
        """The same, of the ranges that have such rows."""
        return {number: rows for number, rows in enumerate(self.left(rest)) if rows}


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of answers: of the middle one, what nine of ten do not exceed, of the longest, and the job's cap."""

    median: int
    p90: int
    longest: int
    cap: int | None


@dataclass(frozen=True, slots=True)
class Sample:
    """What a sample says. Intervals are of 95 %; None: nothing can be said."""

    rows: int  #: drawn and final
    population: int  #: rows that they were drawn from
    statuses: Mapping[str, int]
    not_ok: Interval  #: share of rows
    truncated: Interval
    usd: Interval | None  #: of the whole job, what is spent already too
    max_usd: Decimal | None  #: the budget
    unknown: int  #: rows whose cost is not known, and is not in `usd`
    seconds: Interval | None  #: to send what is left
    left: int  #: rows that are not final
    in_flight: int  #: at which `seconds` is reckoned
    guessed: bool  #: that number: it is left to be found
    tokens: Lengths | None

    @property
    def rows_not_ok(self) -> int:
        return self.rows - self.statuses.get(Status.OK, 0)

    def to_json(self) -> dict[str, Any]:
        intervals = {name: getattr(self, name) for name in ("usd", "seconds", "not_ok", "truncated")}
        return {
            "rows": self.rows,
            "population": self.population,
            "statuses": dict(self.statuses),
            **{name: found and found.to_json() for name, found in intervals.items()},
            "unknown_cost_rows": self.unknown,
            "left": self.left,
            "in_flight": self.in_flight,
            "completion_tokens": self.tokens and asdict(self.tokens),
        }


def draw_sample(before: Sampled | None, run: str, rest: Sequence[Stretch], size: int) -> Drawn:
    """A sample of the rows that are not final; with the rows of the one before, as long as nothing else was sent."""
    total = sum(part.rows for part in rest)
    again = _final(before.rows, rest) if before and before.total == total else []
    others = total - len(again) - sum(map(len, rest))
    if before and again and others != before.others:
        again, others = [], others + len(again)
    frame = _joined(rest, again)
    rows = draw(frame, size, run)
    known = before is not None and before.others == others and set(rows) <= set(before.rows)
    drawn = {number: frozenset(found) for number, found in _by_range(rest, rows).items()}
    return Drawn(drawn, sum(map(len, frame)), None if known else Sampled(tuple(rows), others, total))


def sample_in(directory: RunDirectory, run: str, rest: Sequence[Stretch], size: int) -> Drawn:
    """The same, of a run that has begun. Writes nothing."""
    return draw_sample(notes.sampled(directory.root / NOTES, run), run, rest, size)


def with_sample(run: Run) -> Run:
    """The run with a sample drawn, where one is asked for."""
    size, rest = run.options.sample, rest_of(run.ranges, run.standing)
    return replace(run, drawn=sample_in(run.directory, run.id, rest, size)) if size else run


def remember(run: Run) -> None:
    if run.drawn and run.drawn.note:
        notes.add(run.directory.root / NOTES, run.id, [run.drawn.note])


def to_send(run: Run, again: Iterable[Reopened]) -> Rest:
    """The rows that this process is to send; again: final ones among them."""
    rest = rest_of(run.ranges, run.standing)
    for note in again:
        rest[note.range] = rest[note.range].joined(note.rows)
    return run.drawn.left(rest) if run.drawn else rest


def _by_range(rest: Sequence[Stretch], rows: Iterable[int]) -> dict[int, list[int]]:
    firsts, found = [part.first for part in rest], dict[int, list[int]]()
    for row in rows:
        found.setdefault(bisect_right(firsts, row) - 1, []).append(row)
    return found


def _final(rows: Iterable[int], rest: Sequence[Stretch]) -> list[int]:
    return [row for number, found in _by_range(rest, rows).items() for row in found if row not in rest[number]]


def _joined(rest: Sequence[Stretch], rows: Iterable[int]) -> list[Stretch]:
    again = _by_range(rest, rows)
    return [part.joined(again[number]) if number in again else part for number, part in enumerate(rest)]


def summed_up(run: Run, keeper: Keeper) -> Sample | None:
    """What the sample says; None while some of its rows are not final: those that are would be the quick ones."""
    drawn = run.drawn
    assert drawn
    standing = Standing(run.standing.sealed, keeper.open)
    answers = of_rows(run.directory, run.ranges, standing, drawn.by_range)
    if not answers or len(answers) < drawn.rows:
        return None
    size, population = len(answers), drawn.population
    limits, total = limits_of(run.prepared), keeper.books.total
    left = run.prepared.survey.rows - total.settled
    return Sample(
        rows=size,
        population=population,
        statuses=Counter(answer.status for answer in answers),
        not_ok=share_of(sum(not answer.is_ok for answer in answers), size, population),
        truncated=share_of(sum(answer.status == Status.TRUNCATED for answer in answers), size, population),
        usd=_dollars(answers, population, float(total.cost_usd)),
        max_usd=run.prepared.job.budget.max_usd,
        unknown=sum(answer.usd is None for answer in answers),
        seconds=_seconds(answers, left, limits),
        left=left,
        in_flight=limits.in_flight,
        guessed=limits.guessed,
        tokens=_lengths(answers, run.prepared.prompt.constants),
    )


def _dollars(answers: Sequence[Answer], population: int, spent: float) -> Interval | None:
    """Of the whole job: what was spent on other rows is known, and what is spent is the least."""
    known = [float(answer.usd) for answer in answers if answer.usd is not None]
    mean = mean_of(known, population)
    return mean.times(population, plus=spent - sum(known)).at_least(spent) if mean else None


def _seconds(answers: Sequence[Answer], left: int, limits: Limits) -> Interval | None:
    """Rows that take as long as these, so many at a time, and no faster than the job's own limits."""
    busy = mean_of([answer.busy_s for answer in answers], left + len(answers))
    if busy is None:
        return None
    floor = 0.0
    if limits.requests_per_minute:
        floor = 60 * left * sum(answer.exchanges for answer in answers) / len(answers) / limits.requests_per_minute
    if limits.tokens_per_minute:
        tokens = sum((answer.prompt_tokens or 0) + (answer.completion_tokens or 0) for answer in answers)
        floor = max(floor, 60 * left * tokens / len(answers) / limits.tokens_per_minute)
    return busy.times(left / limits.in_flight).at_least(floor)


def _lengths(answers: Sequence[Answer], constants: Mapping[str, Any]) -> Lengths | None:
    tokens = sorted(answer.completion_tokens for answer in answers if answer.completion_tokens is not None)
    if not tokens:
        return None
    cap, choices = output_cap(constants), constants.get("n", 1)
    return Lengths(
        median=int(quantile(tokens, 0.5)),
        p90=int(quantile(tokens, 0.9)),
        longest=tokens[-1],
        cap=None if cap is None else cap * choices,
    )
