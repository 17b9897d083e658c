"""What people and scripts see: the bar on a terminal, plain lines elsewhere, status, streams, the environment."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from endpoint import PATIENCE_S, Done, Endpoint, Life, Place, Said, Seen, environment, ok, refused, until
from nursery import SOURCE
from terminal import Terminal

ANSI = "\x1b[31mred\x1b]0;title\x07\x9b2J"  # colours, a window title, and a C1 escape


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint() as endpoint:
        place = Place(tmp_path, endpoint)
        place.rows(6)
        place.job()
        yield place


def rest(place: Place, answered: int) -> None:
    """From now on so many requests are answered, and no other before `place.endpoint.answer` is another."""

    def answer(seen: Seen) -> Said:
        held = Said(200, ok().body, once=lambda: place.endpoint.answer is not answer)
        return ok() if seen.number < answered else held

    place.endpoint.answer = answer


def quickly(seen: Seen) -> Said:
    return ok()


#: What a bar tells, in whatever order, while 12 of 28 rows are answered and 4 are on the wire.
PIECES = [
    *(r"^12/28 ", r" 43%", r"\b\d+(\.\d+)? rows/s\b", r"\b[\d,]+k? tok(ens)?/s\b", r"\$0\.0034\b", r"\b0 not ok\b"),
    *(r"\b4 in flight\b", r"\b\d+ s left\b"),
]


def shown(place: Place, columns: int, *words: str, seen: Callable[[str], bool] | None = None, **env: str) -> str:
    """What a run of 28 rows shows that rests at 12 of them until what must be `seen` is there."""
    place.rows(28)
    rest(place, 12)
    with Terminal(columns) as terminal:
        life = place.start("run", "job.yaml", *words, tty=terminal.name, **{"TERM": "xterm", **env})
        assert until(lambda: place.sent == 16 and (not seen or seen(terminal.text))), terminal.text
        place.endpoint.answer = quickly
        done = life.wait()
    assert done.code == 0, terminal.text
    return terminal.text


def bars(text: str) -> list[str]:
    return [line for line in re.split(r"[\r\n]", text) if re.match(r"\d+/\d+ ", line)]


def told(text: str) -> bool:
    """Whether a bar has told everything."""
    return any(all(re.search(piece, bar) for piece in PIECES) for bar in bars(text))


# On a terminal


def test_the_bar_shows_how_far_it_is_and_what_it_costs(place: Place) -> None:
    text = shown(place, 120, seen=told)
    assert max(len(line) for line in bars(text)) <= 120
    assert text.startswith("new run in ")
    assert re.search(r"\r +\rfinished: 28 of 28 rows final \(28 ok\)\n", text)  # on the line that the bar left
    assert "\x1b" not in text


def test_eighty_columns_hold_everything(place: Place) -> None:
    assert max(len(line) for line in bars(shown(place, 80, seen=told))) <= 80


def test_twenty_columns_hold_the_count_and_never_wrap(place: Place) -> None:
    lines = bars(shown(place, 20, seen=lambda text: len([bar for bar in bars(text) if bar.startswith("12/28 ")]) >= 3))
    assert max(len(line) for line in lines) <= 20
    assert any(re.match(r"12/28 .*43%", line) for line in lines)


def test_a_dumb_terminal_gets_plain_lines(place: Place) -> None:
    text = shown(place, 80, TERM="dumb")
    assert not re.search(r"[^\n\t -~…]", text)
    assert text.startswith("new run in ")
    assert "finished: 28 of 28" in text


def test_no_color_is_respected(place: Place) -> None:
    assert "\x1b" not in shown(place, 80, seen=told, NO_COLOR="1")


def test_quiet_says_nothing_on_a_terminal(place: Place) -> None:
    assert shown(place, 80, "-q") == ""


def test_what_is_said_while_the_bar_stands_has_a_line_of_its_own(place: Place) -> None:
    place.rows(40)
    rest(place, 8)
    with Terminal(80) as terminal:
        life = place.start("run", "job.yaml", tty=terminal.name, TERM="xterm")
        assert until(lambda: place.sent == 12)
        life.signal(signal.SIGINT)
        assert until(lambda: re.search(r"(^|[\r\n])stopping: 4 requests are on the wire", terminal.text)), terminal.text
        place.endpoint.answer = quickly
        assert life.wait().code == 130


def test_a_server_cannot_write_to_the_terminal(place: Place) -> None:
    place.endpoint.answer = lambda seen: refused(400, f"{ANSI} is no parameter {seen.number % 2}", ANSI)
    with Terminal(120) as terminal:
        assert place.start("run", "job.yaml", tty=terminal.name, TERM="xterm").wait().code == 1
        assert place.start("status", "runs/trial", tty=terminal.name, TERM="xterm").wait().code == 0
    assert "is no parameter" in terminal.text
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", terminal.text)
    place.endpoint.answer = lambda seen: refused(402, ANSI)
    done = place.run("-o", "second")
    assert done.code == 3
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", done.err)


@pytest.mark.parametrize("command", ["check", "status"])
def test_a_file_cannot_write_to_the_terminal(place: Place, command: str) -> None:
    (place.root / "rows.jsonl").write_text(json.dumps({"text": "row 0", ANSI: 1}) + "\n")
    target = "job.yaml" if command == "check" else ANSI
    assert place.run("-o", ANSI).code == 0
    with Terminal(120) as terminal:
        assert place.start(command, target, tty=terminal.name, TERM="xterm").wait().code == 0
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", terminal.text)


# Elsewhere


def test_off_a_terminal_there_are_plain_lines_on_stderr_only(place: Place) -> None:
    done = place.run()
    assert done.out == ""
    lines = done.err.rstrip("\n").split("\n")
    assert [line.split(" ")[0] for line in lines] == ["new", "finished:", "bill:", "results:", "to"]
    assert re.fullmatch(r"[ -~\n]*", done.err)


def test_quiet_leaves_errors(place: Place) -> None:
    assert (place.run("-q").err, place.run("-q").out) == ("", "")
    done = place.run("-q", "-n", "2")
    assert done.code == 2
    assert done.err.startswith("error: ")


def test_a_reader_of_stdout_may_leave(place: Place) -> None:
    place.rows(5000)
    script = f"{sys.executable} -m runner render job.yaml -n 5000 | head -1"
    ended = subprocess.run(
        ["bash", "-c", script],
        cwd=place.root,
        env=environment(LC_ALL="C"),
        capture_output=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert ended.stderr == b""
    line = json.loads(ended.stdout)
    assert line["row"] == 0
    assert line["body"]["messages"] == [{"role": "user", "content": "say row 0"}]


def test_a_closed_stderr_loses_no_run(place: Place) -> None:
    script = f"{sys.executable} -m runner run job.yaml 2>&-"
    ended = subprocess.run(["bash", "-c", script], cwd=place.root, env=environment(), timeout=PATIENCE_S, check=False)
    assert ended.returncode == 0
    assert len(place.records()) == 6


def test_render_shows_what_is_sent(place: Place) -> None:
    done = place.call("render", "job.yaml", "-n", "2")
    shown = [json.loads(line) for line in done.out.rstrip("\n").split("\n")]
    assert (done.code, done.err, len(shown), place.endpoint.connections) == (0, "", 2, 0)
    assert place.run("-c", "1").code == 0
    assert [line["body"] for line in shown] == [seen.body for seen in place.endpoint.seen[:2]]
    assert [line["request_hash"] for line in shown] == [row["request_hash"] for row in place.records()[:2]]


def test_check_calls_nobody_and_makes_nothing(place: Place) -> None:
    before = sorted(place.root.iterdir())
    done = place.call("check", "job.yaml", TRIAL_KEY="")
    assert (done.code, done.err, place.endpoint.connections) == (0, "", 0)
    assert "6 rows in 1 file" in done.out
    assert "$2.00 in, $0.50 cached, $8.00 out per million tokens" in done.out
    assert {path.name for path in place.root.iterdir()} - {path.name for path in before} == {"out-1.txt", "err-1.txt"}


def test_the_module_and_the_command_are_one_program(place: Place) -> None:
    done = place.exec("run", "job.yaml", "--json")
    assert done.code == 0
    assert done.json["rows"] == 6
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"runner": "runner.cli:main"}
    assert project["version"] in place.exec("--version").out


# The environment


def test_the_environment_gives_options(place: Place) -> None:
    done = place.run(RUNNER_OUTPUT="elsewhere", RUNNER_LIMIT="2", RUNNER_CONCURRENCY="1", RUNNER_QUIET="1")
    assert (done.code, done.err, place.sent) == (0, "", 2)
    assert len(place.records(place.root / "elsewhere")) == 2
    assert place.run(RUNNER_OUTPUT="third", RUNNER_MAX_FAILURES="no", RUNNER_ALLOW_FAILED="1").code == 2


@pytest.mark.parametrize(
    ("name", "value", "shows"),
    [
        ("RUNNER_JSON", "1", lambda done: done.json["rows"] == 6),
        ("RUNNER_SET", "limits.concurrency=no", lambda done: done.code == 2),
        (
            "RUNNER_SET",
            "input.limit=2\nrequest.messages.0.content=tell me, {{ text }}",
            lambda done: "2 rows" in done.err,
        ),
        ("RUNNER_INPUT", "set 1:2/other.jsonl", lambda done: "3 rows" in done.err),
        ("RUNNER_INPUT", "set 1:2/other.jsonl\nrows.jsonl", lambda done: "9 rows" in done.err),
    ],
    ids=["json", "set", "several sets", "input", "several inputs"],
)
def test_every_option_has_its_own_name_in_the_environment(
    place: Place, name: str, value: str, shows: Callable[[Done], bool]
) -> None:
    (place.root / "set 1:2").mkdir()
    place.rows(3, "set 1:2/other.jsonl")
    done = place.run(**{name: value})
    assert done.out or name != "RUNNER_JSON"
    assert shows(done)


# Status


def test_status_of_a_job_a_run_and_a_directory(place: Place) -> None:
    place.endpoint.answer = lambda seen: refused(400, "no") if seen.text == "say row 1" else ok()
    assert place.run().code == 1
    for target in ("job.yaml", "runs/trial", "runs"):
        done = place.call("status", target)
        assert (done.code, done.err) == (0, "")
        assert "finished" in done.out
        assert "6 of 6 rows (100 %): 5 ok, 1 failed" in done.out
        assert "$0.0014 for 6 exchanges" in done.out
    told = place.call("status", "runs", "--json").json
    assert (told["state"], told["rows"], told["settled"], told["not_ok"]) == ("finished", 6, 6, 1)
    assert (told["name"], told["simulated"], told["pid"], told["live"]) == ("trial", False, None, None)
    assert Decimal(told["totals"]["cost_usd"]) == 5 * Decimal("0.00028")
    assert "trial" in place.call("status").out


def test_status_of_nothing_is_2(place: Place) -> None:
    done = place.call("status", "runs")
    assert (done.code, done.out) == (2, "")
    assert done.hint


def test_status_while_it_runs(place: Place) -> None:
    place.rows(40)
    rest(place, 8)
    life = place.start("run", "job.yaml")
    assert until(lambda: place.sent == 12 and (place.run_root / "status.json").exists())
    told = place.call("status", "runs/trial", "--json").json
    lines = place.call("status", "job.yaml").out
    live = json.loads((place.run_root / "status.json").read_bytes())
    place.endpoint.answer = quickly
    assert life.wait().code == 0
    assert (told["state"], told["pid"], told["rows"]) == ("running", life.pid, 40)
    assert 4 <= told["settled"] <= 8  # four answers may not be durable yet
    assert f"process {life.pid} on " in lines
    assert set(live) == {
        *("state", "updated_at", "rows", "settled", "not_ok", "cost_usd", "unknown_exchanges"),
        *("in_flight", "rows_per_s", "tokens_per_s", "left_s", "waiting_for"),
    }
    assert (live["state"], live["rows"]) == ("running", 40)
    ended = json.loads((place.run_root / "status.json").read_bytes())
    assert (ended["state"], ended["settled"], ended["in_flight"]) == ("ended", 40, 0)
    assert Decimal(ended["cost_usd"]) == 40 * Decimal("0.00028")


def redrawn(text: str) -> list[str]:
    """The blocks that were drawn over one another."""
    return [block for block in re.split(r"\r\x1b\[K(?:\x1b\[\d+A)?\x1b\[J", text) if block]


@pytest.fixture
def going(place: Place) -> Iterator[Life]:
    """A run of 400 rows that rests until `place.endpoint.answer` is another."""
    place.rows(400)
    rest(place, 8)
    life = place.start("run", "job.yaml")
    assert until(lambda: place.sent == 12)
    yield life
    life.kill()


@pytest.mark.parametrize("columns", [80, 20])
def test_status_is_drawn_again_in_place_until_the_run_ends(place: Place, going: Life, columns: int) -> None:
    with Terminal(columns) as terminal:
        watching = place.start("status", "--watch", "0.2", "job.yaml", tty=terminal.name, TERM="xterm")
        assert until(lambda: len(redrawn(terminal.text)) >= 3)
        place.endpoint.answer = quickly
        assert watching.wait().code == 0
    assert going.wait().code == 0
    blocks = redrawn(terminal.text)
    assert "running" in blocks[0].replace("\n", "")
    assert "finished" in blocks[-1].replace("\n", "")
    assert "400 of 400 rows (100 %): 400 ok" in blocks[-1].replace("\n", "")
    assert max(len(line) for block in blocks for line in block.split("\n")) < columns
    assert not re.search(r"\x1b\[[\d;]*m", terminal.text)


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}], ids=["dumb", "no color"])
def test_ctrl_c_leaves_the_watching_quietly_and_the_run_alone(place: Place, going: Life, env: dict[str, str]) -> None:
    with Terminal(300) as terminal:
        watching = place.start("status", "job.yaml", tty=terminal.name, RUNNER_WATCH="0.2", **env)
        assert until(lambda: terminal.text.count("running") >= 2)
        watching.signal(signal.SIGINT)
        assert watching.wait().code == 0
    assert ("\x1b" in terminal.text) == (env["TERM"] == "xterm")
    assert "Abort" not in terminal.text
    place.endpoint.answer = quickly
    assert going.wait().code == 0


def test_off_a_terminal_watching_tells_line_after_line(place: Place, going: Life) -> None:
    watching = place.start("status", "runs", "--watch", "0.2", "--json")
    assert until(lambda: watching.out.count("\n") >= 2)
    place.endpoint.answer = quickly
    told = watching.wait()
    assert going.wait().code == 0
    looks = [json.loads(line) for line in told.out.rstrip("\n").split("\n")]
    assert [each["state"] for each in looks] == ["running"] * (len(looks) - 1) + ["finished"]
    settled = [each["settled"] for each in looks]
    assert settled == sorted(settled)
    assert settled[-1] == 400
    after = place.call("status", "--watch")  # nothing goes on: one look
    assert (after.code, after.out.count("finished"), "\x1b" in after.out) == (0, 1, False)


def test_a_gate_that_is_closed_is_told_and_left_at_once(place: Place) -> None:
    limit = refused(429, "Slow down.", "rate_limit_exceeded", retry_after="600")
    place.endpoint.answer = lambda seen: ok() if seen.number < 2 else limit
    life = place.start("run", "job.yaml")
    assert until(lambda: b'"RATE"' in journal_of(place))
    life.signal(signal.SIGTERM)
    assert life.wait().code == 143  # long before the gate would have opened
    assert place.call("status", "runs/trial", "--json").json["state"] == "stopped"


def journal_of(place: Place) -> bytes:
    path = place.run_root / "journal" / "00000.jsonl"
    return path.read_bytes() if path.exists() else b""
