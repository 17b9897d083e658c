from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_clock import run_virtual

from runner.engine import WORKERS_PER_SLOT, LocalEngine
from runner.errors import LaterError, StoppedError
from runner.halts import Terms
from runner.ports import Ended, Event, Settings, Wiring, iso_now
from runner.pricing import Charge
from runner.records import (
    Attempt,
    Billed,
    Choice,
    Completion,
    Failure,
    Kind,
    Outcome,
    Reply,
    Request,
    Settled,
    Status,
    Usage,
)
from runner.retry import Policy
from runner.spec.model import OnInvalid, OnTruncation
from runner.stop import Stop

OK = Completion(Status.OK, (Choice(0, "yes", "stop"),), Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15))
PATIENT = Terms(max_wait_s=1e6, outage_s=1e6)


def fail(kind: Kind, message: str = "said", **more: Any) -> Failure:
    return Failure(kind, message, **more)


RATE = fail(Kind.RATE, status=429, wait_s=30.0)
RESET = fail(Kind.NETWORK, "reset", billed=Billed.MAYBE)
REFUSED = fail(Kind.NETWORK, "refused", unreachable=True)
BROKEN = fail(Kind.SERVER, status=500)
BAD = fail(Kind.REQUEST, status=400)
KEY = fail(Kind.AUTH, "Incorrect API key", status=401)
QUOTA = fail(Kind.QUOTA, "insufficient_quota", status=429)

#: (row, how many times it was sent, virtual seconds) -> what comes back
Script = Callable[[int, int, float], Outcome]


class Rig:
    """An engine on a scripted endpoint; what was sent when, and every event."""

    def __init__(self, script: Script, latency_s: float = 1.0, **more: Any) -> None:
        self.script = script
        self.latency_s = latency_s
        self.save = more.pop("save", True)
        self.rekeyed: Callable[[], bool] = more.pop("rekey", lambda: False)
        self.judge: Callable[[Reply, Request], Outcome] = more.pop("judge", self._judge)
        self.last: dict[int, Outcome] = {}
        terms = more.pop("terms", PATIENT)
        self.engine = LocalEngine(self._wiring(), Settings(terms=terms, **more))
        self.sends: list[tuple[int, float]] = []
        self.count: Counter[int] = Counter()
        self.noted: list[tuple[int, int]] = []
        self.asked: list[Request] = []
        self.events: list[Event] = []
        self.error: BaseException | None = None
        self.in_flight = self.most_in_flight = self.most_at_risk = 0
        self.ended_s = -1.0

    def _wiring(self) -> Wiring:
        return Wiring(
            send=self._send,
            judge=self.judge,
            charge=lambda model, usage, tier: Charge(Decimal("0.001"), "job"),
            sent=self._sent,
            rekey=self.rekeyed,
            luck=lambda: 0.5,
            bound=lambda request, body: Decimal(request.prompt_most or 0) + 1000 * Decimal(body["max_tokens"]),
        )

    def _sent(self, request: Request, n: int, at: str) -> None:
        self.noted.append((request.index, n))
        self.asked.append(request)

    async def _send(self, body: bytes) -> Reply | Failure:
        row = json.loads(body)["row"]
        self.sends.append((row, anyio.current_time()))
        self.count[row] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        slots = self.engine.slots
        self.most_at_risk = max(self.most_at_risk, slots.in_flight + slots.undurable)
        try:
            await anyio.sleep(self.latency_s)
        finally:
            self.in_flight -= 1
        outcome = self.script(row, self.times(row), anyio.current_time())
        self.last[row] = outcome
        return outcome if isinstance(outcome, Failure) else Reply(200, {}, body, self.latency_s)

    def _judge(self, reply: Reply, request: Request) -> Outcome:
        return self.last[request.index]

    def times(self, row: int) -> int:
        return self.count[row]

    @property
    def settled(self) -> dict[int, Settled]:
        return {event.request.index: event for event in self.events if isinstance(event, Settled)}

    @property
    def ended(self) -> list[Ended]:
        return [event for event in self.events if isinstance(event, Ended)]

    def sent_at(self, row: int) -> list[float]:
        return [at for sent, at in self.sends if sent == row]

    def run(
        self, requests: int | Sequence[Request], during: Callable[[Rig, Stop], Awaitable[None]] | None = None
    ) -> Stop:
        """Feed all requests at once and close; `during` runs beside. Returns the stop."""
        rows = [request(row) for row in range(requests)] if isinstance(requests, int) else requests
        return run_virtual(self._main, rows, during)

    async def _main(self, rows: Sequence[Request], during: Any) -> Stop:
        stop = Stop()
        give, requests = anyio.create_memory_object_stream[Request](max(1, len(rows)))
        events, take = anyio.create_memory_object_stream[Event](16)
        for row in rows:
            give.send_nowait(row)
        give.close()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._collect, take)
            if during:
                tasks.start_soon(during, self, stop)
            try:
                await self.engine.run(requests, events, stop)
            except ValueError as error:
                self.error = error
            self.ended_s = anyio.current_time()
        return stop

    async def _collect(self, events: Any) -> None:
        async with events:
            async for event in events:
                self.events.append(event)
                if self.save and (isinstance(event, Settled) or event.paid):
                    self.engine.saved(1)


