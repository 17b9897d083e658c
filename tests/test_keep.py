from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest

from runner import files
from runner.columns import ResultSpec
from runner.errors import StoppedError, StorageError
from runner.halts import FIRST_ALIKE
from runner.journal import Replayed, replay
from runner.keep import Keeper
from runner.parts import Range
from runner.ports import Ended, Event
from runner.records import Attempt, Billed, Choice, Completion, Failure, Kind, Outcome, Request, Settled, Status, Usage
from runner.recovery import Standing, recover
from runner.stop import Stop
from runner.store import RunDirectory

pytestmark = pytest.mark.anyio

AT = "2025-01-02T03:04:05.000006Z"
SPEC = ResultSpec(parsed=None, choices=False, logprobs=False, raw=False, endpoint="https://api.example.com/v1")
PER_PART = 100
RANGES = [Range("r-1", number, number * PER_PART, PER_PART, 1, f"hash {number}") for number in range(3)]
USAGE = Usage(10, None, None, 5)
OK = Completion(Status.OK, (Choice(0, "yes", "stop"),), USAGE)
BAD = Failure(Kind.REQUEST, "unknown parameter", status=400)


def attempt(n: int, kind: str | None = None, cost: str = "0.001") -> Attempt:
    return Attempt(1, n, AT, 0.5, 0.0, error_kind=kind, usage=USAGE, cost_usd=Decimal(cost))


def request(row: int) -> Request:
    return Request(row, b"12345", "h", "m", 1, reserved_usd=Decimal("0.000000000001"))


def final(row: int, outcome: Outcome = OK, *before: Attempt) -> Settled:
    n = len(before) + 1
    failed = isinstance(outcome, Failure)
    last = attempt(n, outcome.kind, "0") if isinstance(outcome, Failure) else attempt(n)
    return Settled(request(row), outcome, (*before, last), None, AT, AT, None if failed else last.cost_usd)


def ended(row: int, n: int = 1) -> Ended:
    return Ended(request(row), attempt(n, "SERVER"))


class Kept:
    """A Keeper over a fresh run directory, and what it said."""

    def __init__(self, path: Path, ranges: Sequence[Range] = RANGES) -> None:
        self.directory = RunDirectory(path / "run")
        self.directory.claim()
        self.directory.furnish()
        self.keeper = Keeper(self.directory, SPEC, Standing(), PER_PART)
        for part in ranges:
            self.keeper.begin(part)
        self.saved: list[int] = []
        self.freed = 0
        self.complete: list[int] = []
        self.keeper.on_saved = self.saved.append
        self.keeper.on_freed = self._free
        self.keeper.on_complete = self.complete.append
        self.stop = Stop()

    def _free(self, size: int) -> None:
        self.freed += size

    async def keep(self, events: Sequence[Event], *, one_by_one: bool = False) -> None:
        give, take = anyio.create_memory_object_stream[Event](len(events) + 1)
        async with anyio.create_task_group() as tasks:
            if one_by_one:
                tasks.start_soon(self.keeper.run, take, self.stop)
            for event in events:
                give.send_nowait(event)
                while one_by_one and (give.statistics().current_buffer_used or len(self.saved) < 1):
                    await anyio.sleep(0.0005)
            give.close()
            if not one_by_one:
                await self.keeper.run(take, self.stop)

    def replayed(self, number: int = 0) -> Replayed:
        return replay(self.directory.journal(number).read_bytes(), "r-1", number)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


async def test_final_rows_and_attempts_are_in_the_journal_of_their_range_and_counted(kept: Kept) -> None:
    await kept.keep([ended(1), final(0), final(101), final(1, OK, attempt(1, "SERVER"))])
    assert sorted(kept.replayed(0).records) == [0, 1]
    assert list(kept.replayed(0).attempts) == [1]
    assert list(kept.replayed(1).records) == [101]
    books = kept.keeper.books
    assert (sum(kept.saved), kept.freed, books.rows_here) == (3, 15, 3)
    assert books.settled.rows == {"ok": 3}
    assert books.settled.exchanges == 4
    assert books.settled.cost_usd == Decimal("0.004")
    assert books.settled.wasted_usd == Decimal("0.001")
    assert books.pending == {}
    assert books.total == books.settled


async def test_a_range_is_left_open_once_the_rows_that_were_asked_for_are_final(kept: Kept) -> None:
    left: list[int] = []
    kept.keeper.only = {0: frozenset({0, 2}), 1: frozenset({101, 103})}
    kept.keeper.on_enough = left.append
    await kept.keep([final(0), final(101), final(2)])
    assert (left, kept.complete) == ([0], [])
    kept.keeper.leave(0)
    assert kept.keeper.open[0].done == {0, 2}  # for the partial part of a stop
    assert sorted(kept.replayed(0).records) == [0, 2]


