"""Exchanges that cost more than their worst case, or had none: told, and the former remembered by the run.

Rule: what one process has learned of a server the next one knows (notes.jsonl), as long as the price is the same that
the worst case was reckoned by: a price that has been put right is a fresh start.
"""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import Any

from runner import notes
from runner.budget import Budget
from runner.engine import LocalEngine
from runner.keep import Books
from runner.notes import NOTES, Dearer
from runner.opening import Run
from runner.records import Request
from runner.say import dollars


def watch(run: Run, engine: LocalEngine) -> None:
    """Give the engine's budget what earlier processes have learned, and keep what this one learns."""
    budget = engine.settings.budget
    if budget is None:
        return
    _say_unbounded(run)
    for note in notes.dearer(run.directory.root / NOTES, run.id):
        if note.price == _price(run, note.model):
            budget.recall(note.times)
    engine.on_dearer = partial(_learned, run, budget)


def _say_unbounded(run: Run) -> None:
    """Exchanges of a time without a budget may have had neither a price nor a cap."""
    total = Books.of(run.standing).total
    free = total.unknown_exchanges - total.bounded
    if free > 0:
        which = "an earlier exchange" if free == 1 else f"{free:,} earlier exchanges"
        run.say.line(
            f"warning: what {which} cost is not known and was bounded by nothing when sent: "
            f"the budget of {dollars(run.prepared.job.budget.max_usd)} does not hold it; lower it by what that may be"
        )


def _learned(run: Run, budget: Budget, request: Request, cost_usd: Decimal) -> None:
    times = None if budget.free_was_billed else budget.times
    notes.add(run.directory.root / NOTES, run.id, [Dearer(request.model, _price(run, request.model), times)])
    possible = f"at most {dollars(request.reserved_usd)} was possible by its price and its output cap"
    rest = "no more such requests are sent" if times is None else f"the rest is reckoned at {times:f} times as much"
    run.say.line(
        f"warning: row {request.index} cost {dollars(cost_usd)}, and {possible}: to keep the budget {rest} "
        f"(give pricing.{request.model} as it is billed)"
    )


def _price(run: Run, model: str) -> dict[str, Any]:
    price = run.prepared.prices.of(model)
    return {} if price is None else price.to_json()
