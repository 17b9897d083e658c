"""Runs from compressed files and from a pipe: killed half-way and gone on with, each row is sent once and nothing is
read again."""

from __future__ import annotations

import gzip
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from house import House, Life, audit, until

Build = Callable[..., House]


def packed(house: House, name: str) -> House:
    """The house with its rows under another name in the job, and no plain file of them."""
    text = house.input.read_bytes()
    if name.endswith(".gz"):
        third = len(text) // 3  # two members that meet inside a line
        house.input.with_name(name).write_bytes(gzip.compress(text[:third]) + gzip.compress(text[third:]))
    house.job.write_text(house.job.read_text(encoding="utf-8").replace("rows.jsonl", f'"{name}"'), encoding="utf-8")
    house.input.rename(house.input.with_name("aside"))
    return house


def rows_of(house: House) -> bytes:
    return house.input.with_name("aside").read_bytes()


@contextmanager
def piping(house: House) -> Iterator[tuple[Life, int]]:
    """A life whose stdin is ours to write to."""
    pipe = house.root / f"stdin-{len(house.lives)}"
    os.mkfifo(pipe)
    life = house.start(stdin=pipe)
    with pipe.open("wb", buffering=0) as ours:
        yield life, ours.fileno()


def write(pipe: int, data: bytes) -> None:
    while data:
        data = data[os.write(pipe, data) :]


def kill_half_way(house: House, life: Life) -> None:
    """After some parts and some records; what was answered and noted is never asked again."""
    assert until(lambda: len(house.parts()) >= 2 and len(house.echo.arrivals) >= 60), life.said()
    life.kill()


def check(house: House) -> None:
    """Only what was on the wire at the kill was sent twice."""
    found = audit(house)
    assert found.complaints() == []
    twice = len(house.echo.arrivals) - house.rows
    assert 0 <= twice <= 2 * house.concurrency
    assert found.exchanges - found.unknown == house.rows


def copies(house: House) -> list[Path]:
    return sorted((house.run() / "input").iterdir())


def test_a_run_from_gzip_is_killed_and_goes_on_from_its_copy(build: Build) -> None:
    house = packed(build(rows=200), "rows.jsonl.gz")
    house.echo.ration = 120
    kill_half_way(house, house.start())
    before = [(path.name, path.stat().st_mtime_ns) for path in copies(house)]
    source = house.root / "rows.jsonl.gz"
    stood = source.stat()
    source.write_bytes(b"x" * stood.st_size)  # whoever reads it again fails
    os.utime(source, ns=(stood.st_atime_ns, stood.st_mtime_ns))
    house.finish()
    check(house)
    assert [(path.name, path.stat().st_mtime_ns) for path in copies(house)] == before


def test_a_run_goes_on_with_its_copy_when_the_packed_file_is_gone_and_says_so(build: Build) -> None:
    house = packed(build(rows=200), "rows.jsonl.gz")
    house.echo.ration = 120
    kill_half_way(house, house.start())
    source = house.root / "rows.jsonl.gz"
    source.unlink()
    last = house.finish()
    check(house)
    assert f"{source} is gone; going on with the copy that was made of it when the run began\n" in last.said()
    assert house.start("--fresh").wait() == 2  # what has no copy is missed
    for copy in copies(house):
        copy.unlink()
    missed = house.start()
    assert missed.wait() == 2
    assert "nothing matches `rows.jsonl.gz`" in missed.said()


def test_a_run_from_a_pipe_is_killed_and_goes_on_without_the_pipe(build: Build) -> None:
    house = packed(build(rows=200), "-")
    house.echo.ration = 120
    with piping(house) as (life, pipe):
        write(pipe, rows_of(house))
    kill_half_way(house, life)
    last = house.finish()
    check(house)
    assert "the input was read from stdin when the run began; going on with that copy, stdin is not read" in last.said()


def test_a_kill_while_the_pipe_is_read_leaves_nothing_that_blocks_the_next_start(build: Build) -> None:
    house = packed(build(rows=60, pad_bytes=50_000), "-")
    with piping(house) as (life, pipe):
        write(pipe, rows_of(house)[:2_000_000])
        assert until(lambda: any(house.run().parent.glob(".echo.input-*/*.zst"))), life.said()
        assert [path.name for path in house.run().iterdir()] == ["lock"]
        life.kill()
    assert list(house.run().parent.glob(".echo.input-*"))
    with piping(house) as (again, pipe):
        write(pipe, rows_of(house))
    assert again.wait() == 0, again.said()
    assert not list(house.run().parent.glob(".echo.input-*"))
    check(house)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_pipe_that_nobody_feeds_can_be_left(build: Build, number: signal.Signals) -> None:
    house = packed(build(rows=60, pad_bytes=50_000), "-")
    with piping(house) as (life, pipe):
        write(pipe, rows_of(house)[:2_000_000])
        assert until(lambda: any(house.run().parent.glob(".echo.input-*/*.zst"))), life.said()
        life.ask(number)
        assert life.wait() == 128 + number, life.said()
    assert life.said().strip() == "left while the input was read: nothing was sent"
    assert not house.run().parent.exists()
    assert house.echo.arrivals == []


def test_a_writer_that_was_cut_inside_a_line_sends_nothing(build: Build) -> None:
    house = packed(build(rows=60), "-")
    with piping(house) as (life, pipe):
        write(pipe, rows_of(house)[:-20])
    assert life.wait() == 2
    assert "stdin ended in the middle of line 60: what wrote it was cut off" in life.said()
    assert house.echo.arrivals == []
    assert not house.run().parent.exists()


def test_a_changed_gzip_is_a_changed_input(build: Build) -> None:
    house = packed(build(rows=40), "rows.jsonl.gz")
    house.finish()
    (copy,) = copies(house)
    text = house.texts[7].encode()
    (house.root / "rows.jsonl.gz").write_bytes(gzip.compress(rows_of(house).replace(text, text + b"?")))
    life = house.start()
    assert life.wait() == 2, life.said()
    assert "1 changed" in life.said()
    assert copy in copies(house)
    (house.root / "rows.jsonl.gz").write_bytes(gzip.compress(rows_of(house), 1))
    house.finish()  # packed anew, the same rows
    assert len(house.echo.arrivals) == 40
    assert audit(house).complaints() == []
