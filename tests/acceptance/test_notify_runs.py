"""Runs that tell a real receiver how they fare, and receivers that do not listen."""

from __future__ import annotations

import json
import platform
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from endpoint import KEY, Endpoint, Life, Place, Said, Seen, ok, refused, until

import runner
from runner.errors import RunnerError

PATH = "/services/T0/B0/distinctive-3f9a?sig=a%2Fb%3D"
MEMBERS = {"text", "event", "job", "run", "host", "reason", "seconds", "exit_code", "next"}
#: The program with a patience that outlasts these tests, where it is not in a hurry.
PATIENT = "import runner.cli, runner.notify; runner.notify.PATIENCE_S = 600; runner.cli.main()"
COUNTED = MEMBERS | {"rows", "cost_usd", "unknown_exchanges"}


@pytest.fixture
def hook() -> Iterator[Endpoint]:
    with Endpoint(answer=lambda seen: Said(200, "ok")) as hook:
        yield hook


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint() as endpoint:
        place = Place(tmp_path, endpoint)
        place.rows(6)
        place.job(notify={"webhook_env": "HOOK"}, output={"keep_raw": True})
        yield place


def url(hook: Endpoint) -> str:
    return hook.url.removesuffix("/v1") + PATH


def leaks(place: Place, *secrets: str) -> list[str]:
    """The files under the place that hold a secret; of parts also what is packed."""
    files = [path for path in place.root.rglob("*") if path.is_file()]
    texts = [(path, path.read_bytes()) for path in files]
    texts += [(path, repr(pq.read_table(path).to_pylist()).encode()) for path in files if path.suffix == ".parquet"]
    return [f"{path.name}: {secret}" for path, text in texts for secret in secrets if secret.encode() in text]


def told(hook: Endpoint) -> list[dict[str, Any]]:
    return [seen.body for seen in hook.seen]


def test_a_finished_run_is_told_once_and_after_everything_is_durable(place: Place, hook: Endpoint) -> None:
    durable: list[bool] = []

    def listen(seen: Any) -> Said:
        durable.append((place.run_root / "manifest.json").exists())
        return Said(200, "ok")

    hook.answer = listen
    done = place.run("--json", "-v", HOOK=url(hook))
    assert done.code == 0, done.err
    (seen,) = hook.seen
    assert (seen.path, durable) == (PATH, [True])
    assert seen.headers["content-type"] == "application/json"
    message = seen.body
    assert message.keys() == COUNTED
    assert message["rows"] == {"all": 6, "settled": 6, "ok": 6}
    assert (message["event"], message["job"], message["exit_code"], message["next"]) == ("finished", "trial", 0, None)
    assert (message["run"], message["host"], message["cost_usd"]) == (str(place.run_root), platform.node(), "0.00168")
    assert message["text"].startswith(
        f"trial finished on {platform.node()}: every row is final, 6 of 6 rows final (6 ok), $0.0017, "
    )
    whole = json.dumps(message) + str(seen.headers)
    assert KEY not in whole and "say row" not in whole and "fine" not in whole
    place.call("status", "runs/trial", "--json")
    assert leaks(place, "distinctive-3f9a", "services/T0", KEY) == []
    again = place.run(HOOK=url(hook))  # nothing was left to do
    assert (again.code, len(hook.seen)) == (0, 1)


def test_rows_that_are_not_ok_are_counted_and_not_shown(place: Place, hook: Endpoint) -> None:
    place.endpoint.answer = lambda seen: refused(400, f"no: {seen.text}") if seen.text == "say row 3" else ok()
    assert place.run(HOOK=url(hook)).code == 1
    (message,) = told(hook)
    assert (message["event"], message["exit_code"]) == ("finished", 1)
    assert message["rows"] == {"all": 6, "settled": 6, "ok": 5, "failed": 1}
    assert "say row" not in json.dumps(message)