def request(row: int, model: str = "m", tokens: int = 10, **more: Any) -> Request:
    body = b'{"row":%d,"messages":[],"max_tokens":100}' % row
    return Request(row, body, f"hash {row}", model, tokens, **more)


def always(outcome: Outcome) -> Script:
    return lambda row, nth, now: outcome


def after(seconds: float, outcome: Outcome) -> Script:
    return lambda row, nth, now: OK if now >= seconds else outcome


def stopping_at(seconds: float, abandon_at: float | None = None) -> Callable[[Rig, Stop], Awaitable[None]]:
    async def during(rig: Rig, stop: Stop) -> None:
        await anyio.sleep(seconds)
        stop.set(signal=2)
        if abandon_at is not None:
            await anyio.sleep(abandon_at - seconds)
            stop.abandon()

    return during


def tries(settled: Settled) -> list[str | None]:
    return [attempt.error_kind for attempt in settled.attempts]


@pytest.fixture
def longest_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jitter that always draws the most."""
    monkeypatch.setattr("random.uniform", lambda low, high: high)


def test_rows_that_are_answered_settle_with_one_attempt_that_tells_all() -> None:
    rig = Rig(always(OK), concurrency=4)
    stop = rig.run(10)
    assert sorted(rig.settled) == list(range(10))
    assert not stop.is_set
    first = rig.settled[3]
    assert first.outcome is OK
    assert first.cost_usd == Decimal("0.001")
    (attempt,) = first.attempts
    assert (attempt.epoch, attempt.n, attempt.http_status, attempt.error_kind) == (1, 1, 200, None)
    assert (attempt.seconds, attempt.request_hash, attempt.finish_reason) == (1.0, "hash 3", "stop")
    assert (attempt.usage, attempt.cost_usd) == (OK.usage, Decimal("0.001"))
    assert rig.ended_s == pytest.approx(3.0)


def test_no_rows_at_all_end_at_once() -> None:
    rig = Rig(always(OK))
    rig.run(0)
    assert rig.events == []
    assert rig.ended_s == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("concurrency", [1, 3, 16])
def test_never_more_than_concurrency_requests_are_in_flight(concurrency: int) -> None:
    rig = Rig(lambda row, nth, now: RATE if row % 7 == 3 and nth == 1 else OK, concurrency=concurrency)
    rig.run(100)
    assert rig.most_in_flight == concurrency
    assert len(rig.settled) == 100


def test_answers_that_nobody_saves_stop_the_sending_at_twice_the_concurrency() -> None:
    async def during(rig: Rig, stop: Stop) -> None:
        await anyio.sleep(100)
        assert len(rig.sends) == 8
        rig.engine.saved(3)
        await anyio.sleep(100)
        assert len(rig.sends) == 11
        rig.save = True
        rig.engine.saved(8)

    rig = Rig(always(OK), concurrency=4, save=False)
    rig.run(100, during)
    assert rig.most_at_risk <= 8
    assert len(rig.settled) == 100


def test_rows_are_taken_up_for_those_that_wait_at_the_gate_and_not_for_those_that_wait_for_a_slot() -> None:
    async def during(rig: Rig, stop: Stop) -> None:
        await anyio.sleep(100)
        awake.append(sum("_worker" in (task.name or "") for task in anyio.get_running_tasks()))
        stop.set()

    awake: list[int] = []
    Rig(always(OK), concurrency=4, save=False).run(100, during)
    Rig(always(replace(RATE, wait_s=600.0)), concurrency=4).run(100, during)
    assert awake == [4, 4 * WORKERS_PER_SLOT]


def test_an_hour_of_429s_takes_milliseconds_here_and_no_attempt_of_any_row() -> None:
    rig = Rig(after(3600, RATE), concurrency=4, policy=Policy(max_attempts=2, row_s=60.0))
    rig.run(12)
    assert {row: settled.outcome for row, settled in rig.settled.items()} == dict.fromkeys(range(12), OK)
    assert 3600 <= rig.ended_s < 3700
    refused = [event.attempt for event in rig.ended]
    assert {attempt.error_kind for attempt in refused} == {"RATE"}
    assert {attempt.cost_usd for attempt in refused} == {Decimal(0)}
    assert max(attempt.waited_s for attempt in refused) > 30
    assert 100 < len(refused) < 4 * 130


def test_every_hint_is_obeyed_to_the_second() -> None:
    rig = Rig(after(3600, RATE), concurrency=1)
    rig.run(1)
    gaps = [b - a for (_, a), (_, b) in zip(rig.sends, rig.sends[1:], strict=False)]
    assert min(gaps) >= 31.0
    assert max(gaps) <= 31.0 + 30 * 0.05


def test_after_a_429_the_row_still_has_all_its_attempts() -> None:
    def script(row: int, nth: int, now: float) -> Outcome:
        return RATE if nth % 2 else RESET

    rig = Rig(script, concurrency=1, policy=Policy(max_attempts=3))
    rig.run(1)
    assert tries(rig.settled[0]) == ["RATE", "NETWORK"] * 3


def test_a_throttled_model_does_not_slow_another() -> None:
    rows = [request(row, "slow" if row % 5 == 0 else "quick") for row in range(60)]

    def script(row: int, nth: int, now: float) -> Outcome:
        return RATE if row % 5 == 0 and now < 600 else OK

    rig = Rig(script, concurrency=4)
    rig.run(rows)
    quick = [rig.sent_at(row) for row in range(60) if row % 5]
    assert all(len(at) == 1 for at in quick)
    assert max(at[0] for at in quick) < 16
    assert len(rig.settled) == 60
    assert rig.ended_s > 600


def test_a_throttled_model_with_many_rows_does_not_pause_another() -> None:
    throttled = 4 * WORKERS_PER_SLOT
    rows = [request(row, "slow" if row < throttled else "quick") for row in range(throttled + 40)]
    named = Terms(max_wait_s=1e6, outage_s=1e6, model_is_template=True)
    rig = Rig(lambda row, nth, now: RATE if row < throttled and now < 600 else OK, concurrency=4, terms=named)
    rig.run(rows)
    assert max(rig.sent_at(row)[0] for row in range(throttled, throttled + 40)) < 60


def test_a_cut_connection_is_tried_again_by_its_row_alone_until_its_attempts_are_used_up(longest_backoff: None) -> None:
    rig = Rig(lambda row, nth, now: RESET if row == 0 else OK, concurrency=2, max_backoff_s=5.0)
    rig.run(100)
    assert tries(rig.settled[0]) == ["NETWORK"] * 6
    assert rig.settled[0].outcome is RESET
    gaps = [b - a - 1.0 for a, b in zip(rig.sent_at(0), rig.sent_at(0)[1:], strict=False)]
    assert gaps == pytest.approx([1, 2, 4, 5, 5], abs=2.1)
    waited = [attempt.waited_s for attempt in rig.settled[0].attempts]
    assert waited == pytest.approx([0, *gaps], abs=1e-3)
    assert all(len(rig.sent_at(row)) == 1 for row in range(1, 100))
    assert rig.ended_s == pytest.approx(53, abs=2.1)
    assert {attempt.cost_usd for attempt in rig.settled[0].attempts} == {None}


def test_backoffs_are_drawn_from_zero_to_their_ceiling() -> None:
    first, second = [], []
    for _ in range(8):  # of 25 rows each: a hundred failures among a hundred would open the breaker
        rig = Rig(lambda row, nth, now: RESET if nth < 3 else OK, concurrency=200, max_backoff_s=60.0)
        rig.run(25)
        first += [rig.sent_at(row)[1] - rig.sent_at(row)[0] - 1.0 for row in range(25)]
        second += [rig.sent_at(row)[2] - rig.sent_at(row)[1] - 1.0 for row in range(25)]
    assert 0 <= min(first) < 0.2 < 0.8 < max(first) <= 1.0 + 1e-6
    assert 0 <= min(second) < 0.4 < 1.6 < max(second) <= 2.0 + 1e-6


def test_a_row_that_backs_off_waits_at_least_as_long_as_the_server_asks() -> None:
    soon = fail(Kind.SERVER, status=502, wait_s=30.0)
    rig = Rig(lambda row, nth, now: soon if nth == 1 else OK, concurrency=4)
    rig.run(4)
    gaps = [rig.sent_at(row)[1] - rig.sent_at(row)[0] - 1.0 for row in range(4)]
    assert gaps == pytest.approx([30.0] * 4)


def test_a_sleeping_row_holds_no_slot(longest_backoff: None) -> None:
    rig = Rig(lambda row, nth, now: RESET if row < 3 and nth == 1 else OK, concurrency=1)
    rig.run(10)
    assert rig.ended_s == pytest.approx(13.0, abs=0.1)  # 13 exchanges of a second each, without a gap


@pytest.mark.parametrize(
    ("outcome", "exchanges"),
    [
        (BROKEN, 3),
        (fail(Kind.TIMEOUT, billed=Billed.MAYBE), 6),
        (fail(Kind.BAD_REPLY, billed=Billed.YES), 6),
        (BAD, 1),
        (fail(Kind.POLICY), 1),
        (fail(Kind.OUTPUT, billed=Billed.YES, answer=OK, usage=OK.usage), 1),
    ],
)
def test_a_failing_row_is_final_after_its_share_of_exchanges(outcome: Failure, exchanges: int) -> None:
    rig = Rig(always(outcome), concurrency=1)
    rig.run(1)
    assert tries(rig.settled[0]) == [outcome.kind] * exchanges
    assert len(rig.ended) == exchanges - 1


def test_a_row_gives_up_when_its_own_time_is_used_up(longest_backoff: None) -> None:
    rig = Rig(always(RESET), latency_s=6.0, concurrency=1, policy=Policy(max_attempts=99, row_s=20.0))
    rig.run(1)
    assert len(rig.settled[0].attempts) == 3  # 6 + 1 + 6 + 2 + 6 = 21


def test_waiting_at_the_gate_uses_up_none_of_a_rows_time() -> None:
    def script(row: int, nth: int, now: float) -> Outcome:
        return RATE if now < 3600 else RESET if nth % 2 else OK

    rig = Rig(script, concurrency=1, policy=Policy(row_s=300.0))
    rig.run(1)
    assert rig.settled[0].outcome is OK


def test_an_outage_is_probed_by_one_request_at_a_time_and_uses_up_no_attempts() -> None:
    rig = Rig(after(1800, REFUSED), concurrency=8, policy=Policy(max_attempts=1))
    rows = [request(row) for row in range(20)]

    async def during(rig: Rig, stop: Stop) -> None:
        await anyio.sleep(100)
        rig.most_in_flight = 0
        await anyio.sleep(1600)
        assert rig.most_in_flight == 1

    rig.engine.lanes.of("m")[1].success(0.0)
    rig.run(rows, during)
    assert {settled.outcome for settled in rig.settled.values()} == {OK}
    assert 1800 <= rig.ended_s < 1900


def test_an_outage_before_first_contact_stops_within_a_minute_or_so() -> None:
    rig = Rig(always(REFUSED), concurrency=4, terms=Terms(base_url="http://x/v1"))
    stop = rig.run(20)
    assert isinstance(stop.reason, LaterError)
    assert 60 <= rig.ended_s < 140
    assert rig.settled == {}


def test_a_hint_beyond_max_wait_s_stops_for_later_and_sends_the_rows_back() -> None:
    rig = Rig(always(fail(Kind.RATE, wait_s=901.0)), concurrency=2, terms=Terms())
    stop = rig.run(20)
    assert isinstance(stop.reason, LaterError)
    assert rig.settled == {}
    assert rig.ended_s < 3


@pytest.mark.parametrize("outcome", [RATE, REFUSED, KEY])
def test_a_stop_frees_rows_that_wait_at_the_gate_and_nothing_is_sent_any_more(outcome: Failure) -> None:
    rig = Rig(always(outcome), concurrency=2, terms=Terms(max_wait_s=1e6, auth_wait_s=1e6))
    rig.engine.lanes.of("m")[1].success(0.0)
    rig.run(20, stopping_at(10.0))
    assert rig.ended_s == pytest.approx(10.0, abs=1.01)
    assert max(at for _, at in rig.sends) <= 10.0
    assert rig.settled == {}
    assert len(rig.ended) == len(rig.sends)


def test_a_stop_frees_rows_that_back_off(longest_backoff: None) -> None:
    rig = Rig(always(RESET), latency_s=0.1, concurrency=2, policy=Policy(max_attempts=99))
    rig.run(4, stopping_at(50.0))
    assert rig.ended_s == pytest.approx(50.0, abs=0.11)
    assert max(at for _, at in rig.sends) <= 50.0
    assert rig.settled == {}


def test_what_is_in_flight_at_a_stop_may_finish() -> None:
    rig = Rig(always(OK), latency_s=10.0, concurrency=4, drain_s=25.0)
    rig.run(20, stopping_at(1.0))
    assert sorted(rig.settled) == [0, 1, 2, 3]
    assert len(rig.sends) == 4
    assert rig.ended_s == pytest.approx(10.0)


def test_what_takes_longer_than_drain_s_is_given_up() -> None:
    rig = Rig(always(OK), latency_s=100.0, concurrency=4, drain_s=25.0)
    rig.run(20, stopping_at(1.0))
    assert (rig.events, rig.in_flight) == ([], 0)
    assert rig.ended_s == pytest.approx(26.0)


def test_a_second_signal_waits_for_nothing() -> None:
    rig = Rig(always(OK), latency_s=20.0, concurrency=4, drain_s=25.0)
    rig.run(20, stopping_at(1.0, abandon_at=2.0))
    assert (rig.events, rig.in_flight) == ([], 0)
    assert rig.ended_s == pytest.approx(2.0)


def test_a_stop_before_the_start_sends_nothing() -> None:
    rig = Rig(always(OK), concurrency=2)

    async def main() -> None:
        stop = Stop()
        stop.set()
        give, requests = anyio.create_memory_object_stream[Request](5)
        events, take = anyio.create_memory_object_stream[Event](5)
        give.send_nowait(request(0))
        give.close()
        await rig.engine.run(requests, events, stop)
        take.close()

    run_virtual(main)
    assert rig.sends == []


def test_a_key_that_was_changed_meanwhile_is_used() -> None:
    rereads: list[float] = []

    def rekey() -> bool:
        rereads.append(anyio.current_time())
        return len(rereads) == 1

    rig = Rig(lambda row, nth, now: OK if rereads else KEY, concurrency=1, rekey=rekey, terms=Terms())
    stop = rig.run(5)
    assert not stop.is_set
    assert len(rig.settled) == 5
    assert len(rereads) == 1
    assert rig.ended_s < 7


@pytest.mark.parametrize(("answered", "stopped_s"), [(False, 3.5), (True, 100.0)])
def test_a_key_that_stays_refused_stops_the_job_and_every_row_goes_back(answered: bool, stopped_s: float) -> None:
    rig = Rig(always(KEY), latency_s=0.1, concurrency=4, terms=Terms(auth_wait_s=100.0, key_name="MY_KEY"))
    if answered:
        rig.engine.lanes.of("m")[1].success(0.0)
    stop = rig.run(50)
    assert isinstance(stop.reason, StoppedError)
    assert "MY_KEY" in stop.reason.message
    assert rig.settled == {}
    assert len(rig.ended) == len(rig.sends)
    assert rig.ended_s == pytest.approx(stopped_s, rel=0.2)


def test_a_used_up_quota_stops_and_the_row_goes_back_with_its_attempt() -> None:
    rig = Rig(lambda row, nth, now: QUOTA if row == 5 else OK, concurrency=2)
    stop = rig.run(50)
    assert isinstance(stop.reason, StoppedError)
    assert 5 not in rig.settled
    (ended,) = rig.ended
    assert (ended.request.index, ended.attempt.error_kind, ended.attempt.n) == (5, "QUOTA", 1)


@pytest.mark.parametrize(
    ("outcome", "sends"),
    [(QUOTA, 2), (fail(Kind.CONFIG, status=404), 2), (fail(Kind.RATE, wait_s=901.0), 2), (KEY, 2 + 3)],
)
def test_nothing_leaves_after_the_failure_that_stops_the_job(outcome: Failure, sends: int) -> None:
    rig = Rig(always(outcome), concurrency=2, terms=Terms())
    rig.run(50)
    assert len(rig.sends) == sends


@pytest.mark.parametrize("per_minute", [60, 600])
def test_requests_per_minute_are_kept_and_used(per_minute: int) -> None:
    rig = Rig(always(OK), latency_s=0.3, concurrency=16, requests_per_minute=float(per_minute))
    rig.run(per_minute * 3)
    assert rig.ended_s == pytest.approx(180, rel=0.02)
    moments = [at for _, at in rig.sends]
    for begin in range(0, 120, 7):
        assert sum(begin <= at < begin + 60 for at in moments) <= per_minute * 1.02 + 1


@pytest.mark.parametrize("estimated", [15, 30, 5])
def test_tokens_per_minute_are_kept_and_used_whatever_was_estimated(estimated: int) -> None:
    """Every reply reports 15 tokens."""
    rig = Rig(always(OK), latency_s=0.3, concurrency=16, tokens_per_minute=900.0)
    rig.run([request(row, tokens=estimated) for row in range(300)])
    assert rig.ended_s == pytest.approx(300, rel=0.02)


def test_rates_are_kept_for_each_model_apart() -> None:
    rows = [request(row, f"m{row % 2}") for row in range(400)]
    rig = Rig(always(OK), latency_s=0.3, concurrency=16, requests_per_minute=60.0)
    rig.run(rows)
    assert rig.ended_s == pytest.approx(200, rel=0.02)


def test_a_new_process_goes_on_counting_where_the_last_one_died() -> None:
    before = (Attempt(1, 4, iso_now(), 1.0, 0.0, error_kind="RATE"), Attempt(2, 1, iso_now(), 1.0, 0.0))
    rig = Rig(lambda row, nth, now: BROKEN if nth == 1 else OK, concurrency=1)
    rig.run([request(0, epoch=2, prior=before), request(1, epoch=1, prior=before)])
    assert [(a.epoch, a.n) for a in rig.settled[0].attempts] == [(1, 4), (2, 1), (2, 2), (2, 3)]
    assert [(a.epoch, a.n) for a in rig.settled[1].attempts] == [(1, 4), (2, 1), (1, 5), (1, 6)]
    assert sorted(rig.noted) == [(0, 2), (0, 3), (1, 5), (1, 6)]


def test_a_bug_in_one_row_lets_the_others_finish_and_is_then_raised() -> None:
    def judge(reply: Reply, request: Request) -> Outcome:
        if request.index == 1:
            raise ValueError("a bug")
        return OK

    rig = Rig(always(OK), concurrency=4, judge=judge)
    stop = rig.run(50)
    assert str(rig.error) == "a bug"
    assert stop.is_set
    assert {0, 2, 3} <= set(rig.settled)
    assert rig.in_flight == 0
    assert rig.ended_s == pytest.approx(2.0)


def test_a_bug_gives_its_slot_back() -> None:
    def judge(reply: Reply, request: Request) -> Outcome:
        raise ValueError("a bug")

    rig = Rig(always(OK), concurrency=1, judge=judge)
    rig.run(3)
    assert rig.engine.slots.in_flight == 0


def test_what_holds_the_rows_back_is_told_in_words() -> None:
    said: list[str | None] = []

    async def during(rig: Rig, stop: Stop) -> None:
        await anyio.sleep(0.5)
        said.append(rig.engine.waiting_for)
        await anyio.sleep(10)
        said.append(rig.engine.waiting_for)

    rig = Rig(after(20, RATE), concurrency=1)
    rig.run(1, during)
    assert said[0] is None
    assert said[1] is not None
    assert said[1].startswith("m: waiting 2")


CUT = replace(OK, status=Status.TRUNCATED, choices=(Choice(0, "ye", "length"),))
MENDING = Policy(on_invalid=OnInvalid(attempts=2), on_truncation=OnTruncation(factor=2, max_tokens=400))


def unusable(text: str) -> Failure:
    answer = replace(OK, choices=(Choice(0, text, "stop"),))
    return fail(Kind.OUTPUT, f"{text} is wrong", status=200, billed=Billed.YES, answer=answer, usage=OK.usage)


def in_turn(*outcomes: Outcome) -> Script:
    """The outcomes of each row's exchanges; the last one from then on."""
    return lambda row, nth, now: outcomes[min(nth, len(outcomes)) - 1]


