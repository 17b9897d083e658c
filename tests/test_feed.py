from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest

from runner import feed
from runner.columns import ResultSpec
from runner.errors import ChangedError
from runner.feed import Feeder, Window
from runner.keep import Keeper
from runner.parts import Range
from runner.ports import Event
from runner.recipe import Recipe
from runner.records import Attempt, Failure, Kind, Request, Row, Settled
from runner.recovery import OpenRange, Standing
from runner.stop import Stop
from runner.store import RunDirectory

pytestmark = pytest.mark.anyio

AT = "2025-01-02T03:04:05.000006Z"
SPEC = ResultSpec(parsed=None, choices=False, logprobs=False, raw=False, endpoint="https://api.example.com/v1")
PER_PART = 10


class Input:
    """Rows {"n": ordinal}; those in `bad` cannot be read."""

    def __init__(self, bad: frozenset[int] = frozenset(), changed: int = -1) -> None:
        self.bad = bad
        self.changed = changed
        self.opened: list[int] = []
        self.read: list[int] = []
        self.columns: Any = "none asked"

    def verify(self, range_no: int) -> None:
        if range_no == self.changed:
            raise ChangedError("changed")

    def rows(self, range_no: int, columns: Any = None) -> Iterator[Row]:
        self.opened.append(range_no)
        self.columns = columns
        for index in range(range_no * PER_PART, (range_no + 1) * PER_PART):
            self.read.append(index)
            yield Row(index, None, "line 3 is no JSON") if index in self.bad else Row(index, {"n": index})


def render(data: Mapping[str, Any]) -> dict[str, Any] | Failure:
    return Failure(Kind.INPUT, "no column x") if data["n"] % 10 == 7 else {"n": data["n"]}


def encode(index: int, body: Mapping[str, Any]) -> Request | Failure:
    return Failure(Kind.INPUT, "too large") if index % 10 == 8 else Request(index, b"x" * 100, "h", "m", 1)


RECIPE = Recipe("m", frozenset({"n"}), render, encode, lambda request, body: Decimal(body["n"]))


def ranges(count: int) -> list[Range]:
    return [Range("r-1", number, number * PER_PART, PER_PART, 1, "h") for number in range(count)]


class Fed:
    """A feeder over a run directory, and what it handed out."""

    def __init__(self, path: Path, rows: Input | None = None, standing: Standing | None = None) -> None:
        directory = RunDirectory(path / "run")
        directory.claim()
        directory.furnish()
        self.rows = rows or Input()
        self.keeper = Keeper(directory, SPEC, standing or Standing(), PER_PART)
        self.complete: list[int] = []
        self.keeper.on_complete = self.complete.append
        self.window = Window()
        self.feeder = Feeder(self.rows, RECIPE, self.keeper, self.window)
        self.stop = Stop()
        self.requests: list[Request] = []
        self.events: list[Event] = []
        self.ended = False
        self.scope = anyio.CancelScope()

    async def run(self, parts: list[Range]) -> None:
        """Until the feeder is done, or something else leaves the `scope`."""
        give, requests = anyio.create_memory_object_stream[Request](0)
        tell, events = anyio.create_memory_object_stream[Event](0)
        with give, requests, tell, events, self.scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_collect, requests, self.requests)
                tasks.start_soon(_collect, events, self.events)
                await self.feeder.run(parts, give, tell, self.stop)
            self.ended = True
        self.keeper.close()

    async def full(self) -> None:
        """Until the feeder waits for room, however slow the threads that read and write are."""
        with anyio.fail_after(60):
            while not self.window._changed.statistics().tasks_waiting:
                await anyio.sleep(0.001)

    @property
    def rows_sent(self) -> list[int]:
        return [request.index for request in self.requests]


async def _collect(stream: Any, into: list[Any]) -> None:
    async for thing in stream:
        into.append(thing)


async def test_every_row_becomes_one_request_in_input_order_and_both_streams_end(tmp_path: Path) -> None:
    fed = Fed(tmp_path)
    await fed.run(ranges(3))
    assert fed.ended
    assert fed.rows_sent == [row for row in range(30) if row % 10 not in (7, 8)]
    assert fed.requests[1].reserved_usd == Decimal(1)
    assert (fed.rows.columns, fed.rows.opened) == (frozenset({"n"}), [0, 1, 2])


async def test_of_a_sample_only_its_rows_are_fed_and_no_further_row_is_read(tmp_path: Path) -> None:
    drawn = {0: frozenset({3, 5}), 2: frozenset({20, 21, 27})}
    opened = OpenRange(ranges(3)[2], done={21})
    fed = Fed(tmp_path, standing=Standing(open={2: opened}))
    fed.feeder = Feeder(fed.rows, RECIPE, fed.keeper, fed.window, drawn)
    await fed.run([ranges(3)[0], ranges(3)[2]])
    assert fed.rows_sent == [3, 5, 20]
    assert [event.request.index for event in fed.events if isinstance(event, Settled)] == [27]
    assert (fed.rows.opened, fed.rows.read) == ([0, 2], [*range(6), *range(20, 28)])


