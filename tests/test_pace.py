from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.pace import Bucket, Gate, Lane, Limit, Mark, Slots, wait_of
from runner.records import Failure, Kind

RATE = Failure(Kind.RATE, "slow down", status=429)
BUSY = Failure(Kind.OVERLOADED, "busy", status=503)
REFUSED = Failure(Kind.NETWORK, "refused", unreachable=True)


@settings(deadline=None, max_examples=EXAMPLES)
@given(
    st.floats(1, 100_000),
    st.lists(st.tuples(st.floats(0, 30), st.floats(0, 5000)), min_size=1, max_size=60),
)
def test_over_no_window_does_a_bucket_give_more_than_its_rate(
    per_minute: float, asks: list[tuple[float, float]]
) -> None:
    """Between any two takings it gives at most one bucket plus the rate, and beyond that only the last, single taking
    that was larger than a bucket."""
    bucket, now, taken = Bucket(per_minute), 0.0, []
    for pause_s, amount in asks:
        now += pause_s
        now += bucket.ready_in(now, amount) + 1e-9
        assert bucket.ready_in(now, amount) <= 1e-6
        bucket.take(now, amount)
        taken.append((now, amount))
    for i, (begin, _) in enumerate(taken):
        for j in range(i, len(taken)):
            end, last = taken[j]
            given_before = sum(amount for _, amount in taken[i:j])
            allowed = bucket.capacity + (end - begin) * per_minute / 60
            assert given_before + min(last, bucket.capacity) <= allowed * (1 + 1e-6) + 1e-3


@pytest.mark.parametrize("per_minute", [6, 60, 600, 6000])
def test_a_bucket_that_is_always_asked_gives_its_rate(per_minute: float) -> None:
    bucket, now, count = Bucket(per_minute), 0.0, 0
    while now < 600:
        now += bucket.ready_in(now, 1)
        bucket.take(now, 1)
        count += 1
    assert count == pytest.approx(per_minute * 10, rel=0.02)


def test_a_bucket_starts_with_one_seconds_worth_and_never_holds_more() -> None:
    bucket = Bucket(600)
    assert bucket.ready_in(0.0, 10) == 0
    bucket.take(0.0, 10)
    assert bucket.ready_in(0.0, 1) == pytest.approx(0.1)
    assert bucket.ready_in(1000.0, 10) == 0
    bucket.take(1000.0, 10)
    assert bucket.ready_in(1000.0, 5) == pytest.approx(0.5)


def test_a_request_larger_than_the_bucket_passes_when_it_is_full_and_leaves_a_debt() -> None:
    bucket = Bucket(600)
    assert bucket.ready_in(0.0, 1000) == 0
    bucket.take(0.0, 1000)
    assert bucket.ready_in(0.0, 1) == pytest.approx(99.1)
    assert bucket.ready_in(50.0, 1000) == pytest.approx(50.0)


def test_a_bucket_below_one_a_second_still_lets_a_whole_one_through() -> None:
    bucket = Bucket(6)
    assert bucket.ready_in(0.0, 1) == 0
    bucket.take(0.0, 1)
    assert bucket.ready_in(0.0, 1) == pytest.approx(10.0)


@pytest.mark.parametrize(("difference", "ready_s"), [(0, 0.1), (20, 2.1), (-5, 0.0), (-1000, 0.0)])
def test_what_a_reply_reports_corrects_the_bucket(difference: float, ready_s: float) -> None:
    bucket = Bucket(600)
    bucket.take(0.0, 10)
    bucket.correct(difference)
    assert bucket.ready_in(0.0, 1) == pytest.approx(ready_s)
    assert bucket.level <= bucket.capacity


def test_a_gate_stays_closed_for_its_time_and_counts_only_fresh_refusals() -> None:
    gate = Gate()
    assert gate.open_in(5.0) == 0
    assert gate.close(10.0, 4.0, sent_at=9.0)
    assert (gate.open_in(11.0), gate.closings) == (3.0, 1)
    assert not gate.close(11.0, 1.0, sent_at=9.5)
    assert (gate.open_in(11.0), gate.closings) == (3.0, 1)
    assert not gate.close(11.0, 10.0, sent_at=9.5)
    assert (gate.open_in(11.0), gate.closings) == (10.0, 1)
    assert gate.close(30.0, 1.0, sent_at=21.0)
    assert gate.closings == 2


def test_only_an_answer_to_a_later_request_ends_the_row_of_closings() -> None:
    gate = Gate()
    gate.close(10.0, 4.0, sent_at=9.0)
    gate.probing = True
    gate.success(sent_at=9.9)
    assert (gate.closings, gate.probing) == (1, True)
    gate.success(sent_at=14.0)
    assert (gate.closings, gate.probing) == (0, False)


@given(st.integers(0, 10_000), st.floats(0.05, 1000), st.floats(0, 1))
def test_without_a_hint_the_wait_is_full_jitter_under_the_cap(closings: int, cap_s: float, luck: float) -> None:
    wait_s = wait_of(None, closings, cap_s, luck)
    assert 0.05 <= wait_s <= max(0.05, min(cap_s, 2.0 ** min(closings, 30)))


