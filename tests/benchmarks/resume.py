"""Seconds and peak memory to go on with a run of ten million rows, and to plan a changed job over one million.

    python tests/benchmarks/resume.py [--rows 10000000] [--plan-rows 1000000]

The run of ten million is synthetic: a survey of that many rows, and parts with true footers over one repeated table;
its input file has the size that the survey says and holds nothing, so a resume that read it could not succeed. The run
of one million is made whole by export.py's recipe; its prompt is then edited, and `run` plans and asks for consent.
Nothing is sent. Every measured command is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from export import PER_PART, job, lines, row

from runner.opening import Begun, RunOptions, run_members
from runner.parts import FOOTER_KEY, Range, _footer
from runner.prepare import Asked, Prepared, load, prepare, take_survey
from runner.records import Tally
from runner.recovery import ranges_of
from runner.say import Say
from runner.sources import Survey
from runner.store import RunDirectory


def surveyed(work: Path, rows: int) -> Prepared:
    """A job whose survey says `rows`, extrapolated from one range."""
    path = work / "rows.jsonl"
    with path.open("w") as file:
        file.writelines(lines(PER_PART))
    loaded = load(Asked(job(work)))
    one = take_survey(loaded, None, lambda done, total: None)
    (piece,), (source,) = one.ranges, one.files
    ranges = tuple(replace(piece, first=first, rows=min(PER_PART, rows - first)) for first in range(0, rows, PER_PART))
    os.truncate(path, source.size * len(ranges))
    now = path.stat()
    files = (replace(source, size=now.st_size, mtime_ns=now.st_mtime_ns, rows=rows),)
    return prepare(loaded, replace(one, rows=rows, ranges=ranges, files=files))


def begin(prepared: Prepared) -> tuple[RunDirectory, dict[str, Any]]:
    directory = RunDirectory(prepared.loaded.run_root)
    directory.claim()
    directory.furnish()
    members = run_members(Begun(prepared, directory, RunOptions(), Say(quiet=True)), "r-1", None)
    directory.write("run.json", members)
    survey: Survey = prepared.survey
    directory.write("survey.json", survey.to_json())
    return directory, members


def fill(prepared: Prepared, directory: RunDirectory, parts: list[Range], inputs: Any) -> None:
    """Parts with one repeated table of results, but each with its own footer."""
    results = pa.Table.from_pylist([row(n) for n in range(PER_PART)], schema=prepared.shape.results)
    for part in parts:
        columns = [column.slice(0, part.rows) for column in (*inputs.columns, *results.columns)]
        totals = Tally(rows={"ok": part.rows}, exchanges=part.rows)
        schema = prepared.shape.part.with_metadata({FOOTER_KEY: _footer(part, totals)})
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), directory.part(part.number), compression="zstd")


def timed(*words: str, code: int) -> str:
    started = time.perf_counter()
    command = [sys.executable, "-m", "runner", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        said = process.stderr.read() if process.stderr else ""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != code:
        raise SystemExit(f"{words[0]} ended with {process.returncode}: {said}")
    scale = 1 if sys.platform == "darwin" else 1024
    return f"{time.perf_counter() - started:.1f} s, peak {used.ru_maxrss * scale / 2**20:.0f} MiB"


def resume(work: Path, rows: int) -> None:
    prepared = surveyed(work, rows)
    directory, members = begin(prepared)
    inputs = pa.Table.from_pylist([json.loads(line) for line in lines(PER_PART)]).select(prepared.input_columns)
    fill(prepared, directory, ranges_of(prepared.survey, members), inputs)
    os.environ["BENCH_KEY"] = "not-a-key"
    print(
        f"resume   {rows:,} rows, {len(prepared.survey.ranges):,} parts: {timed('run', str(work / 'job.yaml'), code=0)}"
    )
    print(f"status   {timed('status', str(directory.root), code=0)}")


def plan(work: Path, rows: int) -> None:
    with (work / "rows.jsonl").open("w") as file:
        file.writelines(lines(rows))
    loaded = load(Asked(job(work)))
    prepared = prepare(loaded, take_survey(loaded, None, lambda done, total: None))
    directory, members = begin(prepared)
    for part in ranges_of(prepared.survey, members):
        fill(prepared, directory, [part], prepared.reader.table(part.number, prepared.input_columns))
    changed = json.loads((work / "job.yaml").read_text())
    changed["request"]["messages"][0]["content"] = "now: {{ text }}"
    (work / "job.yaml").write_text(json.dumps(changed))
    print(f"plan     {rows:,} rows, all changed, refused: {timed('run', str(work / 'job.yaml'), code=2)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--plan-rows", type=int, default=1_000_000)
    given = parser.parse_args()
    for measure, rows in ((resume, given.rows), (plan, given.plan_rows)):
        with tempfile.TemporaryDirectory() as place:
            measure(Path(place), rows)


if __name__ == "__main__":
    main()
