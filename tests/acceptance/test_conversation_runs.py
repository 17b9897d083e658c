"""Conversations out of every kind of input, on real sockets: what arrives, what never does, chains of turns."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from endpoint import Endpoint, Place, ok

import runner

CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q": "{{ id }}"}'}}
GOOD: list[list[dict[str, Any]]] = [
    [],
    [{"role": "user", "content": "{{ 7*7 }} {% raw %}", "name": "ann"}, {"role": "assistant", "content": "ünï\u2028"}],
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "found", "tool_call_id": "c1"},
    ],
]
BAD = [{"role": "tool", "content": "x", "tool_call_id": "c9"}]
ASKED = [{"role": "system", "content": "be kind"}, "{{ history }}", {"role": "user", "content": "row {{ id }}"}]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint(lambda seen: ok(f"answer to {seen.text}")) as endpoint:
        yield Place(tmp_path, endpoint)


def as_jsonl(path: Path, histories: list[Any]) -> None:
    path.write_text(
        "".join(json.dumps({"id": number, "history": each}) + "\n" for number, each in enumerate(histories)),
        encoding="utf-8",
    )


def as_csv(path: Path, histories: list[Any]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "history"], *([n, json.dumps(each)] for n, each in enumerate(histories))])


def as_structs(path: Path, histories: list[Any]) -> None:
    pq.write_table(pa.table({"id": list(range(len(histories))), "history": histories}), path)


def as_json_text(path: Path, histories: list[Any]) -> None:
    as_structs(path, [json.dumps(each) for each in histories])


@pytest.mark.parametrize(
    ("name", "write"),
    [("h.jsonl", as_jsonl), ("h.csv", as_csv), ("h.parquet", as_structs), ("t.parquet", as_json_text)],
)
def test_every_kind_of_input_holds_conversations(place: Place, name: str, write: Callable[..., None]) -> None:
    write(place.root / name, [*GOOD, BAD])
    place.job(input={"path": name}, request={"messages": ASKED})
    assert place.run().code == 1
    rows = place.records()
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "failed"]
    assert (rows[3]["error_kind"], rows[3]["attempts"]) == ("INPUT", [])
    assert rows[3]["error"].startswith("messages.1.tool_call_id: answers no call: ")
    arrived = {seen.text: seen.body["messages"] for seen in place.endpoint.seen}
    assert arrived == {
        f"row {number}": [ASKED[0], *told, {"role": "user", "content": f"row {number}"}]
        for number, told in enumerate(GOOD)
    }


def test_the_results_of_a_job_are_the_input_of_the_next_one(place: Place) -> None:
    place.rows(4)
    place.job()
    assert place.run().code == 0
    assert place.call("export", "job.yaml", "-f", "messages", "-o", "turn.jsonl").code == 0
    messages = ["{{ history }}", {"role": "user", "content": "and {{ text }}?"}]
    place.job(name="second", input={"path": "turn.jsonl"}, request={"messages": messages})
    assert place.run().code == 0
    done = place.call("export", "job.yaml", "-f", "messages", "--columns", "id")
    lines = [json.loads(line) for line in done.out.split("\n")[:-1]]
    assert [list(line) for line in lines] == [["id", "history"]] * 4
    contents = [message["content"] for message in lines[3]["history"]]
    assert contents == ["say row 3", "answer to say row 3", "and row 3?", "answer to and row 3?"]
    # The results carry the history too, as JSON text of a Parquet column: a third job may start from them.
    messages = ["{{ history }}", {"role": "user", "content": "{{ content }}"}]
    third = {"path": "runs/second/results"}
    place.job(name="third", input=third, request={"messages": messages}, output={"columns": "none"})
    assert place.run().code == 0
    assert place.endpoint.seen[-1].body["messages"][-1]["content"].startswith("answer to and row")


def test_rows_in_memory_hold_conversations(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.root)
    job = {"name": "mem", "request": {"model": "m-1", "messages": ASKED}}
    job["endpoint"] = {"base_url": place.endpoint.url, "api_key_env": None}
    rows = [{"id": number, "history": told} for number, told in enumerate(GOOD)]
    result = runner.run(job, input=rows, output=str(place.root / "out"), quiet=True)
    assert result.ok
    assert sorted(len(seen.body["messages"]) for seen in place.endpoint.seen) == [2, 4, 4]


def test_check_says_which_conversations_cannot_be_sent(place: Place) -> None:
    as_jsonl(place.root / "h.jsonl", [*GOOD, BAD, "no list"])
    place.job(input={"path": "h.jsonl"}, request={"messages": ASKED})
    done = place.call("check", "job.yaml")
    assert done.code == 0
    assert "templates  use history, id\n" in done.out
    assert "2 rows cannot be sent and fail; row 3: messages.1.tool_call_id: answers no call" in done.out
