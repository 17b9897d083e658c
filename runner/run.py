"""A run from its start to its end: open or go on, drive, finish.

Rule: what is refused is refused before anything is sent or written; what was sent is never forgotten.
"""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata
from typing import Any

import anyio

from runner.drive import Session, drive
from runner.ending import Ending, command_again, exit_code, share
from runner.errors import HeldError, RunDirectoryError, RunnerError
from runner.keep import Keeper
from runner.lock import Lock, is_held
from runner.parts import Range, totals_to_json, write_empty
from runner.ports import iso_now
from runner.prepare import Asked, Loaded, Prepared, identity, input_identity, load, prepare, same_input, take_survey
from runner.pricing import words
from runner.progress import survey_bar
from runner.records import Tally
from runner.recovery import Standing, ranges_of, recover
from runner.reopen import Selection, reopen, select
from runner.say import Say
from runner.spec import JobSpec
from runner.store import FORMAT, RunDirectory, move_aside, refuse_changes
from runner.transport import Endpoint, Transport
from runner.wire.encode import HASH_RECIPE
from runner.wiring import endpoint_of, engine_of, key_of, transport_of


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of `run` that are not part of the job."""

    fresh: bool = False
    allow_failed: str | None = None  #: N or N%
    max_failures: str | None = None
    retry: Selection | None = None  #: send these final rows again first
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    signals: bool = True


def run(asked: Asked, options: RunOptions, say: Say) -> Ending:
    """Run a job, or go on with it. Raises RunnerError for what was refused before anything was sent."""
    loaded = load(asked)
    directory = RunDirectory(loaded.run_root)
    for given in (options.allow_failed, options.max_failures):
        share(given, 1)  # refused now, not when everything has been sent
    directory.refuse_strangers()
    started = not options.fresh and directory.read_run() is not None
    if options.retry is not None and not started:
        raise RunDirectoryError(f"there is no run in {directory.root}", hint="start it with `runner run JOB`")
    early = None if started else _startable(loaded, options, say)
    if options.fresh:
        _set_aside(directory, say)
    directory.make()
    with Lock(directory.lock, iso_now()):
        known = directory.read_run()  # asked again: another command may have been faster
        saved = directory.read("survey.json") if known else None
        prepared = early if early and not known else _examine(loaded, saved, say)
        if known:
            _same_run(known, prepared, directory)
        if not saved or _moments(saved) != _moments(prepared.survey.to_json()):
            directory.write("survey.json", prepared.survey.to_json())
        return _run_locked(_Begun(prepared, directory, options, say), known)


def _moments(survey: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Which files a survey read, and as they stood when."""
    return [(file["path"], file["size"], file["mtime_ns"]) for file in survey["files"]]


def _startable(loaded: Loaded, options: RunOptions, say: Say) -> Prepared:
    """A new run makes nothing on the disk until it can start."""
    if not loaded.asked.simulate:
        key_of(loaded, options.environ)
        endpoint_of(loaded, options.environ)
    return _examine(loaded, None, say)


def _set_aside(directory: RunDirectory, say: Say) -> None:
    if is_held(directory.lock):
        raise HeldError(f"{directory.root} is being worked on by another process", hint="stop it first")
    aside = move_aside(directory.root, iso_now()[:19].replace(":", ""))
    if aside:
        say.line(f"moved the old run aside to {aside}")


def _examine(loaded: Loaded, saved: Mapping[str, Any] | None, say: Say) -> Prepared:
    progress, close = survey_bar(say)
    try:
        return prepare(loaded, take_survey(loaded, saved, progress))
    finally:
        close()


@dataclass(frozen=True, slots=True)
class _Begun:
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
class _Run(_Begun):
    """The same, and what its directory holds."""

    ranges: Sequence[Range]
    standing: Standing


