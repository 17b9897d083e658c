"""Local images, recordings and files on a real socket: what arrives, what never leaves, what memory it takes."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint, Place, Said, Seen, ok, refused

from runner.media import MOST_BYTES

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 60
WAV = b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 24
PDF = b"%PDF-1.7\n%nothing\n"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint() as endpoint:
        yield Place(tmp_path, endpoint)


def rows(place: Place, *rows: dict[str, Any]) -> None:
    (place.root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def job(place: Place, *parts: dict[str, Any], **changes: Any) -> None:
    text = {"type": "text", "text": "row {{ row.id }}"}
    messages = [{"role": "user", "content": [text, *parts]}]
    place.job(request={"messages": messages}, **changes)


IMAGE = {"type": "image_url", "image_url": {"file": "{{ file }}", "detail": "low"}}


def parts(seen: Seen) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = seen.body["messages"][-1]["content"]
    return content[1:]


def url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def test_what_arrives_is_a_data_url_of_the_true_type(place: Place) -> None:
    (place.root / "lies.jpg").write_bytes(PNG)
    (place.root / "deep").mkdir()
    (place.root / "deep/said.bin").write_bytes(WAV)
    (place.root / "deep/paper.pdf").write_bytes(PDF)
    rows(place, {"id": 0, "file": "lies.jpg"})
    said = {"type": "input_audio", "input_audio": {"file": "deep/said.bin"}}
    paper = {"type": "file", "file": {"file": "deep/{{ 'paper' }}.pdf"}}
    job(place, IMAGE, said, paper)
    assert place.run().code == 0
    (seen,) = place.endpoint.seen
    assert parts(seen) == [
        {"type": "image_url", "image_url": {"url": url("image/png", PNG), "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(WAV).decode(), "format": "wav"}},
        {"type": "file", "file": {"file_data": url("application/pdf", PDF), "filename": "paper.pdf"}},
    ]
    assert seen.body["max_completion_tokens"] == 20


def test_files_that_may_not_be_sent_fail_their_rows_and_never_leave(place: Place, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    place.root = jobs
    (tmp_path / "secret.png").write_bytes(PNG)
    (jobs / "out").symlink_to("../secret.png")
    (jobs / "up").symlink_to("..")
    (jobs / "text.png").write_text("no image at all")
    (jobs / "empty.png").touch()
    with (jobs / "huge.png").open("wb") as huge:
        huge.truncate(20 * 1024 * 1024 + 1)
    os.mkfifo(jobs / "pipe.png")
    (jobs / "folder.png").mkdir()
    (jobs / "fine.png").write_bytes(PNG)
    (jobs / "inside").symlink_to("fine.png")
    wrong = {
        "gone.png": "there is no such file under input.files_root",
        "../secret.png": "a path with `..` is not read",
        str(tmp_path / "secret.png"): "the file is outside of input.files_root",
        "out": "the file is outside of input.files_root",
        "up/secret.png": "the file is outside of input.files_root",
        "text.png": "by its first bytes the file is text/plain, and not an image",
        "empty.png": "the file is empty",
        "huge.png": "the file has 20,971,521 bytes, at most 20,971,520 are sent",
        "pipe.png": "this is no plain file",
        "folder.png": "this is no plain file",
        "/dev/zero": "the file is outside of input.files_root",
        "": "the path of a file must be text, and not empty",
    }
    right = ["fine.png", "inside", str(jobs / "fine.png")]
    rows(place, *({"id": number, "file": name} for number, name in enumerate([*wrong, *right])))
    job(place, IMAGE)
    done = place.run("--json")
    assert (done.code, place.sent) == (1, len(right))
    assert all(parts(seen)[0]["image_url"]["url"] == url("image/png", PNG) for seen in place.endpoint.seen)
    for record, (name, said) in zip(place.records(), wrong.items(), strict=False):
        assert (record["status"], record["error_kind"], record["attempts"]) == ("failed", "INPUT", []), name
        assert record["error"].startswith(f"messages.0.content.1.image_url.file: {said}"), record["error"]
        assert record["error"].endswith(f": {name}") or not name
        assert (record["cost_usd"], record["total_usd"], record["http_status"]) == (None, 0.0, None)
    assert [record["status"] for record in place.records()[len(wrong) :]] == ["ok"] * len(right)
    assert done.json["totals"]["exchanges"] == len(right)


#: The program, which leaves a file `planned-N` when row N has become a request.
PLANNING = """
import pathlib, runner.cli, runner.feed

