"""Runs from Python: scripts, notebooks, schedulers.

Rule: the same machinery and the same sentences as the command line; nothing here knows more than it. A run has a thread
and a loop of its own, whoever calls: a script, a cell of a notebook whose loop is running, a worker thread. Heavy
imports live inside the functions, so `import runner` costs nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypedDict, TypeVar, Unpack, overload

if TYPE_CHECKING:
    import asyncio

    import pandas as pd
    import pyarrow as pa

    from runner.drawn import Sample
    from runner.records import Tally
    from runner.standing import RunStatus
    from runner.stop import Leash

T = TypeVar("T")
Job = str | os.PathLike[str] | Mapping[str, Any]


class Overrides(TypedDict, total=False):
    """What `run` and `arun` take beside the job. None is the same as not given."""

    input: Any  #: a pandas, polars or Arrow data frame, a list of dicts, or paths; instead of the job's input
    output: str | os.PathLike[str] | None  #: the run's directory; else DIRECTORY/NAME of the job
    limit: int | None  #: only the first so many rows
    concurrency: int | Literal["auto"] | None  #: requests in flight
    simulate: bool  #: on the embedded simulator, into NAME.simulated; no key, no cost
    fresh: bool  #: move the old run aside and start anew
    set: Mapping[str, Any] | None  #: values of the job by dotted path, `{"request.model": "gpt-4.1"}`
    max_usd: Decimal | float | None  #: spend no more than this over the whole run
    allow_failed: int | str | None  #: `ok` with up to so many rows not ok; 5 or "2%"
    max_failures: int | str | None  #: stop when more rows than this are not ok; 5 or "2%"
    accept_changes: int | bool | None  #: ask changed rows again: True, or at most so many
    keep_answers: bool  #: keep every ok answer of a changed job
    sample: int | None  #: send so many rows drawn at random, keep them, and stop: see Result.sample
    yes: bool  #: spend what the job would ask about (budget.confirm_above_usd)
    quiet: bool  #: say nothing on stderr
    environ: Mapping[str, str] | None  #: where the key is looked for; else os.environ


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run has cost so far: every exchange of every row, the failed ones too.

    Dollars are exact, and of the exchanges whose cost is known; `unknown_exchanges` counts the others. Tokens are as
    the servers reported them: cached ones are among the prompt's, reasoning ones among the completion's.
    """

    usd: Decimal
    wasted_usd: Decimal  #: of these, for exchanges that are no row's answer
    exchanges: int
    unknown_exchanges: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int


def _cost(totals: Tally) -> Cost:
    return Cost(
        totals.cost_usd,
        totals.wasted_usd,
        totals.exchanges,
        totals.unknown_exchanges,
        totals.prompt_tokens,
        totals.cached_tokens,
        totals.completion_tokens,
        totals.reasoning_tokens,
    )


@dataclass(frozen=True, slots=True)
class Run:
    """A run on disk, also while it goes on. Nothing here takes a lock or changes anything.

    run = runner.open_run("runs/classify_tickets")
    run.status().state                                 "running", "stopped" or "finished"
    run.results(["ticket_id", "parsed"], flatten=True) a pandas DataFrame with parsed.label, parsed.reason, …
    run.cost().usd                                     Decimal("0.0226")
    """

    path: Path

    def status(self) -> RunStatus:
        """How far it is: `.state`, `.rows`, `.totals` by status, `.finished`; `.to_json()` is `status --json`."""
        from runner.standing import status_of

        return status_of(self.path)

    def cost(self) -> Cost:
        """What it has cost so far."""
        return _cost(self.status().totals)

    @overload
    def results(
        self, columns: Sequence[str] | None = None, *, flatten: bool = False, arrow: Literal[False] = False
    ) -> pd.DataFrame: ...

    @overload
    def results(
        self, columns: Sequence[str] | None = None, *, flatten: bool = False, arrow: Literal[True]
    ) -> pa.Table: ...

    def results(self, columns: Sequence[str] | None = None, *, flatten: bool = False, arrow: bool = False) -> Any:
        """The settled rows in input order: input columns first, then the result columns.

        columns: only these, in this order. flatten: `parsed` as one column for each of its fields, `parsed.label`,
        nested ones as `parsed.address.city`. arrow: a pyarrow.Table instead of a pandas DataFrame. Rows that are not
        final yet are not in it. Raises UsageError for a column that is not there.
        """
        from runner.reading import open_directory
        from runner.table import read

        table = read(open_directory(self.path), columns, flatten=flatten)
        return table if arrow else table.to_pandas()


