"""Before money is spent: a question, when it may be more than the job lets go unasked.

Rule: what is left to send is reckoned whole and at most (`budget.confirm_above_usd`); an unknown price is more than any
number. Whoever cannot be asked has to say so beforehand (`--yes`). Until then nothing has been sent, and nothing has
been decided that a no would have to undo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from runner.demand import Demand, Told
from runner.errors import ConsentError
from runner.forecast import Rest, demand_of
from runner.keep import Books
from runner.opening import Begun
from runner.prepare import Prepared
from runner.progress import rows_bar
from runner.records import Tally
from runner.recovery import Standing
from runner.say import dollars
from runner.wiring import budget_of


def confirm(
    begun: Begun, rest: Rest, told: Callable[[], Mapping[str, Told]] = dict, standing: Standing | None = None
) -> None:
    """Ask, if what `rest` may cost at most is too much to be spent unasked. told: what answers so far say, looked up
    when it is needed; standing: of a run that has begun, whose budget is spent in part. Raises ConsentError for a no,
    and where nobody can be asked."""
    most = begun.job.budget.confirm_above_usd
    if most is None or begun.options.yes or begun.simulated or not any(rest):
        return
    demand = _reckoned(begun, rest, told())
    at_most = _within_budget(demand.at_most_usd, left_of_budget(begun.prepared, standing))
    if at_most is not None and at_most <= most:
        return
    said = _words("going on with this run" if begun.directory.read_run() else "this run", at_most, demand)
    if begun.options.ask and begun.options.ask(f"{said[0].upper()}{said[1:]}; go on?"):
        return
    raise ConsentError(
        f"{said}; the job asks first above {dollars(most)} (budget.confirm_above_usd)",
        hint="nothing was sent. --yes goes on (RUNNER_YES=1; in Python yes=True)",
    )


def _reckoned(begun: Begun, rest: Rest, told: Mapping[str, Told]) -> Demand:
    progress, close = rows_bar(begun.say, "reckoning the cost", sum(map(len, rest)))

    def watched(rows: int) -> None:
        begun.options.leash.check()
        progress(rows)

    try:
        return demand_of(begun.prepared, rest, told, progress=watched)
    finally:
        close()


def left_of_budget(prepared: Prepared, standing: Standing | None) -> Decimal | None:
    """Dollars that a run may still spend; None: its job has no budget. standing: None: it has not begun."""
    budget = budget_of(prepared, Books.of(standing).total if standing else Tally())
    return max(Decimal(0), budget.left_usd) if budget else None


def _within_budget(at_most: Decimal | None, left: Decimal | None) -> Decimal | None:
    return at_most if at_most is None or left is None else min(at_most, left)


def _words(what: str, at_most: Decimal | None, demand: Demand) -> str:
    """`this run may cost at most $12.30 (about $4.10 expected)`."""
    said = f"{what} may cost at most {dollars(at_most)}" if at_most is not None else ""
    said = said or f"what {what} may cost is not known (no price, or no cap of the output)"
    expected = demand.expected_usd
    return said if expected is None else f"{said} (about {dollars(expected)} expected)"
