"""Death inside a retry and inside a re-layout: at every file call in turn, and by kill -9 at any instant."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count, cycle
from pathlib import Path
from typing import Any, Self

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from endpoint import Endpoint
from ledger import Desk, asked_of, complaints, desk, records
from thorough import THOROUGH

import runner.running
from runner import files
from runner.errors import StorageError
from runner.reopen import Selection

DIED = 77
#: Death comes at every so-manieth file call of a change; THOROUGH=1 tries each.
EVERY_CALL, EVERY_CALL_BEHIND = (1, 2) if THOROUGH else (5, 16)
#: Kills inside a retry, and inside a re-layout.
KILLS = 20 if THOROUGH else 8


def rows(number: int) -> list[dict[str, Any]]:
    return [{"id": n, "text": f"t{n}", "extra": n} for n in range(number)]


# Every file call in turn


class Calls:
    """Counts the file calls of this process and does something at one of them: before it, half-way, or behind it."""

    def __init__(self, at: int | None, act: Callable[[], object]) -> None:
        self.numbers = count(1)
        self.last = self.marked = 0
        self._at = at
        self._act = act

    def mark(self) -> None:
        self.marked = self.last

    def step(self) -> None:
        self.last = next(self.numbers)
        if self.last == self._at:
            self._act()

    def install(self) -> None:
        """In a child that will not outlive it."""
        for name in ("rename", "remove", "sync", "sync_directory", "make_directory", "truncate", "exchange"):
            setattr(files, name, self._around(getattr(files, name)))
        os.link = self._around(os.link)
        real_write, real_tree = files.write_all, shutil.rmtree

        def write_all(descriptor: int, data: bytes, path: Path) -> None:
            self.step()
            if self.last + 1 == self._at:
                os.write(descriptor, data[: len(data) // 2])
            self.step()
            real_write(descriptor, data, path)

        def rmtree(path: Path, **given: Any) -> None:
            if not path.exists():
                return
            self.step()
            if self.last + 1 == self._at:
                for first in sorted(path.iterdir())[:1]:
                    first.unlink()
            self.step()
            real_tree(path, **given)

        files.write_all = write_all
        shutil.rmtree = rmtree  # type: ignore[assignment]

    def _around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **given: Any) -> Any:
            self.step()
            return real(*args, **given)

        return call


def in_child(act: Callable[[], int]) -> int:
    """What `act` returns, or how the process died in it; what it does to its memory is forgotten."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the endpoint's thread stays behind, on purpose
        child = os.fork()
    if child == 0:
        signal.alarm(120)
        code = 99
        try:
            code = act()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die() -> None:
    os._exit(DIED)


@dataclass
class Case:
    """A finished run, and the change that it is put through again and again from the same state."""

    desk: Desk
    options: dict[str, Any]
    spare: Path
    wanted: int  #: rows afterwards
    asked_before: dict[int, str] = field(default_factory=dict)
    status_before: dict[int, int] = field(default_factory=dict)

    def keep(self) -> None:
        shutil.copytree(self.desk.root, self.spare)
        self.asked_before = dict(self.desk.teller.asked)
        self.status_before = dict(self.desk.teller.status)

    def again(self) -> None:
        shutil.rmtree(self.desk.root)
        shutil.copytree(self.spare, self.desk.root)
        self.desk.teller.asked = dict(self.asked_before)
        self.desk.teller.status = dict(self.status_before)

    def live(self, at: int | None) -> tuple[int, int, int]:
        """(exit code, file calls, those before anything was sent) of one life that meets its fate at a call."""
        reading, writing = os.pipe()
        calls = Calls(at, die)

        def life() -> int:
            calls.install()
            real = runner.running._work

            def work(*args: Any) -> Any:
                calls.mark()
                return real(*args)

            setattr(runner.running, "_work", work)  # noqa: B010 - mypy takes no other function for it
            try:
                return self.desk.run(**self.options).exit_code
            except StorageError as error:
                return error.exit_code
            finally:
                os.write(writing, b"%d %d" % (calls.last, calls.marked))

        code = in_child(life)
        self.desk.place.endpoint.hear()
        os.close(writing)
        with os.fdopen(reading) as stream:
            total, change = (stream.read() or "0 0").split()
            return code, int(total), int(change)

    def finish(self) -> list[str]:
        """The same command again, in this process; what is wrong afterwards."""
        try:
            ending = self.desk.run(**self.options)
        except StorageError as error:
            return [f"{error}"]
        if not ending.finished:
            return [f"exit {ending.exit_code}: {ending.error}"]
        return [*complaints(self.desk), *self._strays()]

    def _strays(self) -> list[str]:
        found = records(self.desk.root)
        if [row["row_index"] for row in found] != list(range(self.wanted)):
            return [f"{len(found)} rows of {self.wanted}"]
        return [f"row {n} has another's answer" for n, row in enumerate(found) if not self._own(row)]

    def _own(self, row: dict[str, Any]) -> bool:
        asked = f"say {row['text']}"
        said = row["status"] == "failed" or str(row["content"]).startswith(f"{asked} |")
        return said and asked_of(row, self.desk.teller) == asked


