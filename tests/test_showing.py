from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_run import MadeRun, made_run

from runner.errors import UsageError
from runner.records import Attempt, Choice, Completion, Failure, Kind, Request, Row, Settled, Status, Usage
from runner.say import plain
from runner.showing import Story, as_json, lines, story

AT = "2025-01-02T03:04:05.000006Z"
RATE = Attempt(1, 1, AT, 0.25, 0.0, 429, "RATE", "Slow down.", cost_usd=Decimal(0))
LOST = Attempt(1, 2, AT, None, 0.0, error_kind="UNKNOWN", error="the process ended")


def request_of(made: MadeRun, row: int) -> Request:
    part = next(part for part in made.ranges if part.first_row <= row < part.first_row + part.rows)
    found = list(made.prepared.reader.rows(part.number))[row - part.first_row]
    request = made.prepared.recipe.request(Row(row, found.data))
    assert isinstance(request, Request)
    return request


def answered(made: MadeRun, row: int, *before: Attempt, content: str = "fine") -> Settled:
    request, cost = request_of(made, row), Decimal("0.000123")
    last = Attempt(1, len(before) + 1, AT, 0.5, 1.5, 200, usage=Usage(10, 4, None, 5), cost_usd=cost)
    outcome = Completion(Status.OK, (Choice(0, content, "stop"),), Usage(10, 4, None, 5))
    return Settled(request, outcome, (*before, last), "job", AT, AT, cost)


def failed(made: MadeRun, row: int) -> Settled:
    attempt = Attempt(1, 1, AT, 0.5, 0.0, 400, "REQUEST", "no such thing", cost_usd=Decimal(0))
    return Settled(request_of(made, row), Failure(Kind.REQUEST, "no such thing", 400), (attempt,), None, AT, AT)


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{"id": f"T-{number}", "text": f"row {number}"} for number in range(count)]


def told(made: MadeRun, name: str, **how: Any) -> Story:
    return story(made.directory, name, **how)


@pytest.mark.parametrize("sealed", [True, False])
def test_a_final_row_is_told_alike_from_its_journal_and_from_its_part(tmp_path: Path, sealed: bool) -> None:
    made = made_run(tmp_path, rows_of(3), output={"prefix": "r_"}, input={"id_column": "id"})
    rows = [answered(made, 0), answered(made, 1, RATE), failed(made, 2)]
    if sealed:
        made.seal(0, rows)
    else:
        made.keep(0, rows)
    ok = told(made, "T-1")
    assert (ok.row, ok.id, ok.as_sent, ok.trouble) == (1, "T-1", True, None)
    assert ok.input == {"id": "T-1", "text": "row 1"}
    assert [(each["n"], each["error_kind"], each["started_at"]) for each in ok.attempts] == [
        (1, "RATE", AT),
        (2, None, AT),
    ]
    assert ok.outcome is not None
    names = [name for name in made.prepared.shape.results.names if name != "attempts"]
    assert set(ok.outcome) == set(names)
    assert (ok.outcome["status"], ok.outcome["content"], ok.outcome["total_usd"]) == ("ok", "fine", 0.000123)
    assert (ok.outcome["started_at"], ok.outcome["finished_at"]) == (AT, AT)
    broken = told(made, "T-2").outcome
    assert broken is not None
    assert (broken["status"], broken["error_kind"], broken["error"]) == ("failed", "REQUEST", "no such thing")


def test_the_story_in_words(tmp_path: Path) -> None:
    made = made_run(tmp_path, [{"id": 7, "text": "two\nlines"}], input={"id_column": "id"})
    made.seal(0, [answered(made, 0, RATE)])
    request = request_of(made, 0)
    text = "\n".join(lines(told(made, "7")))
    assert text.startswith(
        "row 0 (id 7): ok\n\ninput\n  id: 7\n  text:\n    two\n    lines\n\n"
        f"request {request.hash}, as sent (rendered again: the hash is that of then)\n"
        "  model: m-1\n  user:\n    say two\n    lines\n\nexchanges: 2\n"
        f"  1.1 {AT} took 0.250 s: HTTP 429 RATE\n    error: Slow down.\n    cost: $0\n"
        f"  1.2 {AT} took 0.500 s, waited 1.500 s: HTTP 200 answered\n    prompt_tokens: 10\n"
    )
    assert "    cost: $0.00012\n\noutcome\n  row_index: 0\n  status: ok\n  content: fine\n" in text


def test_a_row_that_is_not_final_shows_its_exchanges_so_far(tmp_path: Path) -> None:
    made = made_run(tmp_path, rows_of(4))
    made.keep(0, [answered(made, 1)], {0: RATE, 2: LOST})
    waiting = told(made, "0")
    assert (waiting.outcome, waiting.as_sent) == (None, None)
    assert waiting.attempts[0]["error"] == "Slow down."
    text = lines(waiting)
    assert text[0] == "row 0: not final yet"
    assert "exchanges so far: 1" in text
    assert f"request {request_of(made, 0).hash}, as it would be sent" in text
    assert "    cost: unknown" in lines(told(made, "2"))
    assert "exchanges so far: none" in lines(told(made, "3"))


def test_a_run_that_has_not_sent_anything_shows_what_it_would_send(tmp_path: Path) -> None:
    made = made_run(tmp_path, rows_of(1))
    assert lines(told(made, "0"))[0] == "row 0: not final yet"


