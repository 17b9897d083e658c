"""Every way in which a run ends: its exit code, one sentence and a hint, and what is left for the next start."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import socket
import sys
import termios
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from endpoint import PAGE, Endpoint, Place, Said, Seen, ok, refused, until

from runner.lock import read_owner

BAD = refused(400, "Unsupported parameter: 'max_tokens'.", "unsupported_parameter")
QUOTA = refused(429, "You exceeded your current quota.", "insufficient_quota")
NO_MODEL = refused(404, "The model `m-1` does not exist.", "model_not_found")
WRONG_KEY = refused(401, "Incorrect API key provided.", "invalid_api_key")
ANSWER_USD = Decimal("0.00028")  # 100 tokens at $2 and 10 at $8 a million


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint() as endpoint:
        place = Place(tmp_path, endpoint)
        place.rows(6)
        yield place


def rowwise(answers: dict[str, Said], otherwise: Said | None = None) -> Callable[[Seen], Said]:
    """An answer for each row's text."""
    return lambda seen: answers.get(seen.text.removeprefix("say "), otherwise or ok())


def first(count: int, early: Said, later: Said) -> Callable[[Seen], Said]:
    """`early` for the first `count` requests."""
    return lambda seen: early if seen.number < count else later


# Finished


def test_every_row_ok_is_0_and_the_json_line_says_so(place: Place) -> None:
    place.job()
    done = place.run("--json")
    assert (done.code, done.err) == (0, "")
    assert done.out.count("\n") == 1
    told = done.json
    assert (told["exit_code"], told["reason"], told["rows"], told["next"]) == (0, "finished", 6, None)
    assert (told["error"], told["hint"]) == (None, None)
    assert told["run"] == str(place.run_root)
    assert told["results"] == str(place.run_root / "results")
    assert told["totals"]["rows"] == {"ok": 6}
    assert Decimal(told["totals"]["cost_usd"]) == 6 * ANSWER_USD


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 1),
        (("--allow-failed", "1"), 1),
        (("--allow-failed", "2"), 0),
        (("--allow-failed", "33%"), 1),
        (("--allow-failed", "34%"), 0),
    ],
)
def test_rows_that_are_not_ok_decide_between_0_and_1(place: Place, words: tuple[str, ...], code: int) -> None:
    place.endpoint.answer = rowwise({"row 1": BAD, "row 4": refused(400, "this prompt is too long")})
    place.job()
    done = place.run(*words)
    assert done.code == code
    assert "finished: 6 of 6 rows final (4 ok, 2 failed)" in done.err
    assert "Unsupported parameter" in done.err
    assert place.sent == 6
    assert done.out == ""


@pytest.mark.parametrize("option", ["--allow-failed", "--max-failures"])
@pytest.mark.parametrize("text", ["many", "nan%", "inf"])
def test_a_share_that_is_none_is_refused_before_anything_is_sent(place: Place, option: str, text: str) -> None:
    place.job()
    done = place.run(option, text)
    assert (done.code, place.sent) == (2, 0)
    assert len(done.errors) == 1
    assert not place.run_root.exists()


# Refused before anything is sent


def test_all_mistakes_of_a_job_are_told_at_once_with_their_lines(place: Place) -> None:
    (place.root / "job.yaml").write_text(
        "name: trial\n"
        "input: {path: rows.jsonl}\n"
        "request:\n"
        "  model: m-1\n"
        "  messages:\n"
        '    - {role: user, content: "{{ text }}"}\n'
        "retry:\n"
        "  max_atempts: 3\n"
        "timeouts:\n"
        "  connect_s: soon\n"
        "engine: ray\n"
    )
    for command in ("check", "run", "render"):
        done = place.call(command, "job.yaml")
        assert done.code == 2
        assert [error.split(": ")[0] for error in done.errors] == ["job.yaml:8", "job.yaml:10", "job.yaml:11"]
        assert "did you mean max_attempts?" in done.errors[0]
    assert not (place.root / "runs").exists()


