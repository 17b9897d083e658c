"""The input changes while a run goes on, or two commands meet on a run that has only just begun."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from house import House, Life, audit, manifest, open_files, until

Build = Callable[..., House]


def put(house: House, text: str) -> None:
    """Another input in the place of the old one, in one step."""
    fresh = house.input.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(house.input)


def test_a_changed_input_stops_the_run_after_what_is_on_the_wire_has_come_back(build: Build) -> None:
    house = build(rows=40, concurrency=8, rows_per_part=8)
    echo = house.echo
    echo.ration = 8  # the first range completes; the next rows stay on the wire
    echo.hold()
    life = house.start()
    assert until(lambda: len(echo.arrivals) == 8 and len(house.journals()) == 5), life.said()
    before = house.input.read_text(encoding="utf-8")
    put(house, before.replace(house.texts[3], house.texts[3].upper().replace("ROW", "row")))
    echo.release()
    assert until(lambda: len(echo.arrivals) >= 16 or life.ended), life.said()
    until(lambda: life.ended, within_s=1.0)  # sealing has found the change by now
    echo.lift()
    assert life.wait() == 2, life.said()
    assert "are not the ones that this run was started with" in life.said()
    put(house, before)
    resumed = house.finish()
    assert "on the wire" not in resumed.said()
    assert audit(house).complaints() == []
    assert len(echo.arrivals) == 40


def test_a_run_directory_that_is_moved_away_ends_the_run_with_exit_4_and_goes_on_when_it_is_back(build: Build) -> None:
    house = build(rows=40, concurrency=8, rows_per_part=8)
    echo = house.echo
    echo.ration = 12
    life = house.start()
    assert until(lambda: len(echo.arrivals) >= 16 or life.ended), life.said()
    aside = house.run().with_name("aside")
    house.run().rename(aside)
    echo.lift()
    assert life.wait() == 4, life.said()
    assert f"{house.run()}" in life.said() and "it is no longer there" in life.said()
    assert "hint: something removed or moved the run's directory while the run was going on: put it back" in life.said()
    assert not house.run().exists()
    aside.rename(house.run())
    house.finish()
    assert audit(house).complaints() == []


def removed(root: Path) -> bool:
    """Not while somebody puts a file into what has just been emptied."""
    shutil.rmtree(root, ignore_errors=True)
    return not root.exists()


def test_a_run_directory_that_is_removed_ends_the_run_before_much_more_is_paid(build: Build) -> None:
    """Its journals are open still, and take every byte; that nobody will find these is seen at the next commit."""
    house = build(rows=400, concurrency=4, rows_per_part=1024)
    echo = house.echo
    echo.ration = 12
    life = house.start()
    assert until(lambda: len(echo.arrivals) >= 16 or life.ended), life.said()
    assert until(lambda: removed(house.run()))
    echo.lift()
    assert life.wait() == 4, life.said()
    assert "it is no longer there" in life.said()
    assert "Traceback" not in life.said()
    assert len(echo.arrivals) <= 16 + 3 * 4


def test_an_input_that_was_only_touched_is_read_again_once(build: Build) -> None:
    house = build(rows=20)
    house.start().wait()
    os.utime(house.input)
    assert house.start().wait() == 0
    (file,) = json.loads((house.run() / "survey.json").read_bytes())["files"]
    assert file["mtime_ns"] == house.input.stat().st_mtime_ns


def stopped_while_it_reads(house: House, *words: str) -> Life:
    """A command that stands still with its input open; one that has read it before the stop comes is not the one."""
    for _ in range(50):
        life = house.start(*words)
        assert until(lambda life=life: str(house.input) in open_files(life.pid) or life.ended)
        life.ask(signal.SIGSTOP)
        assert until(lambda life=life: stands(life))
        if str(house.input) in open_files(life.pid) and [path.name for path in house.run().iterdir()] == ["lock"]:
            return life
        life.kill()
        shutil.rmtree(house.run(), ignore_errors=True)
    raise AssertionError("it was never seen to read")


def stands(life: Life) -> bool:
    """Stopped, or gone."""
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(life.pid).status() == psutil.STATUS_STOPPED)
    return True


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at what a process has open")
def test_a_command_that_still_reads_its_input_is_not_overtaken(build: Build) -> None:
    house = build(rows=200, pad_bytes=100_000)
    slow = stopped_while_it_reads(house, "-n", "10")
    second = house.start()
    assert second.wait() == 75
    assert f"is being worked on by process {slow.pid}" in second.said()
    assert [path.name for path in house.run().iterdir()] == ["lock"]
    slow.ask(signal.SIGCONT)
    assert slow.wait() == 0, slow.said()
    assert manifest(house)["rows"] == 10


def test_rows_that_change_behind_the_feeder_are_not_sent_and_not_failed(build: Build) -> None:
    """The program says: put the file back. Then every answer must belong to the file as it was."""
    house = build(rows=600, concurrency=8, rows_per_part=1024, pad_bytes=5000)
    echo = house.echo
    echo.hold()
    life = house.start()
    assert until(lambda: len(echo.arrivals) == 8 or life.ended), life.said()
    before = house.input.read_bytes()
    lines = before.split(b"\n")
    lines[590] = lines[590].replace("ünïcode".encode(), "ÜNÏCODE".encode())
    lines[595] = lines[595].replace(b'"}', b'",')
    with house.input.open("r+b") as file:  # in place, as editors of large files and broken copies do
        file.write(b"\n".join(lines))
    echo.release()
    assert life.wait() == 2, life.said()
    assert "put the file back" in life.said()
    house.input.write_bytes(before)
    house.finish()
    assert audit(house).complaints() == []