def _run_locked(begun: _Begun, known: Mapping[str, Any] | None) -> Ending:
    begun.say.log_to(begun.directory.log)
    run_id = known["run"] if known else uuid.uuid4().hex
    ranges = ranges_of(begun.prepared.survey, run_id)
    standing = recover(begun.directory, ranges)
    run = _Run(begun.prepared, begun.directory, begun.options, begun.say, ranges, standing)
    _all_there(run)
    _accept_job(run, known, run_id)
    if run.options.retry is not None:
        run = _retried(run, run.options.retry, run_id)
    _say_standing(run, new=known is None)
    keeper = Keeper(run.directory, run.prepared.spec, run.standing, run.prepared.survey.rows_per_part)
    try:
        error, signal = _work(run, keeper)
    finally:
        keeper.close()
    return _finish(run, keeper, error, signal)


def _retried(run: _Run, wanted: Selection, run_id: str) -> _Run:
    """The run with the rows that are wanted again opened again."""
    found = select(run.directory, run.ranges, run.standing, wanted)
    rows = sum(len(note.rows) for note in found)
    if not rows:
        run.say.line("no final row is to be sent again")
        return run
    run.say.line(f"sending {rows:,} final rows again; what they said and cost stays in their attempts")
    reopen(run.directory, run_id, found)
    opened = recover(run.directory, run.ranges)
    opened.unanswered = run.standing.unanswered
    return replace(run, standing=opened)


def _all_there(run: _Run) -> None:
    """A finished run whose parts are gone is not paid for a second time in silence."""
    gone = [part.number for part in run.ranges if part.number not in run.standing.sealed]
    if gone and run.directory.read("manifest.json") is not None:
        raise RunDirectoryError(
            f"{run.directory.part(gone[0])} is gone, and this run had finished",
            hint="put it back, or start anew with --fresh",
        )


def _same_run(known: Mapping[str, Any], prepared: Prepared, directory: RunDirectory) -> None:
    simulated = prepared.loaded.asked.simulate
    if known["simulated"] != simulated:
        was, now = ("simulated", "paid") if known["simulated"] else ("paid", "simulated")
        raise RunDirectoryError(
            f"{directory.root} holds a {was} run; a {now} one never mixes with it", hint="choose another with -o DIR"
        )
    same_input(known["input"], input_identity(prepared.survey), directory.root)


def _accept_job(run: _Run, known: Mapping[str, Any] | None, run_id: str) -> None:
    """Write run.json, or see that the job is still the one in it. While no row is final a changed job loses nothing:
    the usual case is a mended model name or parameter after the first requests were refused."""
    if known and run.standing.settled.settled:
        refuse_changes(run.directory.root, known["identity"], identity(run.prepared.loaded))
    run.directory.write("run.json", _run_members(run, run_id, known))


