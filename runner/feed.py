"""Rows become requests, range after range in input order.

Rule: at most 64 ranges are open and at most 256 MB of requests wait, however long the input is. Rows that are final
already are skipped; rows that cannot be rendered are final at once and are never sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectSendStream

from runner.keep import Keeper
from runner.parts import Range
from runner.ports import Event, iso_now
from runner.recipe import Recipe
from runner.records import Request, Row, Settled
from runner.recovery import OpenRange
from runner.stop import Stop

MOST_OPEN_RANGES = 64
MOST_WAITING_BYTES = 256 << 20
#: Rows read by one hop into a thread: a hop costs 50 µs, a row 3 µs.
ROWS_A_HOP = 64


class Rows(Protocol):
    """What the feeder needs of the input: see sources.Reader."""

    def verify(self, range_no: int) -> None: ...

    def rows(self, range_no: int, columns: Any = None) -> Iterator[Row]: ...


#: Rows by the number of their range.
Only = Mapping[int, AbstractSet[int]]


class Window:
    """Room for open ranges and for the bytes of requests that are not final."""

    def __init__(self) -> None:
        self.ranges = 0
        self.bytes = 0
        self._changed = anyio.Event()

    def free_range(self) -> None:
        self.ranges -= 1
        self._wake()

    def free_bytes(self, size: int) -> None:
        self.bytes -= size
        if size:
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def take_range(self) -> None:
        while self.ranges >= MOST_OPEN_RANGES:
            await self._changed.wait()
        self.ranges += 1

    async def take_bytes(self, size: int) -> None:
        """A single request larger than the whole window is let through alone."""
        while self.bytes and self.bytes + size > MOST_WAITING_BYTES:
            await self._changed.wait()
        self.bytes += size


class Feeder:
    """The one producer of requests."""

    def __init__(self, rows: Rows, recipe: Recipe, keeper: Keeper, window: Window, only: Only | None = None) -> None:
        """only: the rows that are fed, by range; None: all that are not final."""
        self._rows = rows
        self._only = only
        self._recipe = recipe
        self._keeper = keeper
        self._window = window

    async def run(
        self,
        ranges: Sequence[Range],
        requests: MemoryObjectSendStream[Request],
        events: MemoryObjectSendStream[Event],
        stop: Stop,
    ) -> None:
        """Feed the ranges that are not sealed, until the end or the stop; then close both streams."""
        with requests, events:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_on, stop, tasks.cancel_scope)
                try:
                    for part in ranges:
                        await self._window.take_range()
                        await self._feed(part, requests, events)
                except anyio.BrokenResourceError:
                    if not stop.is_set:  # an engine with nothing on the wire may leave before the stop is heard of here
                        raise
                tasks.cancel_scope.cancel()

    async def _feed(
        self, part: Range, requests: MemoryObjectSendStream[Request], events: MemoryObjectSendStream[Event]
    ) -> None:
        await anyio.to_thread.run_sync(self._rows.verify, part.number)
        opened = await anyio.to_thread.run_sync(self._keeper.begin, part)
        if opened.complete:  # the last process died between the last record and the part
            self._keeper.on_complete(part.number)
            return
        rows = self._wanted(part, opened)
        while batch := await anyio.to_thread.run_sync(self._take, part.number, rows):
            for row in batch:
                if row.index not in opened.done:
                    await self._hand_out(await self._make(row, opened), requests, events)

    def _wanted(self, part: Range, opened: OpenRange) -> Iterator[Row]:
        """The rows of a range, or of these the ones that are to be fed, and no further than the last of them."""
        rows = self._rows.rows(part.number, self._recipe.columns)
        if self._only is None:
            return rows
        wanted = self._only[part.number] - opened.done
        return islice((row for row in rows if row.index in wanted), len(wanted))

    def _take(self, range_no: int, rows: Iterator[Row]) -> list[Row]:
        """The next rows, if the input still stands when they have been read: nothing is sent that was not surveyed."""
        batch = list(islice(rows, ROWS_A_HOP))
        if batch:
            self._rows.verify(range_no)
        return batch

    async def _make(self, row: Row, opened: OpenRange) -> Request | Settled:
        if not self._recipe.asks_disk:
            return self._made(row, opened)
        return await anyio.to_thread.run_sync(self._made, row, opened)  # the disk may be far away

    def _made(self, row: Row, opened: OpenRange) -> Request | Settled:
        prior = opened.prior.get(row.index, ())
        epoch = opened.part.epoch
        made = self._recipe.request(row)
        if isinstance(made, Request):
            return replace(made, epoch=epoch, prior=prior) if prior or epoch > 1 else made
        now = iso_now()
        nothing = Request(row.index, b"", "", self._recipe.model, 0, epoch=epoch, prior=prior)
        return Settled(nothing, made, prior, started_at=now, finished_at=now)

    async def _hand_out(
        self,
        made: Request | Settled,
        requests: MemoryObjectSendStream[Request],
        events: MemoryObjectSendStream[Event],
    ) -> None:
        if isinstance(made, Settled):
            await events.send(made)
            return
        await self._window.take_bytes(len(made.body))
        try:
            requests.send_nowait(made)  # send() takes a turn of the loop even when there is room
        except anyio.WouldBlock:
            await requests.send(made)


async def _cancel_on(stop: Stop, scope: anyio.CancelScope) -> None:
    await stop.wait()
    scope.cancel()
