from __future__ import annotations

from typing import Any

import pytest

from runner.errors import LaterError, RunnerError, StoppedError
from runner.halts import Pause, Streak, Terms, Watch, duration, holds, likeness
from runner.records import Billed, Choice, Completion, Failure, Kind, Outcome, Status

URL = "https://api.example.com/v1"
TERMS = Terms(max_wait_s=900, outage_s=3600, auth_wait_s=100, base_url=URL, key_name="EXAMPLE_KEY")
OK = Completion(Status.OK, (Choice(0, "yes"),))


def fail(kind: Kind, message: str = "said", **more: Any) -> Failure:
    return Failure(kind, message, **more)


def watch(*, answered: bool = False, **terms: Any) -> Watch:
    made = Watch(Terms(**{name: getattr(TERMS, name) for name in Terms.__dataclass_fields__} | terms))
    if answered:
        made.success(0.0)
    return made


KEY = fail(Kind.AUTH, "Incorrect API key", status=401)
QUOTA = fail(Kind.QUOTA, "insufficient_quota", status=429)
MODEL = fail(Kind.CONFIG, "no such model", status=404)
RATE = fail(Kind.RATE, "slow down", status=429)
REFUSED = fail(Kind.NETWORK, "connection refused", unreachable=True)
PAGE = fail(Kind.BAD_REPLY, "<html>", status=200, html=True)


def judged(seen: Watch, failure: Failure, now_s: float, sent_at_s: float | None = None) -> str:
    """`stopped`, `later`, `pause`, `row` or the seconds of a pause."""
    verdict = seen.judge(failure, now_s, now_s if sent_at_s is None else sent_at_s)
    match verdict:
        case LaterError():
            return "later"
        case StoppedError():
            return "stopped"
        case Pause(wait_s):
            return "pause" if wait_s is None else f"{wait_s:g}"
        case None:
            return "row"
    raise AssertionError(verdict)


@pytest.mark.parametrize(
    ("failure", "answered", "model_is_template", "expected"),
    [
        (QUOTA, False, False, "stopped"),
        (QUOTA, True, True, "stopped"),
        (MODEL, False, False, "stopped"),
        (MODEL, True, False, "row"),
        (MODEL, False, True, "row"),
        (RATE, False, False, "pause"),
        (fail(Kind.RATE, wait_s=30), True, False, "30"),
        (fail(Kind.RATE, wait_s=900), True, False, "900"),
        (fail(Kind.RATE, wait_s=900.1), True, False, "later"),
        (fail(Kind.OVERLOADED, wait_s=901), False, False, "later"),
        (REFUSED, False, False, "pause"),
        (fail(Kind.NETWORK, "reset"), False, False, "row"),
        (KEY, False, False, "0.5"),
        (KEY, True, False, "2"),
        (PAGE, False, False, "row"),
        (fail(Kind.BAD_REPLY), False, False, "row"),
        (fail(Kind.TIMEOUT), False, False, "row"),
        (fail(Kind.SERVER), False, False, "row"),
        (fail(Kind.OUTPUT), False, False, "row"),
        (fail(Kind.REQUEST), False, False, "row"),
        (fail(Kind.POLICY), False, False, "row"),
    ],
)
def test_the_first_failure_of_a_kind_is_judged_so(
    failure: Failure, answered: bool, model_is_template: bool, expected: str
) -> None:
    assert judged(watch(answered=answered, model_is_template=model_is_template), failure, 1.0) == expected


@pytest.mark.parametrize(
    ("failure", "exit_code", "said", "hint"),
    [
        (QUOTA, 3, "the account's quota is used up (429): insufficient_quota", "top up"),
        (MODEL, 3, f"{URL} does not know the model or the path (404): no such model", "request.model"),
        (fail(Kind.RATE, "later", wait_s=7200), 75, "asks to wait 2 h 00 min, longer than retry.max_wait_s", "after"),
    ],
)
def test_a_stop_says_what_happened_and_what_to_do(failure: Failure, exit_code: int, said: str, hint: str) -> None:
    error = watch().judge(failure, 1.0, 0.5)
    assert isinstance(error, RunnerError)
    assert error.exit_code == exit_code
    assert said in error.message
    assert hint in error.hint