def mending(*outcomes: Outcome, **more: Any) -> Rig:
    rig = Rig(in_turn(*outcomes), concurrency=1, policy=more.pop("policy", MENDING), max_backoff_s=1.0)
    rig.run([request(0, **more)])
    return rig


def kept(settled: Settled) -> list[tuple[str | None, str | None]]:
    """Of each exchange: its kind, and the paid answer that is not the row's."""
    return [(attempt.error_kind, attempt.answer) for attempt in settled.attempts]


def test_an_unusable_answer_is_asked_for_again_with_what_was_wrong() -> None:
    rig = mending(unusable("one"), unusable("two"), OK)
    assert rig.settled[0].outcome is OK
    assert kept(rig.settled[0]) == [("OUTPUT", "one"), ("OUTPUT", "two"), (None, None)]
    assert [event.attempt for event in rig.ended] == list(rig.settled[0].attempts[:2])
    asked = [json.loads(each.body) for each in rig.asked]
    assert [each["messages"] for each in asked[:1]] == [[]]
    assert asked[1]["messages"][0]["content"] == "one"
    assert asked[2]["messages"][0]["content"] == "two"
    assert "two is wrong" in asked[2]["messages"][1]["content"]
    assert {each.hash for each in rig.asked} == {"hash 0"}
    assert rig.ended_s == pytest.approx(3.0)  # without a backoff


