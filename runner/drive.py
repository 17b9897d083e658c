"""The program on one screen: feed -> engine -> keep, until there is nothing left or somebody says stop.

Rule: three tasks and two bounded streams. The end of the request stream means no more input; `stop` means leave. Errors
of feeder and engine are held, set the stop, and are raised after the drain; only a failed write cancels everything.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import anyio
import anyio.to_thread

from runner.engine import LocalEngine
from runner.errors import RunnerError, StoppedError
from runner.feed import Feeder, Window
from runner.keep import Keeper
from runner.notify import Bell
from runner.opening import note_prices
from runner.parts import Footer, Range, seal
from runner.ports import Event, iso_now
from runner.prepare import Prepared
from runner.progress import STATUS_EVERY_S, Progress, Snapshot
from runner.records import Request, Tally
from runner.recovery import Standing
from runner.say import Say
from runner.stop import Leash, Stop
from runner.store import RunDirectory


@dataclass(slots=True)
class Session:
    """One process's work on one run."""

    prepared: Prepared
    directory: RunDirectory
    ranges: Sequence[Range]
    standing: Standing
    keeper: Keeper
    engine: LocalEngine
    say: Say
    max_failures: int | None = None
    only: Mapping[int, AbstractSet[int]] | None = None  #: the rows that are sent, by range; None: all that are left
    stop: Stop = field(default_factory=Stop)
    leash: Leash = field(default_factory=Leash)
    window: Window = field(default_factory=Window)
    bell: Bell | None = None
    errors: list[BaseException] = field(default_factory=list)
    started_s: float = 0.0
    priced: int = 0  #: Prices.news when run.json was given its prices
    settled_before: int = 0
    warned: bool = False  #: that choices are missing

    @property
    def rows(self) -> int:
        """That will be final when this process is done."""
        rows = self.prepared.survey.rows
        return rows if self.only is None else self.settled_before + sum(map(len, self.only.values()))

    def totals(self) -> Tally:
        return self.keeper.books.total

    def snapshot(self) -> Snapshot:
        total, books = self.keeper.books.total, self.keeper.books
        return Snapshot(
            at_s=anyio.current_time() - self.started_s,
            rows=self.rows,
            settled=books.settled.settled,
            settled_here=books.rows_here,
            not_ok=books.settled.not_ok,
            tokens_here=books.tokens_here,
            cost_usd=total.cost_usd,
            unknown_exchanges=total.unknown_exchanges,
            in_flight=self.engine.slots.in_flight,
            waiting_for=self.engine.waiting_for,
        )


async def drive(session: Session, *, signals: bool = True) -> None:
    """Send what is left of a run and make it durable. Raises the error that stopped it, after the drain."""
    session.started_s = anyio.current_time()
    session.settled_before = session.keeper.books.settled.settled
    progress = Progress(session.say, session.rows, session.settled_before)
    soon = asyncio.get_running_loop().call_soon_threadsafe
    with progress, session.leash.tied(partial(_asked_to_stop, session), soon):
        async with anyio.create_task_group() as around:
            if signals:
                around.start_soon(_obey_signals, session)
            around.start_soon(_show, session, progress)
            if session.bell:
                around.start_soon(session.bell.watch, session.snapshot, session.totals, session.stop)
            try:
                await _pipeline(session)
            finally:
                around.cancel_scope.cancel()
        write_status(session, "stopped" if session.stop.is_set else "ended", session.snapshot())
    if session.errors:
        raise session.errors[0]


async def _pipeline(session: Session) -> None:
    keeper, engine, window = session.keeper, session.engine, session.window
    size = max(64, engine.settings.concurrency)
    # Twice as many: all slots may come free in one turn of the loop, before the feeder has its own.
    to_engine, requests = anyio.create_memory_object_stream[Request](2 * size)
    to_keep, events = anyio.create_memory_object_stream[Event](size)
    to_seal, complete = anyio.create_memory_object_stream[int](len(session.ranges) + 1)
    keeper.on_saved = partial(_saved, session)
    keeper.on_written = engine.written
    keeper.on_freed = window.free_bytes
    keeper.on_complete = to_seal.send_nowait
    keeper.only, keeper.on_enough = session.only or {}, partial(_leave, session)
    feeder = Feeder(session.prepared.reader, session.prepared.recipe, keeper, window, session.only)
    with complete:
        async with anyio.create_task_group() as sealing:
            sealing.start_soon(_held, session, partial(_seal_each, session, complete))
            with to_seal:
                async with anyio.create_task_group() as tasks:
                    feed = partial(feeder.run, _left(session), to_engine, to_keep.clone(), session.stop)
                    tasks.start_soon(_held, session, feed)
                    tasks.start_soon(_held, session, partial(engine.run, requests, to_keep, session.stop))
                    tasks.start_soon(keeper.run, events, session.stop)


