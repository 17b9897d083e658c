"""Runs from Python: scripts, running loops, threads, data frames, cancelling and Ctrl-C, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
import time
from bisect import bisect
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import nursery
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from endpoint import KEY, Endpoint, Life, Place, Said, Seen, environment, ok, refused
from house import PATIENCE_S, House, audit, until
from house import environment as house_environment
from nursery import Order

import runner
import runner.running
import runner.survey
from runner.errors import ChangedError, InputError, JobError, RunDirectoryError, StoppedError, UsageError

Build = Callable[..., House]
SLOTS = 8
STOPPING = f"stopping: {SLOTS} requests are on the wire"
ANSWER_USD = Decimal("0.00028")  # 100 tokens at $2 and 10 at $8 a million
ENVIRON = {"TRIAL_KEY": KEY}
HOUSE_ENVIRON = {"ECHO_KEY": "sk-echo"}
WRONG_KEY = refused(401, "Incorrect API key provided.", "invalid_api_key")
BAD = refused(400, "Unsupported parameter: 'max_tokens'.", "unsupported_parameter")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.chdir(tmp_path)
    with Endpoint() as endpoint:
        place = Place(tmp_path, endpoint)
        place.rows(6)
        yield place


def members(place: Place, **more: Any) -> dict[str, Any]:
    """The plain job as a dict, without an input."""
    return {name: value for name, value in place._plain().items() if name != "input"} | more


def script(text: str, root: Path, env: dict[str, str]) -> Life:
    """A Python program of its own, in `root`."""
    out, err = root / "out.txt", root / "err.txt"
    order = Order((), root, env, out=out, err=err, program=text)
    return Life(nursery.start(order), out, err)


def in_flight(house: House) -> int:
    return sum(arrival.status is None for arrival in house.echo.arrivals)


# From a script


def test_a_script_runs_a_job_file_and_reads_the_result(place: Place) -> None:
    place.job()
    text = (
        "import runner\n"
        "for _ in range(2):\n"
        "    result = runner.run('job.yaml')\n"
        "print(result.ok, result.exit_code, result.rows, result.totals.rows, result.cost().usd)\n"
        "print(list(result.results(['id', 'content'])['id']))\n"
    )
    life = script(text, place.root, environment())
    assert life.child.wait(PATIENCE_S) == 0, life.err
    err = life.err
    assert life.out == "True 0 6 {'ok': 6} 0.00168\n[0, 1, 2, 3, 4, 5]\n"
    assert place.sent == 6  # the second call had nothing to send
    assert err.startswith(f"new run in {place.run_root}, 6 rows\n")  # as the command line talks
    assert "finished: 6 of 6 rows final (6 ok)" in err
    assert f"going on in {place.run_root}, 6 of 6 rows done" in err


def test_quiet_says_nothing(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    place.job()
    runner.run("job.yaml", environ=ENVIRON, quiet=True)
    assert capfd.readouterr() == ("", "")


def test_a_run_leaves_the_interpreter_of_a_notebook_as_it_was(place: Place) -> None:
    def tuning() -> tuple[int, float]:
        return gc.get_threshold()[0], sys.getswitchinterval()

    def answer(seen: Seen) -> Said:
        during.append(tuning())
        return ok()

    during: list[tuple[int, float]] = []
    place.endpoint.answer = answer
    place.job()
    before = tuning()
    runner.run("job.yaml", environ=ENVIRON, quiet=True)
    assert tuning() == before
    assert before not in during


def test_rows_that_failed_do_not_raise(place: Place) -> None:
    place.endpoint.answer = lambda seen: BAD if seen.text == "say row 1" else ok()
    place.job()
    result = runner.run("job.yaml", environ=ENVIRON, quiet=True)
    assert (result.ok, result.exit_code, result.totals.rows) == (False, 1, {"ok": 5, "failed": 1})
    assert result.cost().usd == 5 * ANSWER_USD
    assert runner.run("job.yaml", environ=ENVIRON, quiet=True, allow_failed=1).ok
    assert place.sent == 6


def test_the_function_stays_a_function_whatever_is_imported(place: Place) -> None:
    import runner.running as _  # noqa: F401

    place.job()
    assert runner.run("job.yaml", environ=ENVIRON, quiet=True, limit=1).rows == 1


def test_options_are_those_of_the_command_line(place: Place) -> None:
    place.job()
    given: dict[str, Any] = {"environ": ENVIRON, "quiet": True, "output": "there"}
    result = runner.run(Path("job.yaml"), limit=2, concurrency=1, set={"request.model": "123", "tags.a": "x"}, **given)
    assert (result.path, result.rows) == (place.root / "there", 2)
    assert [seen.body["model"] for seen in place.endpoint.seen] == ["123", "123"]  # text stays text
    fresh = runner.run("job.yaml", limit=3, fresh=True, set={"vars.shout": "a: {{b}} \x85\u2028😀"}, **given)
    assert (fresh.path, fresh.rows, place.sent) == (place.root / "there", 3, 5)


def test_a_simulated_run_needs_no_key(place: Place) -> None:
    place.job()
    result = runner.run("job.yaml", environ={}, quiet=True, simulate=True)
    assert (result.path, result.totals.settled) == (place.root / "runs/trial.simulated", 6)
    assert place.sent == 0
    again = runner.run(result.path, quiet=True)  # a run's directory is a job too
    assert (again.path, again.totals) == (result.path, result.totals)


# Errors are the command line's


def test_a_wrong_key_raises_the_sentence_that_the_command_line_prints(place: Place) -> None:
    place.endpoint.answer = lambda seen: WRONG_KEY
    place.job()
    life = place.start("run", "job.yaml", "-o", "cli")  # meanwhile, for both take their time to be sure
    with pytest.raises(StoppedError) as raised:
        runner.run("job.yaml", environ=ENVIRON, quiet=True)
    told = life.wait()
    assert told.code == raised.value.exit_code == 3
    assert [raised.value.message] == told.errors
    assert raised.value.hint == told.hint
    result = raised.value.result
    assert result is not None
    assert (result.ok, result.exit_code, result.rows, result.totals.settled) == (False, 3, 6, 0)
    assert f"error: {raised.value.message}" in (place.run_root / "run.log").read_text()


def test_what_is_refused_has_no_result(place: Place) -> None:
    place.job()
    told = place.run(TRIAL_KEY="")
    with pytest.raises(JobError) as raised:
        runner.run("job.yaml", environ={"TRIAL_KEY": ""}, quiet=True)
    assert [raised.value.message] == told.errors
    assert raised.value.result is None
    assert not place.run_root.exists()


def test_the_mistakes_of_a_dict_are_told_at_once(place: Place) -> None:
    job = members(place, retry={"max_atempts": 3}, vars={"x": float("nan"), "y": {1, 2}, "z": {True: 1}})
    with pytest.raises(JobError) as raised:
        runner.run(job, input=[{"text": "a"}], quiet=True)
    assert sorted(raised.value.mistakes) == [
        "job: retry.max_atempts: unknown key; did you mean max_attempts?",
        "job: vars.x: must be a finite number",
        "job: vars.y: must be a plain value (text, number, list, dict), not set",
        "job: vars.z: a key must be text, not bool",
    ]
    assert sorted(path.name for path in place.root.iterdir()) == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("job", "options", "error", "said"),
    [
        ("job.yaml", {"concurency": 3}, UsageError, "there is no option `concurency`"),
        ("job.yaml", {"allow_failed": "many"}, UsageError, "`many` is neither"),
        ("job.yaml", {"set": {"request.model": object()}}, UsageError, "set request.model: must be a plain value"),
        ("job.yaml", {"set": {"requests.model": "m"}}, JobError, "--set requests.model=…: unknown key"),
        ("job.yaml", {"input": 5}, InputError, "rows cannot be read from int"),
        ("job.yaml", {"input": "none.jsonl"}, InputError, "nothing matches"),
        ("none.yaml", {}, JobError, "none.yaml: No such file or directory"),
        ({"request": {}}, {}, JobError, "a job that is in no file needs one"),
        ("job.yaml", {"input": [{"text": "a"}, {"text": {1, 2}}]}, InputError, "row 1 of the input"),
        ("job.yaml", {"input": pd.DataFrame({"text": ["a", 1]})}, InputError, "the data frame has no Arrow types"),
        ("job.yaml", {"input": [{"other": 1}]}, JobError, "the input has no column `text`"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    place: Place, job: Any, options: dict[str, Any], error: type[runner.RunnerError], said: str
) -> None:
    place.job()
    with pytest.raises(error) as raised:
        runner.run(job, environ=ENVIRON, quiet=True, **options)
    assert said in raised.value.message
    assert place.sent == 0
    assert sorted(path.name for path in place.root.rglob("*")) == ["job.yaml", "rows.jsonl"]  # and leaves nothing


def test_a_directory_without_a_run_is_refused(place: Place) -> None:
    for look in (runner.open_run, runner.read_results):
        with pytest.raises(RunDirectoryError, match=r"it has no run\.json"):
            look(place.root)


def test_a_run_goes_on_with_the_job_that_it_has(place: Place) -> None:
    place.job()
    result = runner.run("job.yaml", environ=ENVIRON, quiet=True)
    with pytest.raises(UsageError, match=r"input, limit cannot be given"):
        runner.run(result.path, environ=ENVIRON, quiet=True, limit=3, input="rows.jsonl")


# Rows in memory

ROWS = [{"id": number, "text": f"row {number}"} for number in range(6)]
FRAMES = [pd.DataFrame(ROWS), pl.DataFrame(ROWS), pa.Table.from_pylist(ROWS), ROWS]


@pytest.mark.parametrize("frame", FRAMES, ids=["pandas", "polars", "arrow", "dicts"])
def test_rows_in_memory_are_a_run_that_goes_on(place: Place, frame: Any) -> None:
    given: dict[str, Any] = {"environ": ENVIRON, "quiet": True}
    result = runner.run(members(place), input=frame, **given)
    assert (result.path, result.ok) == (place.run_root, True)
    assert result.results(["id", "text"]).to_dict("records") == ROWS
    assert [seen.text for seen in sorted(place.endpoint.seen, key=lambda seen: seen.text)] == [
        f"say row {number}" for number in range(6)
    ]
    kept = list((place.root / "runs/trial.input").iterdir())
    assert len(kept) == 1
    assert kept[0].stat().st_mode & 0o077 == 0

    again = runner.run(members(place), input=frame[:], **given)
    assert (again.totals, place.sent) == (result.totals, 6)  # the same rows: nothing was sent
    changed = [{**row, "text": f"new {row['id']}"} for row in ROWS]
    with pytest.raises(ChangedError):
        runner.run(members(place), input=changed if frame is ROWS else pd.DataFrame(changed), **given)
    assert place.sent == 6
    assert list((place.root / "runs/trial.input").iterdir()) == kept  # refused rows are not kept
    shell = place.call("run", "runs/trial")  # the command line can go on with it
    assert (shell.code, place.sent) == (0, 6)


def test_a_frame_that_grew_sends_its_new_rows_and_a_changed_one_needs_consent(place: Place) -> None:
    given: dict[str, Any] = {"environ": ENVIRON, "quiet": True}
    assert runner.run(members(place), input=pd.DataFrame(ROWS[:4]), **given).rows == 4
    grown = runner.run(members(place), input=pd.DataFrame(ROWS), **given)
    assert (grown.rows, grown.ok, place.sent) == (6, True, 6)
    changed = pd.DataFrame([{**ROWS[0], "text": "new"}, *ROWS[1:]])
    with pytest.raises(ChangedError):
        runner.run(members(place), input=changed, **given)
    again = runner.run(members(place), input=changed, accept_changes=1, **given)
    assert (again.ok, place.sent, place.endpoint.seen[-1].text) == (True, 7, "say new")
    assert list(again.results()["text"]) == ["new", *(row["text"] for row in ROWS[1:])]


def test_a_frame_stands_in_for_the_input_of_a_job_file(place: Place) -> None:
    place.job(input={"path": "rows.csv", "format": "csv"})
    frame = pd.DataFrame({"text": ["a", None, "c"], "when": pd.to_datetime(["2026-01-01"] * 3)}, index=[7, 8, 9])
    result = runner.run("job.yaml", input=frame, environ=ENVIRON, quiet=True)
    table = result.results(arrow=True)
    assert table.column_names[:3] == ["text", "when", "row_index"]
    assert pa.types.is_timestamp(table.schema.field("when").type)
    assert table["text"].to_pylist() == ["a", None, "c"]
    fresh = runner.run("job.yaml", input=[{"text": "x", "n": 2**70}], environ=ENVIRON, quiet=True, fresh=True)
    assert (fresh.rows, place.sent) == (1, 4)
    aside = next(path for path in (place.root / "runs").iterdir() if path.name.startswith("trial.2"))
    assert list(runner.read_results(aside)["text"].dropna()) == ["a", "c"]


def test_a_run_is_read_flat(place: Place) -> None:
    who = {"type": "object", "properties": {"n": {"type": "integer"}}}
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string"}, "who": who},
        "required": ["label"],
    }
    place.endpoint.answer = lambda seen: ok('{"label": "a", "who": {"n": 3}}')
    job = members(place)
    job["request"] |= {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    run = runner.open_run(runner.run(job, input=ROWS, environ=ENVIRON, quiet=True).path)
    flat = run.results(["id", "parsed", "status"], flatten=True, arrow=True)
    assert flat.column_names == ["id", "parsed.label", "parsed.who.n", "status"]
    assert flat.to_pylist()[0] == {"id": 0, "parsed.label": "a", "parsed.who.n": 3, "status": "ok"}
    assert run.results(["parsed"])["parsed"][0] == {"label": "a", "who": {"n": 3}}
    with pytest.raises(UsageError, match="no column `contents`"):
        run.results(["contents"])
    status, cost = run.status(), run.cost()
    assert (status.state, status.finished, status.rows, status.totals.rows) == ("finished", True, 6, {"ok": 6})
    assert status.to_json()["state"] == "finished"
    assert (cost.usd, cost.wasted_usd, cost.exchanges, cost.unknown_exchanges) == (6 * ANSWER_USD, 0, 6, 0)
    assert (cost.prompt_tokens, cost.completion_tokens) == (600, 60)


# Inside a running loop


def test_run_works_inside_a_running_loop(place: Place) -> None:
    place.job()

    async def cell() -> runner.Result:
        return runner.run("job.yaml", environ=ENVIRON, quiet=True)

    assert asyncio.run(cell()).ok


def test_the_callers_loop_goes_on_beside_arun(place: Place) -> None:
    """A gap is the run's doing only if another thread had its turns meanwhile: else the machine stood still."""
    place.endpoint.answer = lambda seen: Said(ok().status, ok().body, delay_s=0.2)
    place.rows(40)
    place.job()
    ticks: list[float] = []
    others: list[float] = []
    done = threading.Event()

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    def beside() -> None:
        while not done.wait(0.01):
            others.append(time.monotonic())

    async def cell() -> runner.Result:
        ticking = asyncio.create_task(tick())
        result = await runner.arun("job.yaml", environ=ENVIRON, quiet=True)
        ticking.cancel()
        return result

    watching = threading.Thread(target=beside)
    watching.start()
    try:
        assert asyncio.run(cell()).ok
    finally:
        done.set()
        watching.join()
    missed = [bisect(others, later) - bisect(others, sooner) for sooner, later in pairwise(ticks)]
    assert len(ticks) > 10
    assert max(missed) < 50  # half a second's turns of a hundred a second


