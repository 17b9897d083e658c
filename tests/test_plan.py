"""Answers belong to requests: random edits send exactly what was not answered before."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.plan import NONE, Plan, Stored, plan


def old(*hashes: str) -> list[Stored]:
    """Hashes of final rows; one in capitals is not ok, a dash is a row that is not final."""
    return [Stored(None if h == "-" else h.lower(), h.islower()) for h in hashes]


def counts(made: Plan) -> dict[str, int]:
    names = ("kept", "moved", "changed", "new", "failed", "removed")
    return {name: getattr(made, name) for name in names if getattr(made, name)}


@pytest.mark.parametrize(
    ("before", "after", "sources", "counted"),
    [
        ("abc", "abc", [0, 1, 2], {"kept": 3}),
        ("abc", "abcd", [0, 1, 2, NONE], {"kept": 3, "new": 1}),
        ("abc", "axbc", [0, NONE, 1, 2], {"kept": 1, "moved": 2, "new": 1}),
        ("abc", "xabc", [NONE, 0, 1, 2], {"moved": 3, "new": 1}),
        ("abc", "ac", [0, 2], {"kept": 1, "moved": 1, "removed": 1}),
        ("abc", "cab", [2, 0, 1], {"moved": 3}),
        ("abc", "axc", [0, NONE, 2], {"kept": 2, "changed": 1}),
        ("abc", "xyz", [NONE] * 3, {"changed": 3}),
        ("abc", "ab", [0, 1], {"kept": 2, "removed": 1}),
        ("aab", "aba", [0, 2, 1], {"kept": 1, "moved": 2}),
        ("ab", "aab", [0, NONE, 1], {"kept": 1, "moved": 1, "new": 1}),
        ("aBc", "aBc".lower(), [0, 1, 2], {"kept": 3, "failed": 1}),
        ("a-c", "abc", [0, NONE, 2], {"kept": 2, "new": 1}),
        ("", "ab", [NONE, NONE], {"new": 2}),
        ("ab", "", [], {"removed": 2}),
    ],
)
def test_rows_are_matched_by_place_then_by_hash(before: str, after: str, sources: list[int], counted: object) -> None:
    made = plan(old(*before), list(after))
    assert list(made.sources) == sources
    assert counts(made) == counted


def test_appended_rows_need_no_consent_and_changed_or_removed_ones_do() -> None:
    assert not plan(old(*"abc"), list("abcd")).needs_consent
    assert not plan(old(*"abc"), list("xabc")).needs_consent
    assert plan(old(*"abc"), list("abx")).needs_consent
    assert plan(old(*"abc"), list("ab")).needs_consent


@pytest.mark.parametrize(
    ("before", "after", "in_place"),
    [("abc", "abcd", True), ("abc", "axc", True), ("abc", "xabc", False), ("abc", "ab", False), ("a-c", "axc", True)],
)
def test_answers_that_stay_at_their_places_need_no_new_layout(before: str, after: str, in_place: bool) -> None:
    assert plan(old(*before), list(after)).in_place is in_place


def test_a_row_that_cannot_be_rendered_takes_nobodys_answer() -> None:
    assert plan(old("a", "b"), [None, "b"]).sources == (NONE, 1)


def test_kept_answers_stay_whatever_the_request_has_become_and_only_the_rest_is_asked() -> None:
    made = plan(old("a", "B", "c"), ["x", "y", "z"], keep=[["a", "b", "c"]])
    assert made.sources == (0, NONE, 2)
    assert (made.kept, made.changed) == (2, 1)


def test_kept_answers_follow_their_rows_when_the_input_moved_too() -> None:
    made = plan(old("a", "b"), ["new", "x", "y"], keep=[["n", "a", "b"]])
    assert made.sources == (NONE, 0, 1)


hashes = st.lists(st.sampled_from("abcdefgh"), max_size=40)


@settings(deadline=None, max_examples=EXAMPLES)
@given(hashes, hashes)
def test_what_is_sent_is_what_was_not_answered_before_with_multiplicity(before: list[str], after: list[str]) -> None:
    made = plan([Stored(h) for h in before], list(after))
    assert made.changed + made.new == sum((Counter(after) - Counter(before)).values())
    taken = [source for source in made.sources if source != NONE]
    assert len(set(taken)) == len(taken)
    assert all(before[source] == after[j] for j, source in enumerate(made.sources) if source != NONE)
    assert made.kept + made.moved + made.changed + made.new == len(after)
    assert made.kept + made.moved + made.changed + made.removed == len(before)
