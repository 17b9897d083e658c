"""What lands in Parquet: columns, types, order, money to the last digit; empty inputs and the shipped jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from endpoint import Endpoint, Place, Said, ok, refused
from nursery import SOURCE

import runner

JOBS = SOURCE / "jobs"
#: In the order of the contract, for a job that asks for text.
RESULTS = [
    *("row_index", "status", "content", "finish_reason", "refusal", "reasoning", "tool_calls", "model"),
    *("model_returned", "response_id", "created", "system_fingerprint", "service_tier", "endpoint", "prompt_tokens"),
    *("cached_tokens", "cache_write_tokens", "completion_tokens", "reasoning_tokens", "total_tokens", "cost_usd"),
    *("wasted_usd", "total_usd", "price_source", "latency_s", "first_token_s", "started_at", "finished_at"),
    *("error_kind", "error", "http_status", "attempts", "request_hash"),
]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint() as endpoint:
        place = Place(tmp_path, endpoint)
        place.rows(6)
        yield place


def exact(value: float | None) -> Decimal:
    """A cost as the README says to add it up."""
    return Decimal(repr(value))


# Money


def usage(prompt: int, cached: int, completion: int) -> dict[str, Any]:
    details = {"prompt_tokens_details": {"cached_tokens": cached}} if cached else {}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **details,
    }


USED = [(1000, 0, 7), (1000, 900, 1), (123, 1, 0), (1, 0, 1), (999_983, 65_537, 31), (5, 5, 5)]


def test_costs_are_exact_to_the_last_digit(place: Place) -> None:
    place.endpoint.answer = lambda seen: ok(usage=usage(*USED[int(seen.text.split()[-1])]))
    place.job(pricing={"m-1": {"input": 0.15, "cached_input": 0.075, "output": 0.6}, "factor": 1.1})
    done = place.run("--json")
    assert done.code == 0, done.err
    rates = Decimal("0.15"), Decimal("0.075"), Decimal("0.6")
    costs = [((p - c) * rates[0] + c * rates[1] + out * rates[2]) * Decimal("1.1") / 1_000_000 for p, c, out in USED]
    rows = place.records()
    assert [exact(row["cost_usd"]) for row in rows] == costs
    assert [exact(row["total_usd"]) for row in rows] == costs
    assert [exact(row["attempts"][0]["cost_usd"]) for row in rows] == costs
    assert {row["wasted_usd"] for row in rows} == {0.0}
    assert {row["price_source"] for row in rows} == {"job"}
    assert Decimal(done.json["totals"]["cost_usd"]) == sum(costs)
    assert [(row["prompt_tokens"], row["cached_tokens"] or 0, row["completion_tokens"]) for row in rows] == USED
    manifest = json.loads((place.run_root / "manifest.json").read_bytes())
    assert Decimal(manifest["totals"]["cost_usd"]) == sum(costs)


def test_absent_usage_is_unknown_and_never_nothing(place: Place) -> None:
    place.endpoint.answer = lambda seen: ok(usage=None) if seen.text == "say row 2" else ok()
    place.job()
    done = place.run()
    assert done.code == 0
    assert done.err.count("of unknown cost") == 1
    assert "bill: $0.0014 for 6 exchanges; 1 of unknown cost\n" in done.err
    row = place.records()[2]
    assert (row["cost_usd"], row["total_usd"], row["prompt_tokens"]) == (None, None, None)
    assert row["attempts"][0]["cost_usd"] is None


def test_an_unknown_price_is_said_once_at_the_start(place: Place) -> None:
    place.job(pricing={"m-1": None})
    done = place.run()
    assert done.code == 0
    assert done.err.count("no price is known for m-1") == 1
    assert "6 of unknown cost" in done.err
    assert {(row["cost_usd"], row["total_usd"], row["price_source"]) for row in place.records()} == {(None, None, None)}
    assert {row["prompt_tokens"] for row in place.records()} == {100}


def test_every_exchange_is_kept_with_its_number_and_its_cost(place: Place) -> None:
    slow_down = refused(429, "Slow down.", "rate_limit_exceeded", retry_after="0.05")
    script = [slow_down, slow_down, refused(500, "oops"), Said(200, {"error": {"message": "upstream"}}), slow_down]
    place.endpoint.answer = lambda seen: script[seen.number] if seen.number < len(script) else ok()
    place.job(input={"limit": 1})
    assert place.run().code == 0
    (row,) = place.records()
    attempts = row["attempts"]
    assert [attempt["n"] for attempt in attempts] == [1, 2, 3, 4, 5, 6]
    assert [attempt["http_status"] for attempt in attempts] == [429, 429, 500, 200, 429, 200]
    kinds = [attempt["error_kind"] for attempt in attempts]
    assert kinds == ["RATE", "RATE", "SERVER", "BAD_REPLY", "RATE", None]
    assert [attempt["cost_usd"] for attempt in attempts] == [0.0, 0.0, 0.0, None, 0.0, 0.00028]
    assert (row["status"], row["cost_usd"]) == ("ok", 0.00028)
    assert (row["wasted_usd"], row["total_usd"]) == (None, None)  # an error inside a 200 may have been billed
    starts = [attempt["started_at"] for attempt in attempts]
    assert starts == sorted(starts)


# Statuses and columns


def several(count: int) -> Said:
    """An answer with `count` choices, the last first."""
    body = ok().body
    texts = [{**body["choices"][0], "index": index, "message": {"content": f"c{index}"}} for index in range(count)]
    return Said(200, body | {"choices": texts[::-1]})


def test_fewer_choices_than_asked_for_are_kept_and_told_once_and_at_the_end(place: Place) -> None:
    place.endpoint.answer = lambda seen: several(3 if seen.text == "say row 0" else 2 if seen.number % 2 else 1)
    place.job(request={"n": 3})
    done = place.run()
    assert done.code == 0
    rows = place.records()
    assert [choice["content"] for choice in rows[0]["choices"]] == ["c0", "c1", "c2"]
    assert {len(row["choices"]) for row in rows[1:]} == {1, 2}
    assert {row["content"] for row in rows} == {"c0"}
    assert done.err.count("the server may ignore n: row ") == 1
    assert "\n  rows with fewer choices than asked for: 5; row 1 has " in done.err
    assert done.err.count(" of 3") == 2
    assert "the server may ignore n" in (place.run_root / "run.log").read_text()
    place.endpoint.answer = lambda seen: several(3)
    again = place.run("--fresh")
    assert "fewer choices" not in again.err


def test_what_an_answer_is_becomes_its_status(place: Place) -> None:
    answers = [
        ok(),
        ok("half an ans", finish="length"),
        ok("", finish="content_filter"),
        ok(None, refusal="I cannot."),
        ok(None, finish="tool_calls", tool_calls=[{"id": "t", "type": "function", "function": {"name": "f"}}]),
        refused(400, "Your request was rejected by our safety system.", "content_policy_violation"),
    ]
    place.endpoint.answer = lambda seen: answers[int(seen.text.split()[-1])]
    place.job(request={"tools": [{"type": "function", "function": {"name": "f"}}]})
    done = place.run()
    assert done.code == 1
    rows = place.records()
    assert [row["status"] for row in rows] == ["ok", "truncated", "filtered", "refused", "ok", "failed"]
    assert [row["error_kind"] for row in rows] == [None] * 5 + ["POLICY"]
    assert rows[1]["content"] == "half an ans"
    assert rows[3]["refusal"] == "I cannot."
    assert [row["cost_usd"] for row in rows] == [0.00028] * 5 + [None]
    assert rows[5]["total_usd"] == 0.0
    assert "2 ok, 1 failed, 1 filtered, 1 refused, 1 truncated" in done.err


def test_the_columns_are_those_of_the_contract_and_every_reader_agrees(place: Place) -> None:
    place.rows(40)
    place.job(output={"rows_per_part": 16})
    assert place.run().code == 0
    parts = sorted((place.run_root / "results").iterdir())
    assert [part.name for part in parts] == [f"part-{number:05d}.parquet" for number in range(3)]
    table = place.results()
    assert table.schema.names == ["id", "text", *RESULTS]
    assert table.schema.field("started_at").type == pa.timestamp("us", "UTC")
    assert table["row_index"].to_pylist() == table["id"].to_pylist() == list(range(40))
    frame = runner.read_results(place.run_root)
    pd.testing.assert_frame_equal(frame, table.to_pandas())
    glob = str(place.run_root / "results" / "*.parquet")
    assert pl.read_parquet(glob).columns == table.schema.names
    found = duckdb.sql(f"select count(*), sum(cost_usd), min(attempts[1].http_status) from '{glob}'").fetchall()
    assert found == [(40, pytest.approx(0.0112), 200)]


def test_results_can_be_read_while_the_run_goes_on_or_has_stopped(place: Place) -> None:
    place.rows(40)
    quota = refused(402, "No credit.")
    place.endpoint.answer = lambda seen: ok(f"said {seen.text}") if seen.number < 20 else quota
    place.job(output={"rows_per_part": 16})
    assert place.run("-c", "1").code == 3
    frame = runner.read_results(place.run_root)
    assert list(frame["row_index"]) == list(range(20))
    assert list(frame["content"]) == [f"said say row {number}" for number in range(20)]
    assert list(frame["text"]) == [f"row {number}" for number in range(20)]


def test_what_an_answer_says_comes_back_byte_for_byte(place: Place) -> None:
    said = 'ünï\u2028code 😀 "quotes" \\ \t\r\n\x00 end'
    place.endpoint.answer = lambda seen: ok(said)
    place.job(output={"keep_raw": True})
    assert place.run().code == 0
    row = place.records()[0]
    assert row["content"] == said
    assert json.loads(row["raw"])["choices"][0]["message"]["content"] == said


# Inputs


EXOTIC = pa.table(
    {
        "text": ["a", "b", None],
        "price": pa.array([Decimal("1.10"), None, Decimal("-99999999999999.99")], pa.decimal128(16, 2)),
        "at": pa.array([1, 2**62, None], pa.timestamp("ns", "Europe/Berlin")),
        "sort": pa.array(["x", "y", "x"]).dictionary_encode(),
        "blob": pa.array([b"\xff\x00", b"", None], pa.binary()),
        "nested": pa.array([{"a": [1, None], "b": {"c": "d"}}, None, {"a": None, "b": None}]),
        "small": pa.array([1, -128, None], pa.int8()),
        "day": pa.array([0, 20_000, None], pa.date32()),
        "status": ["mine", "too", None],
    }
)


def test_parquet_columns_keep_their_types_and_their_order(place: Place) -> None:
    pq.write_table(EXOTIC, place.root / "rows.parquet")
    place.job(input={"path": "rows.parquet"}, output={"prefix": "llm_"})
    assert place.run().code == 0
    table = place.results()
    assert table.select(EXOTIC.schema.names).schema.remove_metadata() == EXOTIC.schema.remove_metadata()
    assert table.select(EXOTIC.schema.names).to_pylist() == EXOTIC.to_pylist()
    assert table.schema.names == [*EXOTIC.schema.names, *(f"llm_{name}" for name in RESULTS)]
    assert [seen.text for seen in sorted(place.endpoint.seen, key=lambda seen: seen.text)] == ["say ", "say a", "say b"]


def test_csv_columns_are_text(place: Place) -> None:
    (place.root / "rows.csv").write_text('text,n\r\n"two\nlines, and ""quotes""",007\r\nno,\r\n', newline="")
    place.job(input={"path": "rows.csv"}, limits={"concurrency": 1})
    assert place.run().code == 0
    assert [(row["text"], row["n"]) for row in place.records()] == [('two\nlines, and "quotes"', "007"), ("no", "")]
    assert [seen.text for seen in place.endpoint.seen] == ['say two\nlines, and "quotes"', "say no"]