def test_two_runs_go_on_beside_each_other(place: Place) -> None:
    async def cell() -> list[runner.Result]:
        jobs = [members(place, name=name) for name in ("one", "two")]
        return await asyncio.gather(*(runner.arun(job, input=ROWS, environ=ENVIRON, quiet=True) for job in jobs))

    assert [result.ok for result in asyncio.run(cell())] == [True, True]
    assert place.sent == 12


def test_arun_raises_what_run_raises(place: Place) -> None:
    place.endpoint.answer = lambda seen: refused(402, "Insufficient credits.")
    place.job()
    with pytest.raises(StoppedError) as raised:
        asyncio.run(runner.arun("job.yaml", environ=ENVIRON, quiet=True))
    assert raised.value.result is not None


async def in_full_flight(house: House) -> None:
    """Every slot has its request at the endpoint, which answers none of them."""
    async with asyncio.timeout(PATIENCE_S):
        while in_flight(house) < SLOTS:
            await asyncio.sleep(0.005)


async def stopping(house: House) -> None:
    """The run has heard that it is to stop."""
    async with asyncio.timeout(PATIENCE_S):
        while STOPPING not in (house.run() / "run.log").read_text(encoding="utf-8"):
            await asyncio.sleep(0.005)


def held(house: House) -> None:
    house.echo.begin(len(house.lives))
    house.echo.hold()


