from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner import files
from runner.errors import StorageError

ERRORS = {
    errno.ENOSPC: ("No space left on device", "free some space"),
    errno.EDQUOT: ("Disk quota exceeded", "your quota on that disk is used up"),
    errno.EROFS: ("Read-only file system", "make it writable"),
    errno.EIO: ("Input/output error", "check it (see dmesg)"),
    errno.ENOENT: ("it is no longer there", "put it back"),
    errno.EPERM: ("Operation not permitted", "nothing acknowledged is lost"),
}


class Failing:
    """A system call that fails, and counts."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        raise OSError(self.number, os.strerror(self.number))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def with_descriptor(path: Path, act: Callable[[int], None]) -> None:
    descriptor = files.open_append(path)
    try:
        act(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("number", ERRORS)
@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_failed_write_or_sync_is_a_storage_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    path = tmp_path / "journal"
    failing = Failing(number)
    monkeypatch.setattr(os, call, failing)
    with pytest.raises(StorageError) as caught:
        with_descriptor(path, lambda d: files.write_all(d, b"x", path) if call == "write" else files.sync(d, path))
    said, hint = ERRORS[number]
    assert said in caught.value.message
    assert str(path) in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 4
    assert failing.calls == 1


def test_a_short_write_is_an_error_and_is_not_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    calls: list[int] = []
    real = os.write

    def short(descriptor: int, data: bytes) -> int:
        calls.append(len(data))
        return real(descriptor, data[:3])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(StorageError, match="cut short") as caught:
        with_descriptor(path, lambda d: files.write_all(d, b"12345", path))
    assert "space" in caught.value.hint
    assert calls == [5]


def test_whole_writes_append(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for data in (b"one\n", b"two\n"):
        with_descriptor(path, lambda d, data=data: files.write_all(d, data, path))  # type: ignore[misc]
    assert path.read_bytes() == b"one\ntwo\n"


def test_new_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with_descriptor(tmp_path / "journal", lambda d: None)
        files.write_file(tmp_path / "run.json", b"{}")
        files.make_directory(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert mode(tmp_path / "journal") == 0o600
    assert mode(tmp_path / "run.json") == 0o600
    assert mode(tmp_path / "a" / "b") == 0o700


def test_making_a_directory_twice_is_fine_and_over_a_file_is_not(tmp_path: Path) -> None:
    files.make_directory(tmp_path / "run")
    files.make_directory(tmp_path / "run")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot make the directory"):
        files.make_directory(tmp_path / "file")


def test_write_file_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    files.write_file(path, b"old")
    files.write_file(path, b"new")
    assert files.read_file(path) == b"new"
    assert os.listdir(tmp_path) == ["run.json"]


@pytest.mark.parametrize("call", ["write", "fdatasync", "replace", "rename"])
def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "run.json"
    files.write_file(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, Failing(errno.ENOSPC))
        if call == "rename":
            files.write_file(path, b"old")  # replaced by os.replace: nothing to fail
        else:
            with pytest.raises(StorageError) as caught:
                files.write_file(path, b"new")
            assert str(path) in caught.value.message
    assert path.read_bytes() == b"old"
    files.write_file(path, b"newer")
    assert path.read_bytes() == b"newer"


def test_a_failed_sync_of_a_replacement_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, name = Failing(errno.EIO), Failing(errno.EIO)
    monkeypatch.setattr(os, "fdatasync", data)
    monkeypatch.setattr(os, "fsync", name)
    with pytest.raises(StorageError):
        files.write_file(tmp_path / "run.json", b"new")
    assert (data.calls, name.calls) == (1, 0)
    assert not (tmp_path / "run.json").exists()


def test_a_file_that_need_not_last_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fdatasync", Failing(errno.EIO))
    monkeypatch.setattr(os, "fsync", Failing(errno.EIO))
    files.write_file(tmp_path / "status.json", b"{}", durable=False)
    assert (tmp_path / "status.json").read_bytes() == b"{}"


def test_a_durable_file_is_synced_before_it_is_renamed_and_its_name_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def noting(call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            order.append(call)
            return real(*args, **kwargs)

        return noted

    for call in ("fdatasync", "replace", "fsync"):
        monkeypatch.setattr(os, call, noting(call, getattr(os, call)))
    files.write_file(tmp_path / "run.json", b"{}")
    assert order == ["fdatasync", "replace", "fsync"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_leftover_that_cannot_be_removed_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "unlink", Failing(number))
    with pytest.raises(StorageError):
        files.write_file(tmp_path / "run.json", b"{}")


@pytest.mark.parametrize(
    ("call", "act"),
    [
        ("open", files.open_append),
        ("fsync", lambda path: files.sync_directory(path.parent)),
        ("open", lambda path: files.sync_directory(path.parent)),
        ("replace", lambda path: files.rename(path, path.with_name("b"))),
        ("unlink", files.remove),
        ("ftruncate", lambda path: files.truncate(path, 1)),
        ("fdatasync", lambda path: files.truncate(path, 1)),
        ("mkdir", lambda path: files.make_directory(path.with_name("c"))),
        ("listdir", lambda path: files.names(path.parent)),
        ("rmdir", lambda path: files.remove_tree(path.parent)),
    ],
)
def test_every_other_call_fails_as_a_storage_error_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, act: Callable[[Path], object]
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12")
    monkeypatch.setattr(os, call, Failing(errno.EIO))
    with pytest.raises(StorageError, match="Input/output error") as caught:
        act(path)
    assert "dmesg" in caught.value.hint


def two_directories(root: Path) -> tuple[Path, Path]:
    for name in ("one", "other"):
        (root / name).mkdir()
        (root / name / name).touch()
    return root / "one", root / "other"


def test_two_directories_change_places_in_one_step(tmp_path: Path) -> None:
    one, other = two_directories(tmp_path)
    assert files.exchange(one, other) is True
    assert (os.listdir(one), os.listdir(other)) == (["other"], ["one"])


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM, errno.EXDEV])
def test_an_exchange_that_kernel_or_file_system_does_not_know_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    one, other = two_directories(tmp_path)
    monkeypatch.setattr(files, "_exchange_call", lambda: lambda a, b: ctypes.set_errno(number) or -1)
    assert files.exchange(one, other) is False
    assert (os.listdir(one), os.listdir(other)) == (["one"], ["other"])


def test_an_exchange_that_the_c_library_has_no_name_for_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: object())
    assert files.exchange(*two_directories(tmp_path)) is False


def test_an_exchange_that_fails_otherwise_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = two_directories(tmp_path)
    with pytest.raises(StorageError, match=r"cannot put into place .*other: it is no longer there") as caught:
        files.exchange(tmp_path / "none", other)
    assert caught.value.exit_code == 4
    monkeypatch.setattr(files, "_exchange_call", lambda: lambda a, b: ctypes.set_errno(errno.EIO) or -1)
    with pytest.raises(StorageError, match="Input/output error") as caught:
        files.exchange(one, other)
    assert "dmesg" in caught.value.hint


def test_truncating_cuts_and_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"12345")
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    files.truncate(path, 2)
    assert path.read_bytes() == b"12"
    assert len(synced) == 1


def test_removing_and_reading_what_is_gone_is_fine(tmp_path: Path) -> None:
    files.remove(tmp_path / "none")
    assert files.read_file(tmp_path / "none") is None
    with pytest.raises(StorageError, match="cannot read"):
        files.read_file(tmp_path)


def test_a_tree_goes_whole_and_may_be_gone(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "c").touch()
    files.remove_tree(tmp_path / "a")
    files.remove_tree(tmp_path / "a")
    assert files.names(tmp_path) == []


def test_the_bytes_of_a_file_are_there_without_reading_them_and_one_that_is_gone_is_a_storage_error(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"12345")
    with files.mapped(path) as data:
        assert data[1:3] == b"23"
    path.unlink()
    with pytest.raises(StorageError, match=r"cannot read .*/journal: it is no longer there"), files.mapped(path):
        pass


def test_a_directory_in_one_that_is_gone_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no longer there"):
        files.make_directory(tmp_path / "gone" / "journal", parents=False)
    assert files.names(tmp_path) == []