@pytest.mark.parametrize("command", ["check", "run", "render", "status"])
def test_a_job_file_that_is_not_there_is_2(place: Place, command: str) -> None:
    done = place.call(command, "nowhere.yaml")
    assert done.code == 2
    assert len(done.errors) == 1
    assert "nowhere.yaml" in done.errors[0]
    assert done.hint


@pytest.mark.parametrize("command", ["check", "run", "render"])
def test_a_column_that_the_input_lacks_is_found_before_any_request(place: Place, command: str) -> None:
    place.job(request={"messages": [{"role": "user", "content": "say {{ txt }}"}]})
    done = place.call(command, "job.yaml")
    assert (done.code, place.endpoint.connections) == (2, 0)
    assert len(done.errors) == 1
    assert done.errors[0].startswith("job.yaml:")
    assert "no column `txt`; it has id, text" in done.errors[0]
    assert not place.run_root.exists()


def test_a_bad_line_is_told_with_file_line_and_byte(place: Place) -> None:
    good = b'{"id": 0, "text": "row 0"}\n'
    (place.root / "rows.jsonl").write_bytes(good + good + b'{"id": 1, "text": \n' + good)
    place.job()
    for command in ("check", "run"):
        done = place.call(command, "job.yaml")
        assert (done.code, place.endpoint.connections) == (2, 0)
        assert "rows.jsonl:3" in done.err
        assert f"byte {2 * len(good)}" in done.err
    assert not place.run_root.exists()


def test_a_bad_line_becomes_a_failed_row_when_the_job_says_so(place: Place) -> None:
    (place.root / "rows.jsonl").write_text('{"id": 0, "text": "row 0"}\nnothing\n{"id": 2, "text": "row 2"}\n')
    place.job(input={"on_bad_line": "fail_row"})
    done = place.run()
    assert (done.code, place.sent) == (1, 2)
    bad = place.records()[1]
    assert (bad["status"], bad["error_kind"], bad["attempts"], bad["text"]) == ("failed", "INPUT", [], None)
    assert "rows.jsonl:2" in bad["error"]
    assert [row["status"] for row in place.records()] == ["ok", "failed", "ok"]


def test_a_variable_without_a_key_is_2_and_says_which(place: Place) -> None:
    place.job(endpoint={"api_key_env": "NO_SUCH_KEY"})
    done = place.run()
    assert (done.code, place.endpoint.connections) == (2, 0)
    assert len(done.errors) == 1
    assert "NO_SUCH_KEY is not set" in done.errors[0]
    assert "export NO_SUCH_KEY" in done.hint


def test_a_run_that_cannot_start_makes_nothing(place: Place) -> None:
    place.job(endpoint={"api_key_env": "NO_SUCH_KEY"})
    assert place.run().code == 2
    assert not place.run_root.exists()


def test_the_json_line_also_tells_what_was_refused(place: Place) -> None:
    place.job(request={"messages": [{"role": "user", "content": "say {{ txt }}"}]})
    done = place.run("--json")
    assert done.code == 2
    assert done.json["exit_code"] == 2
    assert "txt" in done.json["error"]


def test_a_key_that_is_not_built_yet_is_refused_in_words(place: Place) -> None:
    place.job(engine="batch")
    done = place.run()
    assert (done.code, place.endpoint.connections) == (2, 0)
    assert len(done.errors) == 1
    assert done.errors[0].startswith("job.yaml:")
    assert "built yet" in done.errors[0]


def test_an_unknown_flag_is_2(place: Place) -> None:
    place.job()
    done = place.run("--quite")
    assert (done.code, done.out) == (2, "")
    assert "--quite" in done.err


# The key


