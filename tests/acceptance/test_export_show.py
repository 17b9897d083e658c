"""`show` and `export` with the real program: of finished runs, of runs that go on, into pipes and full disks."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from endpoint import Endpoint, Place, Said, Seen, ok, refused, snapshot, until

ANSI = "\x1b[31mred\x9b2J"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint() as endpoint:
        place = Place(tmp_path, endpoint)
        place.rows(6)
        yield place


def mixed(seen: Seen) -> Said:
    """Row 2 is refused for good, row 3 at first, row 4 answers with escapes."""
    row = int(seen.text.split()[-1])
    if row == 2:
        return refused(400, "Too long.", "context_length_exceeded")
    if row == 3 and sum(each.text == seen.text for each in seen_before(seen)) == 0:
        return refused(429, "Slow down.", "rate_limit_exceeded", retry_after="0.05")
    return ok(ANSI if row == 4 else f"=answer {row}")


_earlier: list[Seen] = []


def seen_before(seen: Seen) -> list[Seen]:
    before = list(_earlier)
    _earlier.append(seen)
    return before


@pytest.fixture
def ended(place: Place) -> Place:
    _earlier.clear()
    place.endpoint.answer = mixed
    place.job(input={"id_column": "id"})
    assert place.run().code == 1
    return place


def shown(place: Place, *words: str) -> dict[str, Any]:
    done = place.call("show", "job.yaml", *words, "--json")
    assert (done.code, done.err) == (0, "")
    return done.json


def test_each_ending_of_a_row_has_its_story(ended: Place) -> None:
    good, bad, again = (shown(ended, row) for row in "123")
    assert (good["final"], good["as_sent"], good["outcome"]["status"]) == (True, True, "ok")
    assert good["input"] == {"id": 1, "text": "row 1"}
    assert good["request"] == next(seen.body for seen in ended.endpoint.seen if seen.text == "say row 1")
    assert (bad["outcome"]["status"], bad["outcome"]["error_kind"]) == ("failed", "REQUEST")
    assert [each["http_status"] for each in bad["attempts"]] == [400]
    assert [each["error_kind"] for each in again["attempts"]] == ["RATE", None]
    assert again["outcome"]["status"] == "ok"
    assert shown(ended, "3")["attempts"] == ended.call("show", "runs/trial", "3", "--json").json["attempts"]


def test_the_words_of_a_story_cannot_move_the_cursor(ended: Place) -> None:
    done = ended.call("show", "job.yaml", "4")
    assert done.code == 0
    assert done.out.startswith("row 4 (id 4): ok\n")
    assert "\x1b" not in done.out and "\x9b" not in done.out
    assert "  content:  [31mred 2J\n" in done.out
    assert "as sent" in done.out
    assert shown(ended, "4")["outcome"]["content"] == ANSI


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "job.yaml", "99"), "no row has the id 99, and it is no row's ordinal"),
        (("show", "nothing", "1"), "nothing is not the directory of a run: it has no run.json"),
        (("export", "job.yaml", "-f", "xlsx"), "-f xlsx: "),
        (("export", "job.yaml", "-f", "xls"), "-f xls: there is no such format"),
        (("export", "job.yaml", "--columns", "id,nothing"), "--columns: the results have no column `nothing`"),
        (("export", "job.yaml", "--status", "fine"), "--status fine: there is no such thing"),
        (("export", "job.yaml", "-o", "rows.jsonl", "--force"), "rows.jsonl is the input of the run"),
        (("export", "job.yaml", "-o", "runs/trial/results/x.parquet"), "runs/trial/results/x.parquet is inside"),
        (("export", "job.yaml", "--simulate"), "is not the directory of a run"),
    ],
)
def test_mistakes_are_sentences_and_touch_nothing(ended: Place, words: tuple[str, ...], said: str) -> None:
    before = snapshot(ended.root / "runs")
    done = ended.call(*words)
    assert (done.code, done.out) == (2, "")
    assert said in done.errors[0]
    assert snapshot(ended.root / "runs") == before
    assert ended.rows(6).is_file()


def test_three_forms_of_the_same_rows(ended: Place) -> None:
    told = ended.call("export", "job.yaml")
    assert (told.code, told.err) == (0, "")
    lines = [json.loads(line) for line in told.out.split("\n")[:-1]]
    assert [line["id"] for line in lines] == list(range(6))
    assert lines[4]["content"] == ANSI
    assert lines[3]["attempts"][0]["error_kind"] == "RATE"

    table = list(csv.DictReader(io.StringIO(ended.call("export", "job.yaml", "-f", "csv", "-o", "-").out)))
    assert [row["content"] for row in table] == ["'=answer 0", "'=answer 1", "", "'=answer 3", ANSI, "'=answer 5"]
    assert table[2]["error"] == lines[2]["error"]

    done = ended.call("export", "runs/trial", "-o", "all.parquet")
    assert (done.code, done.out, done.err) == (0, "", "6 rows in all.parquet\n")
    file = pq.read_table(ended.root / "all.parquet")
    assert file.equals(ended.results().replace_schema_metadata(None))


def test_columns_and_rows_may_be_chosen(ended: Place) -> None:
    done = ended.call("export", "job.yaml", "-f", "csv", "--columns", "status,id", "--status", "failed")
    assert done.out.replace("\r", "") == "status,id\nfailed,2\n"


def test_a_file_is_overwritten_only_with_force(ended: Place) -> None:
    (ended.root / "all.csv").write_text("mine")
    refused = ended.call("export", "job.yaml", "-o", "all.csv")
    assert (refused.code, (ended.root / "all.csv").read_text()) == (2, "mine")
    assert "--force" in refused.hint
    assert ended.call("export", "job.yaml", "-o", "all.csv", "--force").code == 0
    assert (ended.root / "all.csv").read_text().startswith("id,text,row_index,")


def test_what_is_final_can_be_read_while_the_run_goes_on(place: Place) -> None:
    place.rows(300)

    def answer(seen: Seen) -> Said:
        row = int(seen.text.split()[-1])
        if row in (3, 256):
            return refused(500, "oops")
        return Said(200, ok(f"fine {row}").body, once=lambda: row != 258)

    place.endpoint.answer = answer
    place.job(input={"id_column": "id"}, output={"rows_per_part": 256}, retry={"max_attempts": 2})
    life = place.start("run", "job.yaml")
    assert until(lambda: len({seen.text for seen in place.endpoint.seen}) == 300)

    def final() -> list[dict[str, Any]]:
        done = place.call("export", "job.yaml")
        assert (done.code, done.err.count("\n")) == (0, 1), done.err
        return [json.loads(line) for line in done.out.split("\n")[:-1]]

    assert until(lambda: len(final()) == 299)
    rows = final()
    ids = [row["id"] for row in rows]
    assert ids == [n for n in range(300) if n != 258]
    assert [row["content"] for row in rows if row["status"] == "ok"] == [f"fine {n}" for n in ids if n not in (3, 256)]
    told = place.call("export", "job.yaml", "-f", "parquet", "-o", "now.parquet")
    assert told.err == "299 rows in now.parquet; 1 of 300 rows are not final yet and are not in it\n"
    assert pq.read_table(place.root / "now.parquet")["id"].to_pylist() == ids
    waiting = shown(place, "258")
    assert (waiting["final"], waiting["outcome"], waiting["attempts"], waiting["as_sent"]) == (False, None, [], None)
    assert waiting["request"]["messages"][-1]["content"] == "say row 258"
    assert place.call("show", "job.yaml", "258").out.startswith("row 258 (id 258): not final yet\n")
    assert shown(place, "257")["outcome"]["content"] == "fine 257"
    life.signal(signal.SIGKILL)
    life.wait()


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_reader_that_leaves_ends_it_quietly(place: Place, form: str) -> None:
    place.rows(600)
    place.endpoint.answer = lambda seen: ok(seen.text * 200)
    place.job(output={"rows_per_part": 256}, limits={"concurrency": 64})
    assert place.run().code == 0
    pipe = place.root / "pipe"
    os.mkfifo(pipe)
    life = place.start("export", "job.yaml", "-f", form, out=pipe)
    with pipe.open("rb") as reader:
        reader.read(3)
    assert (life.wait().code, life.err) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_full_disk_is_told(ended: Place, form: str) -> None:
    done = ended.start("export", "job.yaml", "-f", form, out=Path("/dev/full")).wait()
    assert done.code == 4
    assert done.err.startswith("error: cannot write to standard output: No space left on device\n\nhint: ")
    assert "ignored" not in done.err


SLOW = (
    "import sys, time; from runner import cli, export; export.JsonLines.write = lambda *_: time.sleep(60); cli.main()"
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_export_that_is_left_leaves_nothing_for_good(ended: Place, number: signal.Signals) -> None:
    def halves() -> list[Path]:
        return list(ended.root.glob(".out.jsonl.*"))

    life = ended.start("export", "job.yaml", "-o", "out.jsonl", program=SLOW)
    assert until(halves)
    other = ended.call("export", "job.yaml", "-o", "out.jsonl")  # beside one that goes on
    assert (other.code, len(halves())) == (0, 1)
    life.signal(number)
    assert life.wait().code in (128 + number, -signal.SIGKILL)
    assert life.err.strip() == ""
    assert len(halves()) == (number == signal.SIGKILL)
    assert ended.call("export", "job.yaml", "-o", "out.jsonl", "--force").code == 0
    assert halves() == []
    assert (ended.root / "out.jsonl").read_bytes().count(b"\n") == 6


def test_what_others_have_written_beside_an_export_stays(ended: Place) -> None:
    names = [".out.jsonl.tmp", ".out.jsonl.mine.tmp", f".out.jsonl.{os.getpid()}.tmp", ".out.json.999999999.tmp"]
    for name in names:
        (ended.root / name).touch()
    assert ended.call("export", "job.yaml", "-o", "out.jsonl").code == 0
    assert all((ended.root / name).exists() for name in names)
