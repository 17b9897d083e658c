"""Whole nights on a virtual clock: storms of 429s, limits that are told and limits that are not, servers that queue."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from modelled import Allowance, Night, Provider, night

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


@pytest.mark.parametrize(
    ("provider", "slower"),
    [
        (Provider(requests=Allowance(64, 6.4)), 1.15),
        (Provider(requests=Allowance(64, 64)), 1.15),
        (Provider(requests=Allowance(64, 1)), 1.15),
        (Provider(tokens=Allowance(960, 96)), 1.15),
        (Provider(requests=Allowance(64, 6.4), hints=False), 1.15),
        (Provider(requests=Allowance(64, 1), hints=False), 1.25),  # every wait that is not told is lost to such a one
        (Provider(tokens=Allowance(960, 96), hints=False), 1.15),
    ],
)
def test_a_storm_of_429s_fails_no_row_and_is_over_in_the_time_that_the_limit_takes(
    provider: Provider, slower: float
) -> None:
    """A pool that could send ten times what is allowed."""
    found = night(provider, ROWS, concurrency=64)
    assert (found.failed, len(found.settled)) == (0, ROWS)
    assert found.calls_per_row <= 1.10
    assert found.ended_s <= slower * ROWS / 64


def test_a_limit_far_below_what_one_at_a_time_would_send_is_held() -> None:
    found = night(Provider(requests=Allowance(2, 2)), 300, concurrency=16)
    assert found.failed == 0
    assert found.calls_per_row <= 1.25
    assert found.ended_s <= 1.10 * 300 / 2


@pytest.mark.parametrize(("hints", "slower"), [(True, 1.35), (False, 1.45)])
def test_a_limit_that_doubles_and_halves_is_followed(hints: bool, slower: float) -> None:
    def change(provider: Provider, now: float) -> None:
        assert provider.requests
        provider.requests.per_s = 128 if 10 < now < 20 else 32 if 20 <= now < 35 else 64

    found = night(Provider(requests=Allowance(64, 6.4), hints=hints, changes=change), ROWS, concurrency=64)
    assert (found.failed, len(found.settled)) == (0, ROWS)
    assert found.calls_per_row <= 1.10
    assert found.ended_s <= slower * (35 + (ROWS - 640 - 1280 - 480) / 64)


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
