"""Whatever a server answers is survived, and what the journal accepts becomes a row that every reader reads."""

from __future__ import annotations

import gc
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replies import Job, Replies, Said, completion, message

from runner.columns import ResultSpec, part_schema, record, result_schema, tally, tally_attempt
from runner.ending import Ending
from runner.journal import Head, Journal, record_line, replay
from runner.outputs import Output, compile_output
from runner.pace import Bucket
from runner.parts import Range, Shape, read_footer, seal
from runner.pricing import Price, cost
from runner.records import Attempt, Billed, Completion, Failure, Outcome, Reply, Request, Settled, Tally
from runner.wire.decode import decode

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string"},
        "n": {"type": "integer"},
        "share": {"type": "number"},
        "sure": {"type": ["boolean", "null"]},
        "lines": {
            "type": "array",
            "items": {"type": "object", "properties": {"text": {"type": "string"}, "at": {"type": "integer"}}},
        },
        "any": {},
    },
    "required": ["label"],
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
JSON = {"content-type": "application/json"}
LARGE = 10 << 20
#: What moves a terminal's cursor, or turns the direction of what is printed.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def whole(content: Any = "fine", **members: Any) -> bytes:
    return json.dumps(completion(content, **members)).encode()


def choice(**members: Any) -> bytes:
    return whole(choices=[{"index": 0, "message": message(), "finish_reason": "stop"} | members])


