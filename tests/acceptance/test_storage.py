"""A disk that refuses, at every call that a run makes: it stops with exit 4, and the same command goes on."""

from __future__ import annotations

import errno
import gc
import os
import random
import resource
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from replies import Job, Replies, Said, completion, plain

import runner
from runner import files, lock
from runner.ending import Ending
from runner.errors import StorageError
from runner.journal import replay
from runner.keep import Keeper

ROWS, ROWS_PER_PART = 4, 2
SHORT = -1  #: in place of an error number: half of the bytes are written
AT_MOST = 200  #: calls of one kind in a run of four rows


FULL, BROKEN = errno.ENOSPC, errno.EIO


@dataclass(frozen=True)
class Fault:
    """`least`: how many of these calls a run of four rows makes at least."""

    name: str
    error: int
    least: int
    lasting: bool = False

    def __str__(self) -> str:
        what = "SHORT" if self.error == SHORT else errno.errorcode[self.error]
        return f"{self.name}-{what}{'-for-good' if self.lasting else ''}"


FAULTS = [
    Fault("write", FULL, 12, lasting=True),
    Fault("write", SHORT, 12),
    Fault("write", BROKEN, 12),
    Fault("fdatasync", BROKEN, 8),
    Fault("fdatasync", FULL, 8, lasting=True),
    Fault("fsync", BROKEN, 6),
    Fault("open", FULL, 10),
    Fault("replace", FULL, 4),
    Fault("mkdir", FULL, 3),
    Fault("unlink", BROKEN, 4),
    Fault("write_table", FULL, 2),
    Fault("close", FULL, 2),
]