def test_an_answer_that_stays_unusable_is_kept_when_its_attempts_are_used_up() -> None:
    rig = mending(unusable("one"), unusable("two"), unusable("three"))
    assert rig.settled[0].outcome == unusable("three")
    assert kept(rig.settled[0]) == [("OUTPUT", "one"), ("OUTPUT", "two"), ("OUTPUT", None)]


def test_a_cut_answer_is_asked_for_once_more_with_more_room() -> None:
    rig = mending(CUT, OK)
    assert rig.settled[0].outcome is OK
    assert kept(rig.settled[0]) == [(None, "ye"), (None, None)]
    assert [json.loads(each.body)["max_tokens"] for each in rig.asked] == [100, 200]
    again = mending(CUT, CUT)
    assert (again.settled[0].outcome, len(again.sends)) == (CUT, 2)
    assert kept(again.settled[0]) == [(None, "ye"), (None, None)]


def test_every_exchange_is_reserved_for_by_what_itself_can_cost() -> None:
    rig = mending(CUT, unusable("one"), OK, reserved_usd=Decimal(5), prompt_most=70)
    first, longer, shown = rig.asked
    assert [each.reserved_usd for each in (first, longer)] == [5, 70 + 200 * 1000]
    assert shown.reserved_usd == 70 + len(shown.body) - len(first.body) + 200 * 1000
    assert [each.tokens for each in (first, longer)] == [10, 110]


