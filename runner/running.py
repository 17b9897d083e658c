"""A run from its start to its end: open or go on, drive, finish.

Rule: what is refused is refused before anything is sent or written; what was sent is never forgotten.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial as bind
from typing import Any

import anyio

from runner import files, overrun, partial
from runner.changing import files_changed, go_over, is_changed
from runner.consent import confirm
from runner.drawn import draw_sample
from runner.drive import Session, drive
from runner.ending import Ending, command_again, exit_code, share
from runner.errors import RunDirectoryError, RunnerError
from runner.forecast import everything, rest_of, told_in
from runner.keep import Keeper
from runner.lock import held
from runner.notify import bell_of
from runner.opening import (
    Begun,
    Run,
    RunOptions,
    all_there,
    asked_again,
    constant_model,
    note_prices,
    retried,
    run_members,
    same_kind,
    say_standing,
)
from runner.parts import Range, totals_to_json, write_empty
from runner.ports import iso_now
from runner.prepare import Asked, Loaded, Prepared, load, only_copied, prepare, take_survey
from runner.progress import survey_bar
from runner.records import Tally
from runner.recovery import ranges_of, recover
from runner.relayout import complete
from runner.say import Say
from runner.sources import Reader, Spooling
from runner.stop import Leash
from runner.store import FORMAT, RunDirectory, move_aside
from runner.transport import Endpoint, Transport
from runner.trial import remember, summed_up, to_send, with_sample
from runner.wiring import endpoint_of, engine_of, key_of, transport_of

#: Objects made and not given back before the collector looks for cycles: 5 to 10 MB. At Python's own 700 it took an
#: eighth of a row's CPU, for it looks through all that was imported, and rows leave next to nothing in cycles.
OBJECTS_A_COLLECTION = 50_000
#: The longest that a thread waits for the loop to let it go on. At Python's own 5 ms, each several times, a commit took
#: 20 ms beside a busy loop, and slots waited for it.
SWITCH_S = 0.0005


def run(asked: Asked, options: RunOptions, say: Say) -> Ending:
    """Run a job, or go on with it. Raises RunnerError for what was refused before anything was sent."""
    loaded = load(asked)
    bell = bell_of(loaded, options.environ, say)
    with bell.tolled():
        ending = _run_held(loaded, replace(options, bell=bell), say)
    bell.ended(ending)
    return ending


def _run_held(loaded: Loaded, options: RunOptions, say: Say) -> Ending:
    directory = RunDirectory(loaded.run_root)
    started = _refuse(loaded, directory, options)
    instead = options.fresh and directory.root.exists()
    with held(directory, iso_now()), Spooling(directory.root) as spooling:
        if started and directory.read_run() is None:
            raise files.vanished("cannot go on with", directory.root)
        if not instead:
            return _run(loaded, options, say, spooling)
        prepared = _examine(loaded, None, say, options.leash, spooling)
        _confirm_new(Begun(prepared, directory, options, say), spooling)
        aside = move_aside(directory.root, iso_now()[:19].replace(":", ""))
        say.line(f"moved the old run aside to {aside}")
        with held(directory, iso_now()):
            directory.furnish()
            spooling.settle(prepared.survey, None)
            return _run_locked(Begun(prepared, directory, options, say), None, None)


def _refuse(loaded: Loaded, directory: RunDirectory, options: RunOptions) -> bool:
    """What needs no look at the input is refused before anything is made or read. Whether a run is there."""
    for given in (options.allow_failed, options.max_failures):
        share(given, 1)
    directory.refuse_strangers()
    started = not options.fresh and directory.read_run() is not None
    if options.retry is not None and not started:
        raise RunDirectoryError(f"there is no run in {directory.root}", hint="start it with `runner run JOB`")
    if not started and not loaded.asked.simulate:
        key_of(loaded, options.environ)
        endpoint_of(loaded, options.environ)
    return started


def _run(loaded: Loaded, options: RunOptions, say: Say, spooling: Spooling) -> Ending:
    directory, relaid = RunDirectory(loaded.run_root), False
    if known := directory.read_run():
        directory.furnish()
        directory.settle()
        relaid = complete(directory)
    saved = directory.read("survey.json") if known else None
    prepared = _examine(loaded, saved, say, options.leash, spooling)
    if not known:
        _confirm_new(Begun(prepared, directory, options, say), spooling)
    directory.furnish()
    if not spooling.settle(prepared.survey, saved) and saved and prepared.survey.from_stdin:
        say.line("the input was read from stdin when the run began; going on with that copy, stdin is not read")
    for path in only_copied(prepared.survey):
        say.line(f"{path} is gone; going on with the copy that was made of it when the run began")
    return _run_locked(Begun(prepared, directory, options, say), known and directory.read_run(), saved, relaid=relaid)


def _confirm_new(begun: Begun, spooling: Spooling) -> None:
    """Ask about the money of a run that has not begun, while nothing has been made. Its copies are not there yet."""
    prepared, rest = begun.prepared, everything(begun.prepared)
    there = replace(prepared, reader=Reader(prepared.survey, spooling.place))
    size = begun.options.sample
    confirm(
        replace(begun, prepared=there),
        draw_sample(None, begun.options.new_run, rest, size).left(rest) if size else rest,
    )


def _moments(survey: Mapping[str, Any]) -> list[tuple[str, int, int, str | None]]:
    """Which files a survey read, as they stood when, and their copies."""
    return [(file["path"], file["size"], file["mtime_ns"], file.get("spool")) for file in survey["files"]]


def _examine(loaded: Loaded, saved: Mapping[str, Any] | None, say: Say, leash: Leash, spooling: Spooling) -> Prepared:
    show, close = survey_bar(say)

    def progress(done: int, total: int) -> None:
        leash.check()
        show(done, total)

    try:
        return prepare(loaded, take_survey(loaded, saved, progress, spooling))
    except (KeyboardInterrupt, SystemExit):
        say.line("left while the input was read: nothing was sent")
        raise
    finally:
        close()


def _run_locked(
    begun: Begun, known: Mapping[str, Any] | None, saved: Mapping[str, Any] | None, *, relaid: bool = False
) -> Ending:
    """known, saved: run.json and survey.json as they are; relaid: its answers have just been laid out anew."""
    directory, survey = begun.directory, begun.prepared.survey
    begun.say.log_to(directory.log)
    if known:
        same_kind(known, begun)
    changed = known is not None and (is_changed(begun.prepared, known) or files_changed(begun, known))
    if known and changed:
        relaid = go_over(begun, known) or relaid
    elif not saved or _moments(saved) != _moments(survey.to_json()):
        directory.write("survey.json", survey.to_json())
    before = directory.read_run()
    members = run_members(begun, before["run"] if before else begun.options.new_run, before)
    ranges = ranges_of(survey, members)
    run = with_sample(Run(begun.prepared, directory, begun.options, begun.say, ranges, recover(directory, ranges)))
    all_there(run)
    again = asked_again(run)
    if known and not (changed and run.options.retry is None):  # else it has been asked about
        told = bind(told_in, run.prepared, directory, ranges, run.standing)
        confirm(run, to_send(run, again), told, run.standing)
    directory.write("run.json", members)
    if not relaid:
        partial.remove(directory)
    remember(run)
    run = retried(run, again)
    say_standing(run, new=known is None)
    keeper = Keeper(directory, run.prepared.spec, run.standing, survey.rows_per_part)
    try:
        error, signal = _work(run, keeper)
    finally:
        keeper.close()
    return _finish(run, keeper, error, signal)


def _work(run: Run, keeper: Keeper) -> tuple[RunnerError | None, int | None]:
    """Send what is left. What stopped it, if anything did: an error, a signal."""
    if len(run.standing.sealed) == len(run.ranges):
        return None, None
    run.prepared.dialect.listen(lambda sentence: run.say.line(f"notice: {sentence}"))
    if model := constant_model(run.prepared):
        run.prepared.prices.of(model)
    note_prices(run.directory, run.prepared.prices)
    bell = run.options.bell
    if bell:
        bell.armed = True
    key = None if run.simulated else key_of(run.prepared.loaded, run.options.environ)
    with _endpoint(run) as endpoint:
        transport = transport_of(run.prepared, endpoint, key)
        engine = engine_of(run.prepared, keeper, transport, key)
        overrun.watch(run, engine)
        most = share(run.options.max_failures, run.prepared.survey.rows)
        session = Session(
            run.prepared, run.directory, run.ranges, run.standing, keeper, engine, run.say, max_failures=most
        )
        session.leash, session.bell = run.options.leash, bell
        session.only = run.drawn.left_by_range(rest_of(run.ranges, run.standing)) if run.drawn else None
        try:
            with _tuned():
                anyio.run(bind(_drive_connected, session, transport, run.options.signals), backend_options=_loop())
        except RunnerError as error:
            return error, None
        except BaseExceptionGroup as group:
            first = _first(group)
            if not isinstance(first, RunnerError):
                raise first from None
            return first, None
        return session.stop.reason, session.stop.signal


@contextmanager
def _endpoint(run: Run) -> Iterator[Endpoint]:
    """The job's endpoint, or a simulator that lives as long as this is open."""
    if not run.simulated:
        yield endpoint_of(run.prepared.loaded, run.options.environ)
        return
    from runner.simulator import Child, SimulatorOptions

    with Child(SimulatorOptions(no_auth=True)) as child:
        run.say.line(f"simulated: answers are made up by a server on this machine ({child.base_url})")
        yield Endpoint(child.base_url)


