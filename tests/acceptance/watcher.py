"""Reads runs all the time, as people do who cannot wait: `python watcher.py RUN…` until its stdin ends.

Rule: a process of its own, with nothing from the runs but their paths. Every part that is there opens, a row is seen
once at most, and a row that was seen once is seen for ever. One line on stdout says when it begins, another when it
has looked often enough; the last one is the verdict, in JSON.
"""

from __future__ import annotations

import json
import select
import sys
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl

import runner


def parts(run: Path) -> list[Path]:
    return sorted((run / "results").glob("*.parquet"))


def by_pandas(run: Path) -> list[int]:
    return pd.read_parquet(run / "results")["row_index"].to_list() if parts(run) else []


def by_polars(run: Path) -> list[int]:
    return pl.read_parquet(run / "results" / "*.parquet")["row_index"].to_list() if parts(run) else []


def by_duckdb(run: Path) -> list[int]:
    if not parts(run):
        return []
    return [row for (row,) in duckdb.sql(f"SELECT row_index FROM '{run}/results/*.parquet'").fetchall()]


def by_read_results(run: Path) -> list[int]:
    return runner.read_results(run)["row_index"].to_list() if (run / "run.json").exists() else []


WAYS: dict[str, Callable[[Path], list[int]]] = {
    "pandas": by_pandas,
    "polars": by_polars,
    "duckdb": by_duckdb,
    "read_results": by_read_results,
}


ENOUGH = {"pandas": 10, "polars": 10, "duckdb": 10, "read_results": 3}  #: looks at runs that go on


def watch(runs: list[Path]) -> dict[str, object]:
    looks: Counter[str] = Counter()
    seen: dict[tuple[Path, str], set[int]] = {}
    complaints: list[str] = []
    rounds, waited_for = count(), True
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0.1)[0]:
        of_all = next(rounds) % 2 == 0  # joining open rows with a large input takes longer than all the rest
        for run in runs:
            for way, read in WAYS.items():
                if way == "read_results" and not of_all:
                    continue
                try:
                    rows = read(run)
                except Exception as error:
                    complaints.append(f"{run} by {way}: {error!r}")
                    continue
                now, before = set(rows), seen.setdefault((run, way), set())
                looks[way] += bool(rows)
                complaints += [f"{run} by {way}: a row twice"] * (len(now) != len(rows))
                complaints += [f"{run} by {way}: gone again: {sorted(before - now)[:5]}"] * bool(before - now)
                seen[run, way] = now
        if waited_for and (complaints or all(looks[way] >= least for way, least in ENOUGH.items())):
            waited_for = False
            print("enough", flush=True)
    return {"looks": looks, "complaints": complaints[:20]}


if __name__ == "__main__":
    print(json.dumps(watch([Path(word) for word in sys.argv[1:]])))
