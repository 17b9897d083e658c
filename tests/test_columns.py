from __future__ import annotations

import io
import math
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.columns import (
    ATTEMPT,
    ResultSpec,
    attempt_from_record,
    attempt_record,
    conflicts,
    part_schema,
    record,
    result_schema,
    tally,
    tally_attempt,
)
from runner.records import (
    Attempt,
    Billed,
    Choice,
    Completion,
    Failure,
    Kind,
    Reply,
    Request,
    Settled,
    Status,
    Tally,
    ToolCall,
    Usage,
)
from runner.wire.decode import decode

LABEL = pa.struct([("label", pa.string()), ("score", pa.float64())])
PLAIN = ResultSpec(parsed=None, choices=False, logprobs=False, raw=False, endpoint="https://api.example.com/v1")
FULL = ResultSpec(parsed=LABEL, choices=True, logprobs=True, raw=True, endpoint="https://api.example.com/v1")


def words(text: str) -> list[str]:
    return text.split()


ALWAYS = words("""
    row_index status content finish_reason refusal reasoning tool_calls model model_returned response_id created
    system_fingerprint service_tier endpoint prompt_tokens cached_tokens cache_write_tokens completion_tokens
    reasoning_tokens total_tokens cost_usd wasted_usd total_usd price_source latency_s first_token_s started_at
    finished_at error_kind error http_status attempts request_hash""")
EVERY = words("""
    row_index status content parsed finish_reason refusal reasoning tool_calls choices logprobs confidence model
    model_returned response_id created system_fingerprint service_tier endpoint prompt_tokens cached_tokens
    cache_write_tokens completion_tokens reasoning_tokens total_tokens cost_usd wasted_usd total_usd price_source
    latency_s first_token_s started_at finished_at error_kind error http_status attempts request_hash raw""")
ATTEMPT_NAMES = words("""
    epoch n started_at seconds waited_s http_status error_kind error request_id request_hash model_returned
    finish_reason prompt_tokens cached_tokens cache_write_tokens completion_tokens reasoning_tokens cost_usd answer""")

REQUEST = Request(index=41, body=b"{}", hash="ab12", model="gpt-4.1-mini", tokens=10, choices=2)
USAGE = Usage(100, 40, None, 20, 5, 120)


def attempt(n: int = 1, cost: str | None = "0.0002", **changes: Any) -> Attempt:
    money = None if cost is None else Decimal(cost)
    fixed = Attempt(epoch=1, n=n, started_at="2026-01-02T03:04:05.000006Z", seconds=0.5, waited_s=0.25, usage=USAGE)
    return replace(fixed, cost_usd=money, **changes)


def completion(**changes: Any) -> Completion:
    choice = Choice(0, content="billing", finish_reason="stop")
    return replace(Completion(Status.OK, (choice,), usage=USAGE, model="gpt-4.1-mini-2026"), **changes)


def settle(outcome: Completion | Failure, *attempts: Attempt, cost: str | None = "0.0002") -> Settled:
    return Settled(REQUEST, outcome, attempts, cost_usd=None if cost is None else Decimal(cost))


def test_the_schema_has_the_contract_names_in_their_order() -> None:
    assert result_schema(PLAIN).names == ALWAYS
    assert result_schema(FULL).names == EVERY
    assert [field.name for field in ATTEMPT] == ATTEMPT_NAMES


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"parsed": LABEL}, {"parsed"}),
        ({"choices": True}, {"choices"}),
        ({"logprobs": True}, {"logprobs", "confidence"}),
        ({"raw": True}, {"raw"}),
    ],
)
def test_what_a_job_did_not_ask_for_is_no_column(asked: dict[str, Any], names: set[str]) -> None:
    assert set(result_schema(replace(PLAIN, **asked)).names) - set(ALWAYS) == names


