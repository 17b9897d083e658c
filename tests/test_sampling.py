from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.sampling import Interval, Stretch, draw, mean_of, quantile, share_of, student


@st.composite
def stretches(draw_: st.DrawFn) -> list[Stretch]:
    """Ranges one behind the other, each without some of its rows."""
    found, first = [], 0
    for rows in draw_(st.lists(st.integers(0, 12), max_size=6)):
        out = draw_(st.frozensets(st.integers(first, max(first, first + rows - 1)), max_size=rows))
        found.append(Stretch(first, rows, out if rows else frozenset()))
        first += rows
    return found


@settings(deadline=None, max_examples=EXAMPLES)
@given(stretches())
def test_a_stretch_is_its_rows_in_order(given: list[Stretch]) -> None:
    for part in given:
        rows = [row for row in range(part.first, part.first + part.rows) if row not in part.out]
        assert list(part) == rows == [part[place] for place in range(len(part))]
        assert [row for row in range(part.first - 2, part.first + part.rows + 2) if row in part] == rows
        assert list(part.joined(list(part.out)[:1])) == sorted({*rows, *list(part.out)[:1]})


@settings(deadline=None, max_examples=EXAMPLES)
@given(stretches(), st.integers(0, 40), st.text(max_size=3))
def test_a_draw_takes_rows_that_are_there_each_once_and_begins_with_every_smaller_one(
    given: list[Stretch], size: int, seed: str
) -> None:
    rows = [row for part in given for row in part]
    drawn = draw(given, size, seed)
    assert len(drawn) == len(set(drawn)) == min(size, len(rows))
    assert set(drawn) <= set(rows)
    assert draw(given, size // 2, seed) == drawn[: size // 2]


def test_every_row_is_as_likely_wherever_it_stands() -> None:
    """Chi squared over 20 rows, 19 degrees of freedom: beyond 43.8 once in a thousand."""
    rest = [Stretch(0, 8, {1, 2}), Stretch(8, 8, range(8, 16)), Stretch(16, 16, {20, 31})]
    rows = [row for part in rest for row in part]
    times = 4000
    counts = Counter(row for seed in range(times) for row in draw(rest, 5, f"run {seed}"))
    expected = times * 5 / len(rows)
    assert set(counts) == set(rows)
    assert sum((counts[row] - expected) ** 2 / expected for row in rows) * 20 / 15 < 43.8
    assert len({tuple(draw(rest, 5, f"run {seed}")) for seed in range(100)}) == 100


def test_a_draw_from_ten_million_rows_costs_no_more_than_its_size() -> None:
    rest = [Stretch(first, 8192) for first in range(0, 10_000_384, 8192)]
    drawn = draw(rest, 500, "run")
    assert len(set(drawn)) == 500
    assert len({row // 8192 for row in drawn}) > 350  # all over the input: 408 ranges are to be expected


@pytest.mark.parametrize(
    ("freedom", "quantile_of_t"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (19, 2.0930), (99, 1.9842), (10_000, 1.9602)],
)
def test_students_quantile_is_the_one_of_the_tables(freedom: int, quantile_of_t: float) -> None:
    assert student(freedom) == pytest.approx(quantile_of_t, abs=0.0042)


@pytest.mark.parametrize(
    ("hits", "size", "low", "high"),
    [(0, 20, 0, 0.1611), (1, 20, 0.0089, 0.2361), (10, 20, 0.2993, 0.7007), (20, 20, 0.8389, 1)],
)
def test_a_share_has_wilsons_interval(hits: int, size: int, low: float, high: float) -> None:
    found = share_of(hits, size, 10**9)
    assert (found.low, found.middle, found.high) == pytest.approx((low, hits / size, high), abs=1e-4)


@pytest.mark.parametrize("values", [[3.0], [1.0, 2.0, 9.0]])
def test_of_all_rows_nothing_is_left_to_guess(values: list[float]) -> None:
    mean = sum(values) / len(values)
    assert mean_of(values, len(values)) == Interval(mean, mean, mean)
    assert share_of(1, len(values), len(values)) == Interval(1 / len(values), 1 / len(values), 1 / len(values))


def test_too_few_values_say_nothing_and_equal_ones_all() -> None:
    assert mean_of([], 10) is None
    assert mean_of([4.0], 10) is None
    assert mean_of([4.0, 4.0], 10) == Interval(4.0, 4.0, 4.0)


DISTRIBUTIONS: dict[str, Callable[[Random], float]] = {
    "even": lambda luck: luck.uniform(1, 3),
    "exponential": lambda luck: luck.expovariate(1),
    "lognormal": lambda luck: luck.lognormvariate(0, 0.7),
    "a tenth costs nothing": lambda luck: 0.0 if luck.random() < 0.1 else luck.lognormvariate(0, 0.4),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize(("size", "population"), [(10, 4000), (20, 4000), (20, 40)])
def test_the_interval_of_a_mean_holds_it_nearly_as_often_as_it_says(name: str, size: int, population: int) -> None:
    luck = Random(f"{name} {size} {population}")
    rows = [DISTRIBUTIONS[name](luck) for _ in range(population)]
    truth, times = sum(rows) / population, 600
    found = [mean_of(luck.sample(rows, size), population) for _ in range(times)]
    assert all(each and each.low <= each.middle <= each.high for each in found)
    assert 0.915 <= sum(each.low <= truth <= each.high for each in found if each) / times <= 0.985


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
@pytest.mark.parametrize(("size", "population"), [(20, 2000), (50, 100)])
def test_the_interval_of_a_share_holds_it_as_often_as_it_says(share: float, size: int, population: int) -> None:
    luck, hits = Random(f"{share} {size}"), round(share * population)
    rows, times = [True] * hits + [False] * (population - hits), 600
    found = [share_of(sum(luck.sample(rows, size)), size, population) for _ in range(times)]
    assert sum(each.low <= share <= each.high for each in found) / times >= 0.92


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=30), st.integers(0, 1000))
def test_an_interval_is_of_numbers_around_its_middle(values: list[float], more: int) -> None:
    found = mean_of(values, len(values) + more)
    assert found is not None
    assert all(map(math.isfinite, (found.low, found.middle, found.high)))
    assert found.low <= found.middle + 1e-6 and found.middle <= found.high + 1e-6


@pytest.mark.parametrize(
    ("values", "share", "found"), [([1], 0.5, 1), ([1, 2], 0.5, 1), ([1, 2, 3], 0.5, 2), (range(1, 11), 0.9, 9)]
)
def test_a_quantile_is_the_smallest_that_so_many_do_not_exceed(
    values: Sequence[float], share: float, found: float
) -> None:
    assert quantile(values, share) == found
