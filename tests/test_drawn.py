from __future__ import annotations

from pathlib import Path

import pytest

from runner import notes
from runner.drawn import Drawn, draw_sample
from runner.notes import Reopened, Sampled
from runner.sampling import Stretch


def rest(*final: int) -> list[Stretch]:
    """Three ranges of ten rows without those that are final."""
    return [Stretch(first, 10, frozenset(range(first, first + 10)) & set(final)) for first in (0, 10, 20)]


def rows(drawn: Drawn) -> set[int]:
    return {row for found in drawn.by_range.values() for row in found}


FIRST = draw_sample(None, "run", rest(), 6)


def noted(drawn: Drawn) -> Sampled:
    assert drawn.note is not None
    return drawn.note


def test_a_first_sample_is_of_all_rows_and_is_written_down() -> None:
    assert (FIRST.rows, FIRST.population, noted(FIRST).others, noted(FIRST).total) == (6, 30, 0, 30)
    assert rows(FIRST) == set(noted(FIRST).rows)
    assert FIRST.left_by_range(rest()) == FIRST.by_range
    assert rows(draw_sample(None, "another run", rest(), 6)) != rows(FIRST)


@pytest.mark.parametrize("count", [0, 1, 5, 6])
def test_it_goes_on_with_the_same_rows_however_many_are_final(count: int) -> None:
    final = noted(FIRST).rows[:count]
    again = draw_sample(FIRST.note, "run", rest(*final), 6)
    assert (again.by_range, again.population, again.note) == (FIRST.by_range, 30, None)
    assert {row for left in again.left(rest(*final)) for row in left} == rows(FIRST) - set(final)


def test_a_larger_one_has_the_rows_of_the_smaller_and_is_written_down() -> None:
    larger = draw_sample(FIRST.note, "run", rest(*noted(FIRST).rows), 11)
    assert (larger.rows, larger.population, noted(larger).others) == (11, 30, 0)
    assert rows(larger) > rows(FIRST)
    smaller = draw_sample(larger.note, "run", rest(*noted(larger).rows), 4)
    assert (rows(smaller) < rows(FIRST), smaller.note) == (True, None)


def test_after_other_rows_it_is_drawn_anew_from_what_is_left() -> None:
    other = next(row for row in range(30) if row not in rows(FIRST))
    final = {*noted(FIRST).rows[:4], other}
    again = draw_sample(FIRST.note, "run", rest(*final), 6)
    assert (again.population, noted(again).others) == (25, 5)
    assert not rows(again) & final


def test_of_another_number_of_rows_it_is_drawn_anew() -> None:
    longer = [*rest(*noted(FIRST).rows), Stretch(30, 10)]
    again = draw_sample(FIRST.note, "run", longer, 6)
    assert (again.population, noted(again).total) == (34, 40)
    assert not rows(again) & rows(FIRST)


def test_rows_that_are_to_be_asked_again_are_drawn_again() -> None:
    again = draw_sample(FIRST.note, "run", rest(), 6)  # all were final, and a changed job opened them
    assert (again.by_range, again.note) == (FIRST.by_range, None)


def test_there_are_no_more_than_are_left() -> None:
    assert draw_sample(None, "run", rest(*range(28)), 6).by_range == {2: frozenset({28, 29})}
    nothing = draw_sample(None, "run", rest(*range(30)), 6)
    assert (nothing.rows, nothing.population) == (0, 0)


def test_the_last_sample_is_the_one_that_holds_and_other_notes_are_none(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    assert notes.sampled(path, "r") is None
    reopened = Reopened(0, 2, frozenset({1}), "h", "c")
    notes.add(path, "r", [Sampled((3, 1), 0, 9), reopened])
    notes.add(path, "r", [Sampled((3, 1, 7), 0, 9)])
    assert notes.sampled(path, "r") == Sampled((3, 1, 7), 0, 9)
    assert notes.read(path, "r", {"c"}) == {0: [reopened]}
    with path.open("ab") as file:
        file.write(b'{"line":"sample","rows":[1],"oth')  # a death in the middle of it
    assert notes.sampled(path, "r") == Sampled((3, 1, 7), 0, 9)
    notes.add(path, "r", [Sampled((5,), 2, 9)])
    assert notes.sampled(path, "r") == Sampled((5,), 2, 9)
    assert notes.sampled(path, "another run") is None