def test_the_schema_has_the_contract_types() -> None:
    schema = result_schema(FULL)
    instant = pa.timestamp("us", tz="UTC")
    text = {name: pa.string() for name in EVERY}
    count = "row_index created http_status prompt_tokens cached_tokens cache_write_tokens completion_tokens"
    real = "confidence cost_usd wasted_usd total_usd latency_s first_token_s"
    expected = text | dict.fromkeys([*count.split(), "reasoning_tokens", "total_tokens"], pa.int64())
    expected |= dict.fromkeys(real.split(), pa.float64()) | dict.fromkeys(["started_at", "finished_at"], instant)
    calls = pa.list_(pa.struct([("id", pa.string()), ("name", pa.string()), ("arguments", pa.string())]))
    token = [("token", pa.string()), ("logprob", pa.float64())]
    logprobs = pa.list_(pa.struct([*token, ("top", pa.list_(pa.struct(token)))]))
    words = [(name, pa.string()) for name in ("content", "finish_reason", "refusal")]
    choice = pa.struct([("index", pa.int64()), *words, ("tool_calls", calls), ("logprobs", logprobs)])
    expected |= {"parsed": LABEL, "tool_calls": calls, "logprobs": logprobs, "choices": pa.list_(choice)}
    expected["attempts"] = pa.list_(ATTEMPT)
    assert {field.name: field.type for field in schema} == expected
    assert all(field.nullable for field in schema)
    assert ATTEMPT.field("started_at").type == instant
    assert ATTEMPT.field("waited_s").type == ATTEMPT.field("cost_usd").type == pa.float64()


def test_a_part_has_the_input_columns_untouched_then_the_prefixed_results() -> None:
    inputs = pa.schema([pa.field("amount", pa.decimal128(9, 2), nullable=False), ("content", pa.string())])
    schema = part_schema(inputs, result_schema(PLAIN), "run_")
    assert schema.names == ["amount", "content", *("run_" + name for name in ALWAYS)]
    assert schema.field(0) == inputs.field(0)


def test_input_columns_with_a_result_name_are_conflicts_unless_a_prefix_parts_them() -> None:
    names = ["error", "title", "parsed", "content"]
    assert conflicts(names, PLAIN, "") == ["error", "content"]
    assert conflicts(names, FULL, "") == ["error", "parsed", "content"]
    assert conflicts(names, FULL, "run_") == []
    assert conflicts(["run_error"], FULL, "run_") == ["run_error"]


def test_an_answer_after_a_paid_waste_adds_up() -> None:
    waste = attempt(1, "0.0000001", error_kind="OUTPUT", answer="bil")
    line = record(settle(completion(), waste, attempt(2)), PLAIN)
    assert (line["status"], line["content"], line["model"]) == ("ok", "billing", "gpt-4.1-mini")
    assert (line["cost_usd"], line["wasted_usd"], line["total_usd"]) == (0.0002, 0.0000001, 0.0002001)
    assert (line["prompt_tokens"], line["total_tokens"], line["latency_s"]) == (100, 120, 0.5)
    assert (line["error_kind"], line["error"], line["http_status"], line["tool_calls"]) == (None, None, None, None)
    assert [one["answer"] for one in line["attempts"]] == ["bil", None]


def test_an_answer_that_breaks_the_schema_is_kept_and_paid_on_a_failed_row() -> None:
    failure = Failure(Kind.OUTPUT, "label: not one of …", 200, Billed.YES, answer=completion(), usage=USAGE)
    line = record(settle(failure, attempt()), FULL)
    assert (line["status"], line["content"], line["parsed"]) == ("failed", "billing", None)
    assert (line["error_kind"], line["error"], line["http_status"]) == ("OUTPUT", "label: not one of …", 200)
    assert (line["cost_usd"], line["wasted_usd"], line["total_usd"]) == (0.0002, 0.0, 0.0002)
    assert line["model_returned"] == "gpt-4.1-mini-2026"
    assert line["choices"][0]["content"] == "billing"
    alone = settle(failure, attempt())
    assert record(replace(alone, request=replace(REQUEST, choices=1)), FULL)["choices"] is None