def empty_jsonl(path: Path) -> None:
    path.write_text("\n\n")


def empty_csv(path: Path) -> None:
    path.write_text("id,text\n")


def empty_parquet(path: Path) -> None:
    pq.write_table(EXOTIC.slice(0, 0), path)


@pytest.mark.parametrize(
    ("name", "write", "columns"),
    [
        ("rows.jsonl", empty_jsonl, []),
        ("rows.csv", empty_csv, ["id", "text"]),
        ("rows.parquet", empty_parquet, EXOTIC.schema.names),
    ],
    ids=["jsonl", "csv", "parquet"],
)
def test_no_rows_give_one_empty_part_with_every_column(place: Place, name: str, write: Any, columns: list[str]) -> None:
    write(place.root / name)
    place.job(input={"path": name}, output={"prefix": "llm_"})
    done = place.run("--json")
    assert (done.code, place.endpoint.connections) == (0, 0)
    (part,) = (place.run_root / "results").iterdir()
    names = [*columns, *(f"llm_{column}" for column in RESULTS)]
    assert pq.read_schema(part).names == names
    assert list(pd.read_parquet(part).columns) == pl.read_parquet(part).columns == names
    assert duckdb.sql(f"select count(*) from '{part}'").fetchall() == [(0,)]
    assert len(runner.read_results(place.run_root)) == 0
    assert place.run().code == 0
    assert place.call("status", "runs/trial", "--json").json["state"] == "finished"


