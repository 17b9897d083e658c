"""The same command again, with everything as it was or with something changed in between."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from endpoint import PATIENCE_S, Done, Endpoint, Place, Said, Seen, ok, refused, snapshot, until

from runner.lock import read_owner


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint() as endpoint:
        place = Place(tmp_path, endpoint)
        place.rows(6)
        place.job()
        yield place


def stopped_halfway(place: Place) -> int:
    """Three rows are final, then the quota was gone; how many requests that took."""
    quota = refused(429, "You exceeded your current quota.", "insufficient_quota")
    place.endpoint.answer = lambda seen: ok() if seen.number < 3 else quota
    assert place.run("-c", "1").code == 3
    place.endpoint.answer = lambda seen: ok()
    return place.sent


# Nothing has changed


@pytest.mark.parametrize(("bad_rows", "code"), [(0, 0), (1, 1)])
def test_a_finished_run_is_not_sent_again_and_ends_as_it_ended(place: Place, bad_rows: int, code: int) -> None:
    place.endpoint.answer = lambda seen: refused(400, "no") if seen.text == "say row 0" and bad_rows else ok()
    assert place.run().code == code
    before = {name: data for name, data in snapshot(place.run_root).items() if name.startswith(("results", "man"))}
    again = place.run("--json")
    assert (again.code, place.sent) == (code, 6)
    assert (again.json["reason"], again.json["next"]) == ("finished", None)
    after = snapshot(place.run_root)
    assert {name: after[name] for name in before} == before
    assert place.run("--allow-failed", "1").code == 0


def test_a_finished_run_needs_no_key_to_say_so(place: Place) -> None:
    assert place.run().code == 0
    assert place.run(TRIAL_KEY="").code == 0


def test_a_stopped_run_says_where_it_goes_on(place: Place) -> None:
    before = stopped_halfway(place)
    done = place.run()
    assert done.code == 0
    assert done.err.startswith(f"going on in {place.run_root}, 3 of 6 rows done\n")
    assert place.sent == before + 3


# The job


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"request": {"messages": [{"role": "user", "content": "tell {{ text }}"}]}}, "request.messages"),
        ({"request": {"model": "m-2"}}, "request.model"),
        ({"request": {"temperature": 0.5}}, "request"),
        ({"endpoint": {"base_url": "http://127.0.0.1:1/v1"}}, "base_url"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_job_that_would_answer_otherwise_takes_consent_once_rows_are_final(
    place: Place, changes: dict[str, Any], named: str
) -> None:
    before = stopped_halfway(place)
    place.job(**changes)
    files = snapshot(place.run_root)
    done = place.run()
    assert (done.code, place.sent) == (2, before)
    assert done.err.startswith(f"the {named}")
    assert "changed: 3 changed, 3 new; 6 to send (about " in done.err
    assert done.errors == ["3 answered rows would be asked again"]
    assert all(words in done.hint for words in ("nothing was sent", "--accept-changes", "--keep-answers", "-o DIR"))
    after = snapshot(place.run_root)
    assert {n: d for n, d in after.items() if n not in TALK} == {n: d for n, d in files.items() if n not in TALK}

    place.job()
    assert place.run().code == 0  # the job as it was goes on
    assert place.sent == before + 3


TALK = ("lock", "run.log")


def test_a_changed_job_asks_again_what_it_may(place: Place) -> None:
    before = stopped_halfway(place)
    place.job(request={"messages": [{"role": "user", "content": "tell {{ text }}"}]})
    assert place.run("--accept-changes", "2").code == 2
    assert place.run("--accept-changes", "many").code == 2
    assert place.sent == before
    assert place.run("--accept-changes", "3").code == 0
    assert sorted(seen.text for seen in place.endpoint.seen[before:]) == [f"tell row {n}" for n in range(6)]
    assert [[each["answer"] for each in row["attempts"]][:1] for row in place.records()[:3]] == [["fine"]] * 3


def test_a_changed_job_may_ask_the_rest_alone(place: Place) -> None:
    before = stopped_halfway(place)
    place.job(request={"messages": [{"role": "user", "content": "tell {{ text }}"}]})
    assert place.run("--keep-answers").code == 0
    assert sorted(seen.text for seen in place.endpoint.seen[before:]) == [f"tell row {n}" for n in (3, 4, 5)]
    assert len(place.records()) == 6


@pytest.mark.parametrize(
    "changes",
    [{"vars": {"tone": "dry"}}, {"output": {"columns": ["id"]}}, {"output": {"prefix": "my_"}}],
    ids=["vars", "columns", "prefix"],
)
def test_a_job_that_asks_the_same_goes_on_with_its_answers(place: Place, changes: dict[str, Any]) -> None:
    before = stopped_halfway(place)
    place.job(**changes)
    done = place.run()
    assert done.code == 0, done.err
    assert place.sent == before + 3
    names = place.results().column_names
    assert ("text" in names) == ("columns" not in changes.get("output", {}))
    assert ("my_content" in names) == ("prefix" in changes.get("output", {}))


def test_a_job_that_answers_in_other_columns_has_no_room_beside_kept_answers(place: Place) -> None:
    before = stopped_halfway(place)
    place.job(output={"keep_raw": True})
    files = snapshot(place.run_root)
    for words in ((), ("--accept-changes",), ("--keep-answers",)):
        done = place.run(*words)
        assert (done.code, place.sent) == (2, before)
        assert "(raw)" in done.errors[0]
        assert "-o DIR" in done.hint
    after = snapshot(place.run_root)
    assert {n: d for n, d in after.items() if n not in TALK} == {n: d for n, d in files.items() if n not in TALK}


def test_a_changed_job_has_room_in_a_directory_of_its_own(place: Place) -> None:
    assert place.run().code == 0
    place.job(request={"temperature": 0.5})
    assert place.run("-o", "second").code == 0
    assert place.sent == 12
    assert len(place.records(place.root / "second")) == len(place.records()) == 6


@pytest.mark.parametrize(
    "changes",
    [
        {
            "timeouts": {"attempt_s": 99},
            "limits": {"concurrency": 2, "requests_per_minute": 6000},
            "retry": {"max_attempts": 2},
            "pricing": {"m-1": {"input": 4, "cached_input": 0.5, "output": 8}},
            "tags": {"team": "two"},
            "endpoint": {"api_key_env": "OTHER_KEY"},
            "output": {"rows_per_part": 1024},
        }
    ],
)
def test_how_it_is_sent_and_priced_may_change_at_any_time(place: Place, changes: dict[str, Any]) -> None:
    before = stopped_halfway(place)
    place.job(**changes)
    done = place.run(OTHER_KEY="sk-other-0123456789")
    assert done.code == 0, done.err
    assert place.sent == before + 3
    assert place.endpoint.seen[-1].headers["authorization"] == "Bearer sk-other-0123456789"
    assert [row["cost_usd"] for row in place.records()] == [0.00028] * 3 + [0.00048] * 3


# The input


def edited(lines: list[str]) -> None:
    lines[4] = lines[4].replace("row 4", "Row 4")


def inserted(lines: list[str]) -> None:
    lines.insert(1, '{"id": 99, "text": "row 99"}\n')


def appended(lines: list[str]) -> None:
    lines.append('{"id": 6, "text": "row 6"}\n')


def shortened(lines: list[str]) -> None:
    lines.pop()


def swapped(lines: list[str]) -> None:
    lines[0], lines[1] = lines[1], lines[0]


@pytest.mark.parametrize(
    ("change", "stopped", "finished"),
    [  # consent?, and how many requests are left, for a stopped and for a finished run
        (edited, (False, 3), (True, 1)),
        (inserted, (False, 4), (False, 1)),
        (appended, (False, 4), (False, 1)),
        (shortened, (False, 2), (True, 0)),
        (swapped, (False, 3), (False, 0)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("state", ["stopped", "finished"])
def test_other_rows_are_sent_where_they_are_new(
    place: Place, change: Any, stopped: tuple[bool, int], finished: tuple[bool, int], state: str
) -> None:
    if state == "finished":
        assert place.run().code == 0
    else:
        stopped_halfway(place)
    path, before = place.root / "rows.jsonl", place.sent
    consent, left = finished if state == "finished" else stopped
    lines = path.read_text().splitlines(keepends=True)
    change(lines)
    path.write_text("".join(lines))
    done = place.run()
    if consent:
        assert (done.code, place.sent) == (2, before)
        assert len(done.errors) == 1
        assert "--accept-changes" in done.hint
        done = place.run("--accept-changes")
    assert done.code == 0, done.err
    assert place.sent == before + left
    assert [row["text"] for row in place.records()] == [json.loads(line)["text"] for line in lines]


def test_touched_files_are_the_same_input(place: Place) -> None:
    before = stopped_halfway(place)
    os.utime(place.root / "rows.jsonl", (1, 1))
    assert place.run().code == 0
    assert place.sent == before + 3


@pytest.mark.parametrize("name", ["rows-2.jsonl", "rows-0.jsonl"])
def test_a_new_file_of_a_glob_needs_no_consent(place: Place, name: str) -> None:
    place.job(input={"path": "rows*.jsonl"})
    assert place.run().code == 0
    lines = (json.dumps({"id": 50 + n, "text": f"row {50 + n}"}) + "\n" for n in range(2))
    (place.root / name).write_text("".join(lines))
    done = place.run()
    assert (done.code, place.sent) == (0, 8), done.err
    assert sorted(row["text"] for row in place.records()) == sorted([f"row {n}" for n in (0, 1, 2, 3, 4, 5, 50, 51)])


def test_renamed_csv_columns_are_another_input(place: Place) -> None:
    path = place.root / "rows.csv"
    path.write_text("text,other\n" + "".join(f"row {n},second {n}\n" for n in range(6)))
    place.job(input={"path": "rows.csv"})
    before = stopped_halfway(place)
    path.write_text(path.read_text().replace("text,other", "other,text"))
    done = place.run()
    assert (done.code, place.sent) == (2, before), place.endpoint.seen[-1].text


def test_an_input_that_changes_while_the_run_goes_on_stops_it(place: Place) -> None:
    changed = Event()

    def answer(seen: Seen) -> Said:
        if seen.number >= 20:
            changed.wait(PATIENCE_S)
        return ok()

    place.rows(400)
    place.endpoint.answer = answer
    place.job(output={"rows_per_part": 256}, limits={"concurrency": 16})
    life = place.start("run", "job.yaml", "--json")
    assert until(lambda: place.sent > 20)
    path = place.root / "rows.jsonl"
    path.write_text(path.read_text().replace("row 399", "row 000").replace("row 100", "row 001"))
    changed.set()
    done = life.wait()
    assert done.code == 2
    assert len(done.errors) == 1
    assert not list((place.run_root / "results").glob("part-*"))


# Other directories


def test_fresh_moves_the_old_run_aside_whole(place: Place) -> None:
    assert place.run().code == 0
    place.job(request={"temperature": 0.5})
    old = snapshot(place.run_root)
    done = place.run("--fresh")
    assert done.code == 0
    assert place.sent == 12
    assert "moved the old run aside to" in done.err
    (aside,) = [path for path in (place.root / "runs").iterdir() if path.name != "trial"]
    assert {name: data for name, data in snapshot(aside).items() if name != "lock"} == {
        name: data for name, data in old.items() if name != "lock"
    }
    assert str(aside) in done.err


def test_fresh_finds_a_name_that_is_free(place: Place) -> None:
    assert place.run().code == 0
    now = datetime.now(UTC).replace(tzinfo=None)
    for second in range(20):  # what other runs were moved to in this minute
        stamp = (now + timedelta(seconds=second)).isoformat()[:19].replace(":", "")
        (place.root / "runs" / f"trial.{stamp}" / "results").mkdir(parents=True)
    done = place.run("--fresh")
    assert done.code == 0, done.err
    assert len(list((place.root / "runs").iterdir())) == 22


def test_fresh_moves_nothing_when_the_new_run_cannot_start(place: Place) -> None:
    assert place.run().code == 0
    place.job(request={"messages": [{"role": "user", "content": "say {{ txt }}"}]})
    assert place.run("--fresh").code == 2
    assert [path.name for path in (place.root / "runs").iterdir()] == ["trial"]


def run_in_theirs(place: Place, name: str, *words: str) -> tuple[Done, bool]:
    """A run into a directory of somebody else's, with a file of this name in it; whether that stayed as it was."""
    theirs = place.root / "theirs"
    theirs.mkdir()
    (theirs / name).write_text('{"mine": 1}')
    (theirs / "photo.jpg").write_bytes(b"\xff\xd8")
    before = snapshot(theirs)
    done = place.run("-o", "theirs", *words)
    return done, theirs.is_dir() and snapshot(theirs) == before