def probe(seen: Watch, begin_s: float) -> tuple[list[str], float]:
    """Refuse the key until it stops; each probe leaves when its pause is over and takes 0.1 s."""
    said, now_s, sent_at_s = [], begin_s, begin_s - 0.1
    while True:
        said.append(judged(seen, KEY, now_s, sent_at_s))
        if said[-1] == "stopped" or len(said) > 9:
            return said, now_s - begin_s
        sent_at_s = now_s + float(said[-1])
        now_s = sent_at_s + 0.1


def test_a_key_refused_from_the_start_is_probed_three_times_within_seconds() -> None:
    said, took_s = probe(watch(), 5.0)
    assert said == ["0.5", "1", "2", "stopped"]
    assert took_s == pytest.approx(3.8)


def test_a_key_refused_after_it_worked_is_probed_three_times_over_auth_wait_s() -> None:
    said, took_s = probe(watch(answered=True), 5.0)
    assert said == ["2", "18", "80", "stopped"]
    assert took_s == pytest.approx(100.3)


def test_an_answer_between_refusals_gives_the_key_its_probes_back() -> None:
    seen = watch(answered=True)
    assert [judged(seen, KEY, now, now - 1) for now in (10.0, 20.0)] == ["2", "18"]
    seen.success(21.0)
    assert probe(seen, 30.0)[0] == ["2", "18", "80", "stopped"]


def test_refusals_of_requests_that_were_in_flight_are_no_probes() -> None:
    seen = watch()
    assert judged(seen, KEY, 10.0, 9.0) == "0.5"
    assert [judged(seen, KEY, 10.0 + echo / 10, 9.5) for echo in range(20)] == ["0"] * 20
    assert seen.probes == 1


def test_the_sentence_of_a_refused_key_names_the_key_and_says_that_no_row_is_lost() -> None:
    seen = watch()
    seen.probes = 3
    error = seen.judge(KEY, 10.0, 9.0)
    assert isinstance(error, StoppedError)
    assert error.message == "the endpoint refuses EXAMPLE_KEY (401): Incorrect API key"
    assert "no row is lost" in error.hint


@pytest.mark.parametrize("kind", [Kind.RATE, Kind.OVERLOADED])
def test_a_drought_longer_than_max_wait_s_stops_for_later(kind: Kind) -> None:
    seen = watch(answered=True)
    said = [judged(seen, fail(kind, wait_s=300), now) for now in (1000.0, 1300.0, 1900.0, 1900.1)]
    assert said == ["300", "300", "300", "later"]


def test_any_answer_ends_a_drought() -> None:
    seen = watch()
    for now in range(0, 100_000, 800):
        assert judged(seen, RATE, now) == "pause"
        assert judged(seen, RATE, now + 700) == "pause"
        seen.success(now + 750)


@pytest.mark.parametrize(("answered", "longest_s"), [(False, 60.0), (True, 3600.0)])
def test_an_outage_is_waited_out_but_not_before_first_contact(answered: bool, longest_s: float) -> None:
    seen = watch(answered=answered)
    said = [judged(seen, REFUSED, 1000 + share * longest_s) for share in (0, 0.5, 0.999, 1.0)]
    assert said == ["pause", "pause", "pause", "later"]


def test_an_outage_shorter_than_a_minute_bounds_first_contact_too() -> None:
    seen = watch(outage_s=5)
    assert [judged(seen, REFUSED, now) for now in (0.0, 4.9, 5.0)] == ["pause", "pause", "later"]


@pytest.mark.parametrize(("answered", "hint"), [(False, "check endpoint.base_url"), (True, "check the network")])
def test_the_sentence_of_an_outage_names_the_address(answered: bool, hint: str) -> None:
    seen = watch(answered=answered, outage_s=0)
    error = seen.judge(REFUSED, 1.0, 0.0)
    assert isinstance(error, LaterError)
    assert error.exit_code == 75
    assert URL in error.message
    assert hint in error.hint


