"""Answers that fall short are asked for again, on real sockets: what is sent, what is kept, what it costs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from endpoint import Endpoint, Place, Said, Seen, ok, refused, until

SCHEMA = {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}, "required": ["label"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "label", "schema": SCHEMA}}
VALID, WRONG, PROSE = '{"label":"a"}', '{"label": "ü"}', "The label is a."
CUT = ok('{"label":', finish="length")
ANSWER_USD = Decimal("0.00028")  # 100 prompt and 10 completion tokens at 2 and 8 dollars per million
ROOM = {"on_truncation": {"factor": 2, "max_tokens": 1000}}
MEND = {"on_invalid": {"attempts": 2, "feedback": True}}
BROKEN = refused(500, "oops")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint() as endpoint:
        yield Place(tmp_path, endpoint)


def row_of(seen: Seen) -> int:
    return int(seen.body["messages"][0]["content"].split()[-1])


def in_turn(*replies: Said) -> Callable[[Seen], Said]:
    """The replies to each row's requests, one after the other; the last from then on."""
    asked: Counter[int] = Counter()

    def answer(seen: Seen) -> Said:
        row = row_of(seen)
        asked[row] += 1
        return replies[min(asked[row], len(replies)) - 1]

    return answer


def begin(place: Place, rows: int, retry: dict[str, Any], *replies: Said, **job: Any) -> None:
    place.rows(rows)
    place.job(retry=retry, request={"response_format": FORMAT} | job.pop("request", {}), **job)
    place.endpoint.answer = in_turn(*replies)


def exact(value: float | None) -> Decimal:
    return Decimal(repr(value))


def check_bill(place: Place, paid: int, unknown: int = 0) -> None:
    """The totals are those of `paid` answers; every row's money is the sum of its attempts."""
    totals = json.loads((place.run_root / "manifest.json").read_bytes())["totals"]
    assert Decimal(totals["cost_usd"]) == paid * ANSWER_USD
    assert totals["unknown_exchanges"] == unknown
    assert totals["exchanges"] == place.sent
    for row in place.records():
        costs = [each["cost_usd"] for each in row["attempts"]]
        if None in costs:
            continue
        total = sum(map(exact, costs), Decimal(0))
        assert exact(row["total_usd"]) == total
        assert exact(row["wasted_usd"]) == total - (exact(row["cost_usd"]) if row["cost_usd"] else 0)


def kept(row: dict[str, Any]) -> list[tuple[str | None, str | None]]:
    return [(each["error_kind"], each["answer"]) for each in row["attempts"]]


def test_an_invalid_answer_is_mended_by_the_model_that_is_shown_what_was_wrong(place: Place) -> None:
    begin(place, 3, MEND, ok(WRONG), ok(PROSE), ok(VALID))
    done = place.run()
    assert done.code == 0, done.err
    for row in place.records():
        assert (row["status"], row["parsed"], row["content"]) == ("ok", {"label": "a"}, VALID)
        assert kept(row) == [("OUTPUT", WRONG), ("OUTPUT", PROSE), (None, None)]
        assert (row["cost_usd"], exact(row["wasted_usd"])) == (float(ANSWER_USD), 2 * ANSWER_USD)
        assert {each["request_hash"] for each in row["attempts"]} == {row["request_hash"]}
        first, second, third = [each.body for each in place.endpoint.seen if row_of(each) == row["row_index"]]
        question = first["messages"]
        assert second["messages"][:2] == [*question, {"role": "assistant", "content": WRONG}]
        assert 'at $.label: "ü" is not one of' in second["messages"][2]["content"]
        assert third["messages"][:2] == [*question, {"role": "assistant", "content": PROSE}]
        assert "the answer is not JSON" in third["messages"][2]["content"]
        assert len(third["messages"]) == 3
        assert {**third, "messages": question} == first
    check_bill(place, paid=9)


def test_without_feedback_the_same_bytes_are_sent(place: Place) -> None:
    begin(place, 1, {"on_invalid": {"attempts": 1, "feedback": False}}, ok(PROSE), ok(VALID))
    assert place.run().code == 0
    first, second = place.endpoint.seen
    assert first.body == second.body
    check_bill(place, paid=2)