async def test_an_exchange_of_a_row_that_is_not_final_is_on_the_bill(kept: Kept) -> None:
    await kept.keep([ended(1), ended(1, 2), final(0)])
    books = kept.keeper.books
    assert sum(kept.saved) == 1
    assert books.total.exchanges == 3
    assert books.total.cost_usd == Decimal("0.003")
    assert books.total.rows == {"ok": 1}


async def test_one_commit_takes_all_that_waits_with_one_write_and_one_sync_a_range(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def noting(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def noted(*args: Any) -> None:
            calls.append(name)
            real(*args)

        return noted

    monkeypatch.setattr(files, "write_all", noting("write", files.write_all))
    monkeypatch.setattr(files, "sync", noting("sync", files.sync))
    kept.keeper.on_written = lambda ends: calls.append(f"written {ends}")
    kept.keeper.on_saved = lambda count: calls.append(f"saved {count}")
    await kept.keep([final(0), final(100, OK, attempt(1)), ended(1, 2), final(101), final(2)])
    ends = "written [(0, 1), (100, 2), (1, 2), (101, 1), (2, 1)]"
    assert calls == ["write", "write", "sync", "sync", ends, "saved 4"]


async def test_nothing_counts_before_its_sync_has_returned(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, set[int]]] = []
    real = files.sync

    def looking(descriptor: int, path: Path) -> None:
        seen.append((kept.keeper.books.rows_here, sum(kept.saved), set(kept.keeper.open[0].done)))
        real(descriptor, path)

    monkeypatch.setattr(files, "sync", looking)
    await kept.keep([final(0), final(1)], one_by_one=True)
    assert seen[0] == (0, 0, set())
    assert kept.keeper.open[0].done == {0, 1}


async def test_a_range_is_complete_once_and_only_when_its_last_row_is_durable(kept: Kept) -> None:
    await kept.keep([final(row) for row in range(99)])
    assert kept.complete == []
    await kept.keep([final(200), final(99)])
    assert kept.complete == [0]
    opened = kept.keeper.open[0]
    assert opened.complete
    assert opened.settled.rows == {"ok": 100}
    kept.keeper.forget(0)
    assert 0 not in kept.keeper.open
    assert not kept.directory.journal(0).exists()
    assert kept.keeper.books.settled.rows == {"ok": 101}


async def test_a_request_is_noted_before_it_leaves_with_its_bound_in_plain_digits(kept: Kept) -> None:
    kept.keeper.sent(request(7), 2, AT)
    (sent,) = kept.replayed().unanswered()
    assert (sent.row, sent.epoch, sent.n, sent.reserved_usd, sent.at) == (7, 1, 2, "0.000000000001", AT)


async def test_rows_that_fail_alike_wait_and_become_final_when_the_streak_breaks(kept: Kept) -> None:
    await kept.keep([final(row, BAD) for row in range(5)] + [final(5)])
    assert sorted(kept.replayed().records) == [0, 1, 2, 3, 4, 5]
    assert kept.keeper.books.settled.rows == {"failed": 5, "ok": 1}
    assert sum(kept.saved) == 6
    assert kept.keeper.books.examples == {"REQUEST": (0, "unknown parameter")}


async def test_the_example_of_a_failure_is_its_first_row_whichever_reply_came_first(kept: Kept) -> None:
    await kept.keep([final(4), final(3, replace(BAD, message="too long")), final(1, BAD), final(2, BAD), final(0)])
    assert kept.keeper.books.examples == {"REQUEST": (1, "unknown parameter")}


async def test_while_they_wait_their_exchanges_are_durable_and_their_slots_are_free(kept: Kept) -> None:
    give, take = anyio.create_memory_object_stream[Event](10)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kept.keeper.run, take, kept.stop)
        for row in range(3):
            give.send_nowait(final(row, BAD))
        with anyio.fail_after(60):
            while sum(kept.saved) < 3:
                await anyio.sleep(0.001)
        found = kept.replayed()
        assert (found.records, sorted(found.attempts)) == ({}, [0, 1, 2])
        assert kept.keeper.books.total.exchanges == 3
        give.close()
    assert sorted(kept.replayed().records) == [0, 1, 2]
    assert kept.keeper.books.total.exchanges == 3


