"""One prompt over a million rows, once: limits, retries, crashes and cost are handled, the answers land in Parquet.

import runner
result = runner.run("jobs/classify_tickets.yaml")        # in a script or a notebook; `await runner.arun(…)` in a loop
result.results(flatten=True)                             # a pandas DataFrame
runner.open_run("runs/classify_tickets").cost().usd      # also while the run goes on
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runner.api import Cost, Result, Run, arun, open_run, run
from runner.errors import RunnerError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Cost", "Result", "Run", "RunnerError", "arun", "open_run", "read_results", "run"]


def read_results(run: str | Path) -> pd.DataFrame:
    """The settled rows of a run, in input order, as pandas: input columns first, then the result columns.

    Takes no lock and changes nothing; rows that are not final yet are not in it. Raises RunDirectoryError when `run` is
    not the directory of a run. See Run.results for some columns, `parsed` flattened, Arrow.
    """
    return open_run(run).results()