def test_an_answer_that_stays_invalid_is_kept_on_a_failed_row(place: Place) -> None:
    begin(place, 2, MEND, ok(WRONG), ok(PROSE), ok('{"label": 3}'), ok(VALID))
    assert place.run().code == 1
    for row in place.records():
        assert (row["status"], row["error_kind"], row["content"]) == ("failed", "OUTPUT", '{"label": 3}')
        assert (row["parsed"], row["http_status"]) == (None, 200)
        assert kept(row) == [("OUTPUT", WRONG), ("OUTPUT", PROSE), ("OUTPUT", None)]
    check_bill(place, paid=6)


def test_by_default_a_paid_answer_is_kept_and_not_asked_for_again(place: Place) -> None:
    begin(place, 2, {}, CUT)
    place.endpoint.answer = lambda seen: CUT if row_of(seen) else ok(PROSE)
    assert place.run().code == 1
    invalid, cut = place.records()
    assert (invalid["status"], invalid["error_kind"], invalid["content"]) == ("failed", "OUTPUT", PROSE)
    assert (cut["status"], cut["error_kind"], cut["content"]) == ("truncated", None, '{"label":')
    assert place.sent == 2
    check_bill(place, paid=2)


def test_a_cut_answer_is_asked_for_once_with_more_room(place: Place) -> None:
    begin(place, 2, ROOM | MEND, CUT, ok(VALID))
    assert place.run().code == 0
    for row in place.records():
        assert (row["status"], row["parsed"]) == ("ok", {"label": "a"})
        assert kept(row) == [(None, '{"label":'), (None, None)]
        assert [each["finish_reason"] for each in row["attempts"]] == ["length", "stop"]
    assert Counter(seen.body["max_completion_tokens"] for seen in place.endpoint.seen) == {20: 2, 40: 2}
    assert {len(seen.body["messages"]) for seen in place.endpoint.seen} == {1}
    check_bill(place, paid=4)


def test_a_cut_answer_stays_the_rows_when_the_longer_one_never_comes(place: Place) -> None:
    begin(place, 2, ROOM, CUT, BROKEN)
    done = place.run("--json")
    assert done.code == 1
    for row in place.records():
        assert (row["status"], row["content"], row["error_kind"]) == ("truncated", '{"label":', None)
        assert kept(row) == [(None, None), *[("SERVER", None)] * 3]
        assert (row["http_status"], row["prompt_tokens"], row["response_id"]) == (200, 100, "c-1")
        assert row["latency_s"] == row["attempts"][0]["seconds"]
        assert (row["cost_usd"], row["wasted_usd"], row["total_usd"]) == (0.00028, 0.0, 0.00028)
    check_bill(place, paid=2)
    story = place.call("show", "runs/trial", "0")
    assert story.out.count("answered") == 1


def test_a_longer_answer_that_breaks_the_schema_is_mended_in_the_larger_room(place: Place) -> None:
    begin(place, 1, ROOM | MEND, CUT, ok(PROSE), ok(VALID))
    assert place.run().code == 0
    (row,) = place.records()
    assert kept(row) == [(None, '{"label":'), ("OUTPUT", PROSE), (None, None)]
    assert [seen.body["max_completion_tokens"] for seen in place.endpoint.seen] == [20, 40, 40]
    assert [message["content"] for message in place.endpoint.seen[2].body["messages"]][1] == PROSE
    check_bill(place, paid=3)


def test_a_refusal_and_a_filtered_answer_are_not_asked_for_again(place: Place) -> None:
    begin(place, 2, ROOM | MEND)
    refusal, filtered = ok(None, refusal="I cannot."), ok("", finish="content_filter")
    place.endpoint.answer = lambda seen: filtered if row_of(seen) else refusal
    assert place.run().code == 1
    assert [(row["status"], row["refusal"]) for row in place.records()] == [
        ("refused", "I cannot."),
        ("filtered", None),
    ]
    assert place.sent == 2


def test_rows_that_are_mended_are_no_rows_that_failed_alike(place: Place) -> None:
    begin(place, 60, MEND, ok(PROSE), ok(VALID))
    done = place.run()
    assert done.code == 0, done.err
    check_bill(place, paid=120)


