"""What a webhook is told, when, and what nobody learns about it."""

from __future__ import annotations

import copy
import pickle
from decimal import Decimal
from typing import Any

import pytest

from runner.errors import JobError, LaterError, RunnerError, StoppedError
from runner.notify import Bell, Stall, Webhook, counted, summary
from runner.progress import Snapshot
from runner.records import Tally
from runner.say import Say

SECRET = "https://hooks.slack.example/services/T0/B0/distinctive-77aa"


def seen(at_s: float, settled: int, rows: int = 10) -> Snapshot:
    return Snapshot(at_s, rows, settled, settled, 0, 0, Decimal(0), 0, 0)


@pytest.mark.parametrize(
    ("looks", "begins"),
    [
        # (at_s, settled): when 10 s without a settled row are a stall
        ([(0, 0), (9, 0), (10, 0)], [False, False, True]),
        ([(0, 0), (10, 0), (20, 0), (1000, 0)], [False, True, False, False]),  # once
        ([(0, 0), (9, 1), (18, 1), (19, 1)], [False, False, False, True]),
        ([(0, 0), (10, 0), (11, 1), (20, 1), (21, 1)], [False, True, False, False, True]),  # and again
        ([(0, 10), (100, 10)], [False, False]),  # no row waits
    ],
)
def test_a_stall_is_told_once(looks: list[tuple[float, int]], begins: list[bool]) -> None:
    stall = Stall(10.0)
    assert [stall.begins(seen(at_s, settled)) for at_s, settled in looks] == begins


def test_a_webhook_hides_itself() -> None:
    hook = Webhook("HOOK", {"HOOK": f" {SECRET}\n"})
    bell = Bell(hook, ("finished",), 1.0, {}, "", Say(quiet=True))
    for text in (repr(hook), str(hook), f"{hook}", repr(bell), repr([hook])):
        assert "distinctive" not in text and "slack" not in text
    assert repr(hook) == "<Webhook ******** of HOOK>"
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled"):
            copied(hook)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "notify.webhook_env: the environment variable HOOK is not set"),
        ("  ", "notify.webhook_env: the environment variable HOOK is not set"),
        (
            "hooks.slack.example/distinctive",
            "notify.webhook_env: the environment variable HOOK holds no https:// address",
        ),
        ("ftp://x/distinctive", "notify.webhook_env: the environment variable HOOK holds no https:// address"),
        (
            "http://hooks.slack.example/distinctive",
            "notify.webhook_env: the environment variable HOOK holds an http:// address; only https:// keeps a webhook "
            "secret on its way",
        ),
    ],
)
def test_a_webhook_that_cannot_be_used_is_refused_in_words(value: str | None, words: str) -> None:
    with pytest.raises(JobError) as caught:
        Webhook("HOOK", {} if value is None else {"HOOK": value})
    assert (caught.value.message, caught.value.exit_code) == (words, 2)
    assert "distinctive" not in caught.value.hint


@pytest.mark.parametrize("value", [SECRET, "http://127.0.0.1:8/x", "http://localhost/x"])
def test_https_and_this_machine_are_taken(value: str) -> None:
    assert Webhook("HOOK", {"HOOK": value}).name == "HOOK"


def test_what_is_told_of_the_rows_is_exact() -> None:
    totals = Tally({"ok": 3, "failed": 1}, exchanges=7, unknown_exchanges=2, cost_usd=Decimal("0.100000000001"))
    told = counted(10, totals)
    assert told == {
        "rows": {"all": 10, "settled": 4, "ok": 3, "failed": 1},
        "cost_usd": "0.100000000001",
        "unknown_exchanges": 2,
    }
    message: dict[str, Any] = {"job": "labels", "event": "stopped", "host": "h", "reason": "SIGTERM", "seconds": 200.0}
    assert summary(message) == "labels stopped on h: SIGTERM, 3 min"
    said = "labels stopped on h: SIGTERM, 4 of 10 rows final (3 ok, 1 failed), $0.1000, 3 min"
    assert summary(message | told) == said


class Rung(Bell):
    """A bell whose strokes are only counted."""

    def _ring(self, event: str, reason: str, told: Any, patience_s: float) -> None:
        RUNG.append((event, reason, told["exit_code"], patience_s))


RUNG: list[tuple[str, str, int, float]] = []


@pytest.mark.parametrize(
    ("error", "reason", "code", "patience_s"),
    [
        (StoppedError("row 7 said: secret text"), "The job stopped: a person is needed", 3, 10.0),
        (LaterError("x"), "The job stopped: the same command works later", 75, 10.0),
        (RunnerError("x"), "Something went wrong", 4, 10.0),
        (ZeroDivisionError("secret text"), "It broke off", 4, 10.0),
        (KeyboardInterrupt(), "It broke off", 130, 3.0),
        (SystemExit(143), "It broke off", 143, 3.0),
    ],
)
def test_what_breaks_out_of_a_run_is_told_by_its_sort_alone(
    error: BaseException, reason: str, code: int, patience_s: float
) -> None:
    RUNG.clear()
    with pytest.raises(type(error)), Rung(None, (), 1.0, {}, "", Say(quiet=True)).tolled():
        raise error
    assert [("stopped", reason, code, patience_s)] == RUNG
