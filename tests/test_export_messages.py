"""Conversations with their answers: what is in a line, what is left out and said, and that the next job takes it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_run import MadeRun, made_run
from test_export import AT, answered, failed
from test_template import Asked

from runner.conversation import turn
from runner.errors import ChangedError, UsageError
from runner.export import Exported, Target, Wanted, export
from runner.records import Choice, Completion, Request, Row, Settled, Status, ToolCall
from runner.template import compile_prompt

TOOLS = [
    {"type": "function", "function": {"name": "find"}},
    {"type": "custom", "custom": {"name": "note"}},
]
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q":"x"}'}}


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{"id": number, "text": f"row {number} {{{{ 7*7 }}}}"} for number in range(count)]


def sealed(made: MadeRun, settled: list[Settled]) -> MadeRun:
    """The rows as answers to the requests that the job makes of them."""
    for part in made.ranges:
        rows = list(made.prepared.reader.rows(part.number))
        asked = [_asked(made, row, settled[row.index]) for row in rows]
        made.seal(part.number, asked)
    return made


def _asked(made: MadeRun, row: Row, settled: Settled) -> Settled:
    request = made.prepared.recipe.request(row)
    return replace(settled, request=request) if isinstance(request, Request) else settled


def said(row: int, *, status: Status = Status.OK, **choice: Any) -> Settled:
    return replace(answered(row), outcome=Completion(status, (Choice(0, **choice),)))


def lines(made: MadeRun, **wanted: Any) -> tuple[list[dict[str, Any]], Exported]:
    target = Target(made.directory.root.parent.parent / "out.jsonl", force=True)
    done = export(made.directory, Wanted("messages", **wanted), target)
    assert target.path
    return [json.loads(line) for line in target.path.read_bytes().split(b"\n")[:-1]], done


def test_a_line_is_the_input_and_the_conversation_with_the_answer(tmp_path: Path) -> None:
    made = sealed(made_run(tmp_path, rows_of(2)), [answered(0, "fine {{ x }}"), answered(1, "ünïcode\u2028")])
    found, done = lines(made)
    assert found == [
        {
            **row,
            "history": [
                {"role": "user", "content": f"say {row['text']}"},
                {"role": "assistant", "content": content},
            ],
        }
        for row, content in zip(rows_of(2), ["fine {{ x }}", "ünïcode\u2028"], strict=True)
    ]
    assert (done.written, done.settled, done.rows, done.remarks) == (2, 2, 2, ())


def test_the_next_job_takes_the_line_as_it_is(tmp_path: Path) -> None:
    calls = (ToolCall("c1", "find", '{"q":"x"}'), ToolCall(None, "note", "x"))
    request = {"model": "m-1", "messages": [{"role": "user", "content": "say {{ text }}"}], "tools": TOOLS}
    made = sealed(made_run(tmp_path, rows_of(1), request=request), [said(0, content=None, tool_calls=calls)])
    ((line,), _) = lines(made)
    assert line["history"][1] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [CALL, {"id": "call_1", "type": "custom", "custom": {"name": "note", "input": "x"}}],
    }
    answers = [{"role": "tool", "tool_call_id": name, "content": "found"} for name in ("c1", "call_1")]
    body = compile_prompt(Asked(messages=("{{ history }}", *answers)), {}, str).render(line)
    assert isinstance(body, dict)
    assert body["messages"] == [*line["history"], *answers]


def test_only_ok_rows_are_in_it_unless_others_are_asked_for(tmp_path: Path) -> None:
    settled = [answered(0), failed(1), said(2, status=Status.TRUNCATED, content="cut"), answered(3)]
    made = sealed(made_run(tmp_path, rows_of(4)), settled)
    found, done = lines(made)
    assert [line["id"] for line in found] == [0, 3]
    assert done.remarks == ("2 rows that are not ok are not in it (--status chooses them)",)
    found, done = lines(made, statuses=frozenset({"truncated", "failed"}))
    assert [line["history"][-1]["content"] for line in found] == ["cut"]
    assert done.remarks == ("1 rows have no answer and are not in it",)
    assert done.words(Target(Path("x.jsonl"))) == "1 rows in x.jsonl; 1 rows have no answer and are not in it"


def test_an_answer_to_another_request_is_left_out_and_said(tmp_path: Path) -> None:
    made = sealed(made_run(tmp_path, rows_of(3)), [answered(number) for number in range(3)])
    known = made.directory.read_run()
    assert known
    known["job"]["request"]["messages"] = [{"role": "user", "content": "shout {{ text if id != 1 else text }}"}]
    made.directory.write("run.json", known)
    found, done = lines(made)
    assert found == []
    assert done.remarks == (
        "3 rows were answered for another request than this job makes of them now and are not in it",
    )


def test_the_history_of_the_input_becomes_the_longer_one_in_its_place(tmp_path: Path) -> None:
    told = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = [{"history": told, "id": 7}]
    messages = ["{{ history }}", {"role": "user", "content": "and?"}]
    made = sealed(made_run(tmp_path, rows, request={"model": "m-1", "messages": messages}), [answered(0, "c")])
    ((line,), _) = lines(made)
    whole = [*told, {"role": "user", "content": "and?"}, {"role": "assistant", "content": "c"}]
    assert list(line.items()) == [("history", whole), ("id", 7)]


def test_columns_are_chosen_from_the_input_and_the_results(tmp_path: Path) -> None:
    job = {"output": {"columns": "none", "prefix": "a_", "rows_per_part": 2}}
    made = sealed(made_run(tmp_path, rows_of(5), **job), [answered(number) for number in range(5)])
    found, _ = lines(made, columns=("a_content", "id"))
    assert [list(line) for line in found] == [["a_content", "id", "history"]] * 5
    assert [line["id"] for line in found] == list(range(5))
    with pytest.raises(UsageError, match="--columns: the results have no column `a_contnt`; did you mean a_content"):
        lines(made, columns=("a_contnt",))


def test_rows_of_an_open_range_are_in_it(tmp_path: Path) -> None:
    made = made_run(tmp_path, rows_of(3))
    rows = list(made.prepared.reader.rows(0))
    made.keep(0, [_asked(made, rows[number], answered(number)) for number in (2, 0)])
    found, done = lines(made)
    assert [line["id"] for line in found] == [0, 2]
    assert (done.written, done.settled, done.rows) == (2, 2, 3)


def test_the_types_of_a_parquet_input_become_plain(tmp_path: Path) -> None:
    at = datetime(2025, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    pq.write_table(
        pa.table({"text": ["a"], "at": pa.array([at], pa.timestamp("us", "UTC"))}), tmp_path / "rows.parquet"
    )
    made = sealed(made_run(tmp_path, [], input={"path": "rows.parquet"}), [answered(0)])
    ((line,), _) = lines(made)
    assert line["at"] == AT
    assert line["history"][0] == {"role": "user", "content": "say a"}


def test_an_input_that_is_not_what_it_was_is_refused_before_the_first_byte(tmp_path: Path) -> None:
    made = sealed(made_run(tmp_path, rows_of(2)), [answered(0), answered(1)])
    path = tmp_path / "rows.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("row 1", "row 9"), encoding="utf-8")
    with pytest.raises(ChangedError, match="are not the ones that this run was started with"):
        lines(made)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"content": "x"}, {"content": "x"}),
        ({}, {"content": ""}),
        ({"refusal": "no"}, {"content": None, "refusal": "no"}),
        ({"content": "x", "status": "failed"}, {"content": "x"}),
        ({"status": "failed"}, None),
        ({"tool_calls": []}, {"content": ""}),
    ],
)
def test_each_answer_has_its_turn(answer: dict[str, Any], message: dict[str, Any] | None) -> None:
    empty = {"status": "ok", "content": None, "refusal": None, "tool_calls": None}
    assert turn(empty | answer, None) == (message and {"role": "assistant", **message})