def test_a_changed_input_is_said_and_what_the_part_holds_is_shown(tmp_path: Path) -> None:
    made = made_run(tmp_path, rows_of(2), input={"id_column": "id"})
    made.seal(0, [answered(made, 0), answered(made, 1)])
    (tmp_path / "rows.jsonl").write_text('{"id":"T-9","text":"another"}\n')
    found = told(made, "T-1")
    assert (found.row, found.as_sent, found.request) == (1, None, None)
    assert found.input == {"id": "T-1", "text": "row 1"}
    assert found.trouble == "rows.jsonl is shorter than it was"
    assert any(line.startswith("request: there is none: rows.jsonl is shorter") for line in lines(found))


def test_a_job_that_changed_since_is_said(tmp_path: Path) -> None:
    made = made_run(tmp_path, rows_of(1))
    made.seal(0, [answered(made, 0)])
    members = made.directory.read_run() or {}
    members["job"]["request"]["params"] = {"temperature": 1}
    made.directory.write("run.json", members)
    found = told(made, "0")
    assert found.as_sent is False
    assert any("the job or the input has changed since" in line for line in lines(found))


def test_a_bad_line_says_why_it_was_never_sent(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text":"a"}\n{"text":\n')
    made = made_run(tmp_path, [], input={"path": "bad.jsonl", "on_bad_line": "fail_row"})
    nothing = Request(1, b"", "", "m-1", 0)
    made.seal(0, [answered(made, 0), Settled(nothing, Failure(Kind.INPUT, "not JSON"), (), None, AT, AT)])
    found = told(made, "1")
    assert (found.request, found.as_sent, found.attempts) == (None, None, [])
    assert "bad.jsonl:2" in (found.trouble or "")
    assert "exchanges: none" in lines(found)


# Which row


def test_an_id_comes_before_a_position(tmp_path: Path) -> None:
    made = made_run(tmp_path, [{"id": n, "text": "x"} for n in (2, 1, 0, 9)], input={"id_column": "id"})
    assert [told(made, name).row for name in ("2", "0", "9", "3")] == [0, 2, 3, 3]
    assert told(made, "2", by_ordinal=True).row == 2


def test_an_id_of_several_rows_lists_them(tmp_path: Path) -> None:
    made = made_run(tmp_path, [{"id": "same", "text": "x"}] * 30, input={"id_column": "id"})
    with pytest.raises(UsageError, match=r"30 rows have the id same: rows 0, 1, .*, 19, …$") as caught:
        told(made, "same")
    assert caught.value.hint == "give one of them with --ordinal"
    assert told(made, "4", by_ordinal=True).id == "same"


@pytest.mark.parametrize(
    ("name", "id_column", "said"),
    [
        ("T-9", "id", "no row has the id T-9, and it is no row's ordinal"),
        ("3", "id", "no row has the id 3, and it is no row's ordinal"),
        ("3", None, "there is no row 3"),
        ("-1", None, "there is no row -1"),
        ("T-1", None, "there is no row T-1"),
        ("²", None, "there is no row ²"),
    ],
)
def test_a_row_that_there_is_not_is_refused(tmp_path: Path, name: str, id_column: str | None, said: str) -> None:
    made = made_run(tmp_path, rows_of(3), input={"id_column": id_column})
    with pytest.raises(UsageError) as caught:
        told(made, name)
    assert (caught.value.message, caught.value.hint) == (said, "the run has 3 rows, 0 to 2")


def test_a_row_beyond_the_first_range_is_found(tmp_path: Path) -> None:
    made = made_run(tmp_path, rows_of(600), output={"rows_per_part": 256})
    made.seal(2, [answered(made, n, content=f"c{n}") for n in range(512, 600)])
    found = told(made, "599")
    assert found.outcome is not None
    assert (found.outcome["row_index"], found.outcome["content"]) == (599, "c599")
    assert found.input == {"id": "T-599", "text": "row 599"}


# What a terminal gets

ANSI = "\x1b[31mred\x9b2J\u202eabc"


def test_nothing_of_a_row_moves_a_terminals_cursor(tmp_path: Path) -> None:
    made = made_run(tmp_path, [{"text": ANSI}])
    made.seal(0, [answered(made, 0, content=ANSI)])
    found = told(made, "0")
    text = as_json(found)
    assert plain(text) == text
    members = json.loads(text)
    assert (members["input"]["text"], members["outcome"]["content"]) == (ANSI, ANSI)
    assert members["request"]["messages"] == [{"role": "user", "content": f"say {ANSI}"}]
    assert (members["row"], members["final"], members["as_sent"]) == (0, True, True)


def test_numbers_beyond_64_bit_and_types_of_parquet_can_be_shown(tmp_path: Path) -> None:
    made = made_run(tmp_path, [{"text": "a", "n": 12345678901234567890123}])
    assert json.loads(as_json(told(made, "0")))["input"]["n"] == 12345678901234567890123
    pq.write_table(pa.table({"text": ["a"], "d": [Decimal("1.50")], "b": [b"\xff"]}), tmp_path / "rows.parquet")
    other = made_run(tmp_path / "other", [], input={"path": str(tmp_path / "rows.parquet")})
    assert told(other, "0").input == {"text": "a", "d": "1.50", "b": "/w=="}
    assert "  d: 1.50" in lines(told(other, "0"))