def test_a_run_that_stops_is_told_with_the_command_that_goes_on(place: Place, hook: Endpoint) -> None:
    place.endpoint.answer = lambda seen: refused(402, f"no credits, says {seen.text}")
    assert place.run(HOOK=url(hook)).code == 3
    (message,) = told(hook)
    assert message.keys() == COUNTED
    assert (message["event"], message["exit_code"]) == ("stopped", 3)
    assert message["reason"] == "The job stopped: a person is needed"
    assert message["next"] == "runner run job.yaml"
    assert "say row" not in json.dumps(message)


def second_on_the_wire(place: Place, hook: Endpoint, **more: Any) -> Life:
    """A run whose second row is answered when it has begun to stop."""
    log = place.run_root / "run.log"
    place.endpoint.answer = lambda seen: Said(
        200, ok().body, once=lambda: seen.number == 0 or "stopping: " in log.read_text(encoding="utf-8")
    )
    place.job(notify={"webhook_env": "HOOK"}, limits={"concurrency": 1})
    life = place.start("run", "job.yaml", HOOK=url(hook), **more)
    assert until(lambda: place.sent == 2)
    return life


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_ended_by_a_signal_is_told(
    place: Place, hook: Endpoint, number: signal.Signals, code: int
) -> None:
    life = second_on_the_wire(place, hook)
    life.signal(number)
    assert life.wait().code == code
    (message,) = told(hook)
    assert (message["event"], message["reason"], message["exit_code"]) == ("stopped", number.name, code)
    assert message["rows"] == {"all": 6, "settled": 2, "ok": 2}


def test_a_stall_is_told_once_while_the_run_goes_on(place: Place, hook: Endpoint) -> None:
    """Rows 2 and 4 are answered when it is told, and three times the span later. Should the machine stall at another
    row, that is told too."""

    def told_at(settled: int) -> bool:
        return any(message["rows"]["settled"] == settled for message in told(hook))

    def answer(seen: Seen) -> Said:
        row = int(seen.text.split()[-1])
        return Said(200, ok().body, delay_s=1.2, once=lambda: told_at(row)) if row in (2, 4) else ok()

    place.endpoint.answer = answer
    place.job(notify={"webhook_env": "HOOK", "stalled_after_s": 0.4}, limits={"concurrency": 1})
    assert place.run(HOOK=url(hook)).code == 0
    *stalls, last = told(hook)
    settled = [message["rows"]["settled"] for message in stalls]
    assert {message["event"] for message in stalls} == {"stalled"}
    assert settled == sorted(set(settled)) and {2, 4} <= set(settled)  # once each
    assert (last["event"], last["rows"]["settled"]) == ("finished", 6)
    assert stalls[0].keys() == COUNTED
    assert (stalls[0]["reason"], stalls[0]["exit_code"]) == ("nothing has settled for 0.4 s", None)


def test_only_what_is_asked_for_is_told(place: Place, hook: Endpoint) -> None:
    place.job(notify={"webhook_env": "HOOK", "on": ["stopped"]})
    assert place.run(HOOK=url(hook)).code == 0
    assert hook.seen == []


def test_a_rehearsal_tells_nobody(place: Place, hook: Endpoint) -> None:
    assert place.run("--simulate", "--allow-failed", "100%").code == 0  # without the variable
    checked = place.call("check", "job.yaml", HOOK=url(hook))
    assert (checked.code, "notify" in checked.out) == (0, False)
    assert hook.seen == []


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, "the environment variable HOOK is not set"),
        ({"HOOK": "http://hooks.example/distinctive-3f9a"}, "holds an http:// address"),
        ({"HOOK": "distinctive-3f9a"}, "holds no https:// address"),
    ],
)
def test_a_webhook_that_is_missing_or_wrong_is_refused_before_anything_is_sent(
    place: Place, env: dict[str, str], words: str
) -> None:
    done = place.run("--json", **env)
    assert (done.code, place.sent, place.run_root.exists()) == (2, 0, False)
    assert words in done.errors[0]
    checked = place.call("check", "job.yaml", "--json", **env)
    assert (checked.code, "distinctive" in checked.out) == (0, False)
    (told_,) = [each["text"] for each in checked.json["remarks"] if "notify" in each["text"]]
    assert words in told_ and told_.endswith("; a start here would be refused")
    assert leaks(place, "distinctive-3f9a") == []


