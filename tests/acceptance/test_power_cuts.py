"""The power goes behind any file operation of a run, a retry and a change: the same command goes on, nothing is lost.

THOROUGH=1 tries every state that may be found after one cut, and far more of those after a kill and a cut.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from powercut import Moment, Recorder, State, killed, states
from smalljob import SCENARIOS, Memory, SmallJob, Undisturbed, wrong
from thorough import THOROUGH

from runner import files
from runner.errors import RunnerError

#: Of the states after a cut, every so-manieth is tried; of the operations before a kill, and of the states after that.
EVERY_STATE = 1 if THOROUGH else 19
EVERY_KILL, EVERY_STATE_THEN = (3, 7) if THOROUGH else (29, 67)

Found = dict[tuple[int, ...], list[str]]  #: what is wrong, by the operations before each death


@dataclass
class Recorded:
    """A scenario whose command was recorded, to be cut and gone on with, again and again."""

    job: SmallJob
    right: Undisturbed
    moments: list[Moment]

    def complaints(self, tried: Iterable[State]) -> Iterator[tuple[State, list[str]]]:
        """What is wrong after power cuts, as they are tried."""
        return self._wrong(tried, self.right.memory.until)

    def kill_and_cut(self, operations: int, every: int) -> tuple[int, Found]:
        """A kill behind an operation, then power cuts behind those of the life that takes over."""
        self._build(killed(self.moments, operations))
        second = Recorder(self.job.root, left=self.moments[operations])
        assert self.job.live(tap=second.running, clock=lambda: second.operations).finished
        before, memory = self.right.memory.until(operations), self.job.memory
        tried = states(second.moments)[operations % every :: every]
        found = self._wrong(tried, lambda then: before.then(memory.until(then)))
        return len(tried), {(operations, state.operations): complaint for state, complaint in found}

    def _wrong(self, tried: Iterable[State], promised: Callable[[int], Memory]) -> Iterator[tuple[State, list[str]]]:
        for state in tried:
            if complaint := self._go_on(state, promised(state.operations)):
                yield state, complaint

    def _build(self, state: State) -> None:
        shutil.rmtree(self.job.runs, ignore_errors=True)
        state.build(self.job.runs)

    def _go_on(self, state: State, promised: Memory) -> list[str]:
        self._build(state)
        try:
            ending = self.job.live()
        except RunnerError as error:
            return [f"{type(error).__name__}: {error}"]
        return wrong(self.job, promised, self.right) if ending.finished else [f"{ending.exit_code}: {ending.error}"]


def record(root: Path, name: str, deaf: Callable[[Path], bool] = lambda path: False) -> Recorded:
    """Let the scenario's command run to its end. deaf: whose fsyncs do nothing."""
    job = SmallJob(root)
    SCENARIOS[name](job)
    recorder = Recorder(root, deaf=deaf)
    right = job.undisturbed(tap=recorder.running, clock=lambda: recorder.operations)
    return Recorded(job, right, recorder.moments)


@pytest.mark.parametrize("name", [*SCENARIOS, "moved without exchange"])
def test_a_power_cut_behind_any_file_operation_loses_nothing(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    name, _, poor = name.partition(" without ")
    if poor:  # as on file systems that cannot put two names in each other's place
        monkeypatch.setattr(files, poor, lambda one, other: False)
    recorded = record(tmp_path, name)
    possible = states(recorded.moments)
    tried = possible[::EVERY_STATE]
    found = {(state.operations, state.fate): complaint for state, complaint in recorded.complaints(tried)}
    line = f"{name} {poor}: {len(recorded.moments) - 1} file operations, {len(tried)} of {len(possible)} states"
    record_property("summary", line)
    print(f"\n{line}")
    assert found == {}
    assert len(possible) > 3 * len(recorded.moments)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_power_cut_after_a_kill_loses_nothing_that_the_life_between_believed(
    tmp_path: Path, name: str, record_property: Any
) -> None:
    """What a killed process wrote and did not sync is there to be read, and may yet go."""
    recorded, tried, found = record(tmp_path, name), 0, Found()
    kills = range(0, len(recorded.moments), EVERY_KILL)
    for operations in kills:
        more, complaints = recorded.kill_and_cut(operations, EVERY_STATE_THEN)
        tried, found = tried + more, found | complaints
    line = f"{name}: {len(kills)} kills, {tried} states behind them"
    record_property("summary", line)
    print(f"\n{line}")
    assert found == {}
    assert tried > len(kills)


@pytest.mark.parametrize(
    ("name", "deaf"),
    [
        ("plain", lambda path: path.suffix == ".jsonl"),
        ("plain", lambda path: path.name == "results"),
        ("plain", lambda path: path.name == "journal"),
        ("plain", lambda path: path.name == "runs"),
        ("plain", lambda path: path.name.startswith("part-")),
        ("plain", lambda path: path.name == ".run.json.tmp"),
        ("retry", lambda path: path.name == "results"),
    ],
    ids=["journals", "results", "names of journals", "runs", "parts", "run.json", "results of a retry"],
)
def test_a_program_that_leaves_out_an_fsync_is_found_out(
    tmp_path: Path, name: str, deaf: Callable[[Path], bool]
) -> None:
    """Of the harness: a disk that is deaf to it is what such a program would meet."""
    recorded = record(tmp_path, name, deaf)
    _, complaint = next(recorded.complaints(states(recorded.moments)[::-1]))
    assert re.search("sent though acknowledged|gone from the bill|RunDirectoryError", " ".join(complaint))


@pytest.mark.parametrize(
    ("syncs", "found"),
    [("bytes", {"old", "new"}), ("", {"old", "new", "", "n", "ne", "\0\0\0"}), ("bytes and names", {"new"})],
)
def test_what_a_cut_leaves_of_a_file_that_took_the_place_of_another(
    tmp_path: Path, syncs: str, found: set[str]
) -> None:
    """Of the harness: what is found under the name at the end, by which of the two fsyncs were made."""
    top = tmp_path / "runs"
    top.mkdir()
    (top / "a").write_text("old")
    recorder = Recorder(tmp_path)
    with pytest.MonkeyPatch.context() as patch, recorder.running(patch):
        _replace(top, syncs)
    seen = set()
    for state in states(recorder.moments[-1:]):
        shutil.rmtree(top)
        state.build(top)
        seen.add((top / "a").read_text())
    assert seen == found


def _replace(top: Path, syncs: str) -> None:
    fresh, directory = os.open(top / "b", os.O_WRONLY | os.O_CREAT), os.open(top, os.O_RDONLY)
    os.write(fresh, b"new")
    if "bytes" in syncs:
        os.fdatasync(fresh)
    (top / "b").replace(top / "a")
    if "names" in syncs:
        os.fsync(directory)
    os.close(fresh)
    os.close(directory)