@pytest.mark.parametrize(
    ("closings", "luck", "wait_s"),
    [(0, 1, 0.5), (1, 1, 1), (3, 0.5, 2), (5, 1, 16), (7, 1, 60), (99, 1, 60), (4, 0, 0.05)],
)
def test_waits_without_a_hint_double_up_to_the_cap(closings: int, luck: float, wait_s: float) -> None:
    assert wait_of(None, closings, 60.0, luck) == wait_s


@given(st.floats(0, 1e5), st.integers(0, 100), st.floats(0, 1))
def test_a_hint_is_never_undercut_nor_much_exceeded(hint_s: float, closings: int, luck: float) -> None:
    assert hint_s <= wait_of(hint_s, closings, 1.0, luck) <= hint_s + 0.05 * max(1.0, hint_s)


def test_a_limit_shrinks_by_a_share_and_never_below_one() -> None:
    limit = Limit(10)
    limit.shrink()
    assert limit.now == pytest.approx(7)
    for _ in range(20):
        limit.shrink()
    assert limit.now == 1


def test_a_limit_grows_by_one_a_window_and_only_while_it_binds() -> None:
    limit = Limit(10)
    limit.now = 4.0
    limit.grow(in_flight=2)
    assert limit.now == 4.0
    for _ in range(4):
        limit.grow(in_flight=4)
    assert limit.now == pytest.approx(5, abs=0.15)
    for _ in range(1000):
        limit.grow(in_flight=10)
    assert limit.now == 10


def test_a_shrunken_limit_recovers_from_one() -> None:
    limit = Limit(8)
    limit.now = 1.0
    for _ in range(200):
        limit.grow(in_flight=int(limit.now))
    assert limit.now == 8


def test_a_storm_shrinks_a_lane_once_and_closes_it_for_the_longest_hint() -> None:
    lane = Lane(Limit(10))
    for hint_s in (2.0, 5.0, 1.0):
        lane.failed(replace(RATE, wait_s=hint_s), 1.0, Mark(at=0.5), hint_s, luck=0.0)
    assert lane.limit.now == pytest.approx(7)
    assert lane.ready_in(1.0, 0) == 5.0
    assert not lane.gate.probing


def test_a_storm_without_hints_waits_for_one_lot_not_for_the_longest_of_a_hundred() -> None:
    lane = Lane(Limit(10))
    for luck in (0.4, 1.0, 0.8):
        lane.failed(BUSY, 1.0, Mark(at=0.5), None, luck)
    assert lane.ready_in(1.0, 0) == pytest.approx(0.2)
    assert lane.gate.closings == 1


def test_closings_between_which_something_was_answered_are_no_row() -> None:
    gate = Gate()
    for now in (10.0, 20.0, 30.0):
        gate.close(now, 1.0, sent_at=now - 1)
    assert gate.closings == 3
    gate.success(sent_at=15.0)  # it left before the last two closings: it says nothing of them
    assert gate.closings == 3
    gate.success(sent_at=25.0)
    assert gate.closings == 1


@pytest.mark.parametrize("failure", [REFUSED, Failure(Kind.AUTH, "key", status=401)])
def test_a_lane_that_is_dead_is_probed_by_one_request_at_a_time(failure: Failure) -> None:
    lane = Lane(Limit(10))
    lane.failed(failure, 1.0, Mark(at=0.5), hint_s=1.0, luck=0.0)
    assert lane.limit.now == 10
    assert lane.ready_in(2.0, 0) == 0
    lane.take(2.0, 0)
    assert lane.ready_in(2.0, 0) is None
    lane.succeeded(2.5, sent_at=2.0, work=1, token_difference=0)
    assert lane.ready_in(2.5, 0) == 0


def test_a_lane_is_ready_when_gate_and_both_buckets_are() -> None:
    lane = Lane(Limit(10), Bucket(60), Bucket(600))
    assert lane.ready_in(0.0, 10) == 0
    lane.take(0.0, 10)
    assert lane.ready_in(0.0, 1) == pytest.approx(1.0)
    assert lane.ready_in(0.0, 10) == pytest.approx(1.0)
    assert lane.ready_in(0.5, 10) == pytest.approx(0.5)
    lane.succeeded(0.5, sent_at=0.0, work=1, token_difference=20)
    assert lane.ready_in(1.0, 10) == pytest.approx(2.0)
    lane.failed(RATE, 1.0, Mark(at=0.9), hint_s=30, luck=0.0)
    assert lane.ready_in(1.0, 10) == 30


def test_a_full_lane_is_ready_only_after_one_has_ended() -> None:
    lane = Lane(Limit(1))
    lane.take(0.0, 0)
    assert lane.ready_in(99.0, 0) is None
    lane.in_flight -= 1
    assert lane.ready_in(99.0, 0) == 0


@pytest.mark.parametrize(
    ("in_flight", "undurable", "free"),
    [(0, 0, True), (3, 4, True), (4, 0, False), (3, 5, False), (0, 7, True), (0, 8, False)],
)
def test_slots_bound_the_wire_and_what_is_not_durable(in_flight: int, undurable: int, free: bool) -> None:
    assert Slots(4, in_flight, undurable).free is free
