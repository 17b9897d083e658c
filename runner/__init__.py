"""One prompt over a million rows, once: limits, retries, crashes and cost are handled, the answers land in Parquet.

import runner
frame = runner.read_results("runs/classify_tickets")     # a pandas DataFrame, also while the run goes on
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import RunnerError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RunnerError", "read_results"]


def read_results(run: str | Path) -> pd.DataFrame:
    """The settled rows of a run, in input order, as pandas: input columns first, then the result columns.

    Takes no lock and changes nothing; rows that are not final yet are not in it. Raises RunDirectoryError when `run` is
    not the directory of a run.
    """
    from runner.reading import open_directory, read_table

    frame: pd.DataFrame = read_table(open_directory(Path(run))).to_pandas()
    return frame
