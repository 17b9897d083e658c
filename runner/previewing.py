"""The commands that look at a job before it runs: check and render; and what `run` takes of a job besides.

Rule: nothing is sent and nothing is made. Heavy imports live inside the functions, so `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import option

from runner.errors import RunnerError
from runner.say import Say, plain
from runner.variables import Lines

if TYPE_CHECKING:
    from runner.prepare import Asked, Prepared

SETS = option(
    "--set", "sets", type=Lines(), multiple=True, metavar="KEY=VALUE", help="Override one leaf of the job file."
)
LIMIT = option("-n", "--limit", type=click.IntRange(1), help="Only the first N rows.")
INPUT = option(
    "-i", "--input", "inputs", type=Lines(), multiple=True, metavar="PATH", help="Read this input, not the job's."
)
JOB = click.argument("job", type=click.Path(path_type=Path))


@click.command()
@JOB
@SETS
@INPUT
@LIMIT
@option("--json", "as_json", is_flag=True, help="The same as one JSON line.")
def check(job: Path, sets: tuple[str, ...], inputs: tuple[str, ...], limit: int | None, as_json: bool) -> None:
    """Check the job, every row and its request; say what is left to send, and what it would cost. Calls nobody, makes
    nothing."""
    import json

    from runner.checking import examine

    asked = asked_by(job, sets, inputs, limit)
    try:
        found = examine(_prepared(asked), Say(), os.environ)
    except RunnerError as error:
        if as_json:
            told = {"exit_code": error.exit_code, "reason": "refused", "error": error.message, "hint": error.hint}
            click.echo(json.dumps(told, ensure_ascii=False))
        raise
    if as_json:
        click.echo(json.dumps(found.to_json(), ensure_ascii=False))
        return
    for line in found.lines():
        click.echo(plain(line))


@click.command()
@JOB
@option("-n", "--limit", type=click.IntRange(1), default=3, show_default=True, help="How many requests.")
@option("--all", "every", is_flag=True, help="The requests of all rows.")
@option("-f", "--format", "form", type=click.Choice(["jsonl", "openai_batch"]), default="jsonl", show_default=True)
@SETS
@INPUT
def render(job: Path, sets: tuple[str, ...], inputs: tuple[str, ...], **given: Any) -> None:
    """Print the requests that would be sent, as JSON lines; or the file of them that batch APIs take."""
    from runner.rendering import Rendered, batch_lines, requests

    prepared = _prepared(asked_by(job, sets, inputs, None))
    most, seen = prepared.survey.rows if given["every"] else given["limit"], Rendered()
    for line in (batch_lines if given["form"] == "openai_batch" else requests)(prepared, most, seen):
        sys.stdout.buffer.write(line)
    sys.stdout.flush()
    if words := seen.words():
        Say().line(words)


def asked_by(job: Path, sets: tuple[str, ...], inputs: tuple[str, ...], limit: int | None) -> Asked:
    """The command line as overrides of the job file. Paths given here are relative to the working directory."""
    import orjson

    from runner.prepare import Asked

    extra = list(sets)
    if inputs:
        paths = [path if path == "-" else str(Path(path).absolute()) for path in inputs]
        extra.append(f"input.path={orjson.dumps(paths).decode()}")
    if limit is not None:
        extra.append(f"input.limit={limit}")
    return Asked(job, tuple(extra))


def _prepared(asked: Asked) -> Prepared:
    from runner.prepare import load, prepare, take_survey
    from runner.progress import survey_bar

    loaded = load(asked)
    progress, close = survey_bar(Say())
    try:
        taken = take_survey(loaded, None, progress)
    finally:
        close()
    return prepare(loaded, taken)
