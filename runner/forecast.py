"""What is left to send, and what it takes: rows rendered, nothing sent.

Rule: every row that is to be sent is rendered as it will be, one at a time; nothing is kept of it but sums. Rows that
are final are left out, but for some whose answers say how far our reckoning is from the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal

from runner.answered import spread
from runner.demand import GUESSED_IN_FLIGHT, Answer, Charge, Demand, Limits, Told
from runner.errors import RunnerError
from runner.parts import Range
from runner.plan import NONE
from runner.prepare import Prepared
from runner.recipe import Asked
from runner.records import Failure, Request, Row, Usage
from runner.recovery import Standing
from runner.sampling import Stretch
from runner.store import RunDirectory
from runner.wire.encode import output_cap
from runner.wiring import settings_of

#: What is to be sent of each range, in order.
Rest = Sequence[Collection[int]]
#: Answers of some final rows, by range and row.
Answers = Mapping[int, Mapping[int, Answer]]
#: Sees each row that is to be sent, as the job asks it and as it would be sent.
Look = Callable[[Row, Asked | Failure, Request | Failure], None]
Progress = Callable[[int], None]

TELL_EVERY_ROWS = 1000


def everything(prepared: Prepared) -> list[Stretch]:
    return [Stretch(part.first, part.rows) for part in prepared.survey.ranges]


def rest_of(ranges: Sequence[Range], standing: Standing) -> list[Stretch]:
    """The rows that are not final."""
    return [_left(part, standing) for part in ranges]


def _left(part: Range, standing: Standing) -> Stretch:
    if part.number in standing.sealed:
        return Stretch(part.first_row, part.rows, range(part.first_row, part.first_row + part.rows))
    opened = standing.open.get(part.number)
    return Stretch(part.first_row, part.rows, opened.done if opened else ())


def rest_of_plan(prepared: Prepared, sources: Sequence[int]) -> list[Stretch]:
    """The rows that take no stored answer."""
    return [part.without([row for row in part if sources[row] != NONE]) for part in everything(prepared)]


def demand_of(
    prepared: Prepared,
    rest: Rest,
    told: Mapping[str, Told],
    look: Look | None = None,
    progress: Progress = lambda rows: None,
) -> Demand:
    """Render what is to be sent and add up. look: is shown every row; progress: gets the number of rows so far."""
    demand, recipe = Demand(charge_of(prepared), told), prepared.recipe
    for seen, row in enumerate(_rows(prepared, rest, with_id=look is not None)):
        if seen % TELL_EVERY_ROWS == 0:
            progress(seen)
        asked = recipe.asked(row)
        made = asked if isinstance(asked, Failure) else recipe.fitted(asked)
        if isinstance(made, Failure):
            demand.refuse(row.index, made.message)
        elif isinstance(asked, Asked):
            demand.add(made, output_cap(asked.body), made.service_tier)
        if look:
            look(row, asked, made)
    return demand


def _rows(prepared: Prepared, rest: Rest, *, with_id: bool) -> Iterator[Row]:
    columns, id_column = prepared.recipe.columns, prepared.job.input.id_column
    if columns is not None and with_id and id_column:
        columns |= {id_column}
    for number, left in enumerate(rest):
        if left:
            rows = prepared.reader.rows(number, columns)
            whole = len(left) == prepared.survey.ranges[number].rows
            yield from rows if whole else (row for row in rows if row.index in left)


def told_in(
    prepared: Prepared, directory: RunDirectory, ranges: Sequence[Range], standing: Standing
) -> dict[str, Told]:
    """What the answers of a run say so far, by model; prepared: the job that they answer."""
    return told_by(prepared, spread(directory, ranges, standing))


def told_by(prepared: Prepared, answers: Answers) -> dict[str, Told]:
    """What answers say, by model; prepared: the job that they answer."""
    found: dict[str, Told] = {}
    for number, known in answers.items():
        reckoned = _reckoned(prepared, number, known)
        for row, answer in known.items():
            found.setdefault(answer.model, Told()).add(answer, reckoned.get(row))
    return found


def _reckoned(prepared: Prepared, number: int, known: Collection[int]) -> dict[int, int]:
    """Our estimates of the prompts of rows; nothing where the input is not what it was."""
    with suppress(RunnerError):
        prepared.reader.verify(number)
        rows = (row for row in prepared.reader.rows(number, prepared.recipe.columns) if row.index in known)
        made = map(prepared.recipe.request, rows)
        return {request.index: request.prompt_tokens for request in made if isinstance(request, Request)}
    return {}


def charge_of(prepared: Prepared) -> Charge:
    def charge(model: str, usage: Usage, tier: str | None) -> Decimal | None:
        return prepared.prices.charge(model, usage, tier).usd

    return charge


def limits_of(prepared: Prepared) -> Limits:
    given = settings_of(prepared)
    in_flight = min(GUESSED_IN_FLIGHT, given.concurrency) if given.learns else given.concurrency
    return Limits(in_flight, given.learns, given.requests_per_minute, given.tokens_per_minute)