# Tool calls

TOOL = {"type": "function", "function": {"name": "label", "parameters": SCHEMA}}


def called(*calls: tuple[str, str], content: str | None = None) -> Said:
    """An answer that makes (name, arguments) calls."""
    made = [
        {"id": f"c{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for place, (name, arguments) in enumerate(calls)
    ]
    return ok(content, finish="tool_calls", tool_calls=made)


def begin_tools(place: Place, rows: int, retry: dict[str, Any], *replies: Said, **request: Any) -> None:
    place.rows(rows)
    place.job(retry=retry, request={"tools": [TOOL]} | request)
    place.endpoint.answer = in_turn(*replies)


def test_an_unusable_call_is_answered_by_its_tool_and_made_again(place: Place) -> None:
    spoilt = called(("label", '{"label":"a"}'), ("label", '{"label":'), content="let me see")
    begin_tools(place, 1, MEND, spoilt, called(("labels", "{}")), called(("label", VALID)))
    assert place.run().code == 0
    (row,) = place.records()
    assert (row["status"], row["content"]) == ("ok", None)
    assert row["tool_calls"] == [{"id": "c0", "name": "label", "arguments": VALID}]
    first, second, _ = row["attempts"]
    assert first["error"].startswith("call 2: the arguments of `label` are not JSON: ")
    assert second["error"] == "the answer calls `labels`, which was not offered (label)"
    assert json.loads(first["answer"])["content"] == "let me see"
    assert json.loads(second["answer"])["tool_calls"] == [{"id": "c0", "name": "labels", "arguments": "{}"}]
    question, said, *told = place.endpoint.seen[1].body["messages"]
    assert question == place.endpoint.seen[0].body["messages"][0]
    assert said == {"role": "assistant", **spoilt.body["choices"][0]["message"]}
    assert [(each["role"], each["tool_call_id"]) for each in told] == [("tool", "c0"), ("tool", "c1")]
    assert first["error"] in told[0]["content"]
    assert len(place.endpoint.seen[2].body["messages"]) == 3
    check_bill(place, paid=3)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (called(("label", '{"label":"ü"}')), "break its parameters at $.label"),
        (called(("other", "{}")), "was not offered (label)"),
        (ok("I would rather not."), "tool_choice asks for a call, and the answer makes none"),
    ],
)
def test_a_call_that_cannot_be_used_fails_its_row_and_stays_in_it(place: Place, reply: Said, said: str) -> None:
    begin_tools(place, 1, {}, reply, tool_choice="required")
    assert place.run().code == 1
    (row,) = place.records()
    assert (row["status"], row["error_kind"]) == ("failed", "OUTPUT")
    assert said in row["error"]
    assert bool(row["tool_calls"]) == (row["content"] is None)
    check_bill(place, paid=1)


