"""Seconds and peak memory of `runner report` over a finished run of one million rows.

    python tests/benchmarks/report.py [--rows 1000000] [--keep DIRECTORY]

The run is made, nothing is sent: labels with a boolean, three hours at 256 in flight with a storm of 429s in the middle
of it, some rows that failed, and a second session on the next day. `--keep` leaves it there, with its page.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from export import lines

from runner.columns import tally
from runner.parts import FOOTER_KEY, _footer
from runner.prepare import Asked, load, prepare, take_survey
from runner.records import Tally
from runner.recovery import ranges_of
from runner.store import FORMAT, RunDirectory

START_US = 1_772_402_400_000_000  # 2026-03-01 22:00 UTC
WORK_US = 3 * 3600 * 1_000_000
NEXT_DAY_US = 11 * 3600 * 1_000_000
IN_FLIGHT = 256
LABELS = ("billing", "login", "bug", "shipping", "refund", "cancellation", "feature_request", "how_to", "other")
WEIGHTS = (30, 18, 14, 12, 9, 7, 5, 4, 1)
MODELS = ("gpt-4.1-mini", "claude-haiku-4-5")
SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": [*LABELS, "security"]},
        "urgent": {"type": "boolean"},
        "confidence": {"type": "string", "enum": ["high", "medium", "low"]},
    },
}
FAILURES = (
    ("TIMEOUT", None, "no answer within 300 s", 60),
    ("SERVER", 500, "The server had an error while processing your request. Sorry about that! (req_{n:08x})", 25),
    ("OUTPUT", 200, "the answer breaks the schema at label: 'payment' is not one of the labels", 10),
    ("REQUEST", 400, "This model's maximum context length is 128000 tokens, your messages have {n} tokens", 5),
)
TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")


def job(work: Path) -> Path:
    answer = {"type": "json_schema", "json_schema": {"name": "label", "schema": SCHEMA}}
    members = {
        "name": "classify_tickets",
        "tags": {"team": "support", "cost_center": "4711"},
        "input": {"path": "rows.jsonl", "id_column": "id"},
        "request": {
            "model": "gpt-4.1-mini",
            "messages": [{"role": "user", "content": "{{ text }}"}],
            "response_format": answer,
        },
        "endpoint": {"base_url": "https://api.cometapi.com/v1", "api_key_env": "BENCH_KEY"},
        "pricing": {"gpt-4.1-mini": {"input": 0.40, "cached_input": 0.10, "output": 1.60}},
    }
    path = work / "job.yaml"
    path.write_text(json.dumps(members))
    return path


class Night:
    """Rows as a run of this many would have kept them. seed: the same rows each time."""

    def __init__(self, rows: int, seed: int = 7) -> None:
        self.luck = random.Random(seed)
        self.step_us = WORK_US / rows
        self.rows = rows

    def row(self, index: int) -> dict[str, Any]:
        luck = self.luck
        again = luck.random() < 0.01
        at_us = int(START_US + (NEXT_DAY_US + index * self.step_us / 20 if again else index * self.step_us))
        tries, at_us = self._limited(index, at_us)
        failure = luck.choices(FAILURES, [weight for *_, weight in FAILURES])[0] if luck.random() < 0.006 else None
        seconds = min(300.0, luck.lognormvariate(0.4, 0.55)) if failure is None or failure[1] else 300.0
        tokens = dict(zip(TOKENS, (380 + luck.randrange(240), 256 if luck.random() < 0.4 else 0, 12, 0), strict=True))
        if failure and failure[0] != "OUTPUT":
            tokens = dict.fromkeys(TOKENS)
        usd = (tokens["prompt_tokens"] * 0.4 + 12 * 1.6) / 1e6 if tokens["prompt_tokens"] else 0.0
        usd = None if failure and failure[0] == "TIMEOUT" else round(usd, 12)
        kind, status, message, _ = failure or (None, 200, None, 0)
        message = message and message.format(n=index + 128_000)
        tries.append(self._exchange(at_us, seconds, (kind, status, message), tokens | {"cost_usd": usd}))
        for number, exchange in enumerate(tries, 1):
            exchange["n"] = number
        model = MODELS[index % 5 == 0]
        row = {"row_index": index, "status": "failed" if failure else "ok", "attempts": tries, "model": model, **tokens}
        row |= {"model_returned": None if failure else f"{model}-2025-04-14", "latency_s": seconds, "cost_usd": usd}
        row |= {
            "first_token_s": None if failure else seconds * 0.2,
            "started_at": at_us,
            "finished_at": at_us + int(seconds * 1e6),
        }
        row |= {"error_kind": kind, "error": message, "http_status": status, "request_hash": f"{index:032x}"}
        if not failure:
            row["parsed"] = {
                "label": luck.choices(LABELS, WEIGHTS)[0],
                "urgent": luck.random() < 0.13,
                "confidence": luck.choices(("high", "medium", "low"), (7, 2, 1))[0],
            }
        return row

    def _limited(self, index: int, at_us: int) -> tuple[list[dict[str, Any]], int]:
        """In the storm many are told to wait first."""
        tries = []
        share = index / self.rows
        while 0.45 < share < 0.52 and self.luck.random() < 0.6:
            refused = ("RATE", 429, "Rate limit reached for requests")
            tries.append(self._exchange(at_us, 0.12, refused, {"cost_usd": 0.0}))
            at_us += 1_000_000 + self.luck.randrange(20_000_000)
        return tries, at_us

    def _exchange(self, at_us: int, seconds: float, end: tuple[Any, ...], more: dict[str, Any]) -> dict[str, Any]:
        kind, status, message = end
        plain = {"epoch": 1, "started_at": at_us, "seconds": seconds, "waited_s": 0.0, "http_status": status}
        finish = None if kind else "stop"
        told = {"error_kind": kind, "error": message, "finish_reason": finish}
        return plain | told | dict.fromkeys(TOKENS) | more


def make(work: Path, rows: int) -> Path:
    """A finished run of so many rows; its directory."""
    with (work / "rows.jsonl").open("w") as file:
        file.writelines(lines(rows))
    loaded = load(Asked(job(work)))
    prepared = prepare(loaded, take_survey(loaded, None, lambda done, total: None))
    directory = RunDirectory(loaded.run_root)
    directory.claim()
    directory.furnish()
    members = {"format": FORMAT, "run": "r-1", "epoch": 1, "simulated": False, "name": "classify_tickets"}
    members |= {"tags": dict(loaded.job.tags), "started_at": "2026-03-01T21:59:41Z"}
    directory.write("run.json", members | {"job_file": str(loaded.asked.job), "job": loaded.job.dump()})
    directory.write("survey.json", prepared.survey.to_json())
    night = Night(rows)
    for part in ranges_of(prepared.survey, members):
        found = [night.row(part.first_row + n) for n in range(part.rows)]
        totals = Tally()
        for row in found:
            totals.add(tally(row))
        results = pa.Table.from_pylist(found, schema=prepared.shape.results)
        inputs = prepared.reader.table(part.number, prepared.input_columns)
        schema = prepared.shape.part.with_metadata({FOOTER_KEY: _footer(part, totals)})
        table = pa.Table.from_arrays([*inputs.columns, *results.columns], schema=schema)
        pq.write_table(table, directory.part(part.number), compression="zstd")
    directory.write("manifest.json", {})
    return directory.root


def measure(run: Path) -> tuple[float, int]:
    """Seconds, peak resident bytes."""
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "runner", "report", str(run)], stdout=subprocess.DEVNULL) as process:
        _, code, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise SystemExit(f"report ended with {process.returncode}")
    return time.perf_counter() - started, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def places(keep: Path | None) -> Iterator[Path]:
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    for work in places(given.keep):
        run = make(work, given.rows)
        seconds, peak = measure(run)
        size = (run / "report.html").stat().st_size
        print(f"{given.rows:,} rows in {seconds:.1f} s, peak {peak / 2**20:.0f} MiB, a page of {size / 2**10:.0f} KiB")


if __name__ == "__main__":
    main()