@pytest.mark.parametrize(
    ("paid", "later", "kinds"),
    [
        (CUT, BROKEN, [None, "SERVER", "SERVER", "SERVER"]),
        (unusable("one"), BROKEN, ["OUTPUT", "SERVER", "SERVER", "SERVER"]),
        (unusable("one"), BAD, ["OUTPUT", "REQUEST"]),
        (CUT, fail(Kind.POLICY, status=400), [None, "POLICY"]),
        (CUT, RESET, [None, *["NETWORK"] * 6]),
    ],
)
def test_what_fails_after_a_paid_answer_never_takes_its_place(paid: Outcome, later: Failure, kinds: list[str]) -> None:
    rig = mending(paid, later)
    settled = rig.settled[0]
    assert settled.outcome is paid
    assert tries(settled) == kinds
    assert settled.attempts[0].answer is None  # it is the row's own
    assert settled.cost_usd == Decimal("0.001")
    assert len(rig.ended) == len(kinds) - 1
    assert rig.ended[0].attempt.answer in ("ye", "one")  # until then it was not


def test_the_last_paid_answer_is_the_rows_even_if_it_is_worse() -> None:
    worse = mending(CUT, unusable("one"), policy=replace(MENDING, on_invalid=None))
    assert worse.settled[0].outcome == unusable("one")
    refused = replace(OK, status=Status.REFUSED, choices=(Choice(0, None, "stop", "no"),))
    assert mending(unusable("one"), refused).settled[0].outcome is refused
    assert len(mending(refused, OK).sends) == 1
    assert len(mending(replace(OK, status=Status.FILTERED), OK).sends) == 1


