"""`budget.confirm_above_usd`: nothing that may cost more leaves before somebody has said yes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoint import KEY, Done, Endpoint, Place, ok, refused, snapshot, until
from terminal import Terminal

import runner
from runner.errors import ConsentError

#: Six rows: each of 95 bytes of body at $2 and 20 tokens at $8 a million, at most.
ASKS = {"budget": {"confirm_above_usd": 0.001}}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint() as endpoint:
        place = Place(tmp_path, endpoint)
        place.rows(6)
        place.job(**ASKS)
        yield place


def typed(place: Place, answer: str, *words: str) -> tuple[Done, str]:
    """A command on a terminal whose person answers; what the terminal shows."""
    with Terminal(300) as terminal:
        life = place.start(*words, tty=terminal.name, TERM="xterm")
        assert until(lambda: "[y/N]" in terminal.text), terminal.text
        terminal.type(answer)
        done = life.wait()
    return done, terminal.text


def test_off_a_terminal_it_is_2_and_nothing_is_made(place: Place) -> None:
    before = snapshot(place.root).keys()
    done = place.run()
    assert (done.code, place.endpoint.connections) == (2, 0)
    (said,) = done.errors
    assert said.startswith("this run may cost at most $0.002")
    assert said.endswith("; the job asks first above $0.001 (budget.confirm_above_usd)")
    assert "--yes" in done.hint and "RUNNER_YES" in done.hint
    assert {name for name in snapshot(place.root).keys() - before if not name.endswith("-1.txt")} == set()


@pytest.mark.parametrize(("words", "env"), [(("--yes",), {}), ((), {"RUNNER_YES": "1"})])
def test_who_says_yes_beforehand_is_not_asked(place: Place, words: tuple[str, ...], env: dict[str, str]) -> None:
    assert place.run(*words, **env).code == 0
    assert place.sent == 6


def test_below_the_amount_nobody_is_asked(place: Place) -> None:
    place.job(budget={"confirm_above_usd": 1})
    assert place.run().code == 0
    place.job(**ASKS, request={"max_completion_tokens": 500})
    assert place.run("--simulate").code == 0  # which costs nothing


@pytest.mark.parametrize(("answer", "code", "sent"), [("y\n", 0, 6), ("YES\n", 0, 6), ("n\n", 2, 0), ("\n", 2, 0)])
def test_on_a_terminal_it_asks(place: Place, answer: str, code: int, sent: int) -> None:
    done, shown = typed(place, answer, "run", "job.yaml")
    assert "This run may cost at most $0.002" in shown
    assert "; go on? [y/N] " in shown
    assert (done.code, place.sent) == (code, sent)
    assert place.run_root.exists() == (code == 0)


def test_ctrl_c_at_the_question_leaves_with_130(place: Place) -> None:
    done, _ = typed(place, "\x03", "run", "job.yaml")
    assert (done.code, place.sent, place.run_root.exists()) == (130, 0, False)


@pytest.mark.parametrize("word", ["-q", "--json"])
def test_who_is_to_say_nothing_does_not_ask(place: Place, word: str) -> None:
    with Terminal(200) as terminal:
        done = place.start("run", "job.yaml", word, tty=terminal.name, TERM="xterm").wait()
    assert (done.code, place.sent) == (2, 0)
    assert "[y/N]" not in terminal.text


def test_what_is_not_known_is_more_than_any_number(place: Place) -> None:
    place.job(budget={"confirm_above_usd": 1000}, request={"model": "nobody-knows"}, pricing={"m-1": None})
    (said,) = place.run().errors
    assert said.startswith("what this run may cost is not known (no price, or no cap of the output)")
    place.job(budget={"confirm_above_usd": 1000}, request={"max_completion_tokens": None})
    assert place.run().code == 2
    assert place.sent == 0


def test_a_budget_bounds_what_may_be_spent(place: Place) -> None:
    place.job(budget={"confirm_above_usd": 0.001, "max_usd": 0.001})
    assert place.run().code == 3  # the budget ends first, and it was below what is asked about
    assert place.sent == 3


def test_of_a_budget_only_what_is_not_spent_is_asked_about(place: Place) -> None:
    """Three of six rows have had room; what is left of the budget is less than is asked about, then it is more."""
    place.job(budget={"max_usd": 0.001})
    assert (place.run().code, place.sent) == (3, 3)
    place.job(budget={"max_usd": 0.0013, "confirm_above_usd": 0.0005})
    assert (place.run().code, place.sent) == (3, 4)  # 0.0013 less 3 answers at $0.00028 is 0.00046
    place.job(budget={"max_usd": 0.002, "confirm_above_usd": 0.0005})
    done = place.run()
    assert (done.code, place.sent) == (2, 4)
    assert done.errors[0].startswith("going on with this run may cost at most $0.00069 (")


def test_only_what_is_left_is_asked_about_and_answers_say_what_is_expected(place: Place) -> None:
    place.rows(40)
    place.job(budget={"confirm_above_usd": 0.01})
    place.endpoint.answer = lambda seen: ok() if seen.number < 20 else refused(429, "Quota.", "insufficient_quota")
    assert place.run("--yes").code == 3
    place.endpoint.answer = lambda seen: ok()
    assert place.run().code == 0  # 20 rows are left, at $0.0004 each
    assert place.sent > 40


def test_answers_so_far_are_what_is_expected(place: Place) -> None:
    place.endpoint.answer = lambda seen: ok() if seen.number < 3 else refused(429, "Quota.", "insufficient_quota")
    assert place.run("--yes", "-c", "1").code == 3
    place.job(budget={"confirm_above_usd": 0})
    (said,) = place.run().errors
    assert said.startswith("going on with this run may cost at most $0.00")
    assert "(about $0.00084 expected)" in said  # three rows at $0.00028


def test_a_changed_job_asks_before_it_is_changed(place: Place) -> None:
    assert place.run("--yes").code == 0
    place.job(**ASKS, request={"messages": [{"role": "user", "content": "now say {{ text }}"}]})
    before = snapshot(place.run_root)
    done = place.run("--accept-changes")
    assert (done.code, place.sent) == (2, 6)
    assert "going on with this run may cost at most" in done.errors[0]
    after = snapshot(place.run_root)
    assert {name for name in after if after[name] != before.get(name)} <= {"run.log", "lock"}
    place.job(**ASKS)  # and back: nothing was lost
    assert (place.run().code, place.sent) == (0, 6)


def test_the_plan_of_a_changed_job_says_what_asking_again_costs(place: Place) -> None:
    place.job(input={"limit": 4})
    assert place.run().code == 0
    messages = [{"role": "user", "content": "now say {{ text }}"}]
    place.job(input={"limit": 5}, request={"messages": messages})
    size = len(json.dumps(place.endpoint.seen[0].body, separators=(",", ":"))) + len("now ")
    most = f"${5 * (size * 2 + 20 * 8) / 1e6:.2g}"
    plan = f"4 changed, 1 new; 5 to send (about {5 * (size // 4 + 20)} tokens, at most {most})"
    done = place.run()
    assert (done.code, place.sent) == (2, 4)
    assert plan in done.err
    assert plan in place.call("check", "job.yaml").out
    place.job(input={"limit": 5}, request={"messages": messages, "max_completion_tokens": None})
    assert ", unknown cost)" in place.run().err
    assert place.sent == 4


def test_retry_asks_before_it_opens_anything_again(place: Place) -> None:
    place.endpoint.answer = lambda seen: refused(400, "Bad.") if seen.number % 2 else ok()
    assert place.run("--yes").code == 1
    place.job(budget={"confirm_above_usd": 0.0001})
    before = snapshot(place.run_root)
    done = place.call("retry", "job.yaml")
    assert (done.code, place.sent) == (2, 6)
    after = snapshot(place.run_root)
    assert {name for name in after if after[name] != before.get(name)} <= {"run.log", "lock"}
    place.endpoint.answer = lambda seen: ok()
    done, shown = typed(place, "y\n", "retry", "job.yaml")
    assert (done.code, place.sent) == (0, 9)
    assert "Going on with this run may cost at most" in shown


def test_a_sample_is_asked_about_by_its_own_rows(place: Place) -> None:
    place.rows(200)
    assert place.run("--sample", "2").code == 0
    assert place.run("--sample", "150").code == 2
    assert place.sent == 2


def test_a_fresh_start_asks_before_the_old_run_is_moved(place: Place) -> None:
    assert place.run("--yes").code == 0
    assert place.run("--fresh").code == 2
    assert [path.name for path in (place.root / "runs").iterdir()] == ["trial"]


def test_rows_that_are_copied_are_reckoned_before_they_are_kept(place: Place) -> None:
    """The copy of a packed file lies beside the run while it is asked about."""
    (place.root / "rows.jsonl.gz").write_bytes(gzip.compress((place.root / "rows.jsonl").read_bytes()))
    place.job(**ASKS, input={"path": "rows.jsonl.gz"})
    assert place.run().code == 2
    assert list(place.root.glob("runs/**/*")) == []
    assert place.run("--yes").code == 0
    assert place.sent == 6


def test_python_says_yes_in_words(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.root)
    given: dict[str, Any] = {"environ": {"TRIAL_KEY": KEY}, "quiet": True}
    with pytest.raises(ConsentError, match="may cost at most") as raised:
        runner.run("job.yaml", **given)
    assert (raised.value.exit_code, place.sent) == (2, 0)
    assert "yes=True" in raised.value.hint
    assert runner.run("job.yaml", yes=True, **given).ok
