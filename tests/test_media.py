"""Local files: which may be read, how they are read, and how much of them stands in memory."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from runner import media
from runner.errors import JobError
from runner.media import ByteLimiter, Folder, Media, attach_of, folder_of
from runner.records import Billed, Failure, Kind
from runner.wire.attach import MAX_FILE_BYTES, Local, Stamp, cut, stamped

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 60
AT = "messages.0.content.1.image_url"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.png").write_bytes(PNG)
    (folder / "deep/b.png").write_bytes(PNG + b"b")
    (tmp_path / "outside.png").write_bytes(PNG)
    return folder


def stamp_of(path: Path) -> Stamp:
    found = path.stat()
    return Stamp(found.st_size, found.st_mtime_ns)


def local(root: Path, name: str) -> Local:
    return Local(AT, "image_url", name, stamp_of(root / name))


def body(*names: str) -> dict[str, Any]:
    content = [{"type": "image_url", "image_url": {"file": name}} for name in names]
    return {"model": "m", "messages": [{"role": "user", "content": content}]}


def named(folder: Folder, *names: str) -> bytes:
    weighed = stamped(body(*names), folder.look)
    assert not isinstance(weighed, Failure)
    return json.dumps(weighed.body).encode()


def said(outcome: Any) -> str:
    assert isinstance(outcome, Failure), outcome
    assert (outcome.kind, outcome.billed) == (Kind.INPUT, Billed.NO)
    return outcome.message


# Which files may be read


@pytest.mark.parametrize("name", ["a.png", "./a.png", "deep/b.png", "deep//b.png", "inside.png", "loop/deep/b.png"])
def test_a_plain_file_below_the_root_is_stamped(root: Path, name: str) -> None:
    (root / "inside.png").symlink_to("deep/b.png")
    (root / "loop").symlink_to(root)
    assert Folder(root).look(name, AT) == stamp_of(root / name)
    assert Folder(root).look(str(root / name), AT) == stamp_of(root / name)


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    assert Folder(tmp_path / "alias").look(str(tmp_path / "alias/a.png"), AT) == stamp_of(root / "a.png")


def _links(root: Path) -> None:
    (root / "out").symlink_to("../outside.png")
    (root / "up").symlink_to("..")
    (root / "round").symlink_to("round")
    (root / "zero").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe")
    (root / "empty").touch()
    with (root / "huge").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)


OUTSIDE, DOTS = "the file is outside of input.files_root (", "a path with `..` is not read; name the file from "
NO_FILE, GONE = "this is no plain file: ", "there is no such file under input.files_root ("
REFUSED = [
    ("gone.png", GONE),
    ("gone/a.png", GONE),
    ("a.png/b", "a part of the path is no folder: "),
    ("../outside.png", DOTS),
    ("deep/../a.png", DOTS),
    ("..", DOTS),
    ("out", OUTSIDE),
    ("up/outside.png", OUTSIDE),
    ("/etc/hostname", OUTSIDE),
    ("/", OUTSIDE),
    (".", OUTSIDE),
    ("zero", OUTSIDE),
    ("round", NO_FILE),
    ("deep", NO_FILE),
    ("deep/", NO_FILE),
    ("pipe", NO_FILE),
    ("empty", "the file is empty: "),
    ("huge", "the file has 20,971,521 bytes, at most 20,971,520 are sent: "),
    ("x" * 300, "the path is too long: "),
    ("half\ud83d.png", "the path is no text: "),
]


@pytest.mark.parametrize(("name", "sentence"), REFUSED)
def test_nothing_else_is_read(root: Path, name: str, sentence: str) -> None:
    _links(root)
    folder = Folder(root)
    assert said(folder.look(name, AT)).startswith(f"{AT}.file: {sentence}")
    # Nor by who has a stamp of it, as when it was another file a moment ago.
    made = folder.fill([*cut(b'{"x":1}'), Local(AT, "image_url", name, Stamp(68, 1))])
    assert said(made).startswith(f"{AT}.file: ")


def test_a_file_without_permission_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **named: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert said(Folder(root).fill([local(root, "a.png")])).startswith(f"{AT}.file: the file may not be read; mend")


def _to_a_link(path: Path, target: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(target)


@pytest.mark.parametrize("what", ["deep", "deep/b.png"])
def test_a_link_that_appears_after_the_look_leads_nowhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The attacker's moment: between the resolving of the path and the opening of what it names."""
    (tmp_path / "b.png").write_bytes(PNG + b"b")
    wanted, resolve = local(root, "deep/b.png"), media._resolve

    def resolve_and_swap(path: Path) -> Path:
        found = resolve(path)
        _to_a_link(root / what, tmp_path / "b.png" if what.endswith("png") else tmp_path)
        return found

    folder = Folder(root)
    monkeypatch.setattr(media, "_resolve", resolve_and_swap)
    outcome = said(folder.fill([wanted]))
    assert "no plain file" in outcome or "became a link" in outcome or "no folder" in outcome