def test_cancelling_arun_drains_and_a_second_one_sends_nothing_again(build: Build) -> None:
    house = build(rows=60, concurrency=SLOTS)
    held(house)

    async def cell() -> None:
        task = asyncio.create_task(runner.arun(house.job, environ=HOUSE_ENVIRON, quiet=True))
        await in_full_flight(house)
        task.cancel()
        await stopping(house)
        await asyncio.wait([task], timeout=0.3)
        assert not task.done()  # it waits for the answers
        house.echo.release()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(house.echo.arrivals) == SLOTS
        assert runner.open_run(house.run()).status().totals.rows == {"ok": SLOTS}
        result = await runner.arun(house.job, environ=HOUSE_ENVIRON, quiet=True)
        assert result.ok

    asyncio.run(cell())
    found = audit(house)
    assert found.complaints() == []
    assert (found.exchanges, found.unknown, len(house.echo.arrivals)) == (60, 0, 60)


def test_a_timeout_drains_like_a_cancel(build: Build) -> None:
    house = build(rows=60, concurrency=SLOTS)
    held(house)

    async def by_asyncio() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as scope:
                task = asyncio.create_task(released(scope))
                await runner.arun(house.job, environ=HOUSE_ENVIRON, quiet=True)
        await task

    async def released(scope: asyncio.Timeout) -> None:
        await in_full_flight(house)
        scope.reschedule(asyncio.get_running_loop().time())
        await stopping(house)
        house.echo.release()

    asyncio.run(by_asyncio())
    assert runner.open_run(house.run()).status().totals.rows == {"ok": SLOTS}