def noting(feeder, row, opened, made=runner.feed.Feeder._made):
    found = made(feeder, row, opened)
    pathlib.Path(f"planned-{row.index}").touch()
    return found

runner.feed.Feeder._made = noting
runner.cli.main()
"""


def test_a_file_that_changes_after_it_was_planned_is_not_sent(place: Place) -> None:
    (place.root / "a.png").write_bytes(PNG)
    rows(place, *({"id": number, "file": "a.png"} for number in range(3)))

    def changed_once_all_are_planned() -> object:
        return (place.root / "planned-2").exists() and (place.root / "a.png").write_bytes(PNG + b"more")

    place.endpoint.answer = lambda seen: Said(200, ok().body, once=changed_once_all_are_planned)
    job(place, IMAGE, limits={"concurrency": 1})
    assert (place.start("run", "job.yaml", program=PLANNING).wait().code, place.sent) == (1, 1)
    fine, *changed = place.records()
    assert fine["status"] == "ok"
    for record in changed:
        assert (record["error_kind"], record["attempts"], record["request_hash"]) == ("INPUT", [], "")
        assert "the file changed while the run went on" in record["error"]
    place.endpoint.answer = lambda seen: ok()
    assert (place.call("retry", "job.yaml").code, place.sent) == (0, 3)
    assert parts(place.endpoint.seen[-1])[0]["image_url"]["url"] == url("image/png", PNG + b"more")


def test_an_answered_row_whose_file_changed_is_asked_again_with_consent(place: Place) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (place.root / name).write_bytes(PNG)
    rows(place, *({"id": number, "file": f"{name}.png"} for number, name in enumerate("abc")))
    job(place, IMAGE)
    assert (place.run().code, place.sent) == (0, 3)
    (place.root / "c.png").unlink()  # what is answered needs its file no more
    assert (place.run().code, place.sent) == (0, 3)
    (place.root / "b.png").write_bytes(PNG + b"new")
    assert "2 kept, 1 changed; 1 to send" in place.call("check", "job.yaml").out
    refused = place.run()
    assert (refused.code, place.sent, refused.errors) == (2, 3, ["1 answered rows would be asked again"])
    assert "the content of local files changed: 2 kept, 1 changed; 1 to send" in refused.err
    assert (place.run("--keep-answers").code, place.sent) == (0, 3)
    assert (place.run("--accept-changes").code, place.sent) == (0, 4)
    assert parts(place.endpoint.seen[-1])[0]["image_url"]["url"] == url("image/png", PNG + b"new")
    assert [len(record["attempts"]) for record in place.records()] == [1, 2, 1]
    assert (place.run().code, place.sent) == (0, 4)


def test_a_retried_request_carries_its_file_again(place: Place) -> None:
    (place.root / "a.png").write_bytes(PNG)
    rows(place, {"id": 0, "file": "a.png"})
    place.endpoint.answer = lambda seen: ok() if seen.number else refused(500, "not now")
    job(place, IMAGE)
    assert place.run().code == 0
    first, second = place.endpoint.seen
    assert first.body == second.body
    assert parts(second)[0]["image_url"]["url"] == url("image/png", PNG)


def test_render_check_and_show_name_files_and_read_none(place: Place) -> None:
    (place.root / "a.png").write_bytes(PNG)
    os.utime(place.root / "a.png", ns=(1, 1_700_000_000_000_000_000))
    (place.root / "b.png").write_text("no image")
    rows(place, *({"id": number, "file": f"{name}.png"} for number, name in enumerate(["a", "gone", "b"])))
    job(place, IMAGE)
    shown = place.call("render", "job.yaml", "-n", "3")
    named = {"file": "a.png", "size": len(PNG), "mtime_ns": 1_700_000_000_000_000_000, "detail": "low"}
    first, second, third = map(json.loads, shown.out.splitlines())
    assert first["body"]["messages"][0]["content"][1] == {"type": "image_url", "image_url": named}
    at = "messages.0.content.1.image_url"
    assert first["files"] == [{"at": at, "file": "a.png", "bytes": len(PNG), "type": "image/png"}]
    assert "there is no such file" in second["error"]
    assert "by its first bytes the file is text/plain" in third["files"][0]["error"]
    checked = place.call("check", "job.yaml").out
    assert "1 row cannot be sent and fails; row 1: messages.0.content.1.image_url.file: there is no" in checked
    assert place.sent == 0


@pytest.mark.parametrize(("files_root", "code"), [(None, 1), ("./", 0)])
def test_a_conversation_out_of_the_data_names_files_only_where_the_job_says_so(
    place: Place, files_root: str | None, code: int
) -> None:
    (place.root / "a.png").write_bytes(PNG)
    said = {"role": "user", "content": [{"type": "image_url", "image_url": {"file": "a.png"}}]}
    rows(place, {"id": 0, "history": [said]})
    place.job(request={"messages": "{{ history }}"}, input={"files_root": files_root})
    assert (place.run().code, place.sent) == (code, 1 - code)
    (record,) = place.records()
    if code:
        assert "messages out of the data may name local files only when" in record["error"]
    else:
        assert place.endpoint.seen[0].body["messages"][0]["content"][0]["image_url"]["url"] == url("image/png", PNG)


def test_no_address_out_of_the_data_is_ever_asked_for(place: Place) -> None:
    with Endpoint() as stranger:
        rows(place, *({"id": number, "at": f"{stranger.url}/{number}.png"} for number in range(3)))
        job(place, {"type": "image_url", "image_url": {"url": "{{ row['at'] }}"}})
        assert place.run().code == 0
        assert (stranger.seen, stranger.connections, place.sent) == ([], 0, 3)
        assert parts(place.endpoint.seen[0])[0]["image_url"]["url"].startswith(stranger.url)


class Sink:
    """An endpoint that throws away what it is sent, byte by byte; it answers when `enough` requests are there."""

    def __init__(self, enough: int) -> None:
        self.enough = enough
        self.most = self.here = self.bytes = 0
        self.full = asyncio.Event()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = await self._body(reader)
                self.bytes += length
                self.here += 1
                self.most = max(self.most, self.here)
                if self.here >= self.enough:
                    await asyncio.sleep(0.5)  # time for those who should not come
                    self.full.set()
                await asyncio.wait_for(self.full.wait(), 120)
                self.here -= 1
                writer.write(ok().wire())
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()

    @staticmethod
    async def _body(reader: asyncio.StreamReader) -> int:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = left = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        while left:
            left -= len(await reader.read(min(left, 1 << 20)))
        return length


def peak_mib(pid: int) -> int:
    """The most memory that a process has held so far; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    return int(found[1]) >> 10 if found else 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_many_large_files_never_stand_in_memory_together(place: Place) -> None:
    size, count = 5 << 20, 80
    together = MOST_BYTES // (-(-size // 3) * 4)
    (place.root / "a.png").write_bytes(PNG + bytes(size - len(PNG)))
    rows(place, *({"id": number, "file": "a.png"} for number in range(count)))
    peak = 0

    async def serve() -> Sink:
        nonlocal peak
        sink = Sink(together)
        server = await asyncio.start_server(sink.talk, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        job(place, IMAGE, endpoint={"base_url": url}, limits={"concurrency": 64})
        life = place.start("run", "job.yaml")
        while now := peak_mib(life.pid):
            peak = max(peak, now)
            await asyncio.sleep(0.05)
        server.close()
        assert life.wait().code == 0
        return sink

    sink = asyncio.run(serve())
    assert sink.bytes > count * size * 4 // 3
    assert sink.most == together == 38  # of the 64 that have a slot
    # 130 MiB for the program and its libraries; 64 requests would be 430, and as much again if each were held twice.
    assert peak < 130 + (MOST_BYTES >> 20) + 160