def test_tools_that_come_out_of_the_row_are_judged_by_it(place: Place) -> None:
    rows = [{"text": f"row {number}", "tools": [TOOL] if number % 2 else []} for number in range(4)]
    (place.root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    place.job(request={"tools": "{{ tools }}"})
    place.endpoint.answer = lambda seen: called(("label", VALID))
    assert place.run().code == 1
    assert [row["status"] for row in place.records()] == ["failed", "ok", "failed", "ok"]


def test_tool_parameters_that_are_no_schema_are_told_before_anything_is_sent(place: Place) -> None:
    begin_tools(place, 1, {}, ok())
    place.job(request={"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "x"}}}]})
    done = place.run()
    assert (done.code, place.endpoint.connections) == (2, 0)
    assert done.errors[0].startswith("job.yaml:")
    assert "request.tools.0.function.parameters: not a usable JSON Schema: " in done.errors[0]


def test_a_call_from_before_a_kill_is_shown_to_the_model_after_it(place: Place) -> None:
    slow = Said(200, called(("label", VALID)).body, delay_s=30)
    begin_tools(place, 1, MEND, called(("label", "{")), slow, called(("label", VALID)))
    kill_when(place, attempts=1)
    assert place.run().code == 0
    before, after = (seen.body for seen in place.endpoint.seen[1:])
    assert before == after
    assert [message["role"] for message in after["messages"]] == ["user", "assistant", "tool"]
    check_bill(place, paid=2, unknown=1)


# A kill between the answers of a row


def sent_lines(place: Place) -> list[dict[str, Any]]:
    lines = [line for path in (place.run_root / "journal").glob("*.jsonl") for line in path.read_bytes().split(b"\n")]
    return [orjson.loads(line) for line in lines if line.startswith(b'{"line":"sent"')]


def has_attempts(place: Place, count: int) -> bool:
    journals = (place.run_root / "journal").glob("*.jsonl")
    return sum(path.read_bytes().count(b'{"line":"attempt"') for path in journals) >= count


def kill_when(place: Place, attempts: int) -> None:
    """Start the run, and kill it once so many ended exchanges are in the journal and another request is out."""
    life = place.start("run", "job.yaml")
    assert until(lambda: place.sent > attempts and has_attempts(place, attempts))
    life.kill()


def test_a_kill_between_two_answers_loses_neither_the_answer_nor_the_count(place: Place) -> None:
    slow = Said(200, ok(VALID).body, delay_s=30)
    begin(place, 1, MEND, ok(WRONG), slow, ok(PROSE), slow, ok(WRONG), ok(VALID))
    kill_when(place, attempts=1)
    first, second = sent_lines(place)
    more_bytes = len(json.dumps(place.endpoint.seen[1].body, ensure_ascii=False, separators=(",", ":")).encode())
    more_bytes -= len(json.dumps(place.endpoint.seen[0].body, ensure_ascii=False, separators=(",", ":")).encode())
    reserved = [Decimal(line["reserved_usd"]) for line in (first, second)]
    assert reserved[1] - reserved[0] == Decimal(more_bytes * 2) / 1_000_000
    kill_when(place, attempts=3)
    done = place.run()
    assert done.code == 1
    (row,) = place.records()
    assert (row["status"], row["error_kind"], row["content"]) == ("failed", "OUTPUT", WRONG)
    assert kept(row) == [
        ("OUTPUT", WRONG),
        ("UNKNOWN", None),
        ("OUTPUT", PROSE),
        ("UNKNOWN", None),
        ("OUTPUT", None),
    ]
    shown = [seen.body["messages"][1]["content"] for seen in place.endpoint.seen[1:]]
    assert shown == [WRONG, WRONG, PROSE, PROSE]
    check_bill(place, paid=3, unknown=2)


def test_a_cut_answer_outlives_a_kill_and_what_fails_after_it(place: Place) -> None:
    begin(place, 1, ROOM, CUT, Said(200, CUT.body, delay_s=30), refused(400, "no"))
    kill_when(place, attempts=1)
    assert place.run().code == 1
    (row,) = place.records()
    assert (row["status"], row["content"], row["finish_reason"]) == ("truncated", '{"label":', "length")
    assert kept(row) == [(None, None), ("UNKNOWN", None), ("REQUEST", None)]
    assert (row["prompt_tokens"], row["cost_usd"], row["model_returned"]) == (100, 0.00028, "m-1-2025")
    assert [seen.body["max_completion_tokens"] for seen in place.endpoint.seen] == [20, 40, 40]
    check_bill(place, paid=1, unknown=1)


def test_a_row_that_was_mended_in_vain_may_be_sent_again_and_counts_anew(place: Place) -> None:
    begin(place, 1, MEND, ok(WRONG), ok(WRONG), ok(PROSE), ok(WRONG), ok(VALID))
    assert place.run().code == 1
    assert place.call("retry", "job.yaml").code == 0
    (row,) = place.records()
    assert [(each["epoch"], each["n"]) for each in row["attempts"]] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]
    assert kept(row) == [("OUTPUT", WRONG), ("OUTPUT", WRONG), ("OUTPUT", PROSE), ("OUTPUT", WRONG), (None, None)]
    assert [len(seen.body["messages"]) for seen in place.endpoint.seen] == [1, 3, 3, 1, 3]
    check_bill(place, paid=5)