def test_a_rate_limit_between_two_answers_changes_nothing() -> None:
    rig = mending(unusable("one"), RATE, RESET, OK)
    assert tries(rig.settled[0]) == ["OUTPUT", "RATE", "NETWORK", None]
    assert rig.asked[1].body == rig.asked[2].body == rig.asked[3].body != rig.asked[0].body


def answered(n: int, kind: str | None, text: str, **more: Any) -> Attempt:
    given: dict[str, Any] = {"request_hash": "hash 0", "cost_usd": Decimal(2), "epoch": 1} | more
    error = f"{text} is wrong" if kind else None
    return Attempt(
        n=n,
        started_at=iso_now(),
        seconds=1.0,
        waited_s=0.0,
        http_status=200,
        error_kind=kind,
        error=error,
        answer=text,
        usage=OK.usage,
        finish_reason=None if kind else "length",
        **given,
    )


def test_a_new_process_goes_on_mending_where_the_last_one_died() -> None:
    prior = (answered(1, "OUTPUT", "one"), Attempt(1, 2, iso_now(), None, 0.0, error_kind="UNKNOWN"))
    rig = mending(unusable("two"), unusable("three"), OK, prior=prior)
    assert kept(rig.settled[0]) == [("OUTPUT", "one"), ("UNKNOWN", None), ("OUTPUT", "two"), ("OUTPUT", None)]
    assert json.loads(rig.asked[0].body)["messages"][0]["content"] == "one"
    assert "one is wrong" in json.loads(rig.asked[0].body)["messages"][1]["content"]
    assert rig.noted == [(0, 3), (0, 4)]


