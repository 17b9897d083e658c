"""Copies of inputs that cannot be sought: stdin, compressed text, Parquet files with huge row groups.

    input/00000.5f3a91c2.zst           text, a zstd frame for each range: `zstd -dc` gives it back
    input/00001.0b77c4de.arrows.zst    rows of a Parquet file, each range's an Arrow stream in a zstd frame

Rule: a copy lies beside the run until the run is ours, under a lock that dies with its process; then it is moved into
the run's directory under a name that no other copy has, and survey.json names it. What a kill leaves is swept away by
the next start.
Strategy: the survey keeps where each frame ends, in the copy and in what it copies (bytes of text, or rows), and the
hash of its bytes (copies.py).
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from runner import files
from runner.sources.catalog import File, Survey
from runner.sources.copies import Copy, SpoolFile

#: Its name in a run directory.
DIRECTORY = "input"
_NAME = re.compile(r"\d{5,}\.[0-9a-f]{8}\.(zst|arrows\.zst|arrows)")


class Spooling:
    """Where a survey may copy to. `with Spooling(run_root) as spooling:` leaves nothing behind that was not settled."""

    def __init__(self, run_root: Path) -> None:
        self._root = run_root
        self._prefix = f".{run_root.name}.{DIRECTORY}-"
        self._place: Path | None = None
        self._lock = -1
        self._parents: list[Path] = []  #: made for the copies, innermost first
        self._files: list[SpoolFile] = []

    def __enter__(self) -> Spooling:
        self._sweep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()
        if self._place is None:
            return
        shutil.rmtree(self._place, ignore_errors=True)
        os.close(self._lock)
        with suppress(OSError):  # not empty: a run has begun there
            for parent in self._parents:
                parent.rmdir()

    @property
    def place(self) -> Path | None:
        """Where the copies lie until they are settled; None: there are none."""
        return self._place

    def file(self, number: int, suffix: str) -> SpoolFile:
        """An empty copy for the input file `number`."""
        place = self._place or self._make()
        made = SpoolFile(place / f"{number:05d}.{secrets.token_hex(4)}.{suffix}")
        self._files.append(made)
        return made

    def settle(self, survey: Survey, saved: Mapping[str, Any] | None) -> bool:
        """Move the copies that the survey names into the run's directory, durably; whether there were any.

        Call it while the run is locked, before survey.json is written. The copies that `saved`, the survey.json of now,
        names stay until the next time: it goes on being true until it is replaced. All others are removed.
        """
        if self._place is None:
            return False
        fresh = [file.spool for file in survey.files if (self._place / file.spool).is_file()]
        if not fresh:
            return False
        in_use = {file.get("spool") for file in saved["files"]} if saved else set()
        target = self._root / DIRECTORY
        files.make_directory(target)
        for old in target.iterdir():
            if _NAME.fullmatch(old.name) and old.name not in in_use:
                files.remove(old)
        for name in fresh:
            files.rename(self._place / name, target / name)
        files.sync_directory(target)
        files.sync_directory(self._root)
        return True

    def _make(self) -> Path:
        parent = self._root.parent
        self._parents = [folder for folder in (parent, *parent.parents) if not folder.exists()]
        while True:  # another start may sweep it away before it is claimed
            place = parent / f"{self._prefix}{secrets.token_hex(4)}"
            files.make_directory(place)
            claimed = _claim(place)
            if claimed is not None:
                self._place, self._lock = place, claimed
                return place

    def _sweep(self) -> None:
        """Remove what a survey that was killed left beside the run."""
        for place in self._left():
            claimed = _claim(place)
            if claimed is not None:
                shutil.rmtree(place, ignore_errors=True)
                os.close(claimed)

    def _left(self) -> list[Path]:
        try:
            return [path for path in self._root.parent.iterdir() if path.name.startswith(self._prefix)]
        except OSError:  # not there yet, or a folder that may be entered and not listed
            return []


def _claim(place: Path) -> int | None:
    """A descriptor that holds the directory until it is closed; None when somebody has it, or it is gone."""
    descriptor = -1
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        place.stat()
    except OSError:
        if descriptor >= 0:
            os.close(descriptor)
        return None
    return descriptor


def copies_stand(found: Sequence[File], run_root: Path) -> bool:
    """Whether every copy that a survey names lies in the run's directory, whole by its size."""
    copies = [Copy(file, "", run_root / DIRECTORY) for file in found if file.spool]
    return all(copy.is_whole() for copy in copies)
