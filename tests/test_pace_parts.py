"""Tempo, learning limit, meter and breaker, each alone; whole nights are in test_nights.py."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.pace import FIRST_LIMIT, Breaker, Lane, Learning, Limit, Mark, Meter, Reading, Tempo
from runner.pace.limit import Phase
from runner.pace.start import Start
from runner.records import Failure, Kind
from runner.wire.allowances import readings

NOW = 1_741_305_600.0
RATE = Failure(Kind.RATE, "slow down", 429)


def sent(tempo: Tempo, count: int, now: float, apart_s: float = 0.0) -> float:
    for _ in range(count):
        tempo.take(now)
        now += apart_s
    return now


def test_requests_are_not_spaced_before_anything_is_refused() -> None:
    tempo = Tempo()
    sent(tempo, 1000, 0.0)
    assert (tempo.ready_in(0.0), tempo.rate) == (0.0, None)


def refused(tempo: Tempo, now: float, ordinal: int, pause_s: float = 0.0) -> bool:
    """The request that left as the ordinal-th is refused at once."""
    open_door = tempo.refuse(now, Mark(at=now, ordinal=ordinal))
    tempo.pause(now, now + pause_s)
    return open_door


def spaced(rate: float = 100.0) -> Tempo:
    """A tempo that has just been set to a rate, by the refusal of the first request at 0.0."""
    tempo = Tempo()
    refused(tempo, 0.0, 1)
    tempo.rate = tempo.base = rate
    tempo.of_pool = False
    return tempo


def test_after_a_refusal_the_next_leaves_when_the_gate_opens_and_the_others_are_spaced() -> None:
    tempo = Tempo()
    now = sent(tempo, 200, 0.0, 0.01)
    refused(tempo, now, 200, pause_s=1.0)
    assert tempo.rate == pytest.approx(50, rel=0.05)
    assert tempo.ready_in(now + 1) == 0
    tempo.take(now + 1)
    assert tempo.ready_in(now + 1) == pytest.approx(1 / 50, rel=0.05)


def test_what_was_taken_between_two_refusals_tells_the_rate_that_is_taken() -> None:
    tempo = spaced(100.0)
    tempo.refused = 59  # of the 100 requests of one second
    assert refused(tempo, 1.0, 101)
    assert tempo.rate == pytest.approx(0.95 * 40.5)


@pytest.mark.parametrize(
    ("busy_s", "taken", "guess"),
    [
        (1.0, 40, (40.5 * 40.5 / 2) ** 0.5),  # as long as the wait: the middle of 20 and 40 a second
        (0.5, 20, (41.0 * 20.5 / 1.5) ** 0.5),  # shorter: no further than the middle
        (9.0, 360, 360.5 / 9 * 0.9 ** (1 / 18)),  # much longer: near what was taken beside it
    ],
)
def test_the_longer_a_wait_was_the_less_of_it_counts_as_time_in_which_requests_were_taken(
    busy_s: float, taken: int, guess: float
) -> None:
    tempo = spaced(100.0)
    tempo.pause(0.0, 1.01)
    tempo.refused = int(100 * busy_s) - 1 - taken
    assert refused(tempo, 1.0 + busy_s, 1 + int(100 * busy_s))
    assert tempo.rate == pytest.approx(0.95 * guess)
    assert tempo.base * tempo.faster == pytest.approx(0.95 * 1.05 * (taken + 0.5) / busy_s)  # one step leads back


def test_waits_at_a_shut_door_are_one_wait() -> None:
    tempo = spaced(100.0)
    tempo.pause(0.0, 0.21)
    for ordinal in (2, 3, 4):
        assert not refused(tempo, ordinal * 0.2, ordinal, pause_s=0.2)
    assert tempo.pause_s == pytest.approx(0.81)
    tempo.refused += 40
    assert refused(tempo, 1.6, 64 + 20)
    assert tempo.rate == pytest.approx(0.95 * (49.375 * 24.6875) ** 0.5, rel=0.01)  # 39 of them in 0.8 or in 1.6 s


def test_of_requests_that_left_together_the_refusals_are_heard_in_any_order() -> None:
    """The 48th is heard of first; those before it were not taken either, and none is counted twice."""
    tempo = Tempo()
    sent(tempo, 64, 0.0)
    refused(tempo, 0.3, 48)
    for ordinal in (*range(7, 48), *range(49, 65)):
        tempo.refuse_too(Mark(ordinal=ordinal))
    assert tempo.refused == 16
    assert refused(tempo, 0.6, 70)


def test_a_pool_opens_by_doubling() -> None:
    start = Start()
    for _ in range(64):
        assert start.ready_in(10.0) == 0
        start.take(10.0)
    assert start.ready_in(10.0) == pytest.approx(0.05 * math.log2(65 / 64))
    assert start.ready_in(10.05) == 0
    for _ in range(64):
        start.take(10.05)
    assert start.ready_in(10.05) == pytest.approx(0.05 * math.log2(129 / 128))
    start.take(10.5)
    assert start.ready_in(10.5) == 0


def test_a_wait_of_seconds_that_the_server_names_is_its_window_and_no_time_is_lost_by_it() -> None:
    tempo = spaced(100.0)
    tempo.pause(0.0, 5.01, told=True)
    tempo.refused = 59
    assert refused(tempo, 6.0, 101)
    assert tempo.rate == pytest.approx(0.95 * 40.5)


def test_where_the_first_refusal_of_a_pool_costs_a_second_the_beginning_is_more_careful() -> None:
    tempo = Tempo()
    sent(tempo, 64, 0.0)
    refused(tempo, 0.01, 7, pause_s=1.0)
    assert tempo.rate == pytest.approx((6.5 / 1.01 * 128) ** 0.5)
    assert tempo.rate * tempo.faster == pytest.approx(128)
    tempo.pause(1.01, 2.01)
    assert tempo.rate * tempo.faster == pytest.approx(128)  # once


def test_where_the_provider_cannot_save_up_what_it_takes_the_share_that_is_taken_tells_more() -> None:
    tempo = spaced(100.0)
    assert refused(tempo, 2.0, 101)  # 50 a second were sent on the way to 100, and one of 100 was refused
    assert tempo.rate == pytest.approx(0.95 * 100 * 0.99)


def test_no_refusal_makes_the_rate_higher() -> None:
    tempo = spaced(100.0)
    assert refused(tempo, 0.1, 50)
    assert tempo.rate == pytest.approx(95.0)


def test_a_refusal_while_the_door_is_still_shut_says_nothing_about_the_pace() -> None:
    tempo = spaced(100.0)
    for ordinal in range(2, 100):
        assert not refused(tempo, ordinal * 2.0, ordinal)
    assert tempo.rate == 100.0


def held_for(tempo: Tempo, seconds: float, now: float) -> float:
    """Rows wait the whole time, and leave when they may."""
    end = now + seconds
    while now < end:
        wait_s = tempo.ready_in(now)
        if wait_s == 0:
            tempo.take(now)
        now += max(wait_s, 1e-3)
    return now


@pytest.mark.parametrize(
    ("rate", "pause_s", "step_s"),
    [
        (100.0, 0.0, 0.24),  # 24 calls
        (1.0, 0.0, 6.0),  # but no longer
        (100.0, 0.5, 6.0),  # 12 of the waits that a refusal costs
        (100.0, 900.0, 60.0),  # but no longer
    ],
)
def test_the_tempo_grows_by_steps_as_long_as_the_price_of_many_refusals(
    rate: float, pause_s: float, step_s: float
) -> None:
    tempo = spaced(rate)
    tempo.pause(0.0, pause_s)
    held_for(tempo, step_s, pause_s)
    assert tempo.rate is not None
    assert tempo.rate / rate == pytest.approx(1.05, rel=0.015)


def test_the_tempo_grows_by_steps_of_several_round_trips_of_a_refusal() -> None:
    tempo = spaced(100.0)
    tempo.trip_s = 0.5
    held_for(tempo, 2.0, 0.0)
    assert tempo.rate == pytest.approx(105, rel=0.01)


def test_the_longer_nothing_is_refused_the_faster_the_tempo_grows() -> None:
    tempo, now, rates = spaced(10.0), 0.0, [10.0]
    for _ in range(5):
        now = held_for(tempo, 2.0, now)
        rates.append(tempo.rate or 0)
    growth = [b / a for a, b in pairwise(rates)]
    assert growth == sorted(growth)
    assert rates[2] < 12 and rates[5] > 30


def test_what_left_before_the_limit_fell_does_not_take_it_down_again() -> None:
    """The second of two refusals in a row is of the same pool: how many were too many is what the first has said."""
    limit = Learning(1024)
    limit.now, limit.phase = 435.0, Phase.RETURNING
    limit.shrink(407, 0.0)
    assert (limit.now, limit.refused_at) == (407 * 0.75, 407)
    limit.shrink(404, 0.004)
    assert (limit.now, limit.refused_at) == (407 * 0.75, 407)
    limit.shrink(305, 1.0)
    assert (limit.now, limit.refused_at) == (305 * 0.75, 305)


def test_a_tempo_that_holds_nobody_back_does_not_grow() -> None:
    tempo = spaced(100.0)
    for second in range(5, 50):
        assert tempo.ready_in(float(second)) == 0
        tempo.take(float(second))
    assert (tempo.rate, tempo.holds) == (100.0, False)


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(st.tuples(st.floats(0, 20), st.booleans(), st.integers(1, 9)), min_size=1, max_size=60))
def test_a_tempo_stays_a_rate_whatever_happens(steps: list[tuple[float, bool, int]]) -> None:
    tempo, now, ordinal = Tempo(), 0.0, 0
    for pause_s, is_refused, count in steps:
        now += pause_s
        wait_s = tempo.ready_in(now)
        assert 0 <= wait_s <= 100.0
        now += wait_s
        tempo.take(now)
        ordinal += count
        before = tempo.rate
        if is_refused:
            refused(tempo, now, ordinal, pause_s=1.0)
            assert tempo.rate is not None and 0.01 <= tempo.rate <= (before or float("inf"))


def test_a_refusal_is_a_row_of_closings_only_where_nothing_was_taken_in_between() -> None:
    """Answers may take a minute, refusals a moment: what is not refused was taken, long before its answer is here."""
    lane, now = Lane(Limit(10)), 0.0
    for _ in range(20):
        now += 1.0
        lane.mark(now)
        lane.failed(RATE, now + 0.01, lane.mark(now), None, luck=1.0)
        assert lane.gate.closings == 1
    for shut in range(2, 5):
        now += 10.0
        lane.failed(RATE, now + 0.01, lane.mark(now), None, luck=1.0)
        assert lane.gate.closings == shut


def answers(limit: Learning, seconds: float, now: float, latency_s: float = 1.0, full: bool = True) -> float:
    """As many answers as fit: each took latency_s, and the limit was reached or not."""
    end = now + seconds
    while now < end:
        count = int(limit.now)
        now += latency_s
        for _ in range(count):
            limit.grow(count if full else count // 4, now, latency_s, 10.0)
    return now


def test_a_learning_limit_doubles_while_more_in_flight_gives_more() -> None:
    limit = Learning(1024)
    assert limit.now == FIRST_LIMIT
    answers(limit, 10.0, 0.0)
    assert limit.now >= 256


def test_a_learning_limit_does_not_grow_while_it_is_not_reached() -> None:
    limit = Learning(1024)
    answers(limit, 60.0, 0.0, full=False)
    assert limit.now == FIRST_LIMIT


def test_a_learning_limit_settles_where_more_only_waits_longer() -> None:
    limit, now = Learning(1024), 0.0
    for _ in range(40):  # a server that takes 100 at once
        now = answers(limit, 1.0, now, latency_s=max(1.0, limit.now / 100))
    assert 80 <= limit.now <= 200
    assert limit.phase is not Phase.DOUBLING


def test_a_learning_limit_comes_back_after_a_cut_to_just_below_where_it_was_cut() -> None:
    limit = Learning(1024)
    now = answers(limit, 8.0, 0.0)
    at = limit.now
    limit.shrink(int(at), now)
    assert limit.now == pytest.approx(0.75 * at)
    answers(limit, 12.0, now)
    assert 0.9 * at <= limit.settled_at


@pytest.mark.parametrize(
    ("refused_at", "next_one"), [(400.0, 450.0), (360.0, 450.0), (16.0, 720.0), (0.0, 720.0), (800.0, 720.0)]
)
def test_near_what_was_refused_a_limit_that_pays_goes_up_by_steps(refused_at: float, next_one: float) -> None:
    """Doubled there it would send hundreds of requests that are refused. What is disproved, or far off, is not near."""
    limit = Learning(1024, gave=2880.0, refused_at=refused_at)
    limit.settled_at, limit.now, limit.phase = 288.0, 360.0, Phase.ABOVE
    answers(limit, 1.0, 0.0)
    assert limit.now == next_one


def test_a_learning_limit_never_passes_the_most_and_never_falls_below_one() -> None:
    limit, now = Learning(20), 0.0
    now = answers(limit, 20.0, now)
    assert limit.now <= 20
    for _ in range(30):
        limit.shrink(1, now)
    assert limit.now == 1.0


def test_what_is_left_is_spread_over_the_time_to_the_reset() -> None:
    meter = Meter()
    meter.read(0.0, sent_at=-1.0, reading=Reading("r", "requests", 30, 60.0), sent_since=0)
    assert meter.ready_in(0.0, 1) == pytest.approx(2.0)
    assert meter.ready_in(2.0, 1) == 0
    meter.take(2.0, 1)
    assert meter.ready_in(2.0, 1) == pytest.approx(2.0)
    assert meter.ready_in(60.0, 1) == 0  # the reset


def test_what_left_after_the_reading_is_not_left_any_more() -> None:
    meter = Meter()
    meter.read(0.0, sent_at=-1.0, reading=Reading("r", "requests", 30, 60.0), sent_since=20)
    assert meter.ready_in(0.0, 1) == pytest.approx(6.0)


def test_a_reading_of_an_earlier_request_does_not_undo_a_later_one() -> None:
    meter = Meter()
    meter.read(1.0, sent_at=0.5, reading=Reading("r", "requests", 0, 60.0), sent_since=0)
    meter.read(1.1, sent_at=0.4, reading=Reading("r", "requests", 500, 60.0), sent_since=0)
    assert meter.ready_in(1.1, 1) > 1


def test_with_nothing_left_one_request_asks_again_long_before_the_reset() -> None:
    meter = Meter()
    meter.read(0.0, sent_at=-1.0, reading=Reading("r", "requests", 0, 60.0), sent_since=0)
    assert meter.ready_in(0.0, 1) == pytest.approx(7.5)
    meter.take(7.5, 1)
    assert meter.ready_in(7.5, 1) == pytest.approx(52.5)


def test_a_lane_counts_tokens_by_tokens_and_requests_by_requests() -> None:
    lane = Lane(Limit(10))
    lane.take(0.0, 100)
    mark = lane.mark(0.0)
    lane.take(0.5, 400)
    lane.read(1.0, mark, [Reading("t", "tokens", 1000, 60.0), Reading("r", "requests", 61, 60.0)])
    assert lane.meters["t"][1].per_s == pytest.approx(10.0)  # 600 of the 1000 tokens are left
    assert lane.meters["r"][1].per_s == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (
            {"x-ratelimit-remaining-requests": "499", "x-ratelimit-reset-requests": "1m0.5s"},
            [("requests", 499.0, 60.5)],
        ),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "12ms"}, [("tokens", 0.0, 0.012)]),
        (
            {
                "anthropic-ratelimit-output-tokens-remaining": "5",
                "anthropic-ratelimit-requests-remaining": "7",
                "anthropic-ratelimit-requests-reset": "2025-03-07T00:01:00Z",
            },
            [("requests", 7.0, 60.0)],
        ),
        ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "1741305630000"}, [("requests", 3.0, 30.0)]),
        ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "1741305630"}, [("requests", 3.0, 30.0)]),
        ({"ratelimit-remaining": "3", "ratelimit-reset": "30"}, [("requests", 3.0, 30.0)]),
        (
            {"llm_provider-x-ratelimit-remaining-requests": "1", "llm_provider-x-ratelimit-reset-requests": "2s"},
            [("requests", 1.0, 2.0)],
        ),
        ({"x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "1s"}, []),
        ({"x-ratelimit-remaining-requests": "9"}, []),
        ({"x-ratelimit-remaining-requests": "9", "x-ratelimit-reset-requests": "0"}, []),
        ({"x-ratelimit-remaining-requests": "nan", "x-ratelimit-reset-requests": "1s"}, []),
        ({"x-ratelimit-remaining-requests": "many", "x-ratelimit-reset-requests": "soon"}, []),
        ({}, []),
    ],
)
def test_headers_of_every_spelling_are_read_and_nonsense_is_not(
    headers: dict[str, str], found: list[tuple[str, float, float]]
) -> None:
    told = [(reading.what, reading.remaining, reading.reset_s) for reading in readings(headers, NOW)]
    assert told == [(what, left, pytest.approx(reset_s)) for what, left, reset_s in found]


def test_the_breaker_opens_when_more_than_half_of_the_last_hundred_failed() -> None:
    breaker = Breaker()
    for _ in range(100):
        breaker.see(failed=False)
    for count in range(1, 52):
        assert not breaker.open
        breaker.see(failed=True)
        assert breaker.open == (count == 51)


def test_one_answer_closes_the_breaker_and_the_count_begins_anew() -> None:
    breaker = Breaker()
    for _ in range(51):
        breaker.see(failed=True)
    assert breaker.open
    breaker.see(failed=False)
    assert not breaker.open
    for _ in range(50):
        breaker.see(failed=True)
    assert not breaker.open


def test_a_lane_whose_breaker_is_open_is_probed_and_keeps_its_limit() -> None:
    lane = Lane(Limit(10))
    for _ in range(51):
        lane.breaker.see(failed=True)
    lane.failed(Failure(Kind.SERVER, "down", 500), 1.0, Mark(at=0.5), hint_s=None, luck=1.0)
    assert (lane.gate.probing, lane.limit.now) == (True, 10)
    lane.take(2.0, 0)
    assert lane.ready_in(2.0, 0) is None
    lane.succeeded(3.0, sent_at=2.0, work=1, token_difference=0)
    assert (lane.gate.probing, lane.breaker.open) == (False, False)