@pytest.mark.parametrize("breaking", [Failure(Kind.REQUEST, "other", 400), Failure(Kind.POLICY, "no", 400), OK])
async def test_any_other_outcome_breaks_a_streak(kept: Kept, breaking: Outcome) -> None:
    await kept.keep(
        [*(final(row, BAD) for row in range(15)), final(15, breaking), *(final(r, BAD) for r in range(16, 31))]
    )
    assert not kept.stop.is_set
    assert len(kept.replayed().records) == 31


async def test_when_the_first_rows_all_fail_alike_they_go_back_and_keep_their_exchanges(kept: Kept) -> None:
    await kept.keep([final(row, BAD) for row in range(FIRST_ALIKE + 3)])
    assert isinstance(kept.stop.reason, StoppedError)
    found = kept.replayed()
    assert found.records == {}
    assert sorted(found.attempts) == list(range(FIRST_ALIKE + 3))
    assert kept.keeper.books.settled.rows == {}
    assert kept.keeper.books.total.exchanges == FIRST_ALIKE + 3
    assert sum(kept.saved) == FIRST_ALIKE + 3
    kept.keeper.close()
    opened = recover(kept.directory, RANGES).open[0]
    assert (opened.done, len(opened.prior)) == (set(), FIRST_ALIKE + 3)


async def test_an_answer_that_comes_after_the_halt_is_kept_all_the_same(kept: Kept) -> None:
    await kept.keep([*(final(row, BAD) for row in range(FIRST_ALIKE)), final(50), final(51, BAD)])
    assert list(kept.replayed().records) == [50]
    assert sorted(kept.replayed().attempts) == [*range(FIRST_ALIKE), 51]


async def test_failures_that_were_paid_for_are_final_at_once_even_in_a_streak(kept: Kept) -> None:
    paid = Failure(Kind.OUTPUT, "breaks the schema", billed=Billed.YES, answer=OK, usage=USAGE)
    await kept.keep([final(row, paid) for row in range(FIRST_ALIKE)])
    assert isinstance(kept.stop.reason, StoppedError)
    assert len(kept.replayed().records) == FIRST_ALIKE


async def test_rows_that_were_never_sent_free_no_slot(kept: Kept) -> None:
    unrendered = Settled(request(0), Failure(Kind.INPUT, "no column"), (), started_at=AT, finished_at=AT)
    await kept.keep([unrendered, final(1)])
    assert sum(kept.saved) == 1
    assert kept.replayed().records[0]["attempts"] == []


@pytest.mark.parametrize("call", ["write", "fdatasync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_broken_disk_stops_with_everything_acknowledged_still_there(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    await kept.keep([final(row) for row in range(10)])
    calls = 0

    def failing(*args: Any) -> int:
        nonlocal calls
        calls += 1
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, failing)
    give, take = anyio.create_memory_object_stream[Event](10)
    give.send_nowait(final(10))
    with pytest.raises(StorageError):
        await kept.keeper.run(take, kept.stop)
    give.close()
    monkeypatch.undo()
    assert calls == 1
    assert kept.keeper.books.rows_here == 10
    assert sum(kept.saved) == 10
    kept.keeper.close()
    assert recover(kept.directory, RANGES).open[0].done >= set(range(10))


async def test_a_write_cut_short_loses_only_what_was_not_acknowledged(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.keep([final(row) for row in range(10)])
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[: len(data) // 2 + 30]))
    give, take = anyio.create_memory_object_stream[Event](10)
    give.send_nowait(final(10))
    give.send_nowait(final(11))
    with pytest.raises(StorageError, match="cut short"):
        await kept.keeper.run(take, kept.stop)
    give.close()
    monkeypatch.undo()
    kept.keeper.close()
    standing = recover(kept.directory, RANGES)
    assert standing.open[0].done == set(range(11))
    assert kept.keeper.open[0].done == set(range(10))


async def test_a_second_process_goes_on_with_the_same_totals(kept: Kept) -> None:
    await kept.keep([ended(1), ended(1, 2), final(0), final(150, OK, attempt(1, "SERVER"))])
    kept.keeper.close()
    again = Keeper(kept.directory, SPEC, recover(kept.directory, RANGES), PER_PART)
    assert again.books.total == kept.keeper.books.total
    assert again.books.pending == kept.keeper.books.pending
    assert again.begin(RANGES[0]).done == {0}
    again.close()


async def test_a_second_signal_does_not_keep_keep_from_writing(kept: Kept) -> None:
    give, take = anyio.create_memory_object_stream[Event](300)
    for row in range(100, 150):
        give.send_nowait(final(row))
    give.close()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await kept.keeper.run(take, kept.stop)
    assert len(kept.replayed(1).records) == 50