@pytest.mark.parametrize("kind", [None, "OUTPUT"])
def test_an_answer_from_before_a_death_is_the_rows_when_no_better_one_comes(kind: str | None) -> None:
    prior = (answered(1, kind, "so far", model_returned="m-2", request_id="r1"),)
    rig = mending(BAD, prior=prior)
    settled = rig.settled[0]
    assert kept(settled) == [(kind, None), ("REQUEST", None)]
    assert settled.cost_usd == Decimal(2)
    answer = settled.outcome if isinstance(settled.outcome, Completion) else settled.outcome.answer
    assert answer is not None
    assert (answer.choices[0].content, answer.usage, answer.model) == ("so far", OK.usage, "m-2")
    if kind:
        assert isinstance(settled.outcome, Failure)
        assert (settled.outcome.kind, settled.outcome.message) == (Kind.OUTPUT, "so far is wrong")
    else:
        assert isinstance(settled.outcome, Completion)
        assert settled.outcome.status is Status.TRUNCATED


def test_an_answer_from_before_a_death_that_is_no_longer_asked_again_settles_its_row_unsent() -> None:
    prior = (answered(1, "OUTPUT", "one"), answered(2, "OUTPUT", "two"))
    rig = mending(OK, prior=prior, policy=Policy())
    assert rig.sends == []
    assert kept(rig.settled[0]) == [("OUTPUT", "one"), ("OUTPUT", None)]
    assert rig.settled[0].attempts[0].started_at == rig.settled[0].started_at
    assert rig.engine.slots.undurable == 0