def test_no_rows_are_fine_for_a_job_that_lists_its_columns(place: Place) -> None:
    empty_jsonl(place.root / "rows.jsonl")
    place.job(output={"columns": ["id"]}, input={"id_column": "id"})
    assert place.run().code == 0


def test_one_row(place: Place) -> None:
    place.rows(1)
    place.job()
    assert place.run().code == 0
    assert [(row["row_index"], row["id"], row["content"]) for row in place.records()] == [(0, 0, "fine")]


def test_a_part_that_was_removed_is_not_paid_for_twice_in_silence(place: Place) -> None:
    place.job()
    assert place.run().code == 0
    (place.run_root / "results" / "part-00000.parquet").unlink()
    done = place.run()
    assert place.sent == 6 or "part-00000.parquet" in done.err


# The jobs that are shipped


@pytest.mark.parametrize(
    ("name", "rows", "parsed"),
    [
        ("classify_tickets", 176, pa.struct([("label", pa.string()), ("confidence", pa.string())])),
        ("extract_invoices", None, None),
        ("answer_questions", None, None),
        ("name_shapes", 4, pa.struct([("shape", pa.string()), ("colour", pa.string()), ("count", pa.int64())])),
    ],
)
def test_the_shipped_jobs_run_on_the_simulator(place: Place, name: str, rows: int | None, parsed: Any) -> None:
    done = place.call("run", str(JOBS / f"{name}.yaml"), "--simulate", "--json", "-o", "out")
    assert done.code == 0, done.err
    assert done.json["totals"]["rows"] == {"ok": done.json["rows"]}
    assert done.json["rows"] == rows or done.json["rows"] >= 150
    table = place.results(place.root / "out")
    if parsed:
        assert table.schema.field("parsed").type == parsed
    if name == "extract_invoices":
        kind = table.schema.field("parsed").type
        lines = kind.field("lines").type
        assert pa.types.is_struct(kind)
        assert pa.types.is_struct(lines.value_type)
        assert all(row["total"] is None or isinstance(row["total"], float) for row in table["parsed"].to_pylist())
    if name == "answer_questions":
        assert "parsed" not in table.schema.names
        assert None not in table["gold"].to_pylist()


