"""One HTML page about a run: what ran, what became of it, what it cost, and when.

    report(open_directory(Path("runs/a")), datetime.now(UTC))

Rule: reads only, also while the run goes on. The page is one file that needs nothing beside it and runs nothing; text
of the data, of models and of servers is escaped wherever it stands. Strategy: one pass over the rows (gather.py) into
sums, bins and a few examples; these become charts and tables (charts.py, tables.py), and those a page (page.py).
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from runner import files
from runner.errors import UsageError
from runner.report.gather import gather
from runner.report.page import page
from runner.store import RunDirectory

__all__ = ["report", "write"]

NAME = "report.html"
#: In the first lines of every page of ours, so that nothing else is ever written over.
OURS = b'<meta name="generator" content="runner report">'


def report(directory: RunDirectory, now: datetime) -> str:
    """The page as HTML. Raises RunDirectoryError for what is no run."""
    return page(gather(directory), now)


def write(text: str, path: Path) -> None:
    """Put the page in its place in one step. Raises UsageError for a file that is no report: nothing else is lost."""
    if not path.parent.is_dir() or (path.exists() and not path.is_file()):
        raise UsageError(f"{path} is no file's place", hint="give a file in a directory that exists, or - for stdout")
    if path.exists() and OURS not in (files.read_file(path) or b"")[:200]:
        raise UsageError(f"{path} is there already, and is no report", hint="choose another file")
    files.write_file(path, text.encode(), durable=False)
