"""Seconds and peak memory of `runner cost --by` two columns over a finished run of ten million rows.

    python tests/benchmarks/bill.py [--rows 10000000] [--by parsed.label,day]

The run is the one of resume.py: a survey that says so many rows, and a true part for every 8,192 of them. Nothing is
sent. The command is a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from resume import begin, fill, surveyed

from runner.recovery import ranges_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--by", default="parsed.label,day")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        prepared = surveyed(Path(place), given.rows)
        directory, members = begin(prepared)
        inputs = prepared.reader.table(0, prepared.input_columns)
        fill(prepared, directory, ranges_of(prepared.survey, members), inputs)
        words = [sys.executable, "-m", "runner", "cost", str(directory.root), "--by", given.by]
        started = time.perf_counter()
        with subprocess.Popen(words) as process:
            _, code, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(code)
        seconds = time.perf_counter() - started
    scale = 1 if sys.platform == "darwin" else 1024
    peak = used.ru_maxrss * scale / 2**20
    print(f"{given.rows:,} rows by {given.by}: {seconds:.1f} s, peak {peak:.0f} MiB, exit code {process.returncode}")


if __name__ == "__main__":
    main()
