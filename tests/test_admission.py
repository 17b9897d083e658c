from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from virtual_clock import run_virtual

from runner.admission import Admission
from runner.pace import Bucket, Lane, Limit, Mark, Slots
from runner.records import Failure, Kind

RATE = Failure(Kind.RATE, "slow down", status=429)


def lane(most: int = 100, requests: float | None = None, tokens: float | None = None) -> Lane:
    return Lane(Limit(most), Bucket(requests) if requests else None, Bucket(tokens) if tokens else None)


class Room:
    """An Admission, and who got in when."""

    def __init__(self, slots: int, tasks: Any) -> None:
        self.tasks = tasks
        self.admission = Admission(Slots(slots), anyio.current_time, tasks)
        self.entered: list[tuple[str, float]] = []
        self.refused: list[str] = []

    def come(self, name: str, by: Lane, tokens: int = 1) -> None:
        self.tasks.start_soon(self._enter, name, by, tokens)

    async def _enter(self, name: str, by: Lane, tokens: int) -> None:
        if await self.admission.enter(by, tokens):
            self.entered.append((name, round(anyio.current_time(), 1)))
        else:
            self.refused.append(name)

    @property
    def names(self) -> str:
        return "".join(name for name, _ in self.entered)


def in_room(slots: int, act: Callable[[Room], Awaitable[None]]) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            await act(Room(slots, tasks))
            tasks.cancel_scope.cancel()

    run_virtual(main)


def test_rows_of_a_lane_go_in_order_as_slots_get_free() -> None:
    async def act(room: Room) -> None:
        only = lane()
        for name in "abcd":
            room.come(name, only)
        await anyio.sleep(1)
        assert (room.names, room.admission.waiting) == ("ab", 2)
        for _ in range(2):
            room.admission.leave(only, undurable=False)
        await anyio.sleep(1)
        assert (room.names, room.admission.waiting, only.in_flight) == ("abcd", 0, 2)

    in_room(2, act)


def test_answers_that_are_not_durable_hold_rows_back_until_they_are_saved() -> None:
    async def act(room: Room) -> None:
        only = lane()
        for name in "abcdefgh":
            room.come(name, only)
            await anyio.sleep(1)
            if room.admission.slots.in_flight:
                room.admission.leave(only, undurable=True)
        assert (room.names, room.admission.slots.undurable) == ("abcd", 4)
        room.admission.saved(3)
        await anyio.sleep(1)
        assert room.names == "abcdef"
        assert room.admission.slots.in_flight == 2

    in_room(2, act)


def test_a_closed_gate_keeps_its_lane_waiting_without_a_slot_and_no_other() -> None:
    async def act(room: Room) -> None:
        throttled, free = lane(), lane()
        throttled.failed(RATE, 0.0, Mark(), hint_s=30.0, luck=0.0)
        room.come("t", throttled)
        for name in "abc":
            room.come(name, free)
        await anyio.sleep(1)
        assert (room.names, room.admission.slots.in_flight) == ("ab", 2)
        room.admission.leave(free, undurable=False)
        await anyio.sleep(1)
        assert room.names == "abc"
        room.admission.leave(free, undurable=False)
        await anyio.sleep(100)
        assert room.entered[-1] == ("t", 30.0)

    in_room(2, act)


def test_rates_let_rows_in_one_by_one() -> None:
    async def act(room: Room) -> None:
        only = lane(requests=60)
        for name in "abcd":
            room.come(name, only)
        await anyio.sleep(100)
        assert room.entered == [("a", 0.0), ("b", 1.0), ("c", 2.0), ("d", 3.0)]

    in_room(10, act)


def test_a_large_row_at_the_head_of_its_lane_is_not_overtaken() -> None:
    async def act(room: Room) -> None:
        only = lane(tokens=600)
        for name, tokens in (("a", 50), ("b", 5), ("c", 1)):
            room.come(name, only, tokens)
        await anyio.sleep(100)
        assert room.entered == [("a", 0.0), ("b", 4.5), ("c", 4.6)]

    in_room(10, act)


def test_a_gate_that_closes_while_rows_wait_for_slots_is_looked_at_again() -> None:
    async def act(room: Room) -> None:
        only = lane()
        for name in "ab":
            room.come(name, only)
        await anyio.sleep(1)
        only.failed(RATE, 1.0, Mark(at=0.5), hint_s=20.0, luck=0.0)
        room.admission.leave(only, undurable=False)
        await anyio.sleep(100)
        assert room.entered == [("a", 0.0), ("b", 21.0)]

    in_room(1, act)


def test_closing_sends_everybody_home_and_lets_nobody_in_again() -> None:
    async def act(room: Room) -> None:
        only = lane()
        for name in "abc":
            room.come(name, only)
        await anyio.sleep(1)
        room.admission.close()
        room.come("d", only)
        room.admission.leave(only, undurable=False)
        await anyio.sleep(100)
        assert (room.names, sorted(room.refused), room.admission.waiting) == ("a", ["b", "c", "d"], 0)

    in_room(1, act)


def test_moments_that_move_forward_do_not_pile_up_timers() -> None:
    async def act(room: Room) -> None:
        only = lane(requests=600, tokens=60_000)
        for number in range(200):
            room.come(str(number), only, tokens=2000)
        for _ in range(200):  # replies report fewer tokens than estimated: the next row may go sooner
            await anyio.sleep(0.5)
            while only.in_flight:
                only.succeeded(anyio.current_time(), anyio.current_time(), 1, -400)
                room.admission.leave(only, undurable=False)
            others = len(asyncio.all_tasks()) - room.admission.waiting
            assert others <= 6
        assert len(room.entered) > 50

    in_room(32, act)