def test_a_scope_of_anyio_that_is_cancelled_drains_too(build: Build) -> None:
    house = build(rows=60, concurrency=SLOTS)
    held(house)

    async def cell() -> None:
        async with anyio.create_task_group() as tasks:
            releasing = asyncio.create_task(released(tasks.cancel_scope))
            await runner.arun(house.job, environ=HOUSE_ENVIRON, quiet=True)
        assert tasks.cancel_scope.cancelled_caught
        await releasing

    async def released(scope: anyio.CancelScope) -> None:
        await in_full_flight(house)
        scope.cancel()
        await stopping(house)
        house.echo.release()

    asyncio.run(cell())
    assert runner.open_run(house.run()).status().totals.rows == {"ok": SLOTS}


def test_cancelled_twice_it_leaves_at_once(build: Build) -> None:
    house = build(rows=60, concurrency=SLOTS)
    held(house)

    async def cell() -> None:
        drain = {"timeouts.drain_s": 300}
        task = asyncio.create_task(runner.arun(house.job, environ=HOUSE_ENVIRON, quiet=True, set=drain))
        await in_full_flight(house)
        task.cancel()
        await stopping(house)
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE_S)
        assert task.cancelled()

    asyncio.run(cell())
    house.echo.release()
    assert runner.open_run(house.run()).cost().unknown_exchanges == SLOTS