def test_a_file_becomes_a_fifo_and_nobody_hangs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, stat = local(root, "a.png"), os.stat

    def stat_and_swap(*args: Any, **named: Any) -> os.stat_result:
        found = stat(*args, **named)
        (root / "a.png").unlink()
        os.mkfifo(root / "a.png")
        return found

    folder = Folder(root)
    monkeypatch.setattr(os, "stat", stat_and_swap)
    assert "this is no plain file" in said(folder.fill([wanted]))


# What is read of them


def test_a_body_is_filled_with_its_files(root: Path) -> None:
    folder = Folder(root)
    filled = folder.fill(cut(named(folder, "a.png", "deep/b.png")))
    assert isinstance(filled, bytes)
    urls = [part["image_url"]["url"] for part in json.loads(filled)["messages"][0]["content"]]
    assert urls == [f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in (PNG, PNG + b"b")]


@pytest.mark.parametrize("size", [60, 3 << 18, (3 << 18) + 1, (3 << 19) + 7])
def test_a_file_of_any_size_comes_whole(root: Path, size: int) -> None:
    data = (PNG + os.urandom(size))[:size]
    (root / "big.png").write_bytes(data)
    filled = Folder(root).fill([local(root, "big.png")])
    assert isinstance(filled, bytes)
    assert base64.b64decode(json.loads(filled)["url"].partition(",")[2]) == data


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def _touch(path: Path) -> None:
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


def _replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"GIF89a" + path.read_bytes()[6:])
    os.utime(other, ns=(1, path.stat().st_mtime_ns + 1))
    other.rename(path)


@pytest.mark.parametrize("change", [_grow, _touch, _replace])
def test_a_file_that_is_another_than_was_planned_is_not_sent(root: Path, change: Callable[[Path], None]) -> None:
    wanted = local(root, "a.png")
    change(root / "a.png")
    assert said(Folder(root).fill([wanted])).startswith(f"{AT}.file: the file changed while the run went on; `runner ")


