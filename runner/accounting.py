"""The commands about money and outcomes: cost, report.

Rule: as everywhere on the command line, heavy imports live inside the functions, and nothing of a run is changed.
"""

from __future__ import annotations

from pathlib import Path

import click
from click import option

from runner import looking
from runner.errors import UsageError
from runner.say import plain


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@option("--by", metavar="COLUMN,…", help="Group by columns, parsed.MEMBER, day, run, tags.NAME [model, then day].")
@option("--tz", default="UTC", show_default=True, metavar="ZONE", help="The time zone of days.")
@option("--json", "as_json", is_flag=True, help="One JSON object, every digit.")
@option("--csv", "as_csv", is_flag=True, help="One line a group, every digit.")
def cost(runs: tuple[Path, ...], by: str | None, tz: str, as_json: bool, as_csv: bool) -> None:
    """What runs have cost: rows, exchanges, tokens, dollars, waste; also while they go on."""
    import orjson

    from runner import bill
    from runner.bill import words

    if as_json and as_csv:
        raise UsageError("--json and --csv: one of the two")
    keys = tuple(name.strip() for name in by.split(",")) if by else ()
    roots = [root for path in runs for root in runs_of(path)]
    if keys or as_json or as_csv:
        made = bill.bill(roots, keys, tz)
        if as_json:
            click.echo(orjson.dumps(words.to_json(made)))
        elif as_csv:
            click.echo(words.to_csv(made).encode(), nl=False)
        else:
            _print([*words.summary(made), "", *words.table(made)])
        return
    models, days = bill.by_model_and_day(roots, tz)
    _print([*words.summary(models), "", *words.table(models), "", *words.table(days)])


@click.command()
@click.argument("target", metavar="JOB|RUN", type=click.Path(path_type=Path))
@option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write here, - for stdout [RUN/report.html].",
)
@option("--simulate", is_flag=True, help="JOB's simulated run, NAME.simulated.")
def report(target: Path, output: Path | None, simulate: bool) -> None:
    """Write one HTML page about a run: outcomes, cost, pace, latency, answers, failures; also while it goes on."""
    from datetime import UTC, datetime

    from runner import report as reporting
    from runner.reading import open_directory

    directory = open_directory(looking.run_root(target, simulate))
    text = reporting.report(directory, datetime.now(UTC))
    if output == Path("-"):
        click.echo(text.encode(), nl=False)
        return
    path = output or directory.root / reporting.NAME
    reporting.write(text, path)
    click.echo(bytes(path))


def runs_of(path: Path) -> list[Path]:
    """The run of a job file, the run at `path`, or every run directly below it. Raises UsageError for nothing."""
    from runner.standing import runs_under

    root = looking.run_root(path)
    found = runs_under(root)
    if not found:
        raise UsageError(f"there is no run in {root}", hint="give a job file, a run directory, or a directory of runs")
    return found


def _print(lines: list[str]) -> None:
    for line in lines:
        click.echo(plain(line))
