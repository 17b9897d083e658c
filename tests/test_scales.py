"""Bins, ticks and scales: round, few, and right for the least and the greatest numbers."""

from __future__ import annotations

import math
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.scales import (
    LENGTHS_S,
    SECOND,
    TIME_STEPS_US,
    WIDTHS_US,
    Piece,
    axis_to,
    bins_for,
    laid_out,
    lengths_between,
    log_share,
    multiples,
    round_step,
    spaced,
    stretches,
    time_step,
    width_for,
)

amounts = st.floats(1e-12, 1e18)


@pytest.mark.parametrize(
    ("span", "most", "expected"),
    [(1, 4, 0.5), (10, 5, 2), (3, 4, 1), (7, 4, 2), (0.03, 4, 0.01), (1000, 1, 1000), (4, 4, 1), (4.0001, 4, 2)],
)
def test_steps_are_1_2_or_5(span: float, most: int, expected: float) -> None:
    assert round_step(span, most) == expected


@pytest.mark.parametrize(
    ("peak", "expected"),
    [
        (0, (0, 0.5, 1)),
        (-1, (0, 0.5, 1)),
        (math.nan, (0, 0.5, 1)),
        (math.inf, (0, 0.5, 1)),
        (3, (0, 1, 2, 3)),
        (3.2, (0, 1, 2, 3, 4)),
        (0.0226, (0, 0.01, 0.02, 0.03)),
        (200, (0, 50, 100, 150, 200)),
        (9e18, (0, 5e18, 1e19)),
    ],
)
def test_an_axis_begins_at_0_and_ends_at_a_tick_beyond_the_peak(peak: float, expected: tuple[float, ...]) -> None:
    assert axis_to(peak).ticks == pytest.approx(expected)


def test_what_is_counted_has_no_tick_between_whole_numbers() -> None:
    assert axis_to(1, least_step=1).ticks == (0, 1)
    assert axis_to(2, least_step=1).ticks == (0, 1, 2)


@settings(deadline=None)
@given(amounts, st.integers(1, 10))
def test_axes_reach_their_peak_with_few_round_ticks(peak: float, most: int) -> None:
    axis = axis_to(peak, most)
    assert axis.top >= peak * (1 - 1e-9) and axis.ticks[-1] == axis.top
    assert 2 <= len(axis.ticks) <= most + 1
    assert Decimal(repr(axis.step)).as_tuple().digits in ((1,), (2,), (5,), (1, 0), (2, 0), (5, 0)) or axis.step >= 10
    assert axis.share(0) == 0 and axis.share(axis.top) == 1 and axis.share(2 * axis.top) == 1


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.5, 0.5, (0.2, 0.5, 1)),
        (0.3, 0.4, (0.2, 0.5)),
        (0.15, 12, (0.1, 0.5, 2, 10, 60)),
        (1e-9, 1e-9, (1e-6, 2e-6)),
        (1e9, 1e9, (200 * 86400, 500 * 86400)),
    ],
)
def test_lengths_around_a_range_are_round(low: float, high: float, expected: tuple[float, ...]) -> None:
    assert lengths_between(low, high) == pytest.approx(expected)


@settings(deadline=None)
@given(st.floats(1e-6, 4e7), st.floats(1, 1e9), st.integers(2, 9))
def test_lengths_reach_around_their_range(low: float, times: float, most: int) -> None:
    high = min(low * times, 4e7)
    found = lengths_between(low, high, most)
    assert 2 <= len(found) <= most
    assert found[0] <= low and found[-1] >= high
    assert list(found) == sorted(set(found)) and set(found) <= set(LENGTHS_S)


def test_places_on_a_logarithmic_scale() -> None:
    assert [log_share(value, 1, 100) for value in (0, 1, 10, 100, 1000)] == [0, 0, 0.5, 1, 1]


def test_every_width_of_bins_divides_the_next() -> None:
    assert [wide % narrow for narrow, wide in pairwise(WIDTHS_US)] == [0] * (len(WIDTHS_US) - 1)