@dataclass(frozen=True, slots=True)
class Result(Run):
    """A run as a call of `run` has left it.

    result = runner.run("jobs/classify_tickets.yaml")
    result.ok                every row is ok, or no more than `allow_failed` are not
    result.totals.rows       {"ok": 174, "failed": 2}
    result.cost().usd        Decimal("0.0226")
    result.results()         the rows as pandas; see Run.results
    """

    rows: int  #: of the input
    totals: Tally  #: of the run since it was started, not of this call alone
    exit_code: int  #: what the command line would exit with
    sample: Sample | None = None  #: what a sample says about the whole job, where one was asked for

    @property
    def ok(self) -> bool:
        return self.exit_code == 0

    def cost(self) -> Cost:
        """What it had cost when the call ended."""
        return _cost(self.totals)


def open_run(path: str | os.PathLike[str]) -> Run:
    """A run by its directory, to look at. Raises RunDirectoryError when `path` is not the directory of a run.

    runner.open_run("runs/classify_tickets").status().state      "running"
    """
    from runner.reading import open_directory

    return Run(open_directory(Path(path)).root)


def run(job: Job, **overrides: Unpack[Overrides]) -> Result:
    """Run a job to its end, or go on with it: the same call again continues where the last one stopped.

    job: the path of a job file or of a run's directory; or a dict of the same shape as a job file, with a `name`, its
    relative paths relative to the working directory. overrides: see `Overrides`. A data frame or list given as `input`
    is kept beside the run, in `NAME.input/`, under a name made of its rows: the same rows go on with the same run. The
    index of a pandas frame is no column.

    Rows that failed do not raise: see Result.ok. Raises RunnerError with the command line's sentences and `.hint`:
    what was refused (nothing was sent), and what stopped the job, then with `.result`. Ctrl-C drains: what is on the
    wire comes back and is kept, then KeyboardInterrupt is raised; a second one leaves at once. SIGTERM the same, ending
    in SystemExit or the caller's own handler. Outside the main thread signals are left alone.

    result = runner.run({"name": "labels", "request": {…}}, input=frame, limit=100)
    result.results()[["content", "total_usd"]]
    """
    from runner.stop import Leash

    leash = Leash()
    with _signals(leash):
        return _waited(_in_thread(partial(_carried_out, job, overrides, leash)), leash)


async def arun(job: Job, **overrides: Unpack[Overrides]) -> Result:
    """The same as `run`, awaited: the caller's loop goes on meanwhile (asyncio).

    Cancelling drains like Ctrl-C: what is on the wire comes back and is kept, then CancelledError is raised; cancelled
    again it leaves at once.

    async with asyncio.timeout(3600):
        result = await runner.arun("jobs/classify_tickets.yaml", quiet=True)
    """
    import asyncio

    from runner.stop import Leash

    leash = Leash()
    future = asyncio.wrap_future(_in_thread(partial(_carried_out, job, overrides, leash)))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await _drained(future, leash)
        raise


async def _drained(future: asyncio.Future[Result], leash: Leash) -> None:
    """Stop the run and see it end, however often that is cancelled."""
    import asyncio

    import anyio

    leash.pull()
    with anyio.CancelScope(shield=True):  # a cancelled scope of anyio cancels again in every round of the loop
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                leash.pull()
    future.exception()


def _in_thread(work: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def carry() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=copy_context().run, args=(carry,), name="runner").start()
    return future


def _waited(future: Future[T], leash: Leash) -> T:
    try:
        return future.result()
    except BaseException:
        if not future.done():  # somebody else's signal handler has raised: its error waits for the drain
            leash.pull()
            wait([future])
        raise


@contextmanager
def _signals(leash: Leash) -> Iterator[None]:
    """While open, Ctrl-C and SIGTERM pull the leash; afterwards they are what they were, and have come."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # Ignored signals stay ignored; None is a handler that is not Python's and could not be put back.
    handlers = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
    came: list[int] = []

    def obey(number: int, frame: object) -> None:
        came.append(number)
        leash.pull(number)

    for number in handlers:
        signal.signal(number, obey)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            _pass_on(came[0])


def _pass_on(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if callable(signal.getsignal(number)):
        signal.raise_signal(number)
    raise SystemExit(128 + number)


def _carried_out(job: Job, overrides: Overrides, leash: Leash) -> Result:
    from runner.asking import asked_for
    from runner.running import run as run_job
    from runner.say import Say
    from runner.summary import lines

    given = dict(overrides)
    say = Say(quiet=bool(given.get("quiet")))
    with asked_for(job, given) as (asked, options):
        ending = run_job(asked, replace(options, signals=False, leash=leash), say)
    for line in lines(ending):
        say.line(line)
    result = Result(ending.root, ending.rows, ending.totals, ending.exit_code, ending.sample)
    if ending.error:
        say.log(f"error: {ending.error.message}")
        ending.error.result = result
        raise ending.error
    return result
