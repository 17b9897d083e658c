"""Whole nights on a virtual clock: storms of 429s, limits that are told and limits that are not, servers that queue."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import pairwise

import pytest
from modelled import Allowance, Night, Provider, Window, night

from runner.records import Billed, Failure, Kind

ROWS = 3000


def told(provider: Provider, now: float) -> Mapping[str, str]:
    """As OpenAI does."""
    allowance = provider.requests
    assert allowance
    allowance.fill(now)
    return {
        "x-ratelimit-remaining-requests": str(int(allowance.level)),
        "x-ratelimit-reset-requests": f"{(allowance.burst - allowance.level) / allowance.per_s:.3f}s",
    }


@pytest.mark.parametrize("hints", [True, False])
@pytest.mark.parametrize(
    "limit",
    [
        {"requests": (64, 6.4)},
        {"requests": (64, 64)},
        {"requests": (64, 1)},
        {"tokens": (960, 96)},
    ],
)
def test_a_storm_of_429s_fails_no_row_and_is_over_in_the_time_that_the_limit_takes(
    limit: dict[str, tuple[float, float]], hints: bool
) -> None:
    """A pool that could send ten times what is allowed."""
    allowances = {what: Allowance(*numbers) for what, numbers in limit.items()}
    found = night(Provider(hints=hints, **allowances), ROWS, concurrency=64)  # type: ignore[arg-type]
    assert (found.failed, len(found.settled)) == (0, ROWS)
    assert found.calls_per_row <= 1.07
    assert found.ended_s <= 1.15 * ROWS / 64


@pytest.mark.parametrize("hints", [True, False])
def test_a_large_pool_is_not_refused_as_a_whole(hints: bool) -> None:
    """640 in flight would be 640 a second; the first refusal is heard after a twentieth of a second."""
    provider = Provider(latency_s=1, refusal_s=0.05, requests=Allowance(64, 6.4), hints=hints)
    found = night(provider, ROWS, concurrency=640)
    assert found.failed == 0
    assert found.calls_per_row <= 1.10
    assert found.ended_s <= 1.15 * ROWS / 64


def test_a_pool_that_nothing_holds_back_is_open_within_a_quarter_of_a_second() -> None:
    found = night(Provider(latency_s=1), 1024, concurrency=1024)
    assert found.provider.most_in_flight == 1024
    assert found.provider.sends[63] < 0.001
    assert 0.19 < found.provider.sends[-1] <= 0.25


@pytest.mark.parametrize("hints", [True, False])
def test_a_limit_far_below_what_one_at_a_time_would_send_is_held(hints: bool) -> None:
    found = night(Provider(requests=Allowance(2, 2), hints=hints), 300, concurrency=16)
    assert found.failed == 0
    assert found.calls_per_row <= 1.20
    assert found.ended_s <= 1.05 * 300 / 2


@pytest.mark.parametrize("hints", [True, False])
def test_a_slow_limit_is_held_where_answers_take_long_and_refusals_too(hints: bool) -> None:
    provider = Provider(latency_s=5, sigma=0.3, refusal_s=0.3, requests=Allowance(16, 16), hints=hints)
    found = night(provider, ROWS // 2, concurrency=160)
    assert found.failed == 0
    assert found.calls_per_row - 160 / len(found.settled) <= 1.10  # the first burst is the whole pool
    assert found.ended_s <= 1.15 * ROWS / 2 / 16


def followed(steps: list[tuple[float, float]], rows: int, burst: float, *, hints: bool) -> tuple[Night, float]:
    """Rows under a limit that changes: (from which second, requests a second). With the time that they take at best."""

    def change(provider: Provider, now: float) -> None:
        assert provider.requests
        provider.requests.fill(now)
        provider.requests.per_s = [per_s for at, per_s in steps if at <= now][-1]

    limit = Allowance(steps[0][1], burst)
    found = night(Provider(requests=limit, hints=hints, changes=change), rows, concurrency=64)
    left = rows - burst
    for (at, per_s), (end, _) in zip(steps, [*steps[1:], (1e9, 0)], strict=True):
        if left <= per_s * (end - at):
            return found, at + left / per_s
        left -= per_s * (end - at)
    raise AssertionError


@pytest.mark.parametrize("hints", [True, False])
@pytest.mark.parametrize(
    ("steps", "rows"),
    [
        ([(0, 64), (10, 128), (20, 32), (35, 64)], ROWS),
        ([(0, 64), (15, 6.4), (135, 64)], ROWS),  # a tenth for two minutes, as by day
    ],
)
def test_a_limit_that_changes_is_followed_down_and_up(steps: list[tuple[float, float]], rows: int, hints: bool) -> None:
    found, at_best_s = followed(steps, rows, 6.4, hints=hints)
    assert (found.failed, len(found.settled)) == (0, rows)
    assert found.calls_per_row <= 1.07
    assert found.ended_s <= 1.15 * at_best_s


@pytest.mark.parametrize("seed", range(6))
def test_a_limit_that_changes_at_any_time_to_anything_is_followed(seed: int) -> None:
    """Four changes, 5 to 20 s apart, to between a quarter and twice the first limit; saving up little or a second."""
    luck, at, steps = random.Random(seed), 0.0, [(0.0, 40.0)]
    for _ in range(4):
        at += luck.uniform(5, 20)
        steps.append((at, 40 * 4 ** luck.uniform(-1, 0.5)))
    rows = int(sum(per_s * (end - start) for (start, per_s), (end, _) in pairwise([*steps, (at + 10, 0.0)])))
    found, at_best_s = followed(steps, rows, luck.choice([2.0, 8.0, 40.0]), hints=seed % 2 == 0)
    assert found.failed == 0
    assert found.calls_per_row <= 1.10
    assert found.ended_s <= 1.15 * at_best_s


@pytest.mark.parametrize(("hints", "whole"), [(True, False), (False, False), (True, True)])
def test_a_window_of_a_second_is_not_run_into_again_and_again(hints: bool, whole: bool) -> None:
    """It saves nothing up, so whatever is waited too long is lost."""
    limit = Window(64, 1.0)
    found = night(Provider(requests=limit, hints=hints, whole_hints=whole), ROWS, concurrency=64)
    assert found.failed == 0
    assert found.calls_per_row <= 1.10
    assert found.ended_s <= (1.25 if whole else 1.15) * ROWS / 64


@pytest.mark.parametrize("hints", [True, False])
def test_a_window_of_a_minute_is_used_up_whatever_the_rate(hints: bool) -> None:
    found = night(Provider(requests=Window(600, 60.0), hints=hints), ROWS, concurrency=64)
    assert found.failed == 0
    assert found.calls_per_row <= 1.10
    assert found.ended_s <= (1.05 if hints else 1.5) * (ROWS - 600) / 10


@pytest.mark.parametrize("burst", [1, 6.4, 64])
def test_hints_of_whole_seconds_do_not_take_the_rate_down_with_them(burst: float) -> None:
    """Each refusal then costs a second, more than the provider may save up meanwhile: it is asked less often."""
    found = night(Provider(requests=Allowance(64, burst), whole_hints=True), ROWS, concurrency=64)
    assert found.calls_per_row <= 1.03
    assert found.ended_s <= 1.25 * ROWS / 64


def test_what_the_headers_say_is_left_slows_the_run_before_a_429() -> None:
    found = night(Provider(latency_s=0.5, requests=Allowance(60, 600), headers=told), ROWS, concurrency=256)
    assert found.provider.refusals == 0
    assert found.ended_s <= 1.25 * (ROWS - 600) / 60


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_auto_finds_a_server_that_queues(sigma: float) -> None:
    found = night(Provider(latency_s=1, sigma=sigma, most=400, queues=True), 8000, concurrency=1024, learns=True)
    capacity = 400 / 2.718 ** (sigma**2 / 2)
    reached = found.reached_at(0.9 * capacity)
    assert reached is not None and reached <= 15
    assert 400 <= found.limit <= 800
    assert found.provider.refusals == 0


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_auto_finds_a_server_that_refuses_what_is_beyond(sigma: float) -> None:
    found = night(Provider(latency_s=1, sigma=sigma, most=400), 8000, concurrency=1024, learns=True)
    assert found.failed == 0
    assert found.calls_per_row <= 1.05
    assert 300 <= found.limit <= 480


def test_auto_does_not_grow_where_it_is_not_what_binds() -> None:
    found = night(Provider(requests=Allowance(64, 6.4)), ROWS, concurrency=1024, learns=True)
    assert found.provider.most_in_flight <= 32
    assert found.ended_s <= 1.15 * ROWS / 64


def test_auto_does_not_stay_small_where_the_first_burst_was_refused() -> None:
    """16 at once are too many for this limit, 300 in flight are not."""
    found = night(Provider(latency_s=5, sigma=0.3, requests=Allowance(64, 6.4)), ROWS, concurrency=1024, learns=True)
    assert found.provider.most_in_flight >= 250
    assert found.calls_per_row <= 1.05


def test_auto_takes_all_that_is_allowed_where_nothing_holds_it() -> None:
    found = night(Provider(latency_s=1), 6000, concurrency=256, learns=True)
    assert found.limit == pytest.approx(256, rel=0.3)
    assert found.provider.most_in_flight == 256


def test_auto_does_not_stay_small_after_one_cut() -> None:
    storm = Failure(Kind.OVERLOADED, "busy", 503)
    found = night(
        Provider(latency_s=1, outcome=lambda provider, now: storm if 1.5 < now < 1.6 else None),
        8000,
        concurrency=256,
        learns=True,
    )
    assert found.provider.most_in_flight > 100


def server_down(provider: Provider, now: float) -> Failure | None:
    return Failure(Kind.SERVER, "down", 500, billed=Billed.MAYBE) if 20 < now < 120 else None


def test_an_endpoint_that_breaks_in_the_night_is_probed_and_costs_few_rows() -> None:
    found: Night = night(Provider(latency_s=0.5, outcome=server_down), 4000, concurrency=64)
    assert len(found.settled) == 4000
    assert found.failed <= 5  # only rows that had failed twice before the breaker opened
    during = [at for at in found.provider.sends if 22 < at < 120]
    assert len(during) < 60