@settings(deadline=None)
@given(st.integers(0, 10**16), st.integers(0, 10**14), st.integers(1, 500))
def test_the_narrowest_width_that_fits_is_taken(first: int, span: int, most: int) -> None:
    width = width_for(first, first + span, most)
    assert width in WIDTHS_US
    assert (first + span) // width - first // width < most or width == WIDTHS_US[-1]
    narrower = [w for w in WIDTHS_US if w < width]
    assert all((first + span) // w - first // w >= most for w in narrower)
    assert width_for(first, first + span, most, 60 * SECOND) >= 60 * SECOND


@pytest.mark.parametrize(("events", "bins"), [(0, 1), (1, 1), (4, 3), (25, 9), (176, 26), (10**7, 180)])
def test_few_events_make_few_bins(events: int, bins: int) -> None:
    assert bins_for(events) == bins


@pytest.mark.parametrize(
    ("span_s", "most", "step_s"), [(0, 6, 0.1), (1, 6, 0.2), (50, 6, 10), (3600, 6, 600), (86400, 6, 14400 * 1.5)]
)
def test_ticks_of_time_are_round(span_s: float, most: int, step_s: float) -> None:
    assert time_step(int(span_s * SECOND), most) == step_s * SECOND
    assert time_step(10**18, 6) == TIME_STEPS_US[-1]


def test_multiples_lie_inside() -> None:
    assert list(multiples(10, 5, 30)) == [10, 20, 30]
    assert list(multiples(10, 11, 19)) == []


@pytest.mark.parametrize(
    ("busy", "expected"),
    [
        ("", []),
        ("....", []),
        ("x", [(0, 1)]),
        (".xx.", [(1, 3)]),
        ("xxxx.xxxx", [(0, 9)]),  # a pause within the work is part of it
        ("xxxx......xxxx", [(0, 4), (10, 14)]),
        ("x..x", [(0, 1), (3, 4)]),
        ("xx.x...xxx", [(0, 10)]),
    ],
)
def test_only_pauses_longer_than_half_the_work_are_cut_out(busy: str, expected: list[tuple[int, int]]) -> None:
    assert stretches([letter == "x" for letter in busy]) == expected


def test_a_pause_must_be_long_for_people_too() -> None:
    assert stretches([True, *[False] * 10, True], least=10) == [(0, 12)]
    assert stretches([True, *[False] * 11, True], least=10) == [(0, 1), (12, 13)]


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=200))
def test_stretches_cover_all_that_happened_and_nothing_twice(busy: list[bool]) -> None:
    found = stretches(busy)
    assert sum(busy[n] for span in found for n in range(*span)) == sum(busy)
    assert all(busy[start] and busy[end - 1] for start, end in found)
    assert all(before[1] < after[0] for before, after in pairwise(found))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10**9), st.integers(1, 10**9)), min_size=1, max_size=30))
def test_pieces_of_time_fill_the_axis_in_order_and_in_proportion(lengths: list[tuple[int, int]]) -> None:
    spans, at = [], 0
    for gap, length in lengths:
        spans.append((at + gap, at + gap + length))
        at = spans[-1][1]
    pieces = laid_out(spans)
    assert pieces[0].start == 0 and pieces[-1].end == pytest.approx(1)
    assert all(before.end <= after.start for before, after in pairwise(pieces))
    rates = [(piece.end - piece.start) / (piece.last_us - piece.first_us) for piece in pieces]
    assert rates == pytest.approx([rates[0]] * len(rates))


def test_an_instant_outside_its_piece_stands_at_the_end() -> None:
    piece = Piece(100, 200, 0.2, 0.6)
    assert [piece.share(at) for at in (0, 100, 150, 200, 300)] == pytest.approx([0.2, 0.2, 0.4, 0.6, 0.6])


def test_labels_keep_their_distance() -> None:
    assert spaced([0, 0.05, 0.1, 0.2, 0.21, 0.9], 0.1) == [0, 2, 3, 5]
    assert spaced([0, 0.05, 0.1, 0.2, 0.21, 0.9], 0.1, first=[1, 4]) == [1, 4, 5]
    assert spaced([], 0.1) == []