def test_a_refused_key_stops_within_seconds_and_loses_no_row(place: Place) -> None:
    place.endpoint.answer = lambda seen: WRONG_KEY
    place.job(timeouts={"auth_wait_s": 36_000})  # for a key that was good once
    done = place.run("--json")
    assert done.code == 3
    assert len(done.errors) == 1
    assert "TRIAL_KEY" in done.errors[0]
    assert "Incorrect API key provided." in done.errors[0]
    assert (done.json["reason"], done.json["exit_code"]) == ("stopped", 3)
    assert done.json["next"] == "runner run job.yaml"
    assert done.json["totals"]["rows"] == {}
    refusals = place.sent
    assert done.json["totals"]["exchanges"] == refusals
    assert not list((place.run_root / "results").iterdir())

    place.endpoint.answer = lambda seen: ok()
    mended = place.run("--json", TRIAL_KEY="sk-mended-0123456789")
    assert mended.code == 0
    assert mended.json["totals"]["exchanges"] == place.sent == refusals + 6
    assert Decimal(mended.json["totals"]["cost_usd"]) == 6 * ANSWER_USD
    statuses = [attempt["http_status"] for row in place.records() for attempt in row["attempts"]]
    assert (statuses.count(401), statuses.count(200)) == (refusals, 6)


def test_a_key_file_is_read_again_while_the_run_goes_on(place: Place) -> None:
    key = place.root / "key.txt"
    key.write_text("sk-old-0123456789\n")

    def answer(seen: Seen) -> Said:
        if seen.headers["authorization"] == "Bearer sk-new-0123456789":
            return ok()
        if seen.number == 1:  # the second refusal is that of a key which is another by now
            key.write_text("sk-new-0123456789\n")
        return WRONG_KEY

    place.endpoint.answer = answer
    place.job(endpoint={"api_key_env": None, "api_key_file": "key.txt"})
    done = place.run()
    assert done.code == 0, done.err
    assert {row["status"] for row in place.records()} == {"ok"}


@pytest.mark.parametrize("number", [0, 3])
def test_a_single_refusal_of_a_good_key_is_ridden_out(place: Place, number: int) -> None:
    place.endpoint.answer = lambda seen: WRONG_KEY if seen.number == number else ok()
    place.job()
    assert place.run().code == 0
    assert place.sent == 7


def test_a_key_that_is_withdrawn_later_stops_after_auth_wait_s(place: Place) -> None:
    place.endpoint.answer = first(3, ok(), refused(401, "Your key was deactivated.", "account_deactivated"))
    place.job(limits={"concurrency": 1})
    done = place.run("--json")
    assert done.code == 3
    assert done.json["totals"]["rows"] == {"ok": 3}
    place.endpoint.answer = lambda seen: ok()
    assert place.run().code == 0
    assert len(place.records()) == 6


# Money, model, path


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (QUOTA, "quota"),
        (refused(402, "Insufficient credits."), "Insufficient credits."),
        (NO_MODEL, "does not exist"),
        (refused(503, "No available channel for model m-1", "model_not_found"), "No available channel"),
        (PAGE, "Not Found"),
        (Said(301, "", {"location": "http://elsewhere.invalid/v1/chat/completions"}), "redirects to elsewhere.invalid"),
    ],
    ids=["quota", "402", "model", "503 model", "404 page", "301"],
)
def test_what_concerns_the_whole_job_stops_it_at_once_and_the_same_command_goes_on(
    place: Place, said: Said, words: str
) -> None:
    place.endpoint.answer = lambda seen: said
    place.rows(20)
    place.job()
    done = place.run("--json")
    assert done.code == 3
    assert len(done.errors) == 1
    assert words in done.errors[0]
    assert done.hint
    assert place.sent <= 8  # four were in flight; their places may just have been taken
    assert done.json["totals"]["rows"] == {}
    assert done.json["totals"]["exchanges"] == place.sent
    assert done.json["next"] == "runner run job.yaml"

    before, place.endpoint.answer = place.sent, lambda seen: ok()
    assert place.run().code == 0
    assert place.sent == before + 20
    assert sum(len(row["attempts"]) for row in place.records()) == place.sent


def test_a_mended_model_goes_on_in_the_same_directory_while_no_row_is_final(place: Place) -> None:
    place.endpoint.answer = lambda seen: NO_MODEL if seen.body["model"] == "m-1" else ok()
    place.job()
    assert place.run().code == 3
    wrong = place.sent
    place.job(request={"model": "m-2"}, pricing={"m-2": {"input": 2, "output": 8}})
    done = place.run()
    assert done.code == 0, done.err
    rows = place.records()
    assert {row["model"] for row in rows} == {"m-2"}
    assert sum(len(row["attempts"]) for row in rows) == wrong + 6
    assert json.loads((place.run_root / "run.json").read_bytes())["job"]["request"]["model"] == "m-2"


