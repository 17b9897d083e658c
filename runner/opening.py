"""Between the lock and the first request: what this process makes of the run that it holds.

Rule: run.json is replaced in one step and is what makes a decision hold; everything before it can be undone by a kill.
"""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any

from runner.drawn import Drawn
from runner.errors import RunDirectoryError
from runner.notes import Reopened
from runner.notify import Bell
from runner.parts import Range
from runner.ports import iso_now
from runner.prepare import Prepared, identity, input_identity
from runner.pricing import Prices, history, words
from runner.recovery import Standing, recover
from runner.reopen import Selection, reopen, select
from runner.say import Say
from runner.spec import JobSpec
from runner.stop import Leash
from runner.store import FORMAT, RunDirectory
from runner.wire.encode import HASH_RECIPE


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of `run` that are not part of the job."""

    fresh: bool = False
    allow_failed: str | None = None  #: N or N%
    max_failures: str | None = None
    retry: Selection | None = None  #: send these final rows again first
    accept_changes: int | bool | None = None  #: ask changed rows again: True, or at most so many
    keep_answers: bool = False  #: keep every ok answer of a changed job
    sample: int | None = None  #: send so many rows drawn at random, and no more
    yes: bool = False  #: spend what the job would ask about
    ask: Callable[[str], bool] | None = field(default=None, repr=False)  #: None: nobody can be asked
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    signals: bool = True
    leash: Leash = field(default_factory=Leash)  #: for whoever is no signal
    bell: Bell | None = None  #: rings when something is worth telling
    new_run: str = field(default_factory=lambda: uuid.uuid4().hex)  #: what a run that begins now is called


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that this process holds."""

    prepared: Prepared
    directory: RunDirectory
    options: RunOptions
    say: Say

    @property
    def job(self) -> JobSpec:
        return self.prepared.job

    @property
    def simulated(self) -> bool:
        return self.prepared.loaded.asked.simulate


@dataclass(frozen=True, slots=True)
class Run(Begun):
    """The same, and what its directory holds."""

    ranges: Sequence[Range]
    standing: Standing
    drawn: Drawn | None = None  #: the sample, where only that is sent

    @property
    def id(self) -> str:
        return self.ranges[0].run if self.ranges else ""


def asked_again(run: Run) -> list[Reopened]:
    """The rows that `retry` wants again."""
    wanted = run.options.retry
    return [] if wanted is None else select(run.directory, run.ranges, run.standing, wanted)


def retried(run: Run, found: Sequence[Reopened]) -> Run:
    """The run with the rows that are wanted again opened again."""
    if run.options.retry is None:
        return run
    rows = sum(len(note.rows) for note in found)
    if not rows:
        run.say.line("no final row is to be sent again")
        return run
    run.say.line(f"sending {rows:,} final rows again; what they said and cost stays in their attempts")
    reopen(run.directory, run.directory.read_run() or {}, found)
    opened = recover(run.directory, run.ranges)
    opened.unanswered = run.standing.unanswered
    return replace(run, standing=opened)


def all_there(run: Run) -> None:
    """A finished run whose parts are gone is not paid for a second time in silence."""
    gone = [part.number for part in run.ranges if part.number not in run.standing.sealed]
    if gone and run.directory.read("manifest.json") is not None:
        raise RunDirectoryError(
            f"{run.directory.part(gone[0])} is gone, and this run had finished",
            hint="put it back, or start anew with --fresh",
        )


def same_kind(known: Mapping[str, Any], begun: Begun) -> None:
    """A simulated run and a paid one never mix."""
    if known["simulated"] != begun.simulated:
        was, now = ("simulated", "paid") if known["simulated"] else ("paid", "simulated")
        root = begun.directory.root
        raise RunDirectoryError(
            f"{root} holds a {was} run; a {now} one never mixes with it", hint="choose another with -o DIR"
        )


def run_members(begun: Begun, run_id: str, known: Mapping[str, Any] | None) -> dict[str, Any]:
    """run.json as it is to be: what stays of `known`, and the job and input as they are now."""
    prepared, before = begun.prepared, known or {}
    return {
        "format": FORMAT,
        "run": run_id,
        "epoch": before.get("epoch", 1),
        "changes": before.get("changes", []),
        "kept_jobs": before.get("kept_jobs", []),
        "unknown_usd": before.get("unknown_usd", "0"),
        "bounded": before.get("bounded", 0),
        "simulated": begun.simulated,
        "started_at": before.get("started_at") or iso_now(),
        "name": begun.job.name,
        "tags": begun.job.tags,
        "job_file": str(prepared.loaded.asked.job.resolve()),
        "hash_recipe": HASH_RECIPE,
        "identity": identity(prepared.loaded),
        "input": input_identity(prepared.survey),
        "input_files": [str(file.path) for file in prepared.survey.files],
        "job": begun.job.dump(),
        "prices": before.get("prices", {}),
        "versions": versions(),
    }


def note_prices(directory: RunDirectory, prices: Prices) -> None:
    """Keep the prices that this process uses in run.json, beside those of the ones before."""
    known = directory.read_run() or {}
    before = known.get("prices", {})
    now = history(before, prices.to_json(), iso_now())
    if known and now != before:
        directory.write("run.json", known | {"prices": now})


def constant_model(prepared: Prepared) -> str | None:
    """The model of every row; None: rows name their own."""
    return None if prepared.prompt.model_is_template else prepared.prompt.constants.get("model")


def versions() -> dict[str, str]:
    """What wrote the run, for whoever reads it in a year."""
    named = {name: metadata.version(name) for name in ("bulk-runner", "pyarrow", "aiohttp")}
    return named | {"python": platform.python_version()}


def say_standing(run: Run, *, new: bool) -> None:
    say, standing, rows = run.say, run.standing, run.prepared.survey.rows
    if new:
        say.line(f"new run in {run.directory.root}, {rows:,} rows")
    else:
        done = standing.settled.settled
        say.line(f"going on in {run.directory.root}, {done:,} of {rows:,} rows done")
    if run.prepared.survey.bad_lines.count:
        say.line(f"{run.prepared.survey.bad_lines.count} lines cannot be read and become failed rows")
    if standing.damaged:
        say.line(f"{standing.damaged} damaged lines in the journal were skipped; their rows are sent again")
    unanswered = standing.unanswered_words()
    if unanswered:
        say.line(unanswered)
    say_price(run)


def say_price(run: Run) -> None:
    """Once: what a row is priced by, or that it cannot be."""
    run.prepared.prices.listen(run.say.line)
    model, tier = constant_model(run.prepared), run.prepared.prompt.constants.get("service_tier")
    price = run.prepared.prices.of(model) if model else None
    if price is not None and price.is_known:
        guessed = price.estimate and not run.simulated and len(run.standing.sealed) < len(run.ranges)
        (run.say.line if guessed else run.say.detail)(f"{model}: {words(price, tier)}")
