"""A disk that refuses, at every call that a run makes: it stops with exit 4, and the same command goes on."""

from __future__ import annotations

import errno
import gc
import os
import random
import shutil
import subprocess
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from faulty import GONE, MOVED, SHORT, Faulty, fits
from replies import Job, Replies, Said, completion, plain, program
from smalljob import SCENARIOS, Memory, SmallJob, Undisturbed, wrong
from thorough import THOROUGH

from runner.errors import RunDirectoryError, RunnerError, StorageError
from runner.journal import replay

#: Of the cases of a scenario, a call and what becomes of it, every so-manieth is tried; THOROUGH=1 tries all.
EVERY_CASE = 1 if THOROUGH else 41

#: What can befall a call, and what the hint says then.
ERRORS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "quota",
    errno.EROFS: "read-only",
    errno.EIO: "dmesg",
    SHORT: "free some space",
    GONE: "put it back",
    MOVED: "put it back",
}
TALK = {"run.log", "status.json", "status.json.tmp", "run.json", "run.json.tmp"}


def spared(call: str, path: Path) -> bool:
    """What a run goes on without: its talk, and the prices in run.json, which are noted again with each status. A
    directory that is there is made again."""
    return path.name.strip(".") in TALK or (call == "mkdir" and path.is_dir())


@dataclass
class Trial:
    """A scenario whose command meets a fault, again and again from the same state."""

    job: SmallJob
    right: Undisturbed
    spare: Path
    calls: list[tuple[str, Path]]

    @property
    def cases(self) -> list[tuple[int, int]]:
        numbered = enumerate(self.calls, start=1)
        every = [(number, error) for number, (name, _) in numbered for error in ERRORS if fits(error, name)]
        seen_at = 1 + [path.name for _, path in self.calls].index("run.json")  # gone before that, it was never there
        return [(number, error) for number, error in every if number > seen_at or error not in (GONE, MOVED)]

    @property
    def done_at(self) -> int:
        """The call that makes the run a finished one."""
        return 1 + max(number for number, (_, path) in enumerate(self.calls) if path.name == ".manifest.json.tmp")

    def meet(self, at: int, error: int) -> list[str]:
        """Let one call fail; what is wrong with the end of that life, and with the next."""
        restore(self.job, self.spare)
        disk = Faulty(self.job.run_root, error, at)
        ended = self._ended(disk)
        promised = self.job.memory
        found = ended if isinstance(ended, list) else self._said(ended, disk)
        disk.mend()
        return [*found, *self._goes_on(promised, gone=error == GONE)]

    def _ended(self, disk: Faulty) -> StorageError | list[str]:
        try:
            error = self.job.live(tap=disk.running).error
        except RunnerError as refused:
            error = refused
        except Exception as raw:
            return [f"left as {raw!r}"]
        if isinstance(error, StorageError):
            return error
        if error is None and (disk.at > self.done_at or all(spared(*call) for call in disk.struck)):
            return [] if self._priced() else ["no price is noted"]
        return [f"ended with {error!r}"]

    def _priced(self) -> bool:
        """Whether run.json says what was paid for a token; a run that is gone says nothing."""
        path = self.job.run_root / "run.json"
        return not path.exists() or orjson.loads(path.read_bytes())["prices"] != {}

    def _said(self, error: StorageError, disk: Faulty) -> list[str]:
        """The error says what could not be done, where, why, and what to do."""
        why = "cut short" if disk.error == SHORT else "no longer there" if disk.error < 0 else os.strerror(disk.error)
        wanted = [(str(self.job.runs), error.message), (why, error.message), (ERRORS[disk.error], error.hint)]
        return [f"`{word}` is missing in `{text}`" for word, text in wanted if word not in text]

    def _goes_on(self, promised: Memory, *, gone: bool) -> list[str]:
        try:
            ending = self.job.live()
        except RunnerError as error:
            return [] if gone and isinstance(error, RunDirectoryError) else [f"{error!r} when all is well"]
        if not ending.finished:
            return [f"ended with {ending.error!r} when all is well"]
        return [] if gone else wrong(self.job, promised, self.right)


def restore(job: SmallJob, spare: Path) -> None:
    shutil.rmtree(job.runs, ignore_errors=True)
    if spare.exists():
        shutil.copytree(spare, job.runs)


def tried(root: Path, name: str) -> Trial:
    job, spare = SmallJob(root), root / "spare"
    SCENARIOS[name](job)
    if job.runs.exists():
        shutil.copytree(job.runs, spare)
    right = job.undisturbed()
    restore(job, spare)
    counting = Faulty(job.run_root)
    assert job.live(tap=counting.running).finished
    return Trial(job, right, spare, counting.calls)


