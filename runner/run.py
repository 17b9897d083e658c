"""A run from its start to its end: open or go on, drive, finish.

Rule: what is refused is refused before anything is sent or written; what was sent is never forgotten. The exit code is
decided here and nowhere else.
"""

from __future__ import annotations

import os
import platform
import random
import shlex
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import anyio

from runner.credentials import Key, resolve_headers
from runner.drive import Session, drive
from runner.engine import LocalEngine, Settings, Wiring, iso_now
from runner.errors import HeldError, RunDirectoryError, RunnerError, UsageError
from runner.halts import Terms
from runner.keep import Keeper
from runner.lock import Lock, is_held
from runner.parts import Range, totals_to_json, write_empty
from runner.prepare import Asked, Loaded, Prepared, identity, input_identity, load, prepare, same_input, take_survey
from runner.pricing import cost, words
from runner.progress import survey_bar
from runner.records import Completion, Outcome, Reply, Request, Tally
from runner.recovery import Standing, ranges_of, recover
from runner.retry import Policy
from runner.say import Say
from runner.spec import JobSpec
from runner.store import FORMAT, RunDirectory, move_aside, refuse_changes
from runner.transport import Endpoint, Transport, TransportLimits
from runner.wire.decode import decode
from runner.wire.encode import HASH_RECIPE

#: What `concurrency: auto` means until it learns.
AUTO_CONCURRENCY = 32


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of `run` that are not part of the job."""

    fresh: bool = False
    allow_failed: str | None = None  #: N or N%
    max_failures: str | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    signals: bool = True


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended. `signal`: None when nobody interrupted it."""

    root: Path
    rows: int
    totals: Tally
    exit_code: int
    command: str
    error: RunnerError | None = None
    signal: int | None = None
    examples: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        return self.totals.settled == self.rows and self.error is None

    def to_json(self) -> dict[str, Any]:
        """The last line of `--json`."""
        reason = "finished" if self.finished else "interrupted" if self.signal else "stopped"
        return {
            "exit_code": self.exit_code,
            "reason": reason,
            "error": self.error.message if self.error else None,
            "hint": self.error.hint if self.error else None,
            "run": str(self.root),
            "results": str(self.root / "results"),
            "rows": self.rows,
            "totals": totals_to_json(self.totals),
            "next": None if self.finished else self.command,
        }


def run(asked: Asked, options: RunOptions, say: Say) -> Ending:
    """Run a job, or go on with it. Raises RunnerError for what was refused before anything was sent."""
    loaded = load(asked)
    directory = RunDirectory(loaded.run_root)
    if options.fresh:
        _set_aside(directory, say)
    started = directory.read_run() is not None
    early = None if started else _examine(loaded, None, say)  # a new run makes nothing until it can start
    directory.make()
    with Lock(directory.lock, iso_now()):
        saved = directory.read("survey.json") if started else None
        prepared = early or _examine(loaded, saved, say)
        if not started or not saved:
            directory.write("survey.json", prepared.survey.to_json())
        return _run_locked(prepared, directory, options, say)


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
class _Run:
    """A run that this process holds."""

    prepared: Prepared
    directory: RunDirectory
    options: RunOptions
    say: Say
    ranges: Sequence[Range]
    standing: Standing

    @property
    def job(self) -> JobSpec:
        return self.prepared.job

    @property
    def simulated(self) -> bool:
        return self.prepared.loaded.asked.simulate


def _run_locked(prepared: Prepared, directory: RunDirectory, options: RunOptions, say: Say) -> Ending:
    known = directory.read_run()
    if known:
        _same_run(known, prepared, directory)
    run_id = known["run"] if known else uuid.uuid4().hex
    ranges = ranges_of(prepared.survey, run_id)
    run = _Run(prepared, directory, options, say, ranges, recover(directory, ranges))
    _accept_job(run, known, run_id)
    _say_standing(run, new=known is None)
    keeper = Keeper(directory, prepared.spec, run.standing, prepared.survey.rows_per_part)
    try:
        error, signal = _work(run, keeper)
    finally:
        keeper.close()
    return _finish(run, keeper, error, signal)


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
    with ExitStack() as stack:
        key = None if run.simulated else key_of(run.prepared.loaded, run.options.environ)
        transport = _transport(run, key, stack)
        engine = _engine(run, keeper, transport, key)
        most = share(run.options.max_failures, run.prepared.survey.rows)
        session = Session(
            run.prepared, run.directory, run.ranges, run.standing, keeper, engine, run.say, max_failures=most
        )
        try:
            anyio.run(partial(_drive_connected, session, transport, run.options.signals), backend_options=_loop())
        except BaseExceptionGroup as group:
            raise _first(group) from None
        return session.stop.reason, session.stop.signal


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


