"""SIGTERM and Ctrl-C, one and two, and two processes on one run: with the real program."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest
from house import ANSWER_USD, House, audit, manifest, until

Build = Callable[..., House]
SLOTS = 8


def in_full_flight(house: House) -> None:
    """Every slot has its request at the endpoint, which answers none of them."""
    life = house.lives[-1]
    full = until(lambda: len(house.echo.arrivals) - life.sent_before >= SLOTS or life.ended)
    assert full and not life.ended, life.said()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_drains_and_nothing_answered_is_sent_again(
    build: Build, number: signal.Signals, code: int
) -> None:
    house = build(rows=100, concurrency=SLOTS)
    echo = house.echo
    echo.ration = 30
    life = house.start()
    before = 30 + SLOTS
    assert until(lambda: len(echo.arrivals) == before or life.ended), life.said()
    life.ask(number)
    assert until(lambda: "8 requests are on the wire" in life.said()), life.said()
    echo.lift()
    assert life.wait() == code, life.said()
    assert len(echo.arrivals) == before  # nothing was sent after the signal
    assert f"stopped: {before} of 100 rows final ({before} ok)" in life.said()  # and all that was came back and is kept

    resumed = house.finish()
    assert f"{before} of 100 rows done" in resumed.said()
    assert "on the wire" not in resumed.said()
    assert len(echo.arrivals) == 100
    found = audit(house)
    assert found.complaints() == []
    assert (found.exchanges, found.unknown) == (100, 0)


def test_rows_that_wait_for_a_retry_hold_up_no_drain(build: Build) -> None:
    house = build(rows=20, concurrency=SLOTS)
    echo = house.echo
    echo.waits = {3: 300.0}
    life = house.start("--set", "timeouts.drain_s=300")
    assert until(lambda: any(arrival.status == 429 for arrival in echo.arrivals) or life.ended), life.said()
    life.ask(signal.SIGTERM)
    assert life.wait() == 143, life.said()  # it would be waited for longer than that
    echo.waits = {}
    house.finish()
    found = audit(house)
    assert found.complaints() == []
    assert [attempt["error_kind"] for attempt in found.table.to_pylist()[3]["attempts"]] == ["RATE", None]


def test_the_second_ctrl_c_leaves_at_once_and_the_next_run_tells_what_was_on_the_wire(build: Build) -> None:
    house = build(rows=40, concurrency=SLOTS)
    echo = house.echo
    echo.hold()
    life = house.start("--set", "timeouts.drain_s=300")
    in_full_flight(house)
    life.ask(signal.SIGINT)
    assert until(lambda: "again to leave without them" in life.said()), life.said()
    time.sleep(0.3)
    assert not life.ended  # one signal alone waits for the answers
    life.ask(signal.SIGINT)
    assert life.wait() == 130, life.said()  # and a second one for less than they may take

    echo.release()
    resumed = house.finish()
    told = f"{SLOTS} requests were on the wire when the last process ended and may have been billed, at most $"
    assert told in resumed.said()
    assert "sending them again" in resumed.said()
    found = audit(house)
    assert found.complaints() == []
    assert (found.unknown, found.exchanges, len(echo.arrivals)) == (SLOTS, 48, 48)


def test_a_drain_waits_no_longer_than_it_may(build: Build) -> None:
    house = build(rows=40, concurrency=SLOTS)
    house.echo.hold()
    life = house.start("--set", "timeouts.drain_s=0.5")
    in_full_flight(house)
    asked = time.monotonic()
    life.ask(signal.SIGTERM)
    assert life.wait() == 143, life.said()
    assert 0.5 <= time.monotonic() - asked < 20.0  # by itself it would wait 25 s
    house.echo.release()
    assert f"{SLOTS} requests were on the wire" in house.finish().said()
    assert audit(house).complaints() == []


def test_what_was_on_the_wire_at_a_kill_is_told_and_stays_in_the_bill_as_unknown(build: Build) -> None:
    house = build(rows=40, concurrency=SLOTS)
    echo = house.echo
    echo.hold()
    house.start()
    in_full_flight(house)
    house.lives[-1].kill()
    echo.release()
    resumed = house.finish()
    assert f"{SLOTS} requests were on the wire when the last process ended" in resumed.said()

    found = audit(house)
    assert found.complaints() == []
    rows = found.table.to_pylist()
    assert {row["row_index"] for row in rows if len(row["attempts"]) > 1} == {a.row for a in echo.arrivals[:SLOTS]}
    for row in rows[:SLOTS]:
        lost, answered = row["attempts"]
        assert (lost["n"], lost["error_kind"], lost["cost_usd"], lost["http_status"]) == (1, "UNKNOWN", None, None)
        assert (answered["n"], answered["error_kind"], answered["cost_usd"]) == (2, None, float(ANSWER_USD))
        assert (row["cost_usd"], row["wasted_usd"], row["total_usd"]) == (float(ANSWER_USD), None, None)
    totals = manifest(house)["totals"]
    assert (totals["exchanges"], totals["unknown_exchanges"]) == (48, SLOTS)
    assert totals["cost_usd"] == str(40 * ANSWER_USD)
    again = house.start()
    assert again.wait() == 0
    assert len(echo.arrivals) == 48  # a finished run sends nothing
    assert "on the wire" not in again.said()


def test_a_second_process_leaves_at_once_and_names_the_first(build: Build) -> None:
    house = build(rows=40, concurrency=SLOTS)
    echo = house.echo
    echo.hold()
    first = house.start()
    in_full_flight(house)
    second = house.start()
    assert second.wait() == 75
    assert f"is being worked on by process {first.pid} on" in second.said()
    assert not first.ended
    echo.release()
    assert first.wait() == 0, first.said()
    assert len(echo.arrivals) == 40
    assert audit(house).complaints() == []


def test_of_two_that_start_together_one_does_the_work(build: Build) -> None:
    house = build(rows=40, concurrency=SLOTS)
    echo = house.echo
    echo.hold()
    pair = [house.start(), house.start()]
    assert until(lambda: any(life.ended for life in pair))
    loser, winner = sorted(pair, key=lambda life: not life.ended)
    assert loser.wait() == 75, loser.said()
    assert f"process {winner.pid} on" in loser.said()
    echo.release()
    assert winner.wait() == 0, winner.said()
    assert len(echo.arrivals) == 40
    assert audit(house).complaints() == []