def usage(**members: Any) -> bytes:
    return whole(usage={"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12} | members)


def raw(old: str, new: str) -> bytes:
    """A completion with a piece of its text replaced: for what json.dumps does not write."""
    text = whole().decode()
    assert old in text
    return text.replace(old, new).encode()


Columns = Mapping[str, Any]
OK: Columns = {"status": "ok", "error_kind": None}
UNUSABLE: Columns = {"status": "failed", "error_kind": "OUTPUT"}
BAD: Columns = {"status": "failed", "error_kind": "BAD_REPLY", "content": None}
DEEP = 100_000

#: What is answered, and what must stand in the row's columns for a job that asked for text.
CASES: dict[str, tuple[Said | bytes, Columns]] = {
    "a lone surrogate": (raw('"fine"', r'"half \ud83d"'), OK | {"content": "half \ufffd"}),
    "two surrogates the wrong way round": (raw('"fine"', r'"\ude00\ud83d"'), OK | {"content": "\ufffd\ufffd"}),
    "a surrogate in the model's name": (raw('"m-1"', r'"m\udfff"'), OK | {"model_returned": "m\ufffd"}),
    "a surrogate in the id": (raw('"r-1"', r'"\ud800"'), OK | {"response_id": "\ufffd"}),
    "a NUL": (whole("a\x00b"), OK | {"content": "a\x00b"}),
    "control characters": (whole("\x01\x1b[2J\x7f\x85\u2028"), OK | {"content": "\x01\x1b[2J\x7f\x85\u2028"}),
    "emoji and right-to-left": (whole("😀 \u202eשלום 👩‍👩‍👧"), OK | {"content": "😀 \u202eשלום 👩‍👩‍👧"}),
    "an empty string": (whole(""), OK | {"content": ""}),
    "10 MB of text": (whole("x" * LARGE), OK | {"content": "x" * LARGE}),
    "text that looks like JSON lines": (whole('"}\n{"line":"record"'), OK | {"content": '"}\n{"line":"record"'}),
    "NaN among the members": (raw("1700000000", "NaN"), OK | {"created": None, "content": "fine"}),
    "Infinity": (raw("1700000000", "-Infinity"), OK | {"created": None}),
    "1e400": (raw("1700000000", "1e400"), OK | {"created": None}),
    "30 digits": (raw("1700000000", "1" * 30), OK | {"created": None}),
    "5,000 digits": (raw("1700000000", "1" * 5_000), OK | {"created": None}),
    "an integer written 3.0": (raw("1700000000", "3.0"), OK | {"created": 3}),
    "an integer with an exponent": (raw("1700000000", "1e3"), OK | {"created": 1000}),
    "tokens written 3.0": (usage(prompt_tokens=3.0), OK | {"prompt_tokens": 3}),
    "tokens of 30 digits": (usage(completion_tokens=10**30), OK | {"completion_tokens": None, "cost_usd": None}),
    "tokens below nothing": (usage(prompt_tokens=-5), OK | {"prompt_tokens": None, "cost_usd": None}),
    "tokens in words": (usage(prompt_tokens="many", completion_tokens=True), OK | {"prompt_tokens": None}),
    "usage that is a list": (whole(usage=[1]), OK | {"prompt_tokens": None, "total_usd": None}),
    "duplicate keys": (raw('"role"', '"content": "first", "role"'), OK | {"content": "fine"}),
    "two lists of choices": (raw('"created"', '"choices": [], "created"'), OK | {"content": "fine"}),
    "members of every wrong type": (
        whole(id=1, created="x", model=[], system_fingerprint={}, service_tier=3.5, object=None),
        OK | {"response_id": None, "created": None, "model_returned": None},
    ),
    "content that is a number": (whole(7), OK | {"content": "7"}),
    "content that is an object": (whole({"a": 1}), OK | {"content": '{"a":1}'}),
    "content in parts": (whole([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), OK | {"content": "ab"}),
    "tool calls of wrong types": (
        choice(message=message(None, tool_calls=[{"id": 1, "function": {"name": [], "arguments": {"a": "\x00"}}}, 3])),
        UNUSABLE | {"tool_calls": [{"id": None, "name": None, "arguments": '{"a":"\\u0000"}'}]},
    ),
    "logprobs of wrong types": (choice(logprobs={"content": [{"token": 1, "logprob": "x"}, None, 3]}), OK),
    "an unknown finish reason": (choice(finish_reason="\ufffe weird"), OK | {"finish_reason": "\ufffe weird"}),
    "a thousand choices": (whole(choices=[{"index": 0, "message": message()}] * 1000), OK | {"content": "fine"}),
    "a choice of index 10^30": (choice(index=10**30), OK | {"content": "fine"}),
    "another encoding's mark": (b"\xef\xbb\xbf" + whole("marked"), OK | {"content": "marked"}),
    "gzip": (
        Said(gzip.compress(whole("packed")), headers=JSON | {"content-encoding": "gzip"}),
        OK | {"content": "packed"},
    ),
    "a redirected label": (Said(whole(), headers={"content-type": "text/html"}), OK | {"content": "fine"}),
    "invalid UTF-8": (whole("fine").replace(b"fine", b"f\xff\xfe"), BAD),
    "gzip cut short": (Said(gzip.compress(whole())[:40], headers=JSON | {"content-encoding": "gzip"}), BAD),
    "no gzip under that name": (Said(whole(), headers=JSON | {"content-encoding": "gzip"}), BAD),
    "an unknown encoding": (Said(whole(), headers=JSON | {"content-encoding": "zstd"}), BAD),
    "a web page": (Said(b"<!DOCTYPE html><title>Log in</title>", headers={"content-type": "text/html"}), BAD),
    "nothing at all": (b"", BAD),
    "white space": (b" \n\t", BAD),
    "null": (b"null", BAD),
    "a number": (b"1e400", BAD),
    "a list": (b"[1, 2]", BAD),
    "an empty object": (b"{}", BAD),
    "half an object": (whole()[:50], BAD),
    "choices that are none": (whole(choices=None), BAD),
    "choices of wrong types": (whole(choices=[1, "x", None, []]), BAD),
    "no message": (whole(choices=[{}]), BAD),
    "deep nesting": (b"[" * DEEP + b"]" * DEEP, BAD),
    "deep nesting beside the answer": (whole().replace(b"1700000000", b"[" * DEEP + b"]" * DEEP), BAD),
    "an error inside 200": (b'{"error": {"message": "\\ud800\\u0000\\u202e upstream", "code": 1e400}}', BAD),
    "a 400 of odd words": (
        Said(b'{"error": [1, {"message": NaN}]}', 400),
        {"status": "failed", "error_kind": "REQUEST"},
    ),
    "a 422 of odd bytes": (Said(b"\xff\x00\x1b[31m", 422), {"status": "failed", "error_kind": "REQUEST"}),
    "a 500 without a body": (Said(b"", 500), {"status": "failed", "error_kind": "SERVER"}),
    "odd headers": (
        Said(
            whole(), headers=JSON | {"x-request-id": "\x80\xff" * 300, "retry-after": "1e400", "set-cookie": "a" * 9000}
        ),
        OK | {"content": "fine"},
    ),
}
HUGE_USAGE = usage(prompt_tokens=2**63 - 1, completion_tokens=2**63 - 1, total_tokens=2**63 - 1)


def said(given_: Said | bytes) -> Said:
    return given_ if isinstance(given_, Said) else Said(given_)


#: Answers to a job with a schema: content, and `parsed` or the kind of failure.
ANSWERS: dict[str, tuple[str, Any]] = {
    "as asked": ('{"label": "a", "n": 1}', {"label": "a", "n": 1}),
    "in a fence": ('```json\n{"label": "b"}\n```', {"label": "b"}),
    "an integer written 3.0": ('{"label": "c", "n": 3.0}', {"label": "c", "n": 3}),
    "an integer of 30 digits": ('{"label": "d", "n": %s}' % ("1" * 30), {"label": "d", "n": None}),
    "1e400": ('{"label": "e", "share": 1e400}', {"label": "e", "share": None}),
    "a lone surrogate": (r'{"label": "\ud83d"}', {"label": "\ufffd"}),
    "a NUL": (r'{"label": "\u0000", "any": {"\u0000": [1e400]}}', {"label": "\x00", "any": '{"\\u0000":[null]}'}),
    "duplicate keys": ('{"label": "x", "label": "y"}', {"label": "y"}),
    "members that nobody asked for": ('{"label": "f", "row_index": 7, "": {}}', {"label": "f"}),
    "lists of lists": ('{"label": "g", "lines": [{"text": "t", "at": 2.0}, {}]}', None),
    "deep nesting": ('{"label": "h", "any": %s}' % ("[" * 200 + "]" * 200), None),
    "too deep nesting": ("[" * DEEP, "OUTPUT"),
    "a wrong type": ('{"label": 1}', "OUTPUT"),
    "a missing member": ("{}", "OUTPUT"),
    "prose": ("The label is a.", "OUTPUT"),
    "nothing": ("", "OUTPUT"),
    "NaN": ("NaN", "OUTPUT"),
}


@pytest.fixture(scope="module")
def shared() -> Iterator[Replies]:
    with Replies() as server:
        yield server


@pytest.fixture
def server(shared: Replies) -> Iterator[Replies]:
    shared.arrivals.clear()
    yield shared
    gc.collect()  # what a run has left open is missed here, not in somebody else's test


def ran(server: Replies, root: Path, replies: list[Said], request: Mapping[str, Any]) -> tuple[Job, Ending]:
    """A job whose row i is answered replies[i]."""
    server.script = lambda row, _: replies[row]
    job = Job(root, server.base_url, len(replies), rows_per_part=16, request=request)
    ending = job.run()
    assert sorted(server.arrivals) == list(range(len(replies)))
    return job, ending


def read_by_all(job: Job) -> list[dict[str, Any]]:
    """The rows, after pyarrow, pandas, polars and duckdb have read the same statuses and texts."""
    table = job.table()
    files = [str(path) for path in job.parts()]
    wanted = [table[name].to_pylist() for name in ("row_index", "status", "content")]
    for name, got in {
        "pandas": pd.concat([pd.read_parquet(path) for path in files]).replace({float("nan"): None}),
        "polars": pl.concat([pl.read_parquet(path) for path in files]),
        "duckdb": duckdb.read_parquet(files).order("row_index").to_arrow_table().to_pandas(),
    }.items():
        texts = [None if text is None or text != text else text for text in got["content"].to_list()]
        assert [got["row_index"].to_list(), got["status"].to_list(), texts] == wanted, name
    return table.to_pylist()


def differing(rows: list[dict[str, Any]], names: list[str], wanted: list[Columns]) -> dict[str, dict[str, Any]]:
    """By case: the columns that are not as they should be."""
    found = {
        name: {column: row[column] for column, value in columns.items() if row[column] != value}
        for name, row, columns in zip(names, rows, wanted, strict=True)
    }
    return {name: {key: str(value)[:200] for key, value in wrong.items()} for name, wrong in found.items() if wrong}


def test_whatever_a_server_answers_becomes_one_row_that_every_reader_reads(server: Replies, tmp_path: Path) -> None:
    job, ending = ran(server, tmp_path, [said(reply) for reply, _ in CASES.values()], {})
    rows = read_by_all(job)
    assert differing(rows, list(CASES), [columns for _, columns in CASES.values()]) == {}
    failed = sum(columns["status"] == "failed" for _, columns in CASES.values())
    assert (ending.exit_code, ending.totals.rows) == (1, {"ok": len(CASES) - failed, "failed": failed})
    assert all(len(row["attempts"]) == 1 for row in rows)
    for row in rows:
        words = (row["error"] or "") + (row["attempts"][0]["error"] or "")
        assert not UNSAFE.search(words), words


def test_the_same_answers_to_a_job_with_choices_logprobs_and_tools(server: Replies, tmp_path: Path) -> None:
    asked = {"n": 2, "logprobs": True, "top_logprobs": 2, "tools": TOOLS}
    job, _ = ran(server, tmp_path, [said(reply) for reply, _ in CASES.values()], asked)
    rows = read_by_all(job)
    wanted = [{name: columns[name] for name in ("status", "error_kind")} for _, columns in CASES.values()]
    assert differing(rows, list(CASES), wanted) == {}
    for row in rows:
        if row["status"] == "ok":
            assert row["choices"][0]["content"] == row["content"]
            indexes = [choice["index"] for choice in row["choices"]]
            assert indexes == sorted(set(indexes))
        elif row["error_kind"] != "OUTPUT":
            assert row["choices"] is None


def test_the_same_answers_to_a_job_with_a_schema(server: Replies, tmp_path: Path) -> None:
    job, _ = ran(server, tmp_path, [said(reply) for reply, _ in CASES.values()], {"response_format": FORMAT})
    for row, (_, columns) in zip(read_by_all(job), CASES.values(), strict=True):
        kinds = {"OUTPUT"} if columns["status"] == "ok" and not row["tool_calls"] else {columns["error_kind"]}
        assert row["error_kind"] in kinds


def test_answers_to_a_schema_fit_their_column_or_fail_with_the_paid_text_kept(server: Replies, tmp_path: Path) -> None:
    replies = [Said(whole(content)) for content, _ in ANSWERS.values()]
    job, _ = ran(server, tmp_path, replies, {"response_format": FORMAT, "n": 1})
    for row, (name, (content, expected)) in zip(read_by_all(job), ANSWERS.items(), strict=True):
        assert row["content"] == content, name
        assert row["cost_usd"] == 0.000036, name
        if expected == "OUTPUT":
            assert (row["status"], row["error_kind"], row["parsed"]) == ("failed", "OUTPUT", None), name
            continue
        assert (row["status"], row["error_kind"]) == ("ok", None), (name, row["error"])
        for member, value in (expected or {}).items():
            assert row["parsed"][member] == value, name


def test_usage_beyond_all_measure_is_sealed_and_the_bill_is_still_a_sum(server: Replies, tmp_path: Path) -> None:
    job, ending = ran(server, tmp_path, [Said(HUGE_USAGE)] * 4, {})
    assert ending.exit_code == 0
    rows = read_by_all(job)
    assert [row["status"] for row in rows] == ["ok"] * 4
    assert ending.totals.prompt_tokens == sum(row["prompt_tokens"] or 0 for row in rows)
    assert read_footer(job.parts()[0]).totals == ending.totals


def test_one_absurd_count_of_tokens_does_not_stop_a_job_for_years() -> None:
    bucket = Bucket(per_minute=60_000)
    bucket.correct(2.0**62)
    assert bucket.ready_in(0.0, 100) <= 120


AT = "2025-01-02T03:04:05.000006Z"
PRICE = Price("m", Decimal("2.5"), Decimal("1.25"), None, Decimal(10), "job", "m")
PLACES = (
    [("choices",), ("choices", 0), ("choices", 1), ("usage",), ("model",), ("id",), ("created",), ("error",)]
    + [("system_fingerprint",), ("service_tier",)]
    + [("choices", 0, name) for name in ("index", "message", "finish_reason", "logprobs", "error", "text", "delta")]
    + [("choices", 0, "message", name) for name in ("content", "refusal", "reasoning", "reasoning_content")]
    + [("choices", 0, "message", name) for name in ("tool_calls", "function_call", "audio", "reasoning_details")]
    + [("choices", 0, "logprobs", name) for name in ("content", "refusal")]
    + [("usage", name) for name in ("prompt_tokens", "completion_tokens", "total_tokens", "reasoning_tokens")]
    + [("usage", name) for name in ("prompt_tokens_details", "completion_tokens_details", "cached_tokens")]
)
FULL_BODY = completion(
    choices=[
        {
            "index": index,
            "message": message(
                tool_calls=[{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
            ),
            "logprobs": {
                "content": [{"token": "a", "logprob": -0.1, "top_logprobs": [{"token": "a", "logprob": -0.1}]}]
            },
            "finish_reason": "stop",
        }
        for index in (0, 1)
    ]
)

numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([2**63 - 1, 2**63, -(2**63), 2**53 + 1, 3.0, 1e308, -0.0]),
)
texts = st.text(st.characters(), max_size=20) | st.sampled_from(["", "stop", "\ud83d", "\x00", "{}", "1e400", "length"])
leaves = st.none() | st.booleans() | numbers | texts
names = texts | st.sampled_from(["content", "text", "type", "id", "name", "arguments", "function", "token", "logprob"])
names |= st.sampled_from(
    ["top_logprobs", "message", "finish_reason", "refusal", "code", "cached_tokens", "label", "lines"]
)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)
headers = st.dictionaries(
    st.sampled_from(
        ["retry-after", "retry-after-ms", "x-request-id", "x-ratelimit-reset-requests", "content-type", "x"]
    ),
    st.text(st.characters(max_codepoint=255), max_size=20) | st.sampled_from(["1e400", "nan", "-1", "9" * 40]),
    max_size=3,
)


@st.composite
def bodies(draw: Any) -> bytes:
    """A full completion with anything at one to three places; sometimes only anything; sometimes its text damaged."""
    body: Any = deepcopy(FULL_BODY)
    for place in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)):
        _put(body, place, draw(anything))
    if draw(st.integers(0, 9)) == 0:
        body = draw(anything)
    text = json.dumps(body).encode()
    return text if draw(st.integers(0, 9)) else text[: draw(st.integers(0, len(text)))] + draw(st.binary(max_size=3))


@st.composite
def structured(draw: Any) -> bytes:
    """A completion whose content is JSON, near the schema or far from it."""
    members = draw(st.dictionaries(st.sampled_from([*SCHEMA["properties"], "other"]), anything, max_size=6))
    value = draw(st.sampled_from([members, {"label": "a"} | members])) if draw(st.booleans()) else draw(anything)
    return json.dumps(completion(json.dumps(value, ensure_ascii=draw(st.booleans())))).encode()


def _put(body: Any, place: tuple[str | int, ...], value: Any) -> None:
    """Put `value` there, unless what was put before took the place away."""
    for step in place[:-1]:
        if not isinstance(body, dict if isinstance(step, str) else list) or (
            step not in body if isinstance(body, dict) else len(body) <= step
        ):
            return
        body = body[step]
    if isinstance(body, dict) or (isinstance(body, list) and isinstance(place[-1], int) and place[-1] < len(body)):
        body[place[-1]] = value


@dataclass(frozen=True)
class Bench:
    """From a reply to its row without a socket, as a run with these columns does it."""

    spec: ResultSpec
    output: Output | None
    choices: int

    def outcome(self, reply: Reply) -> Outcome:
        outcome = decode(reply, choices=self.choices, now=1.7e9, keep_raw=self.spec.raw)
        return self.output.check(outcome) if self.output and isinstance(outcome, Completion) else outcome

    def settled(self, row: int, outcome: Outcome) -> Settled:
        failed = outcome if isinstance(outcome, Failure) else None
        free = failed is not None and failed.billed is not Billed.YES
        usd = Decimal(0) if free else cost(outcome.usage, PRICE)
        attempt = Attempt(
            epoch=1,
            n=1,
            started_at=AT,
            seconds=0.25,
            waited_s=0.0,
            http_status=failed.status if failed else 200,
            error_kind=failed.kind if failed else None,
            error=failed.message if failed else None,
            request_id=outcome.request_id,
            usage=outcome.usage,
            cost_usd=usd,
        )
        return Settled(Request(row, b"{}", "h", "m", 1, choices=self.choices), outcome, (attempt,), "job", AT, AT, usd)


def bench(**asked: Any) -> Bench:
    output = compile_output(asked.get("response_format"))
    several = asked.get("n", 1)
    spec = ResultSpec(output.arrow_type if output else None, several > 1, several > 1, several > 1, "http://e/v1")
    return Bench(spec, output, several)


BENCHES = {"text": bench(), "all": bench(n=2), "schema": bench(response_format=FORMAT)}
BENCHES |= {"object": bench(response_format={"type": "json_object"}, n=2)}


@pytest.mark.parametrize("name", BENCHES)
@settings(deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))
@given(
    replies=st.lists(
        st.tuples(
            bodies() | structured(), headers, st.sampled_from([200, 200, 200, 200, 201, 302, 400, 429, 500, 503])
        ),
        min_size=1,
        max_size=6,
    )
)
def test_what_the_journal_accepts_can_be_sealed_row_for_row(
    name: str, replies: list[tuple[bytes, dict[str, str], int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("any")
    bench_ = BENCHES[name]
    part = Range("r", 0, 0, len(replies), 1, "hash")
    journal = Journal(directory / "00000.jsonl", Head(part.run, part.number, part.epoch, part.rows, part.input_hash))
    records, total = [], Tally()
    for row, (body, given_headers, status) in enumerate(replies):
        outcome = bench_.outcome(Reply(status, given_headers, body, 0.25))
        if isinstance(outcome, Failure):
            assert outcome.wait_s is None or 0 <= outcome.wait_s < float("inf")
            assert not UNSAFE.search(outcome.message) and 0 < len(outcome.message) <= 500
        made = record(bench_.settled(row, outcome), bench_.spec)
        assert tally_attempt(made["attempts"][0]).exchanges == 1
        records.append(made)
        total.add(tally(made))
        journal.append(record_line(made, journal.seed))
    journal.close()
    kept = replay(journal.path.read_bytes(), part.run, part.number)
    assert kept.records == dict(enumerate(records))

    results = result_schema(bench_.spec)
    inputs = pa.schema([("id", pa.int64())])
    given_ids = pa.table([pa.array(range(len(replies)))], schema=inputs)
    shape = Shape(results, part_schema(inputs, results, ""))
    seal(
        part,
        total,
        (journal.path, directory / "part.parquet"),
        shape,
        lambda: given_ids,
    )
    for made, row in zip(records, pq.read_table(directory / "part.parquet").to_pylist(), strict=True):
        assert row["error"] == made["error"]  # no row became one that could not be stored
        for column in results.names:
            if column not in ("attempts", "started_at", "finished_at"):
                assert same(row[column], made[column]), column


def same(stored: Any, made: Any) -> bool:
    """Equal, where a member that a struct lacks is null."""
    if isinstance(stored, dict) and isinstance(made, dict):
        return all(same(value, made.get(name)) for name, value in stored.items())
    if isinstance(stored, list) and isinstance(made, list):
        return len(stored) == len(made) and all(map(same, stored, made))
    return bool(stored == made)