def test_a_row_without_answer_costs_null_and_wastes_what_its_exchanges_cost() -> None:
    line = record(settle(Failure(Kind.SERVER, "500", 500), attempt(1, "0"), attempt(2, "0.5"), cost="0"), FULL)
    assert (line["content"], line["choices"], line["confidence"], line["prompt_tokens"]) == (None, None, None, None)
    assert (line["cost_usd"], line["wasted_usd"], line["total_usd"]) == (None, 0.5, 0.5)


def test_a_row_that_was_never_sent_has_wasted_nothing() -> None:
    line = record(settle(Failure(Kind.INPUT, "no column title"), cost=None), PLAIN)
    assert (line["cost_usd"], line["wasted_usd"], line["total_usd"]) == (None, 0.0, 0.0)
    assert (line["latency_s"], line["attempts"]) == (None, [])


@pytest.mark.parametrize(
    ("costs", "wasted", "total"),
    [((None, "0.1"), None, None), (("0.1", None), 0.1, None), (("0.1", "0.2"), 0.1, 0.3), (("0", "0.2"), 0.0, 0.2)],
)
def test_one_unknown_cost_makes_a_sum_unknown(
    costs: tuple[str | None, ...], wasted: float | None, total: float | None
) -> None:
    line = record(settle(completion(), *(attempt(n, cost) for n, cost in enumerate(costs, 1))), PLAIN)
    assert (line["wasted_usd"], line["total_usd"]) == (wasted, total)


@pytest.mark.parametrize(
    ("logprobs", "confidence"),
    [
        (None, None),
        ((), None),
        (({"token": "a", "logprob": math.log(0.5), "top": []}, {"token": "b", "logprob": 0.0, "top": []}), 0.5),
        (({"token": "a", "logprob": None, "top": []},), None),
        (({"token": "a", "logprob": -9999.0, "top": []},), 0.0),
        (({"token": "a", "logprob": 1e300, "top": []},), 1.0),
    ],
)
def test_confidence_is_the_probability_of_the_whole_answer(logprobs: Any, confidence: float | None) -> None:
    line = record(settle(completion(choices=(Choice(0, logprobs=logprobs),))), FULL)
    assert line["confidence"] == (None if confidence is None else pytest.approx(confidence))


def test_a_streamed_answer_has_its_confidence_too() -> None:
    token = {"token": "bill", "logprob": math.log(0.5), "top_logprobs": []}
    deltas = [("bill", token), ("ing", token | {"token": "ing"})]
    chunks = [{"index": 0, "delta": {"content": text}, "logprobs": {"content": [likely]}} for text, likely in deltas]
    chunks.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    lines = [b"data: %b\n\n" % orjson.dumps({"choices": [chunk]}) for chunk in chunks]
    streamed = decode(Reply(200, {"content-type": "text/event-stream"}, b"".join(lines), 0.1), choices=1, now=0.0)
    line = record(settle(streamed, attempt()), FULL)
    assert (line["content"], line["confidence"]) == ("billing", pytest.approx(0.25))
    assert [each["token"] for each in line["logprobs"]] == ["bill", "ing"]


def test_the_rows_own_exchange_is_the_last_that_answered_whatever_came_after_it() -> None:
    cut = completion(status=Status.TRUNCATED)
    tried = (
        attempt(1, "0.1", error_kind="OUTPUT", answer="no"),
        attempt(2, "0.2", seconds=7.0, http_status=200),
        attempt(3, "0", error_kind="SERVER", seconds=9.0, http_status=500),
        attempt(4, "0.4", error_kind="BAD_REPLY", http_status=200),
    )
    line = record(settle(cut, *tried, cost="0.2"), FULL)
    assert (line["status"], line["cost_usd"], line["wasted_usd"], line["total_usd"]) == ("truncated", 0.2, 0.5, 0.7)
    assert (line["latency_s"], line["http_status"], line["error_kind"]) == (7.0, 200, None)
    total = tally(line)
    assert (total.cost_usd, total.wasted_usd, total.rows) == (Decimal("0.7"), Decimal("0.5"), {"truncated": 1})
    assert tally(through_json(line, FULL)) == total