def _transport(run: _Run, key: Key | None, stack: ExitStack) -> Transport:
    times = run.job.timeouts
    limits = TransportLimits(times.connect_s, times.attempt_s, times.stall_s)
    if run.simulated:
        from runner.simulator import Child, SimulatorOptions

        child = stack.enter_context(Child(SimulatorOptions(no_auth=True)))
        run.say.line(f"simulated: answers are made up by a server on this machine ({child.base_url})")
        return Transport(Endpoint(child.base_url), None, limits)
    given = run.job.endpoint
    headers = resolve_headers(given.headers, run.options.environ)
    return Transport(Endpoint(given.base_url, headers.values), key, limits)


def key_of(loaded: Loaded, environ: Mapping[str, str]) -> Key | None:
    given = loaded.job.endpoint
    if given.api_key_file:
        return Key.from_file(loaded.base / Path(given.api_key_file).expanduser())
    return Key.from_env(given.api_key_env, environ) if given.api_key_env else None


def _engine(run: _Run, keeper: Keeper, transport: Transport, key: Key | None) -> LocalEngine:
    prices = run.prepared.prices

    def rekey() -> bool:
        changed = key is not None and key.reload()
        if changed:
            transport.rekey()
        return changed

    wiring = Wiring(
        send=transport.send,
        judge=judge_of(run.prepared),
        cost=lambda model, usage: cost(usage, prices.of(model)),
        sent=keeper.sent,
        rekey=rekey,
        luck=random.random,
        price_source=prices.source,
        clock=time.monotonic,  # the loop's own clock counts whole milliseconds under uvloop
    )
    return LocalEngine(wiring, settings_of(run.prepared))


def judge_of(prepared: Prepared) -> Callable[[Reply, Request], Outcome]:
    """Decode a reply, and hold its answer against the schema."""
    output, keep_raw = prepared.output, prepared.job.output.keep_raw

    def judge(reply: Reply, request: Request) -> Outcome:
        outcome = decode(reply, choices=request.choices, now=time.time(), keep_raw=keep_raw)
        return output.check(outcome) if output and isinstance(outcome, Completion) else outcome

    return judge


def settings_of(prepared: Prepared) -> Settings:
    job = prepared.job
    asked = job.limits.concurrency
    concurrency = AUTO_CONCURRENCY if asked == "auto" else int(asked)
    return Settings(
        concurrency=min(concurrency, job.limits.max_concurrency),
        requests_per_minute=job.limits.requests_per_minute,
        tokens_per_minute=job.limits.tokens_per_minute,
        max_backoff_s=job.retry.max_backoff_s,
        drain_s=job.timeouts.drain_s,
        policy=Policy(job.retry.max_attempts, job.retry.max_backoff_s, job.timeouts.row_s),
        terms=Terms(
            max_wait_s=job.retry.max_wait_s,
            outage_s=job.timeouts.outage_s,
            auth_wait_s=job.timeouts.auth_wait_s,
            model_is_template=prepared.prompt.model_is_template,
            base_url=prepared.loaded.base_url,
            key_name=f"the key of {job.endpoint.api_key_file or job.endpoint.api_key_env}",
        ),
    )


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
        exit_code=_exit_code(run.options, rows, totals, error, None if done else signal),
        command=command_again(run.prepared.loaded.asked),
        error=error,
        signal=None if done else signal,
        examples=keeper.books.examples,
    )


def _exit_code(options: RunOptions, rows: int, totals: Tally, error: RunnerError | None, signal: int | None) -> int:
    if error:
        return error.exit_code
    if signal:
        return 128 + signal
    return 0 if totals.not_ok <= (share(options.allow_failed, rows) or 0) else 1


def _write_manifest(run: _Run, totals: Tally) -> None:
    """Last of all: its presence says that every row is final."""
    directory = run.directory
    if not run.ranges and not directory.parts():
        nothing = Range(directory.read_run()["run"], 0, 0, 0, 1, "")  # type: ignore[index]
        write_empty(nothing, directory.journals, directory.part(0), run.prepared.shape)
    parts = [
        {"file": directory.part(part.number).name, "first_row": part.first_row, "rows": part.rows, "epoch": part.epoch}
        for part in run.ranges
    ]
    members = {"format": FORMAT, "rows": run.prepared.survey.rows, "parts": parts, "totals": totals_to_json(totals)}
    if directory.read("manifest.json") is None:
        directory.write("manifest.json", members | {"finished_at": iso_now()})


def share(text: str | None, rows: int) -> int | None:
    """`5` or `2%` of the rows, as a number of rows. Raises UsageError."""
    if text is None:
        return None
    number, percent = text.removesuffix("%"), text.endswith("%")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if value < 0 or (not percent and value != int(value)) or (percent and value > 100):
        raise UsageError(f"`{text}` is neither a number of rows nor a share such as 2%")
    return int(rows * value / 100) if percent else int(value)


def command_again(asked: Asked) -> str:
    """The command that goes on with this run."""
    words = ["runner", "run", str(asked.job)]
    words += ["--simulate"] if asked.simulate else []
    words += ["-o", str(asked.output)] if asked.output else []
    words += [word for text in asked.sets for word in ("--set", text)]
    return shlex.join(words)