def test_cancelled_while_the_input_is_read_nothing_is_sent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.job()
    reading, cancelled = threading.Event(), threading.Event()

    def show(done: int, total: int) -> None:
        reading.set()
        cancelled.wait(PATIENCE_S)

    monkeypatch.setattr(runner.running, "survey_bar", lambda say: (show, lambda: None))
    monkeypatch.setattr(runner.survey, "_TELL_BYTES", 1)  # it looks up from every line

    async def cell() -> None:
        task = asyncio.create_task(runner.arun("job.yaml", environ=ENVIRON, quiet=True))
        assert await asyncio.to_thread(reading.wait, PATIENCE_S)
        task.cancel()
        asyncio.get_running_loop().call_soon(cancelled.set)  # behind the cancel itself
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cell())
    assert place.sent == 0
    assert not place.run_root.exists()


# Signals

SCRIPT = """
import runner
try:
    runner.run("job.yaml", set={"timeouts.drain_s": 300})
except BaseException as error:
    print(type(error).__name__, getattr(error, "code", ""), flush=True)
    raise
"""
IN_A_LOOP = SCRIPT.replace("    runner.run", "    async def cell(): runner.run").replace(
    "except", "    import asyncio; asyncio.run(cell())\nexcept"
)
AWAITED = IN_A_LOOP.replace("cell(): runner.run", "cell(): await runner.arun")