FAILED, OK = Failure(Kind.SERVER, "boom", 500), completion()
WRONG = Failure(Kind.OUTPUT, "wrong", 200, Billed.YES, answer=completion())


@pytest.mark.parametrize(
    ("outcome", "costs", "expected"),
    [
        (OK, ["0.1"], Tally({"ok": 1}, 1, 0, 100, 40, 20, 5, Decimal("0.1"), Decimal(0))),
        (OK, ["0.1", "0.2"], Tally({"ok": 1}, 2, 0, 200, 80, 40, 10, Decimal("0.3"), Decimal("0.1"))),
        (OK, [None, "0.2"], Tally({"ok": 1}, 2, 1, 200, 80, 40, 10, Decimal("0.2"), Decimal(0))),
        (OK, ["0.1", None], Tally({"ok": 1}, 2, 1, 200, 80, 40, 10, Decimal("0.1"), Decimal("0.1"))),
        (WRONG, ["0.1", "0.2"], Tally({"failed": 1}, 2, 0, 200, 80, 40, 10, Decimal("0.3"), Decimal("0.1"))),
        (FAILED, ["0.1", "0"], Tally({"failed": 1}, 2, 0, 200, 80, 40, 10, Decimal("0.1"), Decimal("0.1"))),
        (FAILED, [], Tally({"failed": 1})),
        (replace(OK, status=Status.FILTERED), ["0"], Tally({"filtered": 1}, 1, 0, 100, 40, 20, 5)),
    ],
)
def test_the_tally_counts_every_exchange_of_a_record(
    outcome: Completion | Failure, costs: list[str | None], expected: Tally
) -> None:
    line = record(settle(outcome, *(attempt(n, cost) for n, cost in enumerate(costs, 1))), PLAIN)
    assert tally(line) == expected
    assert tally(through_json(line, PLAIN)) == expected


def test_an_attempt_without_a_record_is_counted_as_wasted() -> None:
    assert tally_attempt(attempt_record(attempt())) == Tally(
        {}, 1, 0, 100, 40, 20, 5, Decimal("0.0002"), Decimal("0.0002")
    )
    assert tally_attempt(attempt_record(attempt(cost=None))).unknown_exchanges == 1


def through_json(line: dict[str, Any], spec: ResultSpec) -> dict[str, Any]:
    return dict(table_of(line, spec).to_pylist()[0])


def table_of(line: dict[str, Any], spec: ResultSpec) -> Any:
    text = orjson.dumps({**line, "crc": 7})
    return pj.read_json(
        io.BytesIO(text),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(text) + 10),
        parse_options=pj.ParseOptions(explicit_schema=result_schema(spec), unexpected_field_behavior="ignore"),
    )


def with_datetimes(line: dict[str, Any]) -> dict[str, Any]:
    """The record as Arrow gives it back: the instants as datetimes."""
    read = {name: datetime.fromisoformat(line[name]) if line[name] else None for name in ("started_at", "finished_at")}
    attempts = [one | {"started_at": datetime.fromisoformat(one["started_at"])} for one in line["attempts"]]
    return line | read | {"attempts": attempts}


texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
counts = st.none() | st.integers(-(2**63), 2**63 - 1)
seconds = st.none() | st.floats(0, 1e9)
money = st.none() | st.decimals(0, 999, places=12)
instants = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)).map(
    lambda moment: moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
)
usages = st.builds(Usage, counts, counts, counts, counts, counts, counts)
attempts = st.builds(
    Attempt,
    st.integers(1, 9),
    st.integers(1, 99),
    instants,
    seconds,
    st.floats(0, 1e9),
    counts,
    texts,
    texts,
    texts,
    texts,
    texts,
    texts,
    usages.map(lambda usage: replace(usage, total_tokens=None)),
    money,
    texts,
)
pairs = st.fixed_dictionaries({"token": texts, "logprob": st.none() | st.floats(-1e300, 1e300)})
tokens = st.fixed_dictionaries({"token": texts, "logprob": st.none() | st.floats(-1e4, 0), "top": st.lists(pairs)})
calls = st.lists(st.builds(ToolCall, texts, texts, texts), max_size=2).map(tuple)
choices = st.builds(
    Choice, st.integers(0, 9), texts, texts, texts, texts, calls, st.none() | st.lists(tokens, max_size=3).map(tuple)
)
labels = st.none() | st.fixed_dictionaries({"label": texts, "score": st.none() | st.floats(-1e300, 1e300)})
completions = st.builds(
    Completion,
    st.sampled_from([status for status in Status if status is not Status.FAILED]),
    st.lists(choices, min_size=1, max_size=3).map(tuple),
    usages,
    texts,
    texts,
    counts,
    texts,
    texts,
    texts,
    seconds,
    labels,
    texts,
)
failures = st.builds(Failure, st.sampled_from(Kind), texts.map(lambda text: text or "failed"), st.none() | counts)
wrong = st.builds(Failure, st.just(Kind.OUTPUT), st.just("wrong"), answer=completions)
requests = st.builds(
    Request, st.integers(0, 2**40), st.just(b"{}"), st.text("0123456789abcdef"), st.just("gpt"), st.just(1)
)
settleds = st.builds(
    Settled,
    requests,
    completions | failures | wrong,
    st.lists(attempts, max_size=3).map(tuple),
    texts,
    st.none() | instants,
    st.none() | instants,
    money,
)
specs = st.builds(ResultSpec, st.sampled_from([None, LABEL]), st.booleans(), st.booleans(), st.booleans(), st.just("u"))


@settings(deadline=None, max_examples=EXAMPLES)
@given(settleds, specs)
def test_whatever_settles_reads_back_from_json_and_parquet_as_it_was(settled: Settled, spec: ResultSpec) -> None:
    line = record(settled, spec)
    assert list(line) == result_schema(spec).names
    table = table_of(line, spec)
    assert table.schema == result_schema(spec)
    assert table.to_pylist() == [with_datetimes(line)]
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    assert pq.read_table(io.BytesIO(sink.getvalue())) == table
    assert tally(orjson.loads(orjson.dumps(line))) == tally(with_datetimes(line))


@settings(deadline=None, max_examples=EXAMPLES)
@given(attempts)
def test_an_attempt_comes_back_from_a_journal_and_from_a_part_as_it_was(one: Attempt) -> None:
    line = attempt_record(one)
    assert attempt_from_record(orjson.loads(orjson.dumps(line))) == one
    part = pa.array([line | {"started_at": datetime.fromisoformat(one.started_at)}], ATTEMPT)
    assert attempt_from_record(part.to_pylist()[0]) == one


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(attempts, max_size=4))
def test_the_tally_of_a_row_is_the_exact_sum_of_its_exchanges(rows: list[Attempt]) -> None:
    total = tally(record(settle(completion(), *rows), PLAIN))
    known = [one.cost_usd for one in rows if one.cost_usd is not None]
    assert total.exchanges == len(rows)
    assert total.unknown_exchanges == len(rows) - len(known)
    assert total.cost_usd == sum(known)
    answers = [one for one in rows if one.error_kind in (None, "OUTPUT")]
    own = (answers[-1].cost_usd or Decimal(0)) if answers else Decimal(0)
    assert total.wasted_usd == sum(known) - own