BROKEN: list[tuple[Said, str]] = [
    (Said(404, "no_team"), "answered 404"),
    (Said(301, "", {"location": "http://127.0.0.1:1/elsewhere"}), "redirects (301), which is never followed"),
    (Said(200, "x" * 100_000), "broke off"),
]


@pytest.mark.parametrize(("said", "words"), BROKEN, ids=[words for _, words in BROKEN])
def test_a_receiver_that_fails_is_one_line_and_changes_nothing(
    place: Place, hook: Endpoint, said: Said, words: str
) -> None:
    hook.answer = lambda seen: said
    done = place.run("-v", HOOK=url(hook))
    assert done.code == 0
    assert done.err.count("notify: ") == 1
    assert f"notify: the webhook of HOOK {words}; nobody was told that the run finished\n" in done.err
    assert len(hook.seen) == 1
    log = (place.run_root / "run.log").read_text()
    assert log.count("notify: ") == 1
    assert leaks(place, "distinctive-3f9a", "services/T0", url(hook).split("/")[2]) == []


def test_where_a_receiver_redirects_to_nobody_is_told(place: Place, hook: Endpoint) -> None:
    with Endpoint() as elsewhere:
        hook.answer = lambda seen: Said(307, "", {"location": f"{elsewhere.url}/x"})
        assert place.run(HOOK=url(hook)).code == 0
        assert (len(hook.seen), elsewhere.seen) == (1, [])


def test_a_stall_told_to_a_receiver_that_hangs_delays_nothing(place: Place, hook: Endpoint) -> None:
    hook.answer = lambda seen: Said(200, "ok", once=lambda: False)
    held = {"once": lambda: hook.seen}
    place.endpoint.answer = lambda seen: Said(200, ok().body, **held) if seen.text == "say row 2" else ok()
    notify = {"webhook_env": "HOOK", "stalled_after_s": 0.2, "on": ["stalled"]}
    place.job(notify=notify, limits={"concurrency": 1})
    assert place.start("run", "job.yaml", program=PATIENT, HOOK=url(hook)).wait().code == 0
    assert len(hook.seen) == 1


def test_a_receiver_that_is_not_there_is_one_line(place: Place) -> None:
    done = place.run(HOOK=f"http://127.0.0.1:1{PATH}")
    assert done.code == 0
    assert "notify: the webhook of HOOK cannot be reached; nobody was told that the run finished\n" in done.err
    assert leaks(place, "distinctive-3f9a", "127.0.0.1:1/") == []


def test_a_receiver_that_hangs_holds_a_signalled_run_for_three_seconds(place: Place, hook: Endpoint) -> None:
    hook.answer = lambda seen: Said(200, "ok", once=lambda: False)
    life = second_on_the_wire(place, hook, program=PATIENT)
    began_s = time.monotonic()
    life.signal(signal.SIGTERM)
    done = life.wait()
    assert done.code == 143
    assert time.monotonic() - began_s > 2.9
    assert "notify: the webhook of HOOK did not answer in time; nobody was told that the run stopped\n" in done.err


def test_python_tells_too(place: Place, hook: Endpoint) -> None:
    environ = {"TRIAL_KEY": KEY, "HOOK": url(hook)}
    assert runner.run(place.root / "job.yaml", environ=environ, quiet=True).ok
    assert [message["event"] for message in told(hook)] == ["finished"]
    with pytest.raises(RunnerError, match="HOOK is not set"):
        runner.run(place.root / "job.yaml", environ={"TRIAL_KEY": KEY}, quiet=True)