def _left(session: Session) -> list[Range]:
    """The ranges with rows to send, open ones as they are."""
    opened = {number: open_.part for number, open_ in session.standing.open.items()}
    left = [opened.get(part.number, part) for part in session.ranges if part.number not in session.standing.sealed]
    if session.only is None:
        return left
    complete = {number for number, open_ in session.standing.open.items() if open_.complete}
    return [part for part in left if session.only.get(part.number) or part.number in complete]


def _leave(session: Session, number: int) -> None:
    """The rows of a range that were asked for are final, others are not: it makes room for another."""
    session.keeper.leave(number)
    session.window.free_range()


async def _held(session: Session, task: Callable[[], Awaitable[None]]) -> None:
    """Keep a task's error until what is on the wire has come back."""
    try:
        await task()
    except Exception as error:  # noqa: BLE001 - raised by drive()
        session.errors.append(error)
        session.stop.set()


def _saved(session: Session, count: int) -> None:
    session.engine.saved(count)
    fewer = session.keeper.books.fewer
    if fewer.rows and not session.warned:
        session.warned = True
        session.say.line(f"the server may ignore n: {fewer.example} choices")
    failed, most = session.keeper.books.settled.not_ok, session.max_failures
    if most is not None and failed > most:
        said = f"{failed} rows are not ok, more than --max-failures allows ({most})"
        session.stop.set(StoppedError(said, hint="see which with `runner status`; the same command goes on"))


async def _seal_each(session: Session, complete: anyio.abc.ObjectReceiveStream[int]) -> None:
    """Complete ranges become parts, one at a time, beside the loop."""
    async for number in complete:
        opened = session.keeper.open[number]
        totals = opened.settled
        await anyio.to_thread.run_sync(seal_range, session.prepared, session.directory, opened.part, totals)
        session.standing.sealed[number] = Footer(
            opened.part.run, number, opened.part.epoch, opened.part.rows, opened.part.input_hash, totals
        )
        await anyio.to_thread.run_sync(session.keeper.forget, number)
        session.window.free_range()


def seal_range(prepared: Prepared, directory: RunDirectory, part: Range, totals: Tally) -> None:
    """Make a part of a complete range. Raises ChangedError when the input is not what was sent."""
    prepared.reader.verify(part.number)
    paths = (directory.journal(part.number), directory.part(part.number))
    inputs = partial(prepared.reader.table, part.number, prepared.input_columns)
    seal(part, totals, paths, prepared.shape, inputs)


async def _obey_signals(session: Session) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        async for number in received:
            _asked_to_stop(session, number)


def _asked_to_stop(session: Session, number: int | None) -> None:
    """The first Ctrl-C or SIGTERM drains, the second abandons what is on the wire."""
    if session.stop.is_set:
        session.say.line("leaving at once; what is on the wire may be billed and will be sent again")
        session.stop.abandon()
    else:
        flying = session.engine.slots.in_flight
        session.say.line(f"stopping: {flying} requests are on the wire; again to leave without them")
        session.stop.set(signal=number)


async def _show(session: Session, progress: Progress) -> None:
    """Bar or lines, and status.json."""
    next_status_s, waiting = 0.0, False
    while True:
        snapshot = session.snapshot()
        progress.show(snapshot)
        if snapshot.waiting_for and not waiting:
            session.say.log(f"waiting: {snapshot.waiting_for}")
        waiting = bool(snapshot.waiting_for)
        if snapshot.at_s >= next_status_s:
            next_status_s = snapshot.at_s + STATUS_EVERY_S
            await anyio.to_thread.run_sync(write_status, session, "running", snapshot)
        await anyio.sleep(progress.every_s)


def write_status(session: Session, state: str, snapshot: Snapshot) -> None:
    """status.json is for people and watchdogs; a run goes on without it."""
    members = {"state": state, "updated_at": iso_now(), **snapshot.to_json()}
    with suppress(RunnerError):
        session.directory.write("status.json", members, durable=False)
        news = session.prepared.prices.news
        if news != session.priced:
            note_prices(session.directory, session.prepared.prices)
            session.priced = news  # only now: what could not be written is tried again at the next status
