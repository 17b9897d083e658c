from __future__ import annotations

import pytest

from runner.records import Failure, Kind
from runner.retry import RULES, Again, Halt, Policy, Rule, counts, next_step

FINAL, ALONE, GATE = "final", "backs off by itself", "waits at the gate"
POLICY = Policy(max_attempts=6, row_s=100.0)


def step(failure: Failure, counted: int = 1, spent_s: float = 0.0, policy: Policy = POLICY) -> str:
    again = next_step(failure, counted, spent_s, policy)
    if again is None:
        return FINAL
    assert again == Again(again.backs_off, failure)
    return ALONE if again.backs_off else GATE


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_rule(kind: Kind) -> None:
    assert isinstance(RULES[kind], Rule)
    assert RULES[kind].signals


def test_there_are_no_rules_for_anything_else() -> None:
    assert set(RULES) == set(Kind)
    assert {rule.halt for rule in RULES.values()} == set(Halt)


@pytest.mark.parametrize(
    ("kind", "counted", "spent_s", "expected"),
    [
        (Kind.RATE, 0, 0, GATE),
        (Kind.RATE, 99, 1e9, GATE),
        (Kind.OVERLOADED, 99, 1e9, GATE),
        (Kind.AUTH, 99, 1e9, GATE),
        (Kind.NETWORK, 1, 0, ALONE),
        (Kind.NETWORK, 5, 99.9, ALONE),
        (Kind.NETWORK, 6, 0, FINAL),
        (Kind.NETWORK, 1, 100.0, FINAL),
        (Kind.TIMEOUT, 5, 0, ALONE),
        (Kind.TIMEOUT, 6, 0, FINAL),
        (Kind.SERVER, 2, 0, ALONE),
        (Kind.SERVER, 3, 0, FINAL),
        (Kind.BAD_REPLY, 5, 0, ALONE),
        (Kind.BAD_REPLY, 6, 0, FINAL),
        (Kind.OUTPUT, 1, 0, FINAL),
        (Kind.REQUEST, 1, 0, FINAL),
        (Kind.POLICY, 1, 0, FINAL),
        (Kind.INPUT, 0, 0, FINAL),
        (Kind.QUOTA, 0, 0, FINAL),
        (Kind.CONFIG, 0, 0, FINAL),
        (Kind.UNKNOWN, 0, 0, GATE),
    ],
)
def test_what_follows_is_read_off_the_table(kind: Kind, counted: int, spent_s: float, expected: str) -> None:
    assert step(Failure(kind, "x"), counted, spent_s) == expected


@pytest.mark.parametrize(("most", "counted", "expected"), [(1, 1, FINAL), (2, 1, ALONE), (2, 2, FINAL)])
def test_the_jobs_own_bound_holds_below_the_tables(most: int, counted: int, expected: str) -> None:
    assert step(Failure(Kind.SERVER, "x"), counted, policy=Policy(max_attempts=most)) == expected


def test_what_never_connected_uses_up_nothing_and_never_ends_a_row() -> None:
    refused = Failure(Kind.NETWORK, "refused", unreachable=True)
    assert not counts(refused)
    assert step(refused, counted=99, spent_s=1e9) == GATE


@pytest.mark.parametrize("kind", Kind)
def test_kinds_that_slow_all_never_count(kind: Kind) -> None:
    assert not (RULES[kind].slows_all and counts(Failure(kind, "x")))


@pytest.mark.parametrize("kind", [Kind.NETWORK, Kind.TIMEOUT, Kind.SERVER, Kind.BAD_REPLY])
def test_kinds_that_are_tried_again_by_the_row_itself_count(kind: Kind) -> None:
    assert counts(Failure(kind, "x"))