def started(house: House, text: str) -> Life:
    held(house)
    life = script(text, house.root, house_environment())
    assert until(lambda: in_flight(house) == SLOTS or life.child.poll() is not None)
    assert life.child.poll() is None, life.err
    return life


def interrupted(life: Life, number: signal.Signals) -> None:
    """The signal has come, and is obeyed before anything that happens now."""
    life.signal(number)
    assert until(lambda: STOPPING in life.err or life.child.poll() is not None), life.err
    assert life.child.poll() is None, life.err


@pytest.mark.parametrize("text", [SCRIPT, IN_A_LOOP, AWAITED], ids=["script", "in a loop", "awaited"])
def test_ctrl_c_drains_and_is_raised_then(build: Build, text: str) -> None:
    house = build(rows=60, concurrency=SLOTS)
    life = started(house, text)
    interrupted(life, signal.SIGINT)
    time.sleep(0.3)
    assert life.child.poll() is None  # it waits for the answers
    house.echo.release()
    assert (life.child.wait(PATIENCE_S), life.out) == (-signal.SIGINT, "KeyboardInterrupt \n"), life.err
    assert f"stopped: {SLOTS} of 60 rows final ({SLOTS} ok)" in life.err
    assert len(house.echo.arrivals) == SLOTS
    assert runner.run(house.job, environ=HOUSE_ENVIRON, quiet=True).ok
    assert audit(house).complaints() == []
    assert len(house.echo.arrivals) == 60


@pytest.mark.parametrize("text", [SCRIPT, IN_A_LOOP, AWAITED], ids=["script", "in a loop", "awaited"])
def test_a_second_ctrl_c_leaves_at_once(build: Build, text: str) -> None:
    house = build(rows=60, concurrency=SLOTS)
    life = started(house, text)
    interrupted(life, signal.SIGINT)
    life.signal(signal.SIGINT)
    assert life.child.wait(PATIENCE_S) == -signal.SIGINT, life.err  # a drain may take longer
    assert "leaving at once" in life.err
    house.echo.release()


def test_sigterm_drains_and_ends_the_script(build: Build) -> None:
    house = build(rows=60, concurrency=SLOTS)
    life = started(house, SCRIPT)
    interrupted(life, signal.SIGTERM)
    house.echo.release()
    assert (life.child.wait(PATIENCE_S), life.out) == (143, "SystemExit 143\n"), life.err
    assert f"stopped: {SLOTS} of 60 rows final" in life.err


def test_the_callers_own_handlers_come_after_the_drain(build: Build) -> None:
    house = build(rows=60, concurrency=SLOTS)
    own = (
        "import signal\n"
        "def told(number, frame):\n"
        "    raise RuntimeError('the scheduler is going')\n"
        "signal.signal(signal.SIGTERM, told)\n"
    )
    life = started(house, own + SCRIPT)
    interrupted(life, signal.SIGTERM)
    house.echo.release()
    life.child.wait(PATIENCE_S)
    assert life.out == "RuntimeError \n", life.err
    assert f"stopped: {SLOTS} of 60 rows final" in life.err


def test_an_error_of_somebody_elses_handler_waits_for_the_drain(build: Build) -> None:
    house = build(rows=60, concurrency=SLOTS)
    own = "import signal\ndef told(number, frame):\n    raise TimeoutError\nsignal.signal(signal.SIGALRM, told)\n"
    life = started(house, own + SCRIPT)
    interrupted(life, signal.SIGALRM)
    house.echo.release()
    life.child.wait(PATIENCE_S)
    assert life.out == "TimeoutError \n", life.err
    assert f"stopped: {SLOTS} of 60 rows final" in life.err


def test_outside_the_main_thread_signals_are_left_alone(place: Place) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    during: list[Any] = []

    def answer(seen: Seen) -> Said:
        during.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])
        return ok()

    place.endpoint.answer = answer
    place.job()
    results: list[runner.Result] = []

    def work() -> None:
        results.append(runner.run("job.yaml", environ=ENVIRON, quiet=True))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE_S)
    assert results[0].ok
    assert during == [before] * 6


def test_in_the_main_thread_handlers_are_put_back(place: Place) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    place.job()
    runner.run("job.yaml", environ=ENVIRON, quiet=True)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