@pytest.mark.parametrize("name", SCENARIOS)
def test_whatever_becomes_of_a_file_call_the_run_stops_with_exit_4_and_the_same_command_goes_on(
    tmp_path: Path, name: str, record_property: Any
) -> None:
    trial = tried(tmp_path, name)
    some = trial.cases[::EVERY_CASE]
    found = {(*trial.calls[at - 1], error): complaint for at, error in some if (complaint := trial.meet(at, error))}
    kinds = Counter(call for call, _ in trial.calls)
    line = f"{name}: {len(trial.calls)} file calls {dict(kinds)}, {len(some)} of {len(trial.cases)} cases"
    record_property("summary", line)
    print(f"\n{line}")
    assert found == {}


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
    assert stopped.code == 4, stopped.err
    assert "No space left on device" in stopped.err or "cut short" in stopped.err
    assert "hint: free some space, then run the same command again" in stopped.err
    assert "Traceback" not in stopped.err
    kept = on_disk(job.run_root)
    assert 0 < len(kept) < 20
    again = program(job)
    assert again.code == 4, again.err  # nothing is mended by trying
    assert kept <= on_disk(job.run_root)

    ballast.unlink()
    ended = program(job)
    assert ended.code == 0, ended.err
    rows = job.table().to_pylist()
    assert [row["content"].split(" ")[:2] for row in rows] == [["answer", str(row)] for row in range(20)]
    sent = Counter(server.arrivals)
    assert {row for row in kept if sent[row] != 1} == set()
    for row in rows:  # whatever was noted when the disk was full may have had no time to leave
        known = [each for each in row["attempts"] if each["error_kind"] != "UNKNOWN"]
        assert len(known) <= sent[row["row_index"]] <= len(row["attempts"])


def test_a_run_on_a_file_system_that_has_become_read_only_ends_with_exit_4_and_goes_on_when_it_is_not(
    server: Replies, tmp_path: Path, small_disk: Path
) -> None:
    job = Job(tmp_path, server.base_url, 4, rows_per_part=2, sections={"output": {"directory": str(small_disk)}})
    job.run_root.parent.mkdir()
    job.run_root.symlink_to(small_disk / "job")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    stopped = program(job)
    assert stopped.code == 4, stopped.err
    assert f"error: cannot make the directory {small_disk / 'job'}: Read-only file system\n" in stopped.err
    assert "\nhint: the file system is read-only, often since an error of its disk" in stopped.err
    assert server.arrivals == []
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert program(job).code == 0
    assert job.table()["status"].to_pylist() == ["ok"] * 4


def test_a_file_that_may_not_grow_ends_the_run_with_exit_4_in_words(server: Replies, tmp_path: Path) -> None:
    server.script = long_answer
    job = Job(tmp_path, server.base_url, 20, rows_per_part=20)
    stopped = program(job, most_bytes=300_000)
    assert stopped.code == 4, stopped.err
    assert f"error: cannot write to {job.run_root / 'journal' / '00000.jsonl'}: " in stopped.err
    assert "\nhint: " in stopped.err and "run the same command again" in stopped.err
    assert "Traceback" not in stopped.err
    assert program(job).code == 0
    assert job.table()["status"].to_pylist() == ["ok"] * 20


def full(writer: Any) -> None:
    writer.is_open = False  # it would try again when it is collected
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_part_that_cannot_be_written_loses_no_answer_that_is_on_its_way(
    server: Replies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = lambda row, _: replace(plain(row), after_s=0.0 if row < 2 else 1.0)
    job = Job(tmp_path, server.base_url, 6, rows_per_part=2, sections={"limits": {"concurrency": 4}})
    monkeypatch.setattr(pq.ParquetWriter, "close", full)
    assert isinstance(job.run().error, StorageError)
    assert len(server.arrivals) >= 4
    assert on_disk(job.run_root) == set(server.arrivals)


def test_the_json_line_is_there_when_the_disk_stops_a_run(server: Replies, tmp_path: Path) -> None:
    server.script = long_answer
    job = Job(tmp_path, server.base_url, 20, rows_per_part=20)
    stopped = program(job, "--json", most_bytes=300_000)
    assert stopped.code == 4, stopped.err
    said = orjson.loads(stopped.out)
    assert (said["exit_code"], said["reason"], said["rows"]) == (4, "stopped", 20)
    assert "cannot write to" in said["error"] and said["next"].startswith("runner run")


def test_a_run_leaves_its_log(server: Replies, tmp_path: Path) -> None:
    job = Job(tmp_path, server.base_url, 2)
    assert job.run().exit_code == 0
    assert (job.run_root / "run.log").read_text(encoding="utf-8")


def test_a_run_closes_what_it_has_opened(server: Replies, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("ignore")
        gc.collect()  # what others have left open
        warnings.simplefilter("always")
        assert Job(tmp_path, server.base_url, 2).run().exit_code == 0
        gc.collect()
    assert [str(warning.message) for warning in seen if warning.category is ResourceWarning] == []
