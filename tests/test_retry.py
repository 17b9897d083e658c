from __future__ import annotations

import pytest

from runner.reask import Change
from runner.records import Attempt, Billed, Choice, Completion, Failure, Kind, Outcome, Status
from runner.retry import RULES, Again, Halt, Policy, Rule, SoFar, counts, next_step
from runner.spec.model import OnInvalid, OnTruncation

FINAL, ALONE, GATE = "final", "backs off by itself", "waits at the gate"
POLICY = Policy(max_attempts=6, row_s=100.0)


def step(failure: Failure, counted: int = 1, spent_s: float = 0.0, policy: Policy = POLICY) -> str:
    again = next_step(failure, SoFar(counted, spent_s), policy)
    if again is None:
        return FINAL
    assert again == Again(again.backs_off)
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


@pytest.mark.parametrize(("asked_s", "waits_s"), [(None, 0.0), (7.5, 7.5), (5000.0, 900.0)])
@pytest.mark.parametrize("kind", [Kind.SERVER, Kind.TIMEOUT])
def test_a_row_that_backs_off_waits_as_long_as_the_server_asks(
    kind: Kind, asked_s: float | None, waits_s: float
) -> None:
    again = next_step(Failure(kind, "x", wait_s=asked_s), SoFar(counted=1), POLICY)
    assert again == Again(backs_off=True, at_least_s=waits_s)


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


TWICE = OnTruncation(factor=2, max_tokens=400)
BODY = b'{"max_tokens":100}'
ROOM, FEEDBACK, SAME = "more room", "shown", "the same"


def said(kinds: str) -> list[Attempt]:
    """The paid answers of a row: t was cut off, o cannot be used."""
    letters = {"t": None, "o": "OUTPUT"}
    return [Attempt(1, n, "", 1.0, 0.0, 200, letters[kind], answer=f"{n}") for n, kind in enumerate(kinds, 1)]


def last_of(kinds: str) -> Outcome:
    if kinds[-1] == "o":
        return Failure(Kind.OUTPUT, "wrong", 200, Billed.YES)
    return Completion(Status.TRUNCATED, (Choice(0, "cut"),))


@pytest.mark.parametrize(
    ("kinds", "on_invalid", "on_truncation", "expected"),
    [
        ("o", None, None, None),
        ("t", None, None, None),
        ("o", None, TWICE, None),
        ("t", OnInvalid(attempts=2), None, None),
        ("o", OnInvalid(attempts=2), None, {FEEDBACK: 1}),
        ("oo", OnInvalid(attempts=2), None, {FEEDBACK: 2}),
        ("ooo", OnInvalid(attempts=2), None, None),
        ("o", OnInvalid(attempts=1, feedback=False), None, {}),
        ("oo", OnInvalid(attempts=1, feedback=False), None, None),
        ("t", None, TWICE, {ROOM: True}),
        ("tt", None, TWICE, None),
        ("t", OnInvalid(attempts=1), TWICE, {ROOM: True}),
        ("to", OnInvalid(attempts=1), TWICE, {ROOM: True, FEEDBACK: 2}),
        ("too", OnInvalid(attempts=1), TWICE, None),
        ("ot", OnInvalid(attempts=1), TWICE, {ROOM: True, FEEDBACK: 1}),
        ("ott", OnInvalid(attempts=1), TWICE, None),
        ("oto", OnInvalid(attempts=1), TWICE, None),
        ("oto", OnInvalid(attempts=2), TWICE, {ROOM: True, FEEDBACK: 3}),
        ("to", OnInvalid(attempts=1, feedback=False), TWICE, {ROOM: True}),
    ],
)
def test_an_answer_that_falls_short_is_asked_again_as_the_job_says(
    kinds: str, on_invalid: OnInvalid | None, on_truncation: OnTruncation | None, expected: dict[str, int] | None
) -> None:
    policy = Policy(max_attempts=1, on_invalid=on_invalid, on_truncation=on_truncation)
    answers = said(kinds)
    again = next_step(last_of(kinds), SoFar(5, 0.0, answers, BODY), policy)
    if expected is None:
        assert again is None
        return
    shown = answers[expected[FEEDBACK] - 1] if FEEDBACK in expected else None
    assert again == Again(False, Change(TWICE if expected.get(ROOM) else None, shown))


@pytest.mark.parametrize("body", [b"{}", b'{"max_tokens":400}', b'{"max_completion_tokens":401}'])
def test_a_cut_answer_stays_when_there_is_no_more_room(body: bytes) -> None:
    assert next_step(last_of("t"), SoFar(0, 0.0, said("t"), body), Policy(on_truncation=TWICE)) is None


@pytest.mark.parametrize("kinds", ["o", "t"])
def test_a_row_whose_time_is_used_up_keeps_the_answer_that_it_has(kinds: str) -> None:
    policy = Policy(row_s=10.0, on_invalid=OnInvalid(attempts=3), on_truncation=TWICE)
    assert next_step(last_of(kinds), SoFar(0, 9.9, said(kinds), BODY), policy) is not None
    assert next_step(last_of(kinds), SoFar(0, 10.0, said(kinds), BODY), policy) is None


@pytest.mark.parametrize("status", [Status.OK, Status.FILTERED, Status.REFUSED])
def test_any_other_answer_is_final(status: Status) -> None:
    policy = Policy(on_invalid=OnInvalid(attempts=3), on_truncation=TWICE)
    assert next_step(Completion(status, (Choice(0, "x"),)), SoFar(0, 0.0, said("t"), BODY), policy) is None


def test_an_answer_uses_up_none_of_max_attempts() -> None:
    assert not counts(Failure(Kind.OUTPUT, "wrong", 200, Billed.YES))
