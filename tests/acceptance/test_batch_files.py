"""Batch files in and out: a file of requests runs as it stands, goes on, changes, and is answered in its own shape."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint, Place, Said, Seen, ok, refused

FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "required": ["n"]}}}


def line(number: int, **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"row {number} {{{{ 7*7 }}}}"}]
    asked = {"model": f"m-{number % 2}", "messages": messages, "max_completion_tokens": 20, **body}
    return {"custom_id": f"r/{number}", "method": "POST", "url": "/v1/chat/completions", "body": asked}


LINES = [
    line(0),
    line(1, response_format=FORMAT),
    line(2, temperature=0.5, n=2, newer_than_us={"a": [1.0, None]}),
    line(3) | {"url": "/v1/embeddings"},
    line(4),
    line(5, temperature=9),
    line(6, response_format=FORMAT),
]


def scripted(seen: Seen) -> Said:
    number = int(seen.text.split()[1])
    if number == 4:
        return refused(400, "Too long.", "context_length_exceeded")
    said = ok({1: '{"n": [1]}', 6: "prose"}.get(number, f"answer {number}"))
    if seen.body.get("n"):
        said.body["choices"].append({"index": 1, "message": {"content": "other"}, "finish_reason": "stop"})
    return said


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint(scripted) as endpoint:
        place = Place(tmp_path, endpoint)
        write(place, LINES)
        place.job(input={"format": "openai_batch"}, request=None, retry={"max_attempts": 2})
        yield place


def write(place: Place, lines: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(each) + "\n" for each in lines)
    (place.root / "rows.jsonl").write_text(text, encoding="utf-8")


def jsonl(text: str) -> list[dict[str, Any]]:
    return [json.loads(each) for each in text.split("\n")[:-1]]


def test_a_file_of_requests_runs_as_it_stands(place: Place) -> None:
    assert place.run().code == 1
    sent = {seen.text: seen.body for seen in place.endpoint.seen}
    assert sent == {each["body"]["messages"][0]["content"]: each["body"] for each in LINES if valid(each)}
    rows = place.records()
    assert [row["custom_id"] for row in rows] == [each["custom_id"] for each in LINES]
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "failed", "failed", "failed", "failed"]
    assert [row["model"] for row in rows if row["status"] == "ok"] == ["m-0", "m-1", "m-0"]
    assert rows[1]["parsed"] == '{"n":[1]}'
    assert [choice["content"] for choice in rows[2]["choices"]] == ["answer 2", "other"]
    assert rows[0]["choices"] is None
    kinds = [(row["error_kind"], (row["error"] or "").split(";")[0]) for row in rows if row["status"] == "failed"]
    assert kinds[0] == ("INPUT", "url: must be /v1/chat/completions")
    assert kinds[1][0] == "REQUEST"
    assert kinds[2] == ("INPUT", "temperature: must be from 0 to 2")
    assert kinds[3][0] == "OUTPUT"


def valid(each: dict[str, Any]) -> bool:
    return each["url"].endswith("/chat/completions") and each["body"].get("temperature", 0) <= 2


def test_results_are_written_in_the_shape_of_the_batch_api(place: Place) -> None:
    place.run()
    done = place.call("export", "job.yaml", "-f", "openai_batch")
    assert (done.code, done.err) == (0, "")
    found = jsonl(done.out)
    assert [each["custom_id"] for each in found] == [each["custom_id"] for each in LINES]
    assert len({each["id"] for each in found}) == len(found)
    codes = [(each["response"] or {}).get("status_code") for each in found]
    assert codes == [200, 200, 200, None, 400, None, 200]
    assert [(each["error"] or {}).get("code") for each in found] == [None, None, None, "input", None, "input", "output"]
    body = found[2]["response"]["body"]
    assert (body["object"], body["id"], body["model"]) == ("chat.completion", "c-1", "m-1-2025")
    assert [choice["message"]["content"] for choice in body["choices"]] == ["answer 2", "other"]
    assert body["usage"]["total_tokens"] == 110
    only = place.call("export", "job.yaml", "-f", "openai_batch", "--status", "ok", "-o", "out.jsonl")
    assert only.code == 0
    assert len(jsonl((place.root / "out.jsonl").read_text(encoding="utf-8"))) == 3


def test_the_reply_is_exported_as_it_came_where_it_was_kept(place: Place) -> None:
    place.job(input={"format": "openai_batch"}, request=None, output={"keep_raw": True, "columns": "none"})
    place.run()
    found = jsonl(place.call("export", "job.yaml", "-f", "openai_batch").out)
    assert found[0]["custom_id"] == "r/0"
    (asked,) = [seen for seen in place.endpoint.seen if seen.text.startswith("row 0 ")]
    assert found[0]["response"]["body"] == scripted(asked).body


def test_the_same_command_sends_nothing_twice_and_a_changed_line_alone(place: Place) -> None:
    place.run()
    sent = place.sent
    assert place.run().code == 1
    assert place.sent == sent
    changed = [line(0, seed=7), *LINES[1:], line(7)]
    write(place, changed)
    done = place.run("--accept-changes", "1")
    assert done.code == 1, done.err
    assert sorted(seen.text.split()[1] for seen in place.endpoint.seen[sent:]) == ["0", "7"]


def test_a_row_is_shown_and_its_conversation_goes_on(place: Place) -> None:
    place.run()
    shown = place.call("show", "job.yaml", "r/2", "--json").json
    assert (shown["row"], shown["id"], shown["as_sent"]) == (2, "r/2", True)
    assert shown["request"] == LINES[2]["body"]
    found = jsonl(place.call("export", "job.yaml", "-f", "messages").out)
    assert [each["custom_id"] for each in found] == ["r/0", "r/1", "r/2"]
    assert found[0]["body"] == LINES[0]["body"]
    assert found[0]["history"] == [*LINES[0]["body"]["messages"], {"role": "assistant", "content": "answer 0"}]


def test_check_tells_lines_that_cannot_be_sent_and_names_that_stand_twice(place: Place) -> None:
    write(place, [*LINES, *[line(0)] * 2, line(2), *[line(n) for n in (0, 1, 4, 5)]])
    done = place.call("check", "job.yaml")
    assert done.code == 0
    assert (
        "warning    rows share a custom_id: r/0 (rows 0, 7, 8, …); r/1 (rows 1, 11); r/2 (rows 2, 9); 2 more\n"
        in done.out
    )
    assert "2 rows cannot be sent and fail; row 3: url: must be /v1/chat/completions" in done.out
    assert "14 rows in 1 file" in done.out


def test_a_request_beside_the_lines_is_refused(place: Place) -> None:
    place.job(input={"format": "openai_batch"}, request={"model": "x"})
    done = place.run()
    assert done.code == 2
    assert done.errors[0].endswith("request: each line of an openai_batch file holds its whole request; leave this out")
    place.job(input={"format": "openai_batch"}, request=None)
    assert "holds its whole request" in place.run("--set", "request.temperature=1").errors[0]
    assert place.sent == 0


def test_a_file_that_is_no_batch_file_is_told_before_anything_is_sent(place: Place) -> None:
    place.rows(3)
    done = place.run()
    assert done.code == 2
    assert "the input has no column `body`; it has id, text" in done.err
    assert "the input has no column `custom_id`" in done.err
    assert place.sent == 0


PLAIN = {
    "model": "m-{{ id % 2 }}",
    "messages": [{"role": "system", "content": "ü {{ '{{' }}"}, {"role": "user", "content": "say {{ text }}"}],
    "temperature": "{{ id / 4 }}",
    "max_completion_tokens": 20,
    "extra_body": {"top_k": "{{ id }}", "wide": 123456789012345678901234567890},
}


def test_a_job_rendered_as_a_batch_file_sends_the_same_bodies(place: Place) -> None:
    place.endpoint.answer = lambda seen: ok()
    place.rows(6)
    place.job(input={"id_column": "text"}, request=PLAIN)
    assert place.run().code == 0
    first = {seen.text: seen.body for seen in place.endpoint.seen}
    done = place.call("render", "job.yaml", "-f", "openai_batch", "--all")
    assert (done.code, done.err) == (0, "")
    lines = jsonl(done.out)
    assert [each["custom_id"] for each in lines] == [f"row {number}" for number in range(6)]
    assert [each["body"] for each in lines] == [first[f"say row {number}"] for number in range(6)]
    assert [list(each) for each in lines] == [["custom_id", "method", "url", "body"]] * 6
    (place.root / "batch.jsonl").write_text(done.out, encoding="utf-8")
    place.job(name="again", input={"format": "openai_batch", "path": "batch.jsonl"}, request=None)
    assert place.run().code == 0
    assert {seen.text: seen.body for seen in place.endpoint.seen[6:]} == first
    again = place.call("render", "job.yaml", "-f", "openai_batch", "--all")
    assert again.out == done.out
    hashes = [row["request_hash"] for row in place.records()]
    assert hashes == [row["request_hash"] for row in place.records(place.root / "runs" / "again")]


def test_render_gives_three_requests_unless_more_or_all_are_asked_for(place: Place) -> None:
    place.rows(5)
    place.job(request={"messages": [{"role": "user", "content": "{{ text }} {{ 1 / (id - 1) }}"}]})
    few, some, every = (place.call("render", "job.yaml", *words) for words in ((), ("-n", "4"), ("--all",)))
    assert few.err == ""
    assert [len(jsonl(done.out)) for done in (few, some, every)] == [3, 4, 5]
    assert jsonl(few.out)[1] == {"row": 1, "error": "messages.0.content: ZeroDivisionError: division by zero"}
    batch = place.call("render", "job.yaml", "-f", "openai_batch", "-n", "3")
    assert [each["custom_id"] for each in jsonl(batch.out)] == ["row-0", "row-2"]
    assert (
        "1 rows cannot be rendered and are not in it; first: row 1: messages.0.content: ZeroDivisionError" in batch.err
    )


def test_lines_that_are_written_do_not_stream(place: Place) -> None:
    write(place, [line(0, stream=True, stream_options={"include_usage": True}, wide=10**30, user='"stream"'), line(1)])
    streamed, plain = jsonl(place.call("render", "job.yaml", "-f", "openai_batch").out)
    assert streamed["body"] == line(0, wide=10**30, user='"stream"')["body"]
    assert plain == line(1)


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def test_a_line_carries_the_bytes_of_local_files(place: Place) -> None:
    (place.root / "dot.png").write_bytes(PNG)
    place.rows(2)
    parts = [{"type": "text", "text": "{{ text }}"}, {"type": "image_url", "image_url": {"file": "{{ file }}"}}]
    content = json.loads(json.dumps(parts).replace("{{ file }}", "{{ 'dot.png' if id == 0 else 'gone.png' }}"))
    place.job(request={"messages": [{"role": "user", "content": content}]})
    done = place.call("render", "job.yaml", "-f", "openai_batch")
    (found,) = jsonl(done.out)
    url = found["body"]["messages"][0]["content"][1]["image_url"]
    assert url == {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}
    assert (
        "1 rows cannot be rendered and are not in it; first: row 1: messages.0.content.1.image_url.file: " in done.err
    )


def test_a_line_of_a_batch_file_reads_no_file_of_this_machine(place: Place) -> None:
    part = {"type": "image_url", "image_url": {"file": "dot.png"}}
    (place.root / "dot.png").write_bytes(PNG)
    write(place, [line(0, messages=[{"role": "user", "content": [part]}])])
    assert place.run().code == 1
    (row,) = place.records()
    assert (row["error_kind"], place.sent) == ("INPUT", 0)
    assert "only when input.files_root names a folder" in row["error"]
