"""A rehearsal on the embedded simulator, killed: the simulator goes with it, and the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from house import House, until

Build = Callable[..., House]


def answers(run: Path) -> list[tuple[int, str]]:
    """(row, answer) of a finished run."""
    table = pa.concat_tables([pq.read_table(path) for path in sorted((run / "results").glob("part-*.parquet"))])
    return list(zip(table["row_index"].to_pylist(), table["content"].to_pylist(), strict=True))


def recorded(journals: Path) -> bool:
    """Whether an answer is there, or was: a journal that goes while we look has become a part."""
    try:
        return any(b'"record"' in path.read_bytes() for path in journals.glob("*.jsonl"))
    except FileNotFoundError:
        return True


def test_the_simulator_dies_with_a_killed_run_which_then_goes_on(build: Build) -> None:
    house = build(rows=60, concurrency=6, rows_per_part=16)
    journals = house.run("echo.simulated") / "journal"
    unharmed = house.start("--simulate", "-o", str(house.run("unharmed")))
    life = house.start("--simulate", "--set", "limits.requests_per_minute=60")  # it has work for a minute
    assert until(lambda: recorded(journals) or life.ended)
    (child,) = psutil.Process(life.pid).children()
    assert "runner.simulator" in child.cmdline()
    life.kill()
    gone, _ = psutil.wait_procs([child], timeout=30)
    assert gone == [child]

    resumed = house.start("--simulate")
    assert resumed.wait() == 0, resumed.said()
    assert "going on in" in resumed.said()
    killed = answers(house.run("echo.simulated"))
    assert [row for row, _ in killed] == list(range(house.rows))
    assert house.echo.arrivals == []  # nothing ever left this machine's simulator for the real endpoint

    assert unharmed.wait() == 0, unharmed.said()
    assert answers(house.run("unharmed")) == killed  # the simulator's answers follow from the request alone