async def test_rows_that_cannot_be_made_are_final_and_never_sent(tmp_path: Path) -> None:
    fed = Fed(tmp_path, Input(bad=frozenset({2})))
    await fed.run(ranges(1))
    settled = [event for event in fed.events if isinstance(event, Settled)]
    said = {s.request.index: s.outcome.message for s in settled if isinstance(s.outcome, Failure)}
    assert said == {2: "line 3 is no JSON", 7: "no column x", 8: "too large"}
    assert {s.outcome.kind for s in settled if isinstance(s.outcome, Failure)} == {Kind.INPUT}
    assert all(s.attempts == () and s.started_at and s.request.body == b"" for s in settled)
    assert fed.rows_sent == [0, 1, 3, 4, 5, 6, 9]
    assert fed.window.bytes == 700


async def test_rows_that_are_final_are_skipped_and_the_others_bring_their_past(tmp_path: Path) -> None:
    part = Range("r-1", 0, 0, PER_PART, 2, "h")
    tried = (Attempt(2, 1, AT, None, 0.0, error_kind="UNKNOWN"),)
    opened = OpenRange(part, done={0, 1, 2, 7}, prior={3: tried, 8: tried})
    fed = Fed(tmp_path, standing=Standing(open={0: opened}))
    await fed.run([part])
    assert fed.rows_sent == [3, 4, 5, 6, 9]
    assert [request.prior for request in fed.requests[:2]] == [tried, ()]
    assert {request.epoch for request in fed.requests} == {2}
    (settled,) = fed.events
    assert isinstance(settled, Settled)
    assert (settled.request.index, settled.attempts) == (8, tried)


async def test_a_range_that_is_complete_already_is_only_sealed(tmp_path: Path) -> None:
    parts = ranges(2)
    opened = OpenRange(parts[0], done=set(range(PER_PART)))
    fed = Fed(tmp_path, standing=Standing(open={0: opened}))
    await fed.run(parts)
    assert fed.complete == [0]
    assert fed.rows.opened == [1]
    assert min(fed.rows_sent) == 10


async def test_no_more_ranges_are_open_than_the_window_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MOST_OPEN_RANGES", 2)
    fed = Fed(tmp_path)

    async def seal_one() -> None:
        await fed.full()
        assert fed.rows.opened == [0, 1]
        fed.window.free_range()
        await fed.full()
        fed.scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(seal_one)
        await fed.run(ranges(5))
    assert not fed.ended
    assert fed.rows.opened == [0, 1, 2]


def test_the_window_is_sixty_four_ranges() -> None:
    assert (feed.MOST_OPEN_RANGES, feed.MOST_WAITING_BYTES) == (64, 256 << 20)


async def test_no_more_bytes_wait_than_the_window_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MOST_WAITING_BYTES", 350)
    fed = Fed(tmp_path)

    async def settle_two() -> None:
        await fed.full()
        assert (len(fed.requests), fed.window.bytes) == (3, 300)
        fed.window.free_bytes(200)
        await fed.full()
        fed.scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settle_two)
        await fed.run(ranges(1))
    assert (len(fed.requests), fed.window.bytes) == (5, 300)


async def test_a_request_larger_than_the_window_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MOST_WAITING_BYTES", 100)
    window = Window()
    with anyio.fail_after(20):
        await window.take_bytes(500)
    with anyio.move_on_after(0.05) as scope:
        await window.take_bytes(1)
    assert scope.cancelled_caught
    window.free_bytes(500)
    with anyio.fail_after(20):
        await window.take_bytes(1)
    assert window.bytes == 1


async def test_a_stop_ends_the_feeder_wherever_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MOST_WAITING_BYTES", 350)
    fed = Fed(tmp_path)

    async def stop() -> None:
        await fed.full()
        fed.stop.set()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop)
            await fed.run(ranges(5))
    assert fed.ended
    assert len(fed.requests) == 3


async def test_input_that_changed_meanwhile_stops_the_run(tmp_path: Path) -> None:
    fed = Fed(tmp_path, Input(changed=1))
    with pytest.raises(BaseExceptionGroup) as caught:
        await fed.run(ranges(3))
    assert caught.group_contains(ChangedError)
    assert max(fed.rows_sent) < 10


@pytest.mark.parametrize("stopping", [True, False])
async def test_an_engine_that_left_before_it_heard_of_the_stop_is_no_bug(tmp_path: Path, *, stopping: bool) -> None:
    """The engine with nothing on the wire leaves at once; the feeder is among its rows then, where no stop reaches."""
    fed = Fed(tmp_path)
    give, requests = anyio.create_memory_object_stream[Request](100)
    events, events_taken = anyio.create_memory_object_stream[Event](100)

    def left(index: int, body: Mapping[str, Any]) -> Request | Failure:
        if index == 4:
            requests.close()
            if stopping:
                fed.stop.set()
        return encode(index, body)

    feeder = Feeder(fed.rows, replace(RECIPE, encode=left), fed.keeper, fed.window)
    with events_taken, nullcontext() if stopping else pytest.raises(BaseExceptionGroup):
        await feeder.run(ranges(3), give, events, fed.stop)
    assert fed.rows.read == list(range(10))  # the batch at hand, and no other range