@pytest.mark.parametrize("name", ["notes.txt", "run.json"])
def test_a_directory_that_is_not_ours_is_refused_and_untouched(place: Place, name: str) -> None:
    done, untouched = run_in_theirs(place, name)
    assert (done.code, place.sent, untouched) == (2, 0, True)
    assert len(done.errors) == 1
    assert str(place.root / "theirs") in done.errors[0]
    assert done.hint


def test_a_lock_of_another_program_makes_a_directory_no_run(place: Place) -> None:
    done, untouched = run_in_theirs(place, "lock")
    assert (done.code, place.sent, untouched) == (2, 0, True)
    assert "is not empty and is not the directory of a run" in done.errors[0]


@pytest.mark.parametrize("name", ["notes.txt", "lock", "run.json"])
def test_fresh_does_not_move_a_directory_that_is_not_ours(place: Place, name: str) -> None:
    done, untouched = run_in_theirs(place, name, "--fresh")
    assert (done.code, place.sent, untouched) == (2, 0, True)
    assert len([path for path in place.root.iterdir() if path.name.startswith("theirs")]) == 1
    assert done.hint


def test_an_empty_directory_may_be_used(place: Place) -> None:
    (place.root / "empty").mkdir()
    assert place.run("-o", "empty").code == 0
    assert stat.S_IMODE((place.root / "empty" / "run.json").stat().st_mode) == 0o600