def _run_members(run: _Run, run_id: str, known: Mapping[str, Any] | None) -> dict[str, Any]:
    prepared = run.prepared
    prices = prepared.prices.to_json()
    return {
        "format": FORMAT,
        "run": run_id,
        "simulated": run.simulated,
        "started_at": known["started_at"] if known else iso_now(),
        "name": run.job.name,
        "tags": run.job.tags,
        "job_file": str(prepared.loaded.asked.job.resolve()),
        "hash_recipe": HASH_RECIPE,
        "identity": identity(prepared.loaded),
        "input": input_identity(prepared.survey),
        "input_files": [str(file.path) for file in prepared.survey.files],
        "job": run.job.dump(),
        "prices": (known or {}).get("prices", {}) | prices,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """What wrote the run, for whoever reads it in a year."""
    named = {name: metadata.version(name) for name in ("bulk-runner", "pyarrow", "aiohttp")}
    return named | {"python": platform.python_version()}


def _say_standing(run: _Run, *, new: bool) -> None:
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
    _say_price(run)


def _say_price(run: _Run) -> None:
    """Once: what a row is priced by, or that it cannot be."""
    if run.prepared.prompt.model_is_template:
        return
    model = run.job.request.model
    price = run.prepared.prices.of(model)
    if price is None:
        run.say.line(f"no price is known for {model}: the cost columns stay empty (give pricing.{model} in the job)")
    else:
        run.say.detail(f"{model}: {words(price)}")


def _work(run: _Run, keeper: Keeper) -> tuple[RunnerError | None, int | None]:
    """Send what is left. What stopped it, if anything did: an error, a signal."""
    if len(run.standing.sealed) == len(run.ranges):
        return None, None
    key = None if run.simulated else key_of(run.prepared.loaded, run.options.environ)
    with _endpoint(run) as endpoint:
        transport = transport_of(run.prepared, endpoint, key)
        engine = engine_of(run.prepared, keeper, transport, key)
        most = share(run.options.max_failures, run.prepared.survey.rows)
        session = Session(
            run.prepared, run.directory, run.ranges, run.standing, keeper, engine, run.say, max_failures=most
        )
        try:
            anyio.run(partial(_drive_connected, session, transport, run.options.signals), backend_options=_loop())
        except RunnerError as error:
            return error, None
        except BaseExceptionGroup as group:
            first = _first(group)
            if not isinstance(first, RunnerError):
                raise first from None
            return first, None
        return session.stop.reason, session.stop.signal


@contextmanager
def _endpoint(run: _Run) -> Iterator[Endpoint]:
    """The job's endpoint, or a simulator that lives as long as this is open."""
    if not run.simulated:
        yield endpoint_of(run.prepared.loaded, run.options.environ)
        return
    from runner.simulator import Child, SimulatorOptions

    with Child(SimulatorOptions(no_auth=True)) as child:
        run.say.line(f"simulated: answers are made up by a server on this machine ({child.base_url})")
        yield Endpoint(child.base_url)


async def _drive_connected(session: Session, transport: Transport, signals: bool) -> None:
    async with transport:
        await drive(session, signals=signals)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error behind a group: ours before a bug, a bug before a cancellation."""
    flat: list[BaseException] = []
    queue: list[BaseException] = [group]
    while queue:
        error = queue.pop(0)
        if isinstance(error, BaseExceptionGroup):
            queue += error.exceptions
        else:
            flat.append(error)
    return next((error for error in flat if isinstance(error, RunnerError)), flat[0])


def _loop() -> dict[str, Any]:
    """uvloop where it is installed: 15 % fewer CPU seconds a request."""
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return {}
    return {"use_uvloop": True}


def _finish(run: _Run, keeper: Keeper, error: RunnerError | None, signal: int | None) -> Ending:
    rows = run.prepared.survey.rows
    totals = keeper.books.total
    done = totals.settled == rows
    if done and not error:
        _write_manifest(run, totals)
    return Ending(
        root=run.directory.root,
        rows=rows,
        totals=totals,
        exit_code=exit_code((error, None if done else signal), totals.not_ok, share(run.options.allow_failed, rows)),
        command=command_again(run.prepared.loaded.asked),
        error=error,
        signal=None if done else signal,
        examples=keeper.books.examples,
    )


def _write_manifest(run: _Run, totals: Tally) -> None:
    """Last of all: its presence says that every row is final."""
    directory = run.directory
    if not run.ranges and not directory.parts():
        nothing = Range(directory.read_run()["run"], 0, 0, 0, 1, "")  # type: ignore[index]
        write_empty(nothing, directory.journals, directory.part(0), run.prepared.shape)
    epochs = {number: footer.epoch for number, footer in run.standing.sealed.items()}
    parts = [
        {
            "file": directory.part(part.number).name,
            "first_row": part.first_row,
            "rows": part.rows,
            "epoch": epochs[part.number],
        }
        for part in run.ranges
    ]
    members = {"format": FORMAT, "rows": run.prepared.survey.rows, "parts": parts, "totals": totals_to_json(totals)}
    if directory.read("manifest.json") is None:
        directory.write("manifest.json", members | {"finished_at": iso_now()})
