"""Seconds and peak memory of `runner check` over a job of many rows, every one of them rendered.

    python tests/benchmarks/check.py [--rows 1000000]

The rows are short tickets, the prompt has a system message, a price and a cap. Nothing is sent. The command is a
process of its own, and reads the input twice: once to survey it, once to reckon.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from export import job, lines
from resume import timed

PRICE = {"m-1": {"input": 0.4, "cached_input": 0.1, "output": 1.6}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as place:
        path = job(Path(place))
        with (path.parent / "rows.jsonl").open("w") as file:
            file.writelines(lines(rows))
        members = json.loads(path.read_text())
        members["request"] |= {"max_completion_tokens": 60, "temperature": 0}
        members["request"]["messages"].insert(0, {"role": "system", "content": "Label the ticket, nothing else. " * 8})
        path.write_text(json.dumps(members | {"pricing": PRICE}))
        os.environ["BENCH_KEY"] = "not-a-key"
        print(f"check   {rows:,} rows: {timed('check', str(path), code=0)}")
        members["budget"] = {"confirm_above_usd": 1}
        path.write_text(json.dumps(members | {"pricing": PRICE}))
        print(f"asked   {rows:,} rows, refused without --yes: {timed('run', str(path), code=2)}")


if __name__ == "__main__":
    main()