def test_where_a_redirect_leads_is_never_contacted(place: Place) -> None:
    with Endpoint() as other:
        place.endpoint.answer = lambda seen: Said(307, "", {"location": f"{other.url}/chat/completions"})
        place.job()
        assert place.run().code == 3
        assert other.connections == 0


def test_a_model_that_goes_away_later_fails_only_its_rows(place: Place) -> None:
    place.endpoint.answer = rowwise({"row 3": NO_MODEL})
    place.job(limits={"concurrency": 1})
    assert place.run().code == 1
    assert [row["error_kind"] for row in place.records()] == [None, None, None, "CONFIG", None, None]


def test_web_pages_in_place_of_answers_stop_the_run(place: Place) -> None:
    place.endpoint.answer = lambda seen: Said(200, "<!DOCTYPE html><html><title>Welcome</title></html>")
    place.job(limits={"concurrency": 1})
    done = place.run("--json")
    assert done.code == 3
    assert 3 <= place.sent <= 4
    assert "web pages" in done.errors[0]
    assert "/v1" in done.hint
    assert done.json["totals"]["rows"] == {}


# Rows that fail alike


def test_twenty_first_rows_that_fail_alike_go_back_and_the_mended_job_goes_on(place: Place) -> None:
    place.rows(60)
    place.endpoint.answer = lambda seen: BAD if "max_completion_tokens" in seen.body else ok()
    place.job()
    done = place.run("--json")
    assert done.code == 3
    assert len(done.errors) == 1
    assert done.errors[0].startswith("the first 20 rows failed alike (REQUEST)")
    assert done.json["totals"]["rows"] == {}
    assert 20 <= place.sent <= 20 + 3 * 4  # in flight, and answered but not yet judged
    wrong = place.sent
    assert done.json["totals"]["exchanges"] == wrong

    place.job(request={"max_completion_tokens": None})
    mended = place.run()
    assert mended.code == 0, mended.err
    rows = place.records()
    assert {row["status"] for row in rows} == {"ok"}
    assert sum(len(row["attempts"]) for row in rows) == place.sent == wrong + 60


def test_after_an_answer_it_takes_two_hundred_in_a_row(place: Place) -> None:
    place.rows(400)
    place.endpoint.answer = rowwise({"row 0": ok(), **{f"row {n}": ok() for n in range(150, 156)}}, BAD)
    place.job(limits={"concurrency": 1})
    done = place.run("--json")
    assert done.code == 3
    assert "200 rows in a row failed alike" in done.errors[0]
    assert done.json["totals"]["rows"] == {"ok": 7, "failed": 149 + 199}
    assert 356 <= place.sent <= 360
    place.endpoint.answer = lambda seen: ok()
    assert place.run().code == 1
    assert sum(row["status"] == "failed" for row in place.records()) == 149 + 199


def test_too_many_failures_stop_the_run(place: Place) -> None:
    place.rows(40)
    place.endpoint.answer = lambda seen: ok() if seen.number % 2 else BAD
    place.job(limits={"concurrency": 1})
    done = place.run("--json", "--max-failures", "5")
    assert done.code == 3
    assert "6 rows are not ok, more than --max-failures allows (5)" in done.errors[0]
    assert place.sent <= 16
    place.endpoint.answer = lambda seen: ok()
    assert place.run("--json", "--max-failures", "50%").code == 1
    assert len(place.records()) == 40


def test_failures_that_are_alike_count_towards_max_failures_too(place: Place) -> None:
    place.rows(150)
    place.endpoint.answer = rowwise({"row 0": ok()}, BAD)
    place.job(limits={"concurrency": 1})
    assert place.run("--max-failures", "5").code == 3
    assert place.sent <= 12


# Later


