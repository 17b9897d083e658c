"""What a run that does not move says it waits for, and how many slots there are."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from runner.exchange import Exchange, Work
from runner.halts import Terms
from runner.lanes import Lanes
from runner.pace import FIRST_LIMIT, Mark, Reading
from runner.ports import Settings, Wiring
from runner.pricing import Charge
from runner.records import Attempt, Billed, Choice, Completion, Failure, Kind, Outcome, Request, Status, Usage

OK = Completion(Status.OK, (Choice(0, "yes", "stop"),), Usage(completion_tokens=5, total_tokens=15))
RATE = Failure(Kind.RATE, "slow down", 429, wait_s=30.0)
DOWN = Failure(Kind.SERVER, "down", 500, billed=Billed.MAYBE)


class Rig:
    """Lanes on a clock that is set by hand."""

    def __init__(self, **settings: Any) -> None:
        self.now = 0.0
        wiring = Wiring(
            send=lambda body: None,  # type: ignore[arg-type, return-value]
            judge=lambda reply, request: OK,
            charge=lambda model, usage, tier: Charge(Decimal(0), "job"),
            sent=lambda request, n, at: None,
            rekey=lambda: False,
            luck=lambda: 0.0,
            clock=lambda: self.now,
        )
        self.lanes = Lanes(wiring, Settings(terms=Terms(max_wait_s=1e6), **settings))

    def heard(self, outcome: Outcome, model: str = "m", sent_at: float = 0.0) -> None:
        lane, watch = self.lanes.of(model)
        work = Work(Request(0, b"{}", "", model, 10), lane, watch, 0.0, mark=Mark(at=sent_at))
        attempt = Attempt(1, 1, "2026-01-01T00:00:00.000000Z", 1.0, 0.0)
        assert self.lanes.heard(work, Exchange(outcome, attempt, sent_at)) is None


def test_a_run_that_moves_waits_for_nothing() -> None:
    rig = Rig()
    rig.heard(OK)
    assert rig.lanes.waiting_for() is None


def test_a_closed_gate_says_for_how_long_and_of_which_model() -> None:
    rig = Rig()
    rig.heard(OK, "quick")
    rig.heard(RATE, "slow")
    assert rig.lanes.waiting_for() == "slow: waiting 30 s (1. time in a row)"


def test_an_open_breaker_says_why() -> None:
    rig = Rig()
    rig.heard(OK)
    for _ in range(51):
        rig.heard(DOWN, sent_at=rig.now)
    said = rig.lanes.waiting_for()
    assert said and said.startswith("m: more than half of the last 100 requests failed; waiting")


def test_a_limit_that_the_provider_says_is_used_up_is_named() -> None:
    rig = Rig()
    lane, _ = rig.lanes.of("m")
    lane.take(0.0, 10)
    lane.read(0.0, lane.mark(0.0), [Reading("r", "requests", 0, 80.0)])
    assert rig.lanes.waiting_for() == "m: the provider's limit is nearly used up; the next request leaves in 10 s"


def test_the_jobs_own_limit_is_named() -> None:
    rig = Rig(requests_per_minute=6.0)
    lane, _ = rig.lanes.of("m")
    lane.take(0.0, 10)
    assert rig.lanes.waiting_for() == "m: the job's own limit a minute; the next request leaves in 10 s"


def test_a_pace_of_less_than_one_a_second_is_named() -> None:
    rig = Rig()
    rig.heard(Failure(Kind.RATE, "slow down", 429, wait_s=1.0))
    tempo = rig.lanes.of("m")[0].tempo
    tempo.rate = tempo.base = 0.1
    rig.now = 1.0
    tempo.take(rig.now)
    assert rig.lanes.waiting_for() == "m: sending as slowly as it takes requests; the next leaves in 10 s"


def test_the_budget_and_then_the_silence_are_named() -> None:
    rig = Rig()
    rig.heard(OK)
    assert rig.lanes.waiting_for("the budget is short") == "the budget is short"
    rig.lanes.slots.in_flight = 7
    rig.now = 20.0
    assert rig.lanes.waiting_for() is None
    rig.now = 45.0
    assert rig.lanes.waiting_for() == "waiting for 7 answers; none has come for 45 s"


def test_slots_are_as_many_as_the_lanes_have_found_together() -> None:
    rig = Rig(concurrency=50, learns=True)
    assert rig.lanes.slots.most == FIRST_LIMIT
    rig.lanes.of("a")
    rig.lanes.of("b")
    assert rig.lanes.slots.most == 2 * FIRST_LIMIT
    rig.lanes.of("c")
    rig.lanes.of("d")
    assert rig.lanes.slots.most == 50


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.POLICY])
def test_rows_that_are_turned_down_say_nothing_against_the_endpoint(kind: Kind) -> None:
    rig = Rig()
    rig.heard(OK)
    for _ in range(200):
        rig.heard(Failure(kind, "no", 400), sent_at=rig.now)
    assert not rig.lanes.of("m")[0].breaker.open