def moved(at: Desk) -> dict[str, Any]:
    """A line in front, one less behind, one edited: everything moves; nothing was open but a range."""
    given = rows(21)
    given[2]["text"] = "edited"
    del given[13]
    given.insert(9, {"id": 99, "text": "t99", "extra": 9})
    at.write(given)
    return {"accept_changes": True, "allow_failed": "9"}


def in_place(at: Desk) -> dict[str, Any]:
    given = rows(24)
    given[2]["text"] = "edited"
    given[9]["extra"] = -1
    at.write(given)
    return {"accept_changes": True, "allow_failed": "9"}


def retried(at: Desk) -> dict[str, Any]:
    return {"retry": Selection(), "allow_failed": "9"}


CASES = {"moved": (moved, 21), "in place": (in_place, 24), "retry": (retried, 21)}


@pytest.fixture(params=["moved", "in place", "retry"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    """A run of 21 rows in parts of 8, two of them not ok; for the re-layout its second range was left open."""
    change, wanted = CASES[request.param]
    with Endpoint() as endpoint:
        at = desk(tmp_path / "place", endpoint, limits={"concurrency": 2})
        at.teller.bad, at.teller.long = {"t4"}, {"t17"}
        at.write(rows(21))
        assert at.run().exit_code == 1
        if request.param == "moved":
            at.teller.left = 0
            assert at.run(retry=Selection()).exit_code == 3  # two ranges are open again, with exchanges of no use
        at.teller.left, at.teller.bad, at.teller.long = None, set(), set()
        case = Case(at, change(at), tmp_path / "spare", wanted)
        case.keep()
        yield case


def test_death_at_any_file_call_of_a_change_loses_nothing(case: Case, record_property: Any) -> None:
    """At the calls of the change itself; behind it, at a few: sending and sealing have tests of their own."""
    code, calls, change = case.live(None)
    assert code == 0
    steps = [*range(1, change + 1, EVERY_CALL), *range(change + 1, calls + 1, EVERY_CALL_BEHIND)]
    wrong, codes, survived = dict[int, list[str]](), Counter[int](), []
    for at in steps:
        case.again()
        code, taken, _ = case.live(at)
        codes[code] += 1
        if code == 0 and change < taken < at:
            survived.append(at)  # more answers shared a commit than at first, and there were fewer calls
        if found := case.finish():
            wrong[at] = found
    line = f"{len(steps)} of {calls} file calls ({change} before anything is sent), ends {dict(codes)}"
    record_property("summary", line)
    print(f"\n{line}")
    assert wrong == {}
    assert codes[DIED] == len(steps) - len(survived)
    assert len(survived) < len(steps) / 4


def test_a_file_system_without_hard_links_is_no_bug_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with Endpoint() as endpoint:
        at = desk(tmp_path, endpoint)
        at.write(rows(24))
        assert at.run().exit_code == 0
        given = rows(24)
        given.insert(17, {"id": 99, "text": "t99", "extra": 9})
        at.write(given)
        monkeypatch.setattr(os, "link", refuse)
        assert at.run().exit_code == 0
        assert at.sent == 25
        assert complaints(at) == []


# Kill -9


NUMBER = re.compile(rb'"request_id":"(\d+)"')


def on_disk(root: Path) -> set[int]:
    """The exchanges that a run directory holds anywhere, whatever state it was left in."""
    found: set[int] = set()
    for path in root.rglob("*.jsonl*"):
        found |= {int(number) for number in NUMBER.findall(path.read_bytes())}
    for path in root.rglob("part-*.parquet"):
        with suppress(pa.ArrowInvalid):  # one that was being written
            for attempts in pq.read_table(path, columns=["attempts"], partitioning=None)["attempts"].to_pylist():
                found |= {int(each["request_id"]) for each in attempts if each["request_id"]}
    return found


@dataclass
class Watcher:
    """Somebody who reads results/*.parquet all the time, by three libraries in turn."""

    root: Path
    looks: Counter[str] = field(default_factory=Counter)
    in_vain: int = 0  #: parts were replaced between the listing and the opening by the library
    complaints: list[str] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)

    @property
    def satisfied(self) -> bool:
        """By three looks with each library, or by having failed."""
        return min(self.looks[way] for way in WAYS) >= 3 or bool(self.complaints) or self.in_vain > 100

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(120)

    def _watch(self) -> None:
        ways = cycle(WAYS.items())
        while not self._end.wait(0.03):
            way, read = next(ways)
            before = self._files()
            try:
                found = read(self.root / "results")
            except Exception as error:
                after = self._files()
                if None in (before, after) or before == after:
                    self.complaints.append(f"{way}: {error!r}")
                self.in_vain += 1
                continue
            self.looks[way] += 1
            if len(set(found)) != len(found):
                self.complaints.append(f"{way}: a row twice")

    def _files(self) -> frozenset[tuple[str, int]] | None:
        with suppress(OSError), os.scandir(self.root / "results") as entries:
            return frozenset((entry.name, entry.inode()) for entry in entries)
        return None


def by_pandas(results: Path) -> list[int]:
    return list(pd.read_parquet(results)["row_index"])


def by_polars(results: Path) -> list[int]:
    return pl.read_parquet(results / "*.parquet")["row_index"].to_list()


def by_duckdb(results: Path) -> list[int]:
    with duckdb.connect() as connection:
        return [row for (row,) in connection.sql(f"SELECT row_index FROM '{results}/*.parquet'").fetchall()]


WAYS = {"pandas": by_pandas, "polars": by_polars, "duckdb": by_duckdb}


@dataclass
class Killer:
    """Starts a command again and again and kills it, at a random moment behind the instant when `aim` is true."""

    desk: Desk
    words: tuple[str, ...]
    aim: Callable[[], bool]
    luck: random.Random
    hits: int = 0
    kills: int = 0
    seen: set[int] = field(default_factory=set)

    def strike(self, most_s: float) -> None:
        life = self.desk.place.start(*self.words)
        while not self.aim() and life.child.poll() is None:
            time.sleep(0.001)
        time.sleep(self.luck.uniform(0, most_s))
        hit = self.aim()
        if life.child.poll() is None:
            self.kills += 1
            self.hits += hit
        life.kill()
        self.desk.place.endpoint.hear()
        code = life.child.returncode
        assert code in (-signal.SIGKILL, 0, 1), life.err
        held = on_disk(self.desk.root)
        assert self.seen <= held, f"gone from the bill: {sorted(self.seen - held)[:5]}"
        self.seen = held
        assert len(schemas(self.desk.root)) <= 1


def schemas(root: Path) -> set[str]:
    return {str(pq.read_schema(path).remove_metadata()) for path in (root / "results").glob("*.parquet")}


@pytest.mark.parametrize("large", [500])
def test_kill_9_inside_a_re_layout_loses_nothing(tmp_path: Path, large: int, record_property: Any) -> None:
    with Endpoint() as endpoint:
        at = desk(tmp_path, endpoint, limits={"concurrency": 32}, output={"rows_per_part": 16})
        given = rows(large)
        at.write(given)
        assert at.run().exit_code == 0
        root = at.root

        def changing() -> bool:
            with suppress(OSError):
                return (root / "results.next").exists() or b'"swap"' in (root / "run.json").read_bytes()
            return False

        killer = Killer(at, ("run", "job.yaml", "--accept-changes"), changing, random.Random(7))
        with Watcher(root) as watcher:
            while killer.hits < KILLS or not watcher.satisfied:
                if not changing():
                    given.insert(
                        killer.luck.randrange(40), {"id": -killer.kills, "text": f"new{killer.kills}", "extra": 0}
                    )
                    del given[killer.luck.randrange(large)]
                    at.write(given)
                killer.strike(0.35)
            assert at.place.run("--accept-changes").code == 0
        line = f"{killer.kills} kills, {killer.hits} inside a re-layout; "
        line += f"read {dict(watcher.looks)}, in vain {watcher.in_vain}"
        record_property("summary", line)
        print(f"\n{line}")
        assert watcher.complaints == []
        assert min(watcher.looks[way] for way in WAYS) >= 3
        found = records(root)
        assert [(row["id"], row["extra"]) for row in found] == [(row["id"], row["extra"]) for row in given]
        assert [asked_of(row, at.teller) for row in found] == [f"say {row['text']}" for row in given]
        assert complaints(at) == []


def test_kill_9_inside_a_retry_loses_nothing(tmp_path: Path, record_property: Any) -> None:
    with Endpoint() as endpoint:
        at = desk(tmp_path, endpoint, limits={"concurrency": 8}, output={"rows_per_part": 32})
        at.teller.long = {"say"}
        at.write(rows(300))
        assert at.run().exit_code == 1
        endpoint.answer = lambda seen: replace(at.teller(seen), delay_s=0.02)
        manifest = at.root / "manifest.json"
        killer = Killer(at, ("retry", "job.yaml"), lambda: not manifest.exists(), random.Random(8))
        with Watcher(at.root) as watcher:
            while killer.hits < KILLS or not watcher.satisfied:
                killer.strike(0.8)
            at.teller.long = set()
            assert at.place.call("retry", "job.yaml").code == 0
        line = (
            f"{killer.kills} kills, {killer.hits} inside a retry; read {dict(watcher.looks)}, in vain {watcher.in_vain}"
        )
        record_property("summary", line)
        print(f"\n{line}")
        assert watcher.complaints == []
        assert min(watcher.looks[way] for way in WAYS) >= 3
        assert watcher.in_vain <= max(3, watcher.looks.total() / 20)
        found = records(at.root)
        assert [(row["id"], row["status"]) for row in found] == [(n, "ok") for n in range(300)]
        assert complaints(at) == []