def test_a_wait_of_hours_is_left_to_the_next_start(place: Place) -> None:
    place.endpoint.answer = first(
        2, ok(), refused(429, "Daily limit reached.", "rate_limit_exceeded", retry_after="7200")
    )
    place.job(limits={"concurrency": 1})
    done = place.run("--json")
    assert done.code == 75
    assert "2 h 00 min" in done.errors[0]
    assert done.json["totals"]["rows"] == {"ok": 2}
    assert done.json["next"] == "runner run job.yaml"
    place.endpoint.answer = lambda seen: ok()
    assert place.run().code == 0


def test_an_endpoint_that_cannot_be_reached_is_75(place: Place) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        place.job(endpoint={"base_url": nobody}, timeouts={"outage_s": 2})
        done = place.run("--json")
    assert done.code == 75
    assert len(done.errors) == 1
    assert nobody in done.errors[0]
    assert "check endpoint.base_url" in done.hint
    assert done.json["totals"]["rows"] == {}
    assert Decimal(done.json["totals"]["cost_usd"]) == 0
    place.job()  # no row is final: another address is no other job yet
    assert place.run().code == 0


def test_short_waits_are_waited_out_by_all_rows_together(place: Place) -> None:
    place.endpoint.answer = first(3, refused(429, "Slow down.", "rate_limit_exceeded", retry_after="0.3"), ok())
    place.job(retry={"max_attempts": 1})
    done = place.run("--json")
    assert done.code == 0
    rows = place.records()
    attempts = [attempt for row in rows for attempt in row["attempts"]]
    assert len(attempts) == place.sent
    assert [attempt["cost_usd"] for attempt in attempts if attempt["http_status"] == 429] == [0.0] * 3
    for row in rows:
        assert [attempt["n"] for attempt in row["attempts"]] == list(range(1, len(row["attempts"]) + 1))
    assert Decimal(done.json["totals"]["wasted_usd"]) == 0


def test_the_next_command_of_the_json_line_goes_on(place: Place) -> None:
    place.endpoint.answer = first(2, ok(), QUOTA)
    place.job()
    words = ("-o", "a dir", "-i", "rows.jsonl", "-n", "5", "--set", "request.model=m-1", "-c", "1")
    done = place.run("--json", *words)
    assert done.code == 3
    before, place.endpoint.answer = place.sent, lambda seen: ok()
    program, *again = shlex.split(done.json["next"])
    assert program == "runner"
    ended = place.exec(*again)
    assert ended.code == 0, ended.err
    assert "going on in" in ended.err
    assert place.sent == before + 3
    assert len(place.records(place.root / "a dir")) == 5


def unread(pipe: int) -> int:
    """Bytes in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_anything_was_sent_ends_in_a_line_of_json_too(place: Place, number: signal.Signals) -> None:
    place.job(input={"path": "-"})
    pipe = place.root / "pipe"
    os.mkfifo(pipe)
    life = place.start("run", "job.yaml", "--json", stdin=pipe)
    with pipe.open("wb", buffering=0) as given:
        given.write(b"\n")
        assert until(lambda: unread(given.fileno()) == 0)
        assert read_owner(place.run_root / "lock")
        life.signal(number)
        done = life.wait()
    told = done.json
    assert done.code == told["exit_code"] == 128 + number
    assert (told["reason"], told["error"], told["rows"]) == ("interrupted", None, None)
    assert told["next"] == "runner run job.yaml"
    assert not place.run_root.exists()


def test_what_is_not_built_is_refused_in_a_line_of_json_too(place: Place) -> None:
    place.job(engine="batch")
    done = place.run("--json")
    assert (done.code, done.json["exit_code"], done.json["reason"]) == (2, 2, "refused")
    assert "built yet" in done.json["error"]


def test_a_run_directory_that_cannot_be_made_is_told_in_a_sentence(place: Place) -> None:
    (place.root / "file").write_text("")
    place.job()
    done = place.run("-o", "file/run")
    assert (done.code, place.sent) in {(2, 0), (4, 0)}
    assert len(done.errors) == 1
    assert str(place.root / "file") in done.errors[0]