@pytest.mark.parametrize("other", [{"epoch": 1, "request_hash": "hash 0"}, {"epoch": 2, "request_hash": "old"}])
def test_answers_of_an_earlier_epoch_or_to_another_request_count_for_nothing(other: dict[str, Any]) -> None:
    prior = tuple(answered(n, "OUTPUT", "old", **other) for n in (1, 2, 3))
    rig = mending(unusable("one"), BAD, prior=prior, epoch=2)
    assert rig.asked[0].body == request(0).body
    assert rig.settled[0].outcome == unusable("one")
    assert kept(rig.settled[0]) == [*[("OUTPUT", "old")] * 3, ("OUTPUT", None), ("REQUEST", None)]


def test_answers_that_are_asked_again_hold_room_until_they_are_saved() -> None:
    rig = Rig(lambda row, nth, now: unusable("one") if nth == 1 else OK, concurrency=2, policy=MENDING, save=False)

    async def during(rig: Rig, stop: Stop) -> None:
        await anyio.sleep(100)
        assert rig.engine.slots.undurable == 4
        assert len(rig.sends) == 4
        rig.save = True
        rig.engine.saved(4)

    rig.run(10, during)
    assert rig.most_at_risk <= 4
    assert len(rig.settled) == 10


kinds = st.sampled_from(
    [OK, OK, OK, fail(Kind.RATE, wait_s=3.0), RESET, BROKEN, BAD, REFUSED, CUT, unusable("no"), unusable("nay")]
)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(kinds, max_size=5), min_size=1, max_size=12),
    st.integers(1, 4),
    st.none() | st.floats(0.1, 30),
)
def test_every_exchange_of_every_row_is_in_exactly_one_place(
    scripts: list[list[Outcome]], concurrency: int, stop_at_s: float | None
) -> None:
    def script(row: int, nth: int, now: float) -> Outcome:
        return scripts[row][nth - 1] if nth <= len(scripts[row]) else OK

    rig = Rig(script, concurrency=concurrency, policy=MENDING)
    rig.run(len(scripts), stopping_at(stop_at_s) if stop_at_s else None)
    sent = Counter(row for row, _ in rig.sends)
    for row in range(len(scripts)):
        ended = [event.attempt for event in rig.ended if event.request.index == row]
        settled = rig.settled.get(row)
        assert settled is not None or stop_at_s is not None
        attempts = list(settled.attempts) if settled else ended
        assert [attempt.n for attempt in attempts] == list(range(1, sent[row] + 1))
        if settled:
            assert [replace(each, answer=None) for each in attempts[:-1]] == [
                replace(each, answer=None) for each in ended
            ]
            assert all(each.answer for each in ended if each.error_kind in (None, "OUTPUT"))
    assert len([event for event in rig.events if isinstance(event, Settled)]) == len(rig.settled)
    assert sorted(rig.noted) == sorted((row, n) for row, count in sent.items() for n in range(1, count + 1))
    assert (rig.engine.slots.in_flight, rig.engine.slots.undurable) == (0, 0)
    assert all(lane.in_flight == 0 for lane, _ in rig.engine.lanes._by_model.values())