def test_a_file_that_is_written_to_while_it_is_read_is_not_sent(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, frame = local(root, "a.png"), media.frame

    def frame_and_grow(*args: Any) -> Any:
        _grow(root / "a.png")
        return frame(*args)

    monkeypatch.setattr(media, "frame", frame_and_grow)
    assert "the file changed while the run went on" in said(Folder(root).fill([wanted]))


def test_a_type_is_told_from_the_first_bytes_alone(root: Path) -> None:
    (root / "b.png").write_text("no image")
    assert Folder(root).type_of(local(root, "a.png")) == "image/png"
    assert "by its first bytes the file is text/plain" in said(Folder(root).type_of(local(root, "b.png")))


def test_no_descriptor_is_left_open(root: Path) -> None:
    _links(root)
    before = len(list(Path("/dev/fd").iterdir()))
    for name in ("deep/b.png", "gone", "deep", "pipe"):
        Folder(root).fill([Local(AT, "image_url", name, Stamp(69, 1))])
    assert len(list(Path("/dev/fd").iterdir())) == before


# How much of them stands in memory


@pytest.mark.anyio
async def test_bytes_are_held_for_as_long_as_a_request_is_open(root: Path) -> None:
    folder = Folder(root)
    whole = Media(folder, most_bytes=100)
    async with whole.filled(named(folder, "a.png")) as first:
        assert isinstance(first, bytes)
        with anyio.move_on_after(0.05) as waiting:
            async with whole.filled(named(folder, "a.png")):
                pass
        assert waiting.cancelled_caught
    with anyio.fail_after(60):
        async with whole.filled(named(folder, "a.png")) as second:
            assert second == first


@pytest.mark.anyio
async def test_a_body_without_files_waits_for_nobody(root: Path) -> None:
    whole = Media(Folder(root), most_bytes=1)
    async with whole.filled(named(Folder(root), "a.png")), whole.filled(b"{}") as plain:
        assert plain == b"{}"


@pytest.mark.anyio
async def test_a_file_that_cannot_be_sent_leaves_its_room(root: Path) -> None:
    folder = Folder(root)
    asked = named(folder, "a.png")
    (root / "a.png").unlink()
    whole = Media(folder, most_bytes=1)
    for _ in range(2):
        async with whole.filled(asked) as outcome:
            assert "there is no such file" in said(outcome)


class Queue:
    """Some who want room, and in which order they get it."""

    def __init__(self, most: int) -> None:
        self.room = ByteLimiter(most)
        self.inside: list[str] = []
        self.scopes: dict[str, anyio.CancelScope] = {}

    async def want(self, name: str, size: int) -> None:
        with anyio.CancelScope() as self.scopes[name]:
            async with self.room.hold(size):
                self.inside.append(name)
                await anyio.sleep_forever()

    async def leave(self, *names: str) -> None:
        for name in names:
            self.scopes[name].cancel()
        await anyio.wait_all_tasks_blocked()


@pytest.mark.anyio
async def test_room_is_given_in_order_and_what_is_larger_than_all_of_it_goes_alone() -> None:
    queue = Queue(10)
    async with anyio.create_task_group() as tasks:
        for name, size in {"a": 6, "b": 4, "huge": 50, "c": 1, "d": 1}.items():
            tasks.start_soon(queue.want, name, size)
        await anyio.wait_all_tasks_blocked()
        assert (queue.inside, queue.room.held) == (["a", "b"], 10)
        await queue.leave("a")
        assert (queue.inside, queue.room.held) == (["a", "b"], 4)  # `c` would fit, and does not overtake
        await queue.leave("b")
        assert (queue.inside, queue.room.held) == (["a", "b", "huge"], 50)
        await queue.leave("huge")
        assert (queue.inside, queue.room.held) == (["a", "b", "huge", "c", "d"], 2)
        tasks.cancel_scope.cancel()
    assert queue.room.held == 0


@pytest.mark.anyio
async def test_who_gives_up_waiting_holds_nobody_up() -> None:
    queue = Queue(10)
    async with anyio.create_task_group() as tasks:
        for name, size in {"a": 8, "big": 9, "b": 2}.items():
            tasks.start_soon(queue.want, name, size)
        await anyio.wait_all_tasks_blocked()
        assert queue.inside == ["a"]
        await queue.leave("big")
        assert (queue.inside, queue.room.held) == (["a", "b"], 10)
        tasks.start_soon(queue.want, "next", 8)
        await anyio.wait_all_tasks_blocked()
        await queue.leave("a", "next")  # let in and sent home in the same moment
        assert queue.room.held == 2
        tasks.cancel_scope.cancel()
    assert queue.room.held == 0


# Which job reads files


def job(messages: Any, files_root: str = ".") -> Any:
    return SimpleNamespace(
        request=SimpleNamespace(messages=messages),
        input=SimpleNamespace(files_root=files_root),
        where=lambda path: "job.yaml:3",
    )


OWN: list[Any] = [{"role": "user", "content": [{"type": "image_url", "image_url": {"file": "a.png"}}]}]
TEXT: list[Any] = [{"role": "user", "content": "x"}]
LINK: list[Any] = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}]
DATA = "{{ history }}"


@pytest.mark.parametrize(
    ("messages", "files_root", "looks", "reads"),
    [
        (TEXT, "pictures", False, False),
        (LINK, "pictures", True, False),
        (OWN, ".", True, True),
        (OWN, "pictures", True, True),
        (DATA, ".", True, False),
        (DATA, "pictures", True, True),
        ([DATA, *OWN], "pictures", True, True),
    ],
)
def test_only_a_job_that_names_files_reads_any(
    messages: Any, files_root: str, looks: bool, reads: bool, tmp_path: Path
) -> None:
    attach, asks_disk = attach_of(job(messages, files_root), tmp_path)
    folder = folder_of(job(messages, files_root), tmp_path)
    assert (attach is not None, asks_disk, folder is not None) == (looks, reads, reads)
    assert folder is None or folder.root == (tmp_path / files_root).resolve()


def test_messages_out_of_the_data_name_no_files_unless_the_job_names_their_folder(root: Path) -> None:
    attach, _ = attach_of(job(DATA), root)
    assert attach
    assert said(attach(body("a.png"))).startswith(
        "messages.0.content.0.image_url.file: messages out of the data may name"
    )
    with pytest.raises(
        JobError, match=r"job.yaml:3: input.files_root: messages out of the data could name local files"
    ):
        attach_of(job([DATA, *OWN]), root)
