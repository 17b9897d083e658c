"""Answers that move: what somebody reads in results/*.parquet between any two file calls of the re-layout and after."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from endpoint import Endpoint
from ledger import Desk, complaints, desk

import runner
from runner import files, reading
from runner.errors import LaterError
from runner.lock import Lock
from runner.standing import status_of
from runner.store import RunDirectory

ROWS = 24
Seen = dict[str, int]  #: an answer, and the row that it stands in


@dataclass
class Reader:
    """Looks around every file call of this process, in whichever thread."""

    results: Path
    looks: list[Seen | None] = field(default_factory=list)  #: None: there is no dataset
    schemas: set[str] = field(default_factory=set)
    twice: list[int] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    _read: dict[tuple[str, int, int, int], list[dict[str, Any]]] = field(default_factory=dict)
    _alone: Any = field(default_factory=threading.RLock)

    def around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            with self._alone:
                self.look()
                done = real(*given)
                self.look()
                return done

        return call

    def look(self) -> None:
        paths = sorted(self.results.glob("part-*.parquet"))
        if not paths:
            self.looks.append(None)
            return
        rows = [row for path in paths for row in self._rows(path)]
        self.twice += [] if len({row["row_index"] for row in rows}) == len(rows) else [len(self.looks)]
        self.looks.append({row["content"]: row["row_index"] for row in rows})
        self.partial += [path.name for path in paths if "partial" in path.name]

    def _rows(self, path: Path) -> list[dict[str, Any]]:
        """Of a file that has been read before: what was read then."""
        found = path.stat()
        key = path.name, found.st_ino, found.st_size, found.st_mtime_ns  # an inode is soon another file's
        if key not in self._read:
            table = pq.read_table(path, partitioning=None)
            self.schemas.add(str(table.schema.remove_metadata()))
            self._read[key] = table.select(["row_index", "content"]).to_pylist()
        return self._read[key]


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    """A finished run of three parts; then a line was put in the middle and one at the end."""
    with Endpoint() as endpoint:
        at = desk(tmp_path, endpoint)
        given = [{"id": n, "text": f"t{n}", "extra": n} for n in range(ROWS)]
        at.write(given)
        assert at.run().exit_code == 0
        at.write([*given[:9], {"id": 99, "text": "t99", "extra": 9}, *given[9:], {"id": 98, "text": "t98", "extra": 9}])
        yield at


def read_through(at: Desk, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """The run goes on, and is read all the time."""
    reader = Reader(at.root / "results")
    for name in ("rename", "exchange", "remove", "sync_directory", "link"):
        monkeypatch.setattr(files, name, reader.around(getattr(files, name)))
    assert at.run().exit_code == 0
    reader.look()
    return reader


def test_at_every_instant_of_a_re_layout_there_is_a_dataset_with_every_answer_that_stays(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = read_through(at, monkeypatch)
    assert None not in reader.looks
    assert len(reader.looks) > 50
    first, last = reader.looks[0], reader.looks[-1]
    assert first is not None
    assert last is not None
    assert len(first) == ROWS
    assert first.keys() < last.keys()
    assert [number for number, seen in enumerate(reader.looks) if not first.keys() <= (seen or {}).keys()] == []
    assert (reader.twice, len(reader.schemas)) == ([], 1)
    assert all(seen in (first, *_after_the_swap(first, last)) for seen in reader.looks)
    assert (at.sent, len(last), complaints(at)) == (ROWS + 2, ROWS + 2, [])


def _after_the_swap(first: Seen, last: Seen) -> list[Seen]:
    """The answers that stay in their new places, with the two new ones when their parts are whole."""
    new = [content for content in last if content not in first]
    without = [{content: row for content, row in last.items() if content not in gone} for gone in (new, *zip(new))]
    return [*without, last]


def test_the_rows_of_a_range_with_something_to_send_stand_in_a_partial_part_until_it_is_whole(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = read_through(at, monkeypatch)
    assert set(reader.partial) == {"part-00001.partial.parquet", "part-00003.partial.parquet"}
    assert sorted(path.name for path in (at.root / "results").iterdir()) == [f"part-{n:05d}.parquet" for n in range(4)]


def test_partial_parts_of_a_re_layout_go_when_a_later_start_goes_on(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    at.teller.left = 0
    assert at.run().exit_code == 3
    names = {path.name for path in (at.root / "results").iterdir()}
    assert {"part-00001.partial.parquet", "part-00003.partial.parquet"} <= names
    at.teller.left = None
    reader = read_through(at, monkeypatch)
    gone = next(number for number, seen in enumerate(reader.looks) if seen is not None and len(seen) < ROWS)
    assert set(reader.partial) <= names
    assert all(seen is not None and len(seen) >= 16 for seen in reader.looks[gone:])
    assert reader.twice == []


def test_where_two_directories_cannot_be_exchanged_the_results_are_missing_between_two_renames_only(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "exchange", lambda one, other: False)
    reader = read_through(at, monkeypatch)
    missing = [number for number, seen in enumerate(reader.looks) if seen is None]
    assert len(missing) == 2  # behind the one rename and before the other
    assert missing[1] == missing[0] + 1
    assert (reader.twice, len(reader.schemas), complaints(at)) == ([], 1, [])


@pytest.mark.parametrize("exchanged", [True, False], ids=["in one step", "by two renames"])
def test_readers_of_the_run_see_each_answer_beside_its_row_wherever_a_dead_process_left_it(
    at: Desk, exchanged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader does not wait here: nobody would go on before it has read."""
    monkeypatch.setattr(reading, "MOVING_S", 0.0)
    complaints: list[str] = []
    looks: list[bool] = []

    def look() -> None:
        rows = runner.read_results(at.root)[["row_index", "text", "content"]].to_dict("records")
        looks.append("swap" in (RunDirectory(at.root).read_run() or {}))
        complaints.extend(str(row) for row in rows if not row["content"].startswith(f"say {row['text']} |"))
        complaints.extend(
            ["not all"] * (len(rows) < ROWS) + ["twice"] * (len({r["row_index"] for r in rows}) < len(rows))
        )
        told = status_of(at.root)
        complaints.extend([] if told.totals.settled == len(rows) else [f"{told.totals.settled} of {len(rows)}"])

    def looking(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            look()
            done = real(*given)
            look()
            return done

        return call

    if not exchanged:
        monkeypatch.setattr(files, "exchange", lambda one, other: False)
    for name in ("rename", "exchange"):
        monkeypatch.setattr(files, name, looking(getattr(files, name)))
    at.teller.left = 0
    assert at.run().exit_code == 3
    assert looks.count(True) >= 8
    assert complaints == []


def test_a_reader_waits_for_answers_that_are_on_their_way(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOVING_S", 60.0)
    assert at.run().exit_code == 0
    directory = RunDirectory(at.root)
    known = directory.read_run() or {}
    directory.write("run.json", {**known, "swap": True})
    with Lock(directory.lock, "2025-01-02T03:04:05Z"):
        timer = threading.Timer(0.1, directory.write, ("run.json", known))
        timer.start()
        opened = reading.open_directory(at.root)
        timer.join()
    assert type(opened) is RunDirectory
    assert opened.read_run() == known


def test_a_reader_is_told_when_answers_moved_while_it_read(at: Desk) -> None:
    tables = reading.records(reading.open_directory(at.root))
    assert next(tables).num_rows == 8
    assert at.run().exit_code == 0
    with pytest.raises(LaterError, match="took new places while they were read") as caught:
        list(tables)
    assert (caught.value.exit_code, caught.value.hint) == (75, "read them again")