def test_paid_and_simulated_never_mix(place: Place) -> None:
    place.job(request={"max_completion_tokens": 900})
    assert place.run("--simulate", TRIAL_KEY="").code == 0
    simulated = place.root / "runs" / "trial.simulated"
    assert place.sent == 0
    assert json.loads((simulated / "run.json").read_bytes())["simulated"] is True
    assert {row["model_returned"] for row in place.records(simulated)} == {"simulated-m-1"}

    paid = place.run("-o", str(simulated))
    assert (paid.code, place.sent) == (2, 0)
    assert "simulated" in paid.errors[0]
    assert place.run().code == 0
    again = place.run("--simulate", "-o", str(place.run_root))
    assert again.code == 2
    assert "paid" in again.errors[0]


def test_a_second_process_on_the_same_run_leaves_at_once(place: Place) -> None:
    second_left = Event()

    def answer(seen: Seen) -> Said:
        second_left.wait(2 * PATIENCE_S)
        return ok()

    place.endpoint.answer = answer
    life = place.start("run", "job.yaml")
    try:
        assert until(lambda: place.sent)
        second = place.run("--json")
        assert second.code == 75
        assert str(life.pid) in second.errors[0]
        assert place.run("--fresh").code == 75
    finally:
        second_left.set()
    assert life.wait().code == 0


def test_a_second_process_leaves_before_the_first_has_read_its_input(place: Place) -> None:
    """The first one waits for its stdin; the second would wait for ever if it began to read too."""
    place.job(input={"path": "-", "format": "jsonl"})
    pipe = place.root / "pipe"
    os.mkfifo(pipe)
    first = place.start("run", "job.yaml", "-q", stdin=pipe)
    with pipe.open("wb"):
        assert until(lambda: read_owner(place.run_root / "lock"))
        second = place.start("run", "job.yaml", "-q", stdin=pipe).wait()
        first.kill()
    assert second.code == 75
    assert f"is being worked on by process {first.pid}" in second.err
    assert place.sent == 0
    assert [path.name for path in place.run_root.iterdir()] == ["lock"]
    place.job()
    assert place.run().code == 0  # a directory with nothing but the lock of a dead process is none to be afraid of
