"""A run of a sample: its rows are sent like any others, and their answers tell of the whole job.

Rule: the answers are the run's: it goes on without these rows. Nothing is told before all of them are final.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from runner import notes
from runner.answered import of_rows
from runner.demand import Answer, Limits
from runner.drawn import Lengths, Sample, sample_in
from runner.forecast import Rest, limits_of, rest_of
from runner.keep import Keeper
from runner.notes import NOTES, Reopened
from runner.opening import Run
from runner.records import Status
from runner.recovery import Standing
from runner.sampling import Interval, mean_of, quantile, share_of
from runner.wire.encode import output_cap


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