def test_three_web_pages_in_a_row_stop_and_an_answer_between_them_does_not() -> None:
    seen = watch()
    assert [judged(seen, PAGE, 1.0) for _ in range(3)] == ["row", "row", "stopped"]
    seen = watch()
    for _ in range(10):
        assert [judged(seen, PAGE, 1.0) for _ in range(2)] == ["row", "row"]
        seen.success(2.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3.21, "3.21 s"),
        (0, "0 s"),
        (89.9, "89.9 s"),
        (90, "2 min"),
        (840, "14 min"),
        (7500, "2 h 05 min"),
        (21600, "6 h 00 min"),
    ],
)
def test_durations_are_for_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def stops_at(outcomes: list[Outcome]) -> int | None:
    """After how many outcomes the streak stops the job."""
    streak = Streak()
    for number, outcome in enumerate(outcomes, 1):
        if streak.see(number - 1, outcome):
            return number
    return None


BAD = fail(Kind.REQUEST, "unknown parameter", status=400)
OTHER = fail(Kind.REQUEST, "too long", status=400)
POLICY = fail(Kind.POLICY, "no", status=400)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([BAD] * 30, 20),
        ([BAD] * 19, None),
        ([BAD] * 19 + [OK] + [BAD] * 199, None),
        ([OK] + [BAD] * 199, None),
        ([OK] + [BAD] * 300, 201),
        ([BAD] * 19 + [OTHER] * 199, None),
        ([BAD] * 19 + [OTHER] * 200, 219),
        ([BAD, OTHER] * 300, None),
        ([OK, *[BAD] * 199] * 3, None),
        ([POLICY] * 1000, None),
        ([BAD] * 19 + [POLICY] + [BAD] * 30, None),
        ([POLICY] + [BAD] * 200, 201),
        ([fail(Kind.OUTPUT, "not valid", billed=Billed.YES)] * 20, 20),
        ([fail(Kind.INPUT, f"row {n}: no column x") for n in range(20)], 20),
        ([fail(Kind.TIMEOUT, "no answer within 300 s")] * 20, 20),
        ([fail(Kind.SERVER, "x", status=500 + n % 2) for n in range(400)], None),
        ([fail(Kind.SERVER, "x", status=500), fail(Kind.TIMEOUT, "x")] * 200, None),
    ],
)
def test_rows_that_fail_alike_stop_the_job(outcomes: list[Outcome], expected: int | None) -> None:
    assert stops_at(outcomes) == expected


def test_the_sentence_of_a_streak_counts_and_names_its_first_rows() -> None:
    streak = Streak()
    errors = [streak.see(row, BAD) for row in range(100, 120)]
    assert errors[:-1] == [None] * 19
    assert isinstance(errors[-1], StoppedError)
    assert errors[-1].message == "the first 20 rows failed alike (REQUEST): unknown parameter"
    assert "rows 100, 101, 102, …" in errors[-1].hint
    streak = Streak()
    streak.see(0, OK)
    later = [streak.see(row, BAD) for row in range(1, 201)][-1]
    assert later is not None
    assert later.message == "200 rows in a row failed alike (REQUEST): unknown parameter"


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (BAD, OTHER, False),
        (fail(Kind.REQUEST, "row 12 of 99"), fail(Kind.REQUEST, "row 7 of 100"), True),
        (fail(Kind.SERVER, "x", status=500), fail(Kind.SERVER, "x", status=502), False),
        (fail(Kind.SERVER, "a" * 80 + "b"), fail(Kind.SERVER, "a" * 80 + "c"), True),
        (fail(Kind.SERVER, "x"), fail(Kind.TIMEOUT, "x"), False),
    ],
)
def test_failures_are_alike_by_kind_status_and_message_without_numbers(
    one: Failure, other: Failure, alike: bool
) -> None:
    assert (likeness(one) == likeness(other)) is alike


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (OK, False),
        (BAD, True),
        (POLICY, False),
        (fail(Kind.OUTPUT, billed=Billed.YES), False),
        (fail(Kind.TIMEOUT, billed=Billed.MAYBE), False),
        (fail(Kind.INPUT), True),
    ],
)
def test_only_failures_that_cost_nothing_wait_for_the_end_of_their_streak(outcome: Outcome, expected: bool) -> None:
    assert holds(outcome) is expected
