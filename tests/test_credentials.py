"""Keys hide themselves, and say in words what is wrong with where they come from."""

from __future__ import annotations

import copy
import os
import pickle
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.credentials import Key, black_out, forms, resolve_headers
from runner.errors import JobError

SECRET = "sk-0123456789abcdef"


@dataclass(frozen=True)
class Env:
    env: str


def test_a_key_hides_itself(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET)
    for key in (Key.from_env("K", {"K": SECRET}), Key.from_file(tmp_path / "key")):
        assert key.bearer() == f"Bearer {SECRET}"
        assert not hasattr(key, "__dict__")
        public = [str(getattr(key, name)) for name in dir(key) if not name.startswith("_")]
        for text in (repr(key), str(key), f"{key}", f"{key!r:>40}", repr([key]), repr({"k": key}), *public):
            assert SECRET not in text
        for take in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="never pickled or copied"):
                take(key)


def test_a_key_says_where_it_comes_from() -> None:
    assert repr(Key.from_env("COMETAPI_KEY", {"COMETAPI_KEY": SECRET})) == (
        "<Key ******** from the environment variable COMETAPI_KEY>"
    )


def test_white_space_around_a_key_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbf" + SECRET.encode() + b"\r\n")
    assert Key.from_env("K", {"K": f" {SECRET}\n"}).bearer() == f"Bearer {SECRET}"
    assert Key.from_file(tmp_path / "key").bearer() == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "is not set"),
        ({"COMETAPI_KEY": ""}, "is empty"),
        ({"COMETAPI_KEY": " \n\t"}, "is empty"),
        ({"COMETAPI_KEY": f"{SECRET}\nX: y"}, "holds a space, a line break or a character that no key has"),
        ({"COMETAPI_KEY": f"Bearer {SECRET}"}, "holds a space, a line break or a character that no key has"),
        ({"COMETAPI_KEY": f"{SECRET}…"}, "holds a space, a line break or a character that no key has"),
    ],
)
def test_a_variable_without_a_key_is_refused_in_words(environ: dict[str, str], words: str) -> None:
    with pytest.raises(JobError) as caught:
        Key.from_env("COMETAPI_KEY", environ)
    assert caught.value.message == f"endpoint.api_key_env: the environment variable COMETAPI_KEY {words}"
    assert caught.value.hint == "export COMETAPI_KEY=…"
    assert caught.value.exit_code == 2
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", " is empty"),
        (b" \n", " is empty"),
        (b"one\ntwo\n", " holds a space, a line break or a character that no key has"),
        (b"\xff\xfe", " is not a text file"),
        (None, " cannot be read: No such file or directory"),
    ],
)
def test_a_file_without_a_key_is_refused_in_words(content: bytes | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(JobError) as caught:
        Key.from_file(file)
    assert caught.value.message == f"endpoint.api_key_file: {file}{words}"
    assert caught.value.hint


def test_a_folder_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(JobError) as caught:
        Key.from_file(tmp_path)
    assert caught.value.message == f"endpoint.api_key_file: {tmp_path} cannot be read: Is a directory"


def test_a_file_that_may_not_be_read_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text(SECRET)
    file.chmod(0)
    if os.access(file, os.R_OK):  # the superuser reads everything

        def denied(*_args: object, **_kwargs: object) -> str:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(JobError) as caught:
        Key.from_file(file)
    assert caught.value.message == f"endpoint.api_key_file: {file} cannot be read: Permission denied"


def test_a_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").write_text(SECRET)
    assert Key.from_file(Path("~/key")).bearer() == f"Bearer {SECRET}"


def test_reload_says_whether_the_key_is_another(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("first")
    key = Key.from_file(file)
    assert key.reload() is False
    file.write_text("second\n")
    assert key.reload() is True
    assert key.bearer() == "Bearer second"
    assert key.reload() is False


@pytest.mark.parametrize("content", [None, b"", b"a b"])
def test_a_file_in_the_middle_of_its_replacement_keeps_the_old_key(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("first")
    key = Key.from_file(file)
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    assert key.reload() is False
    assert key.bearer() == "Bearer first"


def test_a_variable_cannot_change_under_a_process() -> None:
    environ = {"K": "first"}
    key = Key.from_env("K", environ)
    environ["K"] = "second"
    assert key.reload() is False
    assert key.bearer() == "Bearer first"


def test_header_values_come_from_the_environment() -> None:
    headers = resolve_headers({"X-Team": "support", "api-key": Env("AZURE")}, {"AZURE": f"{SECRET}\n"})
    assert headers.values == {"X-Team": "support", "api-key": SECRET}
    assert headers.hidden == (SECRET,)
    assert SECRET not in repr(headers)
    assert resolve_headers({}, {}).values == {}


def test_every_mistake_in_headers_at_once() -> None:
    headers: dict[str, str | Env] = {"a b": "1", "X-A": Env("NONE"), "X-B": "line\nbreak"}
    headers |= {"Accept-Encoding": "br", "X-C": "é", "X-D": "fine"}
    with pytest.raises(JobError) as caught:
        resolve_headers({**headers}, {})
    assert caught.value.mistakes == (
        "endpoint.headers.a b: this is not a header's name",
        "endpoint.headers.X-A: the environment variable NONE is not set",
        "endpoint.headers.X-B: the value holds characters no header can carry",
        "endpoint.headers.Accept-Encoding: this header cannot be set: it belongs to the transport",
        "endpoint.headers.X-C: the value holds characters no header can carry",
    )


def test_blacking_out_spares_words() -> None:
    assert (
        black_out(b'{"m": "key sk-12345678 of none"}', forms("sk-12345678", "none")) == b'{"m": "key ******** of none"}'
    )
    assert Key.from_env("K", {"K": SECRET}).black_out(f"a {SECRET} b".encode()) == b"a ******** b"
