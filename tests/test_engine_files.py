"""The engine with requests whose files are read before they leave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
from test_engine import BROKEN, OK, RATE, Rig, always

from runner.records import Attempt, Failure, Kind, Request
from runner.stop import Stop

GONE = Failure(Kind.INPUT, "there is no such file")


class Reading(Rig):
    """A rig whose bodies are filled: `files(row, times filled)` gives what comes of it."""

    def __init__(self, *given: Any, files: Callable[[int, int], bool] = lambda row, nth: True, **more: Any) -> None:
        self.reading_s: float = more.pop("reading_s", 0.0)
        super().__init__(*given, **more)
        self.files = files
        self.filled: list[int] = []
        self.open = self.most_open = 0
        self.engine.wiring = replace(self.engine.wiring, fill=self._fill)

    @asynccontextmanager
    async def _fill(self, body: bytes) -> AsyncIterator[bytes | Failure]:
        row = int(body.split(b":")[1].split(b",")[0])
        self.filled.append(row)
        await anyio.sleep(self.reading_s)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            yield body + b" " if self.files(row, self.filled.count(row)) else GONE
        finally:
            self.open -= 1


def test_a_row_whose_file_cannot_be_sent_is_final_without_an_exchange() -> None:
    rig = Reading(always(OK), files=lambda row, nth: row != 3, concurrency=2)
    rig.run(6)
    settled = rig.settled[3]
    assert (settled.outcome, settled.attempts, settled.cost_usd, settled.request.hash) == (GONE, (), None, "")
    assert settled.started_at and settled.finished_at
    assert 3 not in [row for row, _ in rig.noted] and 3 not in rig.count
    assert [rig.settled[row].outcome for row in (0, 1, 2, 4, 5)] == [OK] * 5
    assert (rig.engine.slots.in_flight, rig.open) == (0, 0)


def test_a_file_that_goes_between_two_exchanges_leaves_the_first_in_the_bill() -> None:
    before = Attempt(1, 1, "2025-01-02T03:04:05.000006Z", 1.0, 0.0, error_kind="TIMEOUT")
    rig = Reading(always(BROKEN), files=lambda row, nth: nth == 1)
    rig.run([Request(0, b'{"row":0,"messages":[]}', "hash", "m", 1, prior=(before,))])
    settled = rig.settled[0]
    assert settled.outcome == GONE
    assert [(attempt.n, attempt.error_kind) for attempt in settled.attempts] == [(1, "TIMEOUT"), (2, "SERVER")]
    assert (len(rig.ended), rig.noted) == (1, [(0, 2)])


def test_unsent_rows_leave_slots_and_rates_as_they_were() -> None:
    rig = Reading(always(OK), files=lambda row, nth: row >= 30, concurrency=2, requests_per_minute=60, latency_s=0.0)
    rig.run(33)
    assert rig.engine.slots.in_flight == 0
    assert rig.engine.slots.undurable == -30  # this rig saves every row; keep.py saves those that were sent
    assert [round(at, 2) for _, at in rig.sends] == [0.0, 1.0, 2.0]  # not 30 seconds later


def test_every_exchange_fills_its_body_anew_and_holds_it_until_the_reply() -> None:
    rig = Reading(lambda row, nth, now: BROKEN if nth == 1 else OK, concurrency=3)
    rig.run(9)
    assert sorted(rig.filled) == sorted([*range(9)] * 2)
    assert (rig.most_open, rig.open) == (3, 0)
    assert all(settled.outcome == OK for settled in rig.settled.values())


def test_reading_counts_as_waiting_and_not_as_latency() -> None:
    rig = Reading(always(OK), latency_s=2.0, reading_s=5.0)
    rig.run(1)
    (attempt,) = rig.settled[0].attempts
    assert (attempt.waited_s, attempt.seconds) == (5.0, 2.0)


def test_a_gate_that_closes_while_a_file_is_read_is_respected() -> None:
    """Row 0 is told to wait 30 s while the files of row 1 are still being read."""
    rig = Reading(lambda row, nth, now: RATE if now < 10 else OK, concurrency=2, latency_s=1.0)
    slow = {1: 5.0}
    fill = rig._fill

    @asynccontextmanager
    async def slowly(body: bytes) -> AsyncIterator[bytes | Failure]:
        await anyio.sleep(slow.pop(int(body.split(b":")[1].split(b",")[0]), 0.0))
        async with fill(body) as whole:
            yield whole

    rig.engine.wiring = replace(rig.engine.wiring, fill=slowly)
    rig.run(2)
    assert rig.sent_at(1)[0] >= 30.0
    assert rig.count[1] == 1
    assert (rig.engine.slots.in_flight, rig.open) == (0, 0)


def test_what_is_still_being_read_when_the_job_stops_does_not_leave() -> None:
    rig = Reading(always(OK), concurrency=2, reading_s=5.0)

    async def stop(rig: Rig, stop: Stop) -> None:
        await anyio.sleep(1.0)
        stop.set()

    rig.run(4, stop)
    assert (rig.sends, rig.noted, rig.settled) == ([], [], {})
    assert (rig.engine.slots.in_flight, rig.open) == (0, 0)