@contextmanager
def _tuned() -> Iterator[None]:
    """Python as a busy loop with threads beside it likes it; the process may be a notebook's, so only while it runs."""
    collections, switch_s = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(OBJECTS_A_COLLECTION, *collections[1:])
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        gc.set_threshold(*collections)
        sys.setswitchinterval(switch_s)


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


def _finish(run: Run, keeper: Keeper, error: RunnerError | None, signal: int | None) -> Ending:
    rows = run.prepared.survey.rows
    totals = keeper.books.total
    done = totals.settled == rows
    signal = None if done else signal
    sample = summed_up(run, keeper) if run.drawn and not (error or signal) else None
    judged = (totals.not_ok, rows) if done or not sample else (sample.rows_not_ok, sample.rows)
    if done and not error:
        _write_manifest(run, totals)
    else:
        partial.write(run.prepared, run.directory, keeper.open.values(), run.say)
    return Ending(
        root=run.directory.root,
        rows=rows,
        totals=totals,
        exit_code=exit_code((error, signal), judged[0], share(run.options.allow_failed, judged[1])),
        command=command_again(run.prepared.loaded.asked, None if sample else run.options.sample),
        error=error,
        signal=signal,
        examples=keeper.books.examples,
        fewer=(keeper.books.fewer.rows, keeper.books.fewer.example),
        sample=sample,
    )


def _write_manifest(run: Run, totals: Tally) -> None:
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
