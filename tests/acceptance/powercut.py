"""What a disk may hold after a power cut: the file operations of one life, and the directories that they allow.

Rule: nothing is known of the program. Every call of `os` that may change something is surrounded by a look at the
directory, so that an operation is whatever changed between two looks, by whatever call: create, write, truncate,
rename, exchange, link, unlink. An fsync makes durable the bytes of its file, or the names of its directory, and nothing
else; a file or a directory is known by its inode, which is held open lest its number be given again.

After each operation the power may go. What was not synced by then is kept, dropped or cut:

    bytes   kept; dropped (as of the file's last fsync, a new one is empty); cut in the middle; one short; zeros
    names   kept; undone (as of each directory's last fsync); reordered (any of the operations since then)
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytest

Names = Mapping[int, Mapping[str, int]]  #: directory -> name -> inode
Bytes = Mapping[int, bytes]
Choose = Callable[[bytes, bytes], bytes]  #: (as seen, as synced) -> as found after the cut

_CHANGING = ("open", "write", "pwrite", "ftruncate", "truncate", "rename", "replace", "unlink", "remove", "mkdir")
_CHANGING += ("rmdir", "link", "symlink")
#: Their bytes are talk: never synced, never read by a start.
TALK = frozenset({"run.log", "status.json", ".status.json.tmp"})


@dataclass(frozen=True)
class Disk:
    """Directories and files by inode."""

    names: Names
    data: Bytes


@dataclass(frozen=True)
class Moment:
    """Behind an operation: what anybody sees, and what is safe."""

    seen: Disk
    safe: Disk
    changes: tuple[tuple[tuple[int, str, int | None], ...], ...] = ()  #: of names that are not safe: (dir, name, now)


@dataclass
class Recorder:
    """`with recorder.running(patch):` notes the file operations of this process on `root`/`top`."""

    root: Path
    top: str = "runs"
    moments: list[Moment] = field(default_factory=list)
    deaf: Callable[[Path], bool] = lambda path: False  #: whose fsyncs do nothing: to break what is tested
    left: Moment | None = None  #: what a life that was killed, without a power cut, has left: `root` shows it
    _held: dict[int, int] = field(default_factory=dict)

    @property
    def operations(self) -> int:
        return len(self.moments) - 1

    @contextmanager
    def running(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        real = {name: getattr(os, name) for name in (*_CHANGING, "close", "pread", "fstat")}
        self._os = real
        disk = self._scan()
        self.moments = [_renumbered(self.left, disk) if self.left else Moment(disk, disk)]
        for name in _CHANGING:
            patch.setattr(os, name, partial(self._around, real[name]))
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, self._sync)
        try:
            yield
        finally:
            self._look()
            for descriptor in self._held.values():
                real["close"](descriptor)

    def _around(self, real: Callable[..., Any], *given: Any, **named: Any) -> Any:
        self._look()
        try:
            return real(*given, **named)
        finally:
            self._look()

    def _look(self) -> None:
        last, seen = self.moments[-1], self._scan()
        if seen == last.seen:
            return
        change = tuple(_changes(last.seen.names, seen.names))
        names = {number: last.safe.names.get(number, {}) for number in seen.names.keys() | last.safe.names.keys()}
        data = {number: last.safe.data.get(number, b"") for number in seen.data.keys() | last.safe.data.keys()}
        changes = (*last.changes, change) if change else last.changes
        self.moments.append(Moment(seen, Disk(names, data), changes))

    def _sync(self, descriptor: int) -> None:
        self._look()
        number, last = self._os["fstat"](descriptor).st_ino, self.moments[-1]
        if self.deaf(Path(f"/proc/self/fd/{descriptor}").readlink()):
            return
        safe = last.safe
        if number in last.seen.data:
            safe = replace(safe, data={**safe.data, number: last.seen.data[number]})
        elif number in last.seen.names:
            safe = replace(safe, names={**safe.names, number: last.seen.names[number]})
        left = (tuple(each for each in change if each[0] != number) for change in last.changes)
        self.moments.append(Moment(last.seen, safe, tuple(change for change in left if change)))

    def _scan(self) -> Disk:
        names: dict[int, dict[str, int]] = {}
        data: dict[int, bytes] = {}
        top = self.root / self.top
        above = os.stat(self.root).st_ino
        names[above] = {}
        if top.exists():
            names[above][self.top] = self._hold(top)
            self._scan_into(top, names, data)
        return Disk(names, data)

    def _scan_into(self, directory: Path, names: dict[int, dict[str, int]], data: dict[int, bytes]) -> None:
        found = names[self._hold(directory)] = {}
        for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
            number = found[entry.name] = self._hold(Path(entry.path))
            if entry.is_dir():
                self._scan_into(Path(entry.path), names, data)
            elif number not in data:
                data[number] = b"" if entry.name in TALK else self._read(number)

    def _hold(self, path: Path) -> int:
        number = path.stat().st_ino
        if number not in self._held:
            self._held[number] = self._os["open"](path, os.O_RDONLY | os.O_CLOEXEC)
        return number

    def _read(self, number: int) -> bytes:
        descriptor = self._held[number]
        data: bytes = self._os["pread"](descriptor, self._os["fstat"](descriptor).st_size, 0)
        return data


def _changes(before: Names, after: Names) -> Iterator[tuple[int, str, int | None]]:
    for directory in before.keys() | after.keys():
        was, now = before.get(directory, {}), after.get(directory, {})
        for name in sorted(was.keys() | now.keys()):
            if was.get(name) != now.get(name):
                yield directory, name, now.get(name)


def _renumbered(moment: Moment, seen: Disk) -> Moment:
    """A moment whose directory was built anew: other inodes show the same. What is no longer to be seen, and is safe
    still, gets numbers that no inode has."""
    now: dict[int, int] = {}

    def pair(old: int, new: int) -> None:
        now[old] = new
        for name, child in moment.seen.names.get(old, {}).items():
            pair(child, seen.names[new][name])

    pair(next(iter(moment.seen.names)), next(iter(seen.names)))

    def renumber(old: int) -> int:
        return now.get(old, -old)

    names = moment.safe.names.items()
    safe = Disk(
        {renumber(old): {name: renumber(child) for name, child in entries.items()} for old, entries in names},
        {renumber(old): data for old, data in moment.safe.data.items()},
    )
    changes = (
        tuple((renumber(at), name, to if to is None else renumber(to)) for at, name, to in change)
        for change in moment.changes
    )
    return Moment(seen, safe, tuple(changes))


# What may be found after the cut


def as_seen(seen: bytes, safe: bytes) -> bytes:
    return seen


def dropped(seen: bytes, safe: bytes) -> bytes:
    return safe


def _tail(seen: bytes, safe: bytes) -> int:
    """Where what was not synced begins."""
    return next((at for at, (a, b) in enumerate(zip(seen, safe, strict=False)) if a != b), min(len(seen), len(safe)))


def halved(seen: bytes, safe: bytes) -> bytes:
    first = _tail(seen, safe)
    return seen[: first + (len(seen) - first) // 2]


def one_short(seen: bytes, safe: bytes) -> bytes:
    return seen[: max(_tail(seen, safe), len(seen) - 1)]


def zeros(seen: bytes, safe: bytes) -> bytes:
    """Its length was written, its bytes were not."""
    first = _tail(seen, safe)
    return seen[:first] + bytes(len(seen) - first)


FATES: dict[str, Choose] = {
    "kept": as_seen,
    "dropped": dropped,
    "cut": halved,
    "one short": one_short,
    "zeros": zeros,
}
MIXED = 2  #: states of each moment in which luck decides of every file and every operation on names


@dataclass(frozen=True)
class State:
    """A directory as it may be found after a power cut."""

    operations: int  #: before the cut
    fate: str
    disk: Disk
    root: int

    def build(self, top: Path) -> None:
        """Make it: `top` is the one name in the directory above."""
        made: dict[int, Path] = {}
        number = self.disk.names[self.root].get(top.name)
        if number is not None:
            self._make(number, top, made)

    def _make(self, number: int, path: Path, made: dict[int, Path]) -> None:
        if number in self.disk.names:
            path.mkdir(0o700)
            for name, child in self.disk.names[number].items():
                self._make(child, path / name, made)
        elif number in made:
            path.hardlink_to(made[number])
        else:
            path.write_bytes(self.disk.data[number])
            made[number] = path

    @cached_property
    def key(self) -> int:
        """The same for the same tree."""
        return hash(tuple(self._walk(self.root, "")))

    def _walk(self, number: int, path: str) -> Iterator[tuple[str, bytes | None]]:
        for name, child in sorted(self.disk.names[number].items()):
            is_directory = child in self.disk.names
            yield f"{path}/{name}", None if is_directory else self.disk.data[child]
            if is_directory:
                yield from self._walk(child, f"{path}/{name}")


def killed(moments: list[Moment], operations: int) -> State:
    """The directory as a death of the process alone leaves it."""
    return State(operations, "killed", moments[operations].seen, next(iter(moments[0].seen.names)))


def states(moments: list[Moment]) -> list[State]:
    """Every different directory that a cut behind any of the operations may leave; one that several may leave belongs
    to the last of these, when most had been promised."""
    root = next(iter(moments[0].seen.names))
    found: dict[int, State] = {}
    for number, moment in enumerate(moments):
        for fate, disk in _possible(moment, random.Random(number)):
            state = State(number, fate, disk, root)
            found[state.key] = state
    return sorted(found.values(), key=lambda state: state.operations)


def _possible(moment: Moment, luck: random.Random) -> Iterator[tuple[str, Disk]]:
    seen, safe = moment.seen, moment.safe
    pending = {number: (data, safe.data[number]) for number, data in seen.data.items() if data != safe.data[number]}

    def found(choose: Callable[[], Choose]) -> Bytes:
        return {**safe.data, **{number: choose()(*both) for number, both in pending.items()}}

    for name, fate in FATES.items():
        data = found(lambda fate=fate: fate)  # type: ignore[misc]
        yield f"bytes {name}, names kept", Disk(seen.names, data)
        yield f"bytes {name}, names undone", Disk(safe.names, data)
    for mixed in range(MIXED):
        yield f"mixed {mixed}", Disk(_reordered(moment, luck), found(lambda: luck.choice([*FATES.values()])))


def _reordered(moment: Moment, luck: random.Random) -> Names:
    """The safe names, and any of the operations behind them."""
    names = {number: dict(entries) for number, entries in moment.safe.names.items()}
    for change in moment.changes:
        if luck.random() < 0.5:
            for directory, name, now in change:
                names[directory].pop(name, None)
                if now is not None:
                    names[directory][name] = now
    return names
