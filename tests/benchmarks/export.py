"""Seconds and peak memory of `runner export`, in each form, of a finished run that this script makes.

    python tests/benchmarks/export.py [--rows 1000000] [--form jsonl]

The run has an input of short tickets, an answer of one label with its tokens and one exchange a row, in parts of 8,192
rows; nothing is sent. Each export is a process of its own, writing to a file that is thrown away.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from runner.parts import Shape
from runner.prepare import Asked, Prepared, load, prepare, take_survey
from runner.store import FORMAT, RunDirectory

PER_PART = 8192
AT = 1_735_787_045_000_006
FORMS = ("jsonl", "csv", "parquet")
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}, "confidence": {"type": "string"}},
    "required": ["label", "confidence"],
}


def job(work: Path) -> Path:
    answer = {"type": "json_schema", "json_schema": {"name": "label", "schema": SCHEMA}}
    message = {"role": "user", "content": "{{ text }}"}
    members = {
        "name": "bench",
        "input": {"path": "rows.jsonl"},
        "request": {"model": "m-1", "messages": [message], "response_format": answer},
        "endpoint": {"base_url": "http://127.0.0.1:9/v1", "api_key_env": "BENCH_KEY"},
        "output": {"rows_per_part": PER_PART},
    }
    path = work / "job.yaml"
    path.write_text(json.dumps(members))
    return path


def lines(rows: int) -> Iterator[str]:
    text = "my card payment failed again, please help me with the refund of yesterday " * 3
    return (json.dumps({"id": number, "text": f"ticket {number}: {text}"}) + "\n" for number in range(rows))


def row(index: int) -> dict[str, Any]:
    tokens = {"prompt_tokens": 400 + index % 50, "cached_tokens": 0, "completion_tokens": 10, "reasoning_tokens": 0}
    digest = f"{index:032x}"
    exchange = {"epoch": 1, "n": 1, "started_at": AT + index, "seconds": 0.5, "waited_s": 0.001, "http_status": 200}
    exchange |= tokens | {"request_hash": digest, "finish_reason": "stop", "cost_usd": 0.000123}
    return tokens | {
        "row_index": index,
        "status": "ok",
        "content": '{"label":"billing","confidence":"high"}',
        "parsed": {"label": "billing", "confidence": "high"},
        "finish_reason": "stop",
        "model": "m-1",
        "model_returned": "m-1-2025",
        "response_id": f"chatcmpl-{index}",
        "cost_usd": 0.000123,
        "wasted_usd": 0.0,
        "total_usd": 0.000123,
        "latency_s": 0.5,
        "started_at": AT + index,
        "finished_at": AT + index + 500_000,
        "http_status": 200,
        "attempts": [exchange],
        "request_hash": digest,
    }


def make(work: Path, rows: int) -> Path:
    """A finished run of so many rows; its directory."""
    with (work / "rows.jsonl").open("w") as file:
        file.writelines(lines(rows))
    loaded = load(Asked(job(work)))
    prepared = prepare(loaded, take_survey(loaded, None, lambda done, total: None))
    directory = RunDirectory(loaded.run_root)
    directory.claim()
    directory.furnish()
    members = {"format": FORMAT, "run": "r-1", "epoch": 1, "simulated": False, "name": "bench"}
    directory.write("run.json", members | {"job_file": str(loaded.asked.job), "job": loaded.job.dump()})
    directory.write("survey.json", prepared.survey.to_json())
    for piece in prepared.survey.ranges:
        write_part(prepared, directory, piece)
    return directory.root


def write_part(prepared: Prepared, directory: RunDirectory, piece: Any) -> None:
    shape: Shape = prepared.shape
    number = piece.first // PER_PART
    results = pa.Table.from_pylist([row(piece.first + n) for n in range(piece.rows)], schema=shape.results)
    inputs = prepared.reader.table(number, prepared.input_columns)
    table = pa.Table.from_arrays([*inputs.columns, *results.columns], schema=shape.part)
    pq.write_table(table, directory.part(number), compression="zstd")


def measure(run: Path, form: str, target: Path) -> tuple[float, int, int]:
    """Seconds, peak resident bytes, bytes written."""
    words = [sys.executable, "-m", "runner", "export", str(run), "-f", form]
    started = time.perf_counter()
    with target.open("wb") as file, subprocess.Popen(words, stdout=file) as process:
        _, code, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise SystemExit(f"export ended with {process.returncode}")
    scale = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - started, used.ru_maxrss * scale, target.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--form", choices=FORMS, action="append")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        run = make(work, given.rows)
        for form in given.form or FORMS:
            seconds, peak, size = measure(run, form, work / "out")
            print(
                f"{form:8} {given.rows:,} rows in {seconds:.1f} s ({seconds / given.rows * 1e6:.1f} us a row), "
                f"peak {peak / 2**20:.0f} MiB, {size / 2**20:.0f} MiB written",
                flush=True,
            )


if __name__ == "__main__":
    main()
