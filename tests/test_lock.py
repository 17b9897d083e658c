from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner import lock
from runner.errors import HeldError, StorageError
from runner.lock import Lock, held, is_held, read_owner
from runner.store import RunDirectory

SINCE = "2025-01-02T03:04:05Z"
HOLDER = """
import sys
from pathlib import Path
from runner.lock import Lock
with Lock(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock until its stdin ends."""
    command = [sys.executable, "-c", HOLDER, str(path), SINCE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process


def test_a_second_process_is_told_who_has_the_run_until_that_one_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as process:
        assert is_held(path)
        with pytest.raises(HeldError) as caught, Lock(path, SINCE):
            pass
        assert caught.value.exit_code == 75
        who = f"process {process.pid} on {socket.gethostname()} (since {SINCE})"
        assert caught.value.message == f"{tmp_path} is being worked on by {who}"
        assert "runner status" in caught.value.hint
        process.communicate("")
    assert not is_held(path)
    with Lock(path, SINCE):
        owner = read_owner(path)
        assert owner
        assert owner["pid"] == os.getpid()


def test_the_lock_dies_with_a_holder_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not is_held(path)
    with Lock(path, SINCE):
        assert is_held(path)


def test_the_lock_is_free_again_after_its_block_even_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(ZeroDivisionError), Lock(path, SINCE):
        _ = 1 / 0
    assert not is_held(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_shorter_record_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_bytes(b"x" * 1000)
    with Lock(path, SINCE):
        assert path.read_bytes().count(b"\n") == 1
        assert read_owner(path)


@pytest.mark.parametrize("record", [b"", b"{", b"[1]", b"{}", b'{"pid": 1}', b"\xff\n"])
def test_a_record_that_is_not_whole_names_nobody(
    tmp_path: Path, record: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SIGNED_S", 0.0)
    path = tmp_path / "lock"
    path.write_bytes(record)
    assert read_owner(path) is None
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(HeldError, match="by another process"), Lock(path, SINCE):
            pass


@pytest.mark.parametrize("left", [False, True], ids=["nothing", "another name"])
def test_who_comes_between_the_lock_and_its_signature_waits_for_the_name(tmp_path: Path, left: bool) -> None:
    """left: whether the last holder, a process that is dead, has left its own there."""
    path = tmp_path / "lock"
    with subprocess.Popen(["true"]) as dead:
        pass
    record = {"host": socket.gethostname(), "since": SINCE}
    path.write_text(json.dumps(record | {"pid": dead.pid}) if left else "")
    signed = threading.Timer(0.3, path.write_text, [json.dumps(record | {"pid": os.getpid()})])
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        signed.start()
        with pytest.raises(HeldError, match=f"by process {os.getpid()} on"), Lock(path, SINCE):
            pass
        signed.join()


def test_a_dead_process_is_named_when_nobody_has_signed_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock may be in the hands of a child that it had."""
    monkeypatch.setattr(lock, "SIGNED_S", 0.0)
    path = tmp_path / "lock"
    with subprocess.Popen(["true"]) as dead:
        pass
    path.write_text(json.dumps({"pid": dead.pid, "host": socket.gethostname(), "since": SINCE}))
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(HeldError, match=f"by process {dead.pid} on"), Lock(path, SINCE):
            pass


def test_nobody_holds_or_owns_what_is_not_there(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "none")
    assert read_owner(tmp_path / "none") is None


def test_a_file_system_that_cannot_lock_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageError, match="cannot lock"), Lock(tmp_path / "lock", SINCE):
        pass


def test_a_file_that_its_holder_took_away_is_no_lock_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was opened before it was taken away, and locked afterwards: a third process has the new one by then."""
    path, real, opened = tmp_path / "lock", fcntl.flock, list[int]()

    def flock(descriptor: int, operation: int) -> None:
        opened.append(descriptor)
        if len(opened) == 1:
            path.unlink()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with Lock(path, SINCE):
        assert len(opened) == 2
        assert is_held(path)
        assert read_owner(path)


def test_what_was_made_to_hold_a_run_goes_when_no_run_began(tmp_path: Path) -> None:
    root = tmp_path / "runs" / "trial"
    with pytest.raises(ZeroDivisionError), held(RunDirectory(root), SINCE):
        assert [path.name for path in root.iterdir()] == ["lock"]
        assert is_held(root / "lock")
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_began_stays_when_it_is_let_go(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "trial")
    with held(directory, SINCE):
        directory.write("run.json", {"format": 1, "run": "r"})
    assert sorted(path.name for path in directory.root.iterdir()) == ["lock", "run.json"]
    assert not is_held(directory.lock)


def test_a_loser_takes_nothing_away(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "trial")
    directory.claim()
    with holder(directory.lock):
        with pytest.raises(HeldError) as caught, held(directory, SINCE):
            pass
        assert caught.value.exit_code == 75
        assert directory.lock.exists()


def test_an_empty_directory_that_was_there_before_stays(tmp_path: Path) -> None:
    with held(RunDirectory(tmp_path), SINCE):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot open"), Lock(tmp_path / "none" / "lock", SINCE):
        pass


def test_a_process_that_only_asks_cannot_make_another_one_lose(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with path.open("rb") as asking:  # what is_held does, by a process that stands still in it
        fcntl.flock(asking, fcntl.LOCK_SH)
        timer = threading.Timer(0.5, fcntl.flock, (asking, fcntl.LOCK_UN))
        timer.start()
        try:
            with Lock(path, SINCE):
                owner = read_owner(path)
        finally:
            timer.join()
    assert owner
    assert owner["pid"] == os.getpid()


@pytest.mark.parametrize("met", [KeyError("epoch"), FileNotFoundError("part-00000.parquet"), HeldError("…")], ids=repr)
def test_a_run_that_is_taken_away_under_its_holder_is_told_as_that(tmp_path: Path, met: Exception) -> None:
    root = tmp_path / "run"
    with pytest.raises(StorageError) as caught, held(RunDirectory(root), SINCE):
        root.rename(tmp_path / "elsewhere")
        raise met
    assert caught.value.message == f"cannot go on with {root}: it is no longer there"
    assert "put it back" in caught.value.hint
    assert caught.value.__cause__ is met


def test_a_lock_that_cannot_be_signed_is_free_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(StorageError, match="cannot write to"), Lock(tmp_path / "lock", SINCE):
            pass
    assert not is_held(tmp_path / "lock")
