"""Jobs that stream, from a socket to the Parquet files: the same rows as unstreamed, whole after kills and cuts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
from house import House, until
from replies import Job, Replies, Said
from streams import BROKEN, RECORDED
from test_kill_simulated import answers

Build = Callable[..., House]

VARIANTS = [variant for variant in RECORDED.values() if variant.n == 1]
OFFERED = [
    {"type": "function", "function": {"name": "weather"}},
    {"type": "function", "function": {"name": "clock"}},
    {"type": "custom", "custom": {"name": "sql"}},
]
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
EVENTS = {"content-type": "text/event-stream"}
OWN = {"latency_s", "first_token_s", "started_at", "finished_at", "attempts", "request_hash", "endpoint"}


def unstreamed(row: int, _: int) -> Said:
    return Said(orjson.dumps(VARIANTS[row].body))


def streamed(row: int, nth: int) -> Said:
    """Some as an event stream, some as plain text, which some servers call it."""
    kind = {"content-type": "text/plain; charset=utf-8"} if row % 3 == 0 else EVENTS
    return Said(VARIANTS[row].stream, headers=kind)


def rows_of(root: Path, script: Callable[[int, int], Said], **request: Any) -> list[dict[str, Any]]:
    with Replies(script) as server:
        job = Job(root, server.base_url, len(VARIANTS), rows_per_part=64, request={"tools": OFFERED, **request})
        job.run()
        rows: list[dict[str, Any]] = job.table().to_pylist()
    return rows


def test_every_recorded_stream_becomes_the_row_of_the_unstreamed_answer(tmp_path: Path) -> None:
    whole = rows_of(tmp_path / "whole", unstreamed)
    rows = rows_of(tmp_path / "streams", streamed, **STREAM)
    for name, one, other in zip((n for n, v in RECORDED.items() if v.n == 1), whole, rows, strict=True):
        assert {k: v for k, v in other.items() if k not in OWN} == {k: v for k, v in one.items() if k not in OWN}, name
        assert one["first_token_s"] is None
    timed = [row for row in rows if row["first_token_s"] is not None]
    assert len(timed) >= len(rows) - 2  # an empty answer, and one whose arrivals are one
    assert all(0 < row["first_token_s"] <= row["latency_s"] for row in timed)


def test_json_where_a_stream_was_asked_and_a_stream_where_json_was(tmp_path: Path) -> None:
    answered = {"ok", "refused", "truncated"}
    assert {row["status"] for row in rows_of(tmp_path / "json", unstreamed, **STREAM)} == answered
    assert {row["status"] for row in rows_of(tmp_path / "sse", streamed)} == answered


def test_a_broken_stream_is_a_failed_row_that_says_why(tmp_path: Path) -> None:
    cases = {name: broken for name, broken in BROKEN.items() if broken.n == 1 and broken.kind == "BAD_REPLY"}
    bodies = [broken.stream for broken in cases.values()]
    with Replies(lambda row, _: Said(bodies[row], headers=EVENTS)) as server:
        job = Job(tmp_path, server.base_url, len(bodies), rows_per_part=64, request=STREAM)
        job.run()
        rows = job.table().to_pylist()
    told = [(row["status"], row["error_kind"], row["error"], row["content"]) for row in rows]
    assert told == [("failed", "BAD_REPLY", broken.message, None) for broken in cases.values()]
    billed = [row["attempts"][0]["cost_usd"] is not None for row in rows]
    assert billed == [broken.billed == "yes" for broken in cases.values()]


def rows_in(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted((run / "results").glob("part-*.parquet")):
        rows += pq.read_table(path).to_pylist()
    return rows


def streaming(house: House) -> House:
    """The house's job, streamed."""
    house.job.write_text(house.job.read_text().replace("  model: echo-1\n", "  model: echo-1\n  stream: true\n"))
    return house


def has_record(journal: Path) -> bool:
    with suppress(FileNotFoundError):  # sealed since it was listed
        return b'"record"' in journal.read_bytes()
    return True


def test_a_streamed_rehearsal_that_is_killed_goes_on_to_the_same_answers(build: Build) -> None:
    plain = build(rows=60, concurrency=6, rows_per_part=16)
    unharmed = plain.start("--simulate")
    house = streaming(build(rows=60, concurrency=6, rows_per_part=16))
    journals = house.run("echo.simulated") / "journal"
    life = house.start("--simulate")
    assert until(lambda: any(map(has_record, journals.glob("*.jsonl"))) or life.ended)
    life.kill()
    resumed = house.start("--simulate")
    assert resumed.wait() == 0, resumed.said()
    assert "going on in" in resumed.said()
    assert unharmed.wait() == 0, unharmed.said()
    assert answers(house.run("echo.simulated")) == answers(plain.run("echo.simulated"))
    assert "notice: stream_options: sent as {include_usage: true}" in life.said()
    for row in rows_in(house.run("echo.simulated")):
        assert 0 < row["first_token_s"] <= row["latency_s"]
        assert row["cost_usd"] > 0
