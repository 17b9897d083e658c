"""The commands that read a run and change nothing: status, show, export.

Rule: as everywhere on the command line, heavy imports live inside the functions.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import option

from runner.errors import UsageError
from runner.say import Say, plain

if TYPE_CHECKING:
    from runner.standing import RunStatus


def words_of(words: Sequence[str], known: Sequence[str], flag: str) -> frozenset[str]:
    for word in words:
        if word not in known:
            raise UsageError(f"{flag} {word}: there is no such thing", hint=f"one of {', '.join(known)}")
    return frozenset(words)


_SIMULATED = option("--simulate", is_flag=True, help="JOB's simulated run, NAME.simulated.")


@click.command()
@click.argument("target", required=False, type=click.Path(path_type=Path))
@_SIMULATED
@option("--json", "as_json", is_flag=True, help="One JSON line a run.")
@option(
    "--watch",
    is_flag=False,
    flag_value="2",
    metavar="[SECONDS]",
    help="Again and again, every 2 or so many seconds, until the run ends or Ctrl-C.",
)
def status(target: Path | None, simulate: bool, as_json: bool, watch: str | None) -> None:
    """How far a run is: of a job, a run directory, or every run under a directory [./runs, jobs/runs or here]."""
    from runner import watching
    from runner.standing import runs_under, status_of

    every_s, target = watching.interval(watch, target) if watch else (0.0, target)
    root = run_root(target or _usual_place(), simulate)
    if not runs_under(root):
        raise UsageError(f"there is no run in {root}", hint="give a job file, a run directory, or a directory of runs")

    def look() -> list[RunStatus]:
        return [status_of(path) for path in runs_under(root)]

    shown = watching.shown_on(sys.stdout, as_json=as_json, again=watch is not None)
    if watch:
        watching.watch(look, shown, every_s)
    else:
        shown.show(look())


_RUN = click.argument("target", metavar="JOB|RUN", type=click.Path(path_type=Path))


@click.command()
@_RUN
@click.argument("row")
@_SIMULATED
@option("--ordinal", is_flag=True, help="ROW is a position, counted from 0, and no id.")
@option("--json", "as_json", is_flag=True, help="One line of JSON.")
def show(target: Path, row: str, simulate: bool, ordinal: bool, as_json: bool) -> None:
    """One row's whole story: input, request, every exchange, outcome. ROW: its id (input.id_column) or position."""
    from runner import showing
    from runner.reading import open_directory

    told = showing.story(open_directory(run_root(target, simulate)), row, by_ordinal=ordinal)
    for line in [showing.as_json(told)] if as_json else showing.lines(told):
        click.echo(plain(line))


@click.command()
@_RUN
@_SIMULATED
@option(
    "-f",
    "--format",
    "form",
    metavar="F",
    help="jsonl, csv, parquet, messages or openai_batch [by FILE's suffix, else jsonl].",
)
@option("-o", "--output", type=click.Path(path_type=Path), help="This file instead of stdout (-).")
@option("--columns", metavar="A,B", help="Only these columns, in this order.")
@option("--status", "statuses", multiple=True, metavar="S", help="Only rows of this status.")
@option("--force", is_flag=True, help="Overwrite the file.")
def export(target: Path, form: str | None, output: Path | None, **given: Any) -> None:
    """Write the final rows as JSON lines, CSV, one Parquet file, conversations or batch results; at any time."""
    from runner.export import Target, Wanted, format_of
    from runner.export import export as write
    from runner.reading import open_directory
    from runner.records import Status

    path = None if output == Path("-") else output
    columns = tuple(given["columns"].split(",")) if given["columns"] else None
    wanted = Wanted(format_of(form, path), columns, words_of(given["statuses"], list(Status), "--status"))
    place = Target(path, given["force"])
    done = write(open_directory(run_root(target, given["simulate"])), wanted, place)
    if words := done.words(place):
        Say().line(words)


def _usual_place() -> Path:
    return next((place for place in (Path("runs"), Path("jobs/runs")) if place.is_dir()), Path())


def run_root(target: Path, simulate: bool = False) -> Path:
    if not target.is_file():
        return target
    from runner.prepare import Asked, load

    return load(Asked(target, simulate=simulate)).run_root
