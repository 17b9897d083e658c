"""The run directory: the only room that knows its layout.

    run.json          what this run is: written once, before the first request
    survey.json       what the input is
    journal/00042.jsonl, results/part-00042.parquet     a range is in exactly one of the two, or crossing over
    manifest.json     written last; its absence is the state "not finished"

Rule: everything but run.json and survey.json is derived or append-only; a start looks at what is there and believes
nothing else. Files are written whole and renamed into place.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from runner import files
from runner.errors import RunDirectoryError

FORMAT = 1
#: Members of run.json that every version has written.
ESSENTIAL = ("run", "epoch", "simulated", "name", "job_file", "job")
#: The names in a run directory, those of later milestones included.
OURS = frozenset(
    {"run.json", "survey.json", "journal", "results", "manifest.json", "status.json", "run.log", "lock"}
    | {"input", "notes.jsonl", "removed.jsonl", "removed.jsonl.next", "survey.next.json", "report.html"}
    | {"results.next", "results.old", "journal.next", "journal.old"}
)
_PART = re.compile(r"part-(\d+)\.parquet")
_JOURNAL = re.compile(r"(\d+)\.jsonl")


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Paths of one run, and the small files in it."""

    root: Path

    @property
    def journals(self) -> Path:
        return self.root / "journal"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def removed(self) -> Path:
        return self.root / "removed.jsonl"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def log(self) -> Path:
        return self.root / "run.log"

    def journal(self, range_no: int) -> Path:
        return self.journals / f"{range_no:05d}.jsonl"

    def part(self, range_no: int) -> Path:
        return self.results / f"part-{range_no:05d}.parquet"

    def partial(self, range_no: int) -> Path:
        return self.results / f"part-{range_no:05d}.partial.parquet"

    def refuse_strangers(self) -> None:
        """Raise RunDirectoryError when what is there is somebody else's: not even --fresh may move it."""
        if self.root.exists() and not self.root.is_dir():
            raise RunDirectoryError(f"{self.root} is a file", hint="choose another directory with -o")
        names = files.names(self.root) if self.root.is_dir() else []
        if any(name not in OURS and not name.startswith(".") for name in names) and not self._has_run():
            raise RunDirectoryError(
                f"{self.root} is not empty and is not the directory of a run",
                hint="choose another directory with -o; nothing was touched",
            )

    def _has_run(self) -> bool:
        """A run.json of ours, if of another version; a damaged one counts only among nothing but our own names."""
        with suppress(RunDirectoryError):
            return {"format", "run"} <= (self.read("run.json") or {}).keys()
        return False

    def claim(self) -> None:
        """Make the run's directory, with nothing in it but the lock, which says that it is ours."""
        self.refuse_strangers()
        self._make_root()
        files.touch(self.lock)

    def is_bare(self) -> bool:
        """Whether nothing has been made in it since it was claimed."""
        return not self.root.is_dir() or files.names(self.root) == [self.lock.name]

    def furnish(self) -> None:
        """Make the directories in it. One that was claimed and is gone is not made anew: its lock went with it."""
        for directory in (self.journals, self.results):
            files.make_directory(directory, parents=False)

    def _make_root(self) -> None:
        """The run's directory, and its name durable before anything in it is."""
        missing = [path for path in self.root.parents if not path.exists()]
        files.make_directory(self.root)
        if not (self.root / "run.json").exists():
            for path in (self.root, *missing):
                if os.access(path.parent, os.R_OK):  # else it cannot be opened, let alone synced
                    files.sync_directory(path.parent)

    def settle(self) -> None:
        """Make durable what the last process left, before anything of it is believed: what was written and not synced
        when it was killed is there to be read, and the next power cut would take it back. Only for the lock's holder.
        """
        for path in self.open_journals().values():
            files.append(path, b"")
        for directory in (self.journals, self.results, self.root):
            files.sync_directory(directory)

    def open_journals(self) -> dict[int, Path]:
        return _numbered(self.journals, _JOURNAL)

    def parts(self) -> dict[int, Path]:
        return _numbered(self.results, _PART)

    def read(self, name: str) -> dict[str, Any] | None:
        """One of the small JSON files; None when it is not there."""
        data = files.read_file(self.root / name)
        if data is None:
            return None
        try:
            members = json.loads(data)
        except ValueError as error:
            raise RunDirectoryError(
                f"{self.root / name} is damaged: {error}", hint="restore it, or start afresh with --fresh"
            ) from error
        if not isinstance(members, dict):
            raise RunDirectoryError(f"{self.root / name} is not a JSON object")
        return members

    def write(self, name: str, members: Mapping[str, Any], *, durable: bool = True) -> None:
        # The standard library's json: a job may hold integers beyond 64 bit, which orjson refuses.
        files.write_file(self.root / name, json.dumps(members, indent=1).encode() + b"\n", durable=durable)

    def read_run(self) -> dict[str, Any] | None:
        """run.json; raises RunDirectoryError when another version of this program wrote it."""
        run = self.read("run.json")
        if run is None:
            return None
        if run.get("format") != FORMAT:
            raise RunDirectoryError(
                f"{self.root} was written by another version of runner (format {run.get('format')}, this one writes "
                f"{FORMAT})",
                hint="go on with the version that started it, or choose another directory with -o",
            )
        if lacking := [name for name in ESSENTIAL if name not in run]:
            raise RunDirectoryError(
                f"{self.root / 'run.json'} is damaged, or of another version of runner: it lacks {', '.join(lacking)}",
                hint="restore it, or go on with the version that started it",
            )
        return run


def following(path: Path) -> Path:
    """Where what is to take the place of `path` is built."""
    return path.with_name(f"{path.name}.next")


def name_tag(epoch: int | str) -> str:
    """The file that makes a directory the one that was laid out at this epoch. Readers pass over hidden files."""
    return f".epoch-{epoch}"


@dataclass(frozen=True, slots=True)
class Moving(RunDirectory):
    """A run whose answers are on their way to new places (relayout.py): each thing of the new layout where it is."""

    epoch: int

    @property
    def journals(self) -> Path:
        return self._new(self.root / "journal")

    @property
    def results(self) -> Path:
        return self._new(self.root / "results")

    @property
    def removed(self) -> Path:
        path = self.root / "removed.jsonl"
        return following(path) if following(path).exists() else path

    def read(self, name: str) -> dict[str, Any] | None:
        waiting = RunDirectory.read(self, "survey.next.json") if name == "survey.json" else None
        return waiting or RunDirectory.read(self, name)

    def _new(self, place: Path) -> Path:
        return place if (place / name_tag(self.epoch)).exists() else following(place)


def _numbered(directory: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    if not directory.is_dir():
        return {}
    matches = ((pattern.fullmatch(name), directory / name) for name in files.names(directory))
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def differences(was: Any, now: Any, path: str = "") -> list[str]:
    """The dotted names of what differs between two JSON values."""
    if isinstance(was, dict) and isinstance(now, dict):
        names = sorted(was.keys() | now.keys())
        return [line for name in names for line in differences(was.get(name), now.get(name), f"{path}.{name}")]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        pairs = enumerate(zip(was, now, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{path}.{i}")]
    return [] if was == now else [path.removeprefix(".")]


def move_aside(root: Path, stamp: str) -> Path | None:
    """Rename a run's directory so that a new one can take its place; its new path, None when there was none."""
    if not root.exists():
        return None
    names = (f"{root.name}.{stamp}{suffix}" for suffix in chain([""], (f"-{n}" for n in count(2))))
    aside = next(path for path in map(root.with_name, names) if not path.exists())
    files.rename(root, aside)
    return aside