@dataclass
class Disk:
    """`os` as the program's files see it: the `at`th call of `name` fails with `error`; `lasting`: all later ones too.

    A failed sync takes with it what was written since the last good one, as a kernel that drops dirty pages does.
    """

    name: str = ""
    error: int = 0
    at: int = 0
    lasting: bool = False
    calls: int = 0
    struck: list[Path] = field(default_factory=list)
    synced: dict[int, int] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _fails(self, name: str, path: Path) -> bool:
        self.calls += name == self.name
        fails = name == self.name and (self.calls == self.at or (self.lasting and self.calls > self.at))
        if fails:
            self.struck.append(path)
        return fails

    def _error(self) -> OSError:
        return OSError(self.error, os.strerror(self.error))

    def write(self, descriptor: int, data: bytes) -> int:
        if not self._fails("write", _path_of(descriptor)):
            return os.write(descriptor, data)
        if self.error != SHORT:
            raise self._error()
        return os.write(descriptor, data[: len(data) // 2])

    def open(self, path: Path, *options: int) -> int:
        if self._fails("open", path):
            raise self._error()
        return os.open(path, *options)

    def fdatasync(self, descriptor: int) -> None:
        seen = os.fstat(descriptor)
        if self._fails("fdatasync", _path_of(descriptor)):
            os.ftruncate(descriptor, self.synced.get(seen.st_ino, 0))
            raise self._error()
        self.synced[seen.st_ino] = seen.st_size

    def fsync(self, descriptor: int) -> None:
        if self._fails("fsync", _path_of(descriptor)):
            raise self._error()

    def around(self, name: str, real: Callable[..., Any], path_of: Callable[[Any], Path] = Path) -> Callable[..., Any]:
        def call(self_: Any, *given: Any, **named: Any) -> Any:
            if self._fails(name, path_of(self_)):
                raise self._error()
            return real(self_, *given, **named)

        return call


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


@pytest.fixture(scope="module")
def shared() -> Iterator[Replies]:
    with Replies() as server:
        yield server


@pytest.fixture
def server(shared: Replies) -> Iterator[Replies]:
    """As good as new."""
    shared.script = plain
    shared.arrivals.clear()
    yield shared
    gc.collect()  # what a run has left open is missed here, not in somebody else's test


@dataclass
class Story:
    """A run on a failing disk, and what was safe on it afterwards."""

    job: Job
    disk: Disk
    ending: Ending | None  #: None: the error left the program before it had begun to send
    error: Exception | None
    counted: set[int]
    kept: set[int]


def struck(job: Job, disk: Disk, patch: pytest.MonkeyPatch) -> Story:
    """Run the job until the disk fails, or to its end."""
    counted: set[int] = set()
    count_row = Keeper._count

    def counting(self: Keeper, row: int, totals: Any) -> None:
        count_row(self, row, totals)
        counted.add(row)

    with patch.context() as broken:
        broken.setattr(files, "os", disk)
        broken.setattr(lock, "os", disk)
        broken.setattr(Keeper, "_count", counting)
        for name in ("replace", "unlink", "mkdir"):
            broken.setattr(Path, name, disk.around(name, getattr(Path, name)))
        for name in ("write_table", "close"):
            failing = disk.around(name, getattr(pq.ParquetWriter, name), lambda writer: Path(writer.where))
            broken.setattr(pq.ParquetWriter, name, failing)
        try:
            ending: Ending | None = job.run()
            error: Exception | None = ending.error if ending else None
        except (StorageError, OSError) as raised:
            ending, error = None, raised.with_traceback(None)  # which would keep alive all that the run has held
            error.__context__ = None
    return Story(job, disk, ending, error, counted, on_disk(job.run_root))


def on_disk(root: Path) -> set[int]:
    """Rows with an intact record, in journals and parts."""
    rows: set[int] = set()
    if (root / "run.json").exists():
        run = orjson.loads((root / "run.json").read_bytes())["run"]
        for path in (root / "journal").glob("*.jsonl"):
            rows |= set(replay(path.read_bytes(), run, int(path.stem)).records)
    for path in (root / "results").glob("part-*.parquet"):
        rows |= set(pq.read_table(path, partitioning=None, columns=["row_index"])["row_index"].to_pylist())
    return rows


def stories(server: Replies, root: Path, patch: pytest.MonkeyPatch, fault: Fault) -> Iterator[Story]:
    """The same run again and again, each time with a later call failing, until no call is left to fail."""
    for at in count(1):
        assert at < AT_MOST
        server.arrivals.clear()
        disk = Disk(fault.name, fault.error, at, fault.lasting)
        story = struck(Job(root / f"at-{at}", server.base_url, ROWS, ROWS_PER_PART), disk, patch)
        if not disk.struck:
            assert story.ending and story.ending.exit_code == 0
            return
        yield story


def said_well(story: Story) -> bool:
    """The error says what could not be done, where, why, and what to do."""
    error = story.error
    assert isinstance(error, StorageError), f"{story.disk} ended {error}"
    why = "cut short" if story.disk.error == SHORT else os.strerror(story.disk.error)
    hint = "free some space" if story.disk.error in (errno.ENOSPC, SHORT) else "run the same command again"
    return error.exit_code == 4 and str(story.job.root) in error.message and why in error.message and hint in error.hint


def goes_on(story: Story, server: Replies) -> None:
    """The same command on a mended disk: every row once, and nothing that was safe is sent again."""
    assert story.counted <= story.kept
    ending = story.job.run()
    assert ending.exit_code == 0, story.job.said.getvalue()
    table = story.job.table()
    assert table["content"].to_pylist() == [f"answer {row}" for row in range(ROWS)]
    sent = Counter(server.arrivals)
    assert {row for row in story.kept if sent[row] != 1} == set()
    tries = {row["row_index"]: len(row["attempts"]) for row in table.to_pylist()}
    if story.disk.name != "fdatasync":  # which may take with it that a request had left
        assert {row for row in range(ROWS) if tries[row] < sent[row]} == set()  # every exchange is in the bill
    assert ending.totals.exchanges == sum(tries.values())


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_disk_that_fails_at_any_call_stops_the_run_and_the_same_command_goes_on(
    server: Replies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    struck_calls = 0
    for story in stories(server, tmp_path, monkeypatch, fault):
        struck_calls += 1
        if {path.name.lstrip(".") for path in story.disk.struck} <= {"status.json", "status.json.tmp"}:
            # It is for people and watchdogs: a run goes on without it.
            assert story.ending and story.ending.exit_code == 0, story.disk
        else:
            assert said_well(story), story.error
        goes_on(story, server)
    assert struck_calls >= fault.least


def program(job: Job, *words: str, most_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    """`runner run JOB` as people start it; most_bytes: no file of it may grow beyond."""

    def limit() -> None:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNNER_")}
    return subprocess.run(
        [sys.executable, "-m", "runner", "run", str(job.file), *words],
        capture_output=True,
        encoding="utf-8",
        env=kept | {"REPLIES_KEY": "sk-replies", "PYTHONPATH": str(Path(runner.__file__).parents[1])},
        timeout=60,
        check=False,
        preexec_fn=limit,
    )


def long_answer(row: int, _: int) -> Said:
    luck = random.Random(row)
    return Said(orjson.dumps(completion(f"answer {row} " + luck.randbytes(20_000).hex())))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=False).returncode
    ):
        pytest.skip("a file system of its own takes root and the right to mount")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_run_on_a_disk_that_fills_up_ends_with_exit_4_and_goes_on_once_there_is_room(
    server: Replies, tmp_path: Path, small_disk: Path
) -> None:
    server.script = long_answer
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1_750_000)  # of 2,097,152: room for the journal and the part of one range
    job = Job(
        tmp_path,
        server.base_url,
        20,
        rows_per_part=5,
        sections={"output": {"directory": str(small_disk), "rows_per_part": 5}},
    )
    job.run_root.parent.mkdir()
    job.run_root.symlink_to(small_disk / "job")

    stopped = program(job)
    assert stopped.returncode == 4, stopped.stderr
    assert "No space left on device" in stopped.stderr or "cut short" in stopped.stderr
    assert "hint: free some space, then run the same command again" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    kept = on_disk(job.run_root)
    assert 0 < len(kept) < 20
    again = program(job)
    assert again.returncode == 4, again.stderr  # nothing is mended by trying
    assert kept <= on_disk(job.run_root)

    ballast.unlink()
    ended = program(job)
    assert ended.returncode == 0, ended.stderr
    rows = job.table().to_pylist()
    assert [row["content"].split(" ")[:2] for row in rows] == [["answer", str(row)] for row in range(20)]
    sent = Counter(server.arrivals)
    assert {row for row in kept if sent[row] != 1} == set()
    assert [len(row["attempts"]) for row in rows] == [sent[row] for row in range(20)]


def test_a_file_that_may_not_grow_ends_the_run_with_exit_4_in_words(server: Replies, tmp_path: Path) -> None:
    server.script = long_answer
    job = Job(tmp_path, server.base_url, 20, rows_per_part=20)
    stopped = program(job, most_bytes=300_000)
    assert stopped.returncode == 4, stopped.stderr
    assert f"error: cannot write to {job.run_root / 'journal' / '00000.jsonl'}: " in stopped.stderr
    assert "\nhint: " in stopped.stderr and "run the same command again" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert program(job).returncode == 0
    assert job.table()["status"].to_pylist() == ["ok"] * 20


def test_a_part_that_cannot_be_written_loses_no_answer_that_is_on_its_way(
    server: Replies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = lambda row, _: replace(plain(row), after_s=0.0 if row < 2 else 1.0)
    job = Job(tmp_path, server.base_url, 6, rows_per_part=2, sections={"limits": {"concurrency": 4}})
    story = struck(job, Disk("close", FULL, at=1), monkeypatch)
    assert isinstance(story.error, StorageError)
    assert len(server.arrivals) >= 4
    assert story.kept == set(server.arrivals)


def test_the_json_line_is_there_when_the_disk_stops_a_run(server: Replies, tmp_path: Path) -> None:
    server.script = long_answer
    job = Job(tmp_path, server.base_url, 20, rows_per_part=20)
    stopped = program(job, "--json", most_bytes=300_000)
    assert stopped.returncode == 4, stopped.stderr
    said = orjson.loads(stopped.stdout)
    assert (said["exit_code"], said["reason"], said["rows"]) == (4, "stopped", 20)
    assert "cannot write to" in said["error"] and said["next"].startswith("runner run")


def test_a_run_leaves_its_log(server: Replies, tmp_path: Path) -> None:
    job = Job(tmp_path, server.base_url, 2)
    assert job.run().exit_code == 0
    assert (job.run_root / "run.log").read_text(encoding="utf-8")


def test_a_run_closes_what_it_has_opened(server: Replies, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert Job(tmp_path, server.base_url, 2).run().exit_code == 0
        gc.collect()
    assert [str(warning.message) for warning in seen if warning.category is ResourceWarning] == []