def test_a_shipped_job_takes_other_data_with_only_paths_and_prompts_changed(place: Place) -> None:
    intents = [{"text": f"my card {n} is lost", "label": "lost_card"} for n in range(5)]
    (place.root / "banking.jsonl").write_text("".join(json.dumps(row) + "\n" for row in intents))
    label = {"label": "billing", "confidence": "low"}
    place.endpoint.answer = lambda seen: ok(json.dumps(label))
    words = ["--set", "request.messages.1.content={{ text }}", "--set", f"endpoint.base_url={place.endpoint.url}"]
    words += ["--set", "endpoint.api_key_env=TRIAL_KEY", "--set", "input.id_column=null"]
    words += ["-o", "banking", "-i", "banking.jsonl"]
    done = place.call("run", str(JOBS / "classify_tickets.yaml"), *words)
    assert done.code == 0, done.err
    rows = place.records(place.root / "banking")
    assert [(row["text"], row["label"], row["parsed"]) for row in rows] == [
        (intent["text"], "lost_card", label) for intent in intents
    ]
    assert sorted(seen.text for seen in place.endpoint.seen) == [intent["text"] for intent in intents]

    maths = [{"question": f"{n} + {n}?", "answer": f"#### {2 * n}"} for n in range(4)]
    (place.root / "gsm8k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in maths))
    place.endpoint.answer = lambda seen: ok(f"Answer: {seen.text}")
    words = ["--set", "request.messages.1.content={{ question }}", "--set", f"endpoint.base_url={place.endpoint.url}"]
    words += ["--set", "endpoint.api_key_env=TRIAL_KEY", "--set", "input.id_column=null"]
    words += ["--set", 'output.columns=["answer"]', "-o", "gsm8k", "-i", "gsm8k.jsonl"]
    done = place.call("run", str(JOBS / "answer_questions.yaml"), *words)
    assert done.code == 0, done.err
    rows = place.records(place.root / "gsm8k")
    assert [(row["answer"], row["content"]) for row in rows] == [
        (f"#### {2 * n}", f"Answer: {n} + {n}?") for n in range(4)
    ]
