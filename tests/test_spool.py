"""What cannot be sought is copied as it is read, and read again by range: the rows of a plain file, or an error."""

from __future__ import annotations

import _thread
import errno
import gzip
import io
import itertools
import json
import os
import random
import stat
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.errors import ChangedError, InputError, StorageError
from runner.sources import (
    DIRECTORY,
    STDIN,
    Reader,
    Spooling,
    copies,
    copies_stand,
    expand,
    hugegroups,
    stream,
    tiles,
    unpack,
)
from runner.sources.catalog import Frame
from runner.sources.parquet import shape
from runner.survey import Survey, SurveyOptions, survey

JSONL = SurveyOptions(rows_per_part=3)
ZSTD = pa.Codec("zstd")


@contextmanager
def piped(data: bytes) -> Iterator[None]:
    """stdin that holds `data`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        yield


def zstd(data: bytes) -> bytes:
    return bytes(ZSTD.compress(data, asbytes=True))


def unzstd(run_root: Path, found: Survey) -> bytes:
    """All that the copy of the first file holds, as `zstd -dc` gives it."""
    copy = run_root / DIRECTORY / found.files[0].spool
    return bytes(pa.CompressedInputStream(pa.BufferReader(copy.read_bytes()), "zstd").read())


def lines(rows: Sequence[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def settled(run_root: Path, paths: list[Path], options: SurveyOptions = JSONL) -> tuple[Survey, Reader]:
    """A survey with its copies in the run's directory, and a reader of it."""
    with Spooling(run_root) as spooling:
        found = survey(paths, options, spooling=spooling)
        run_root.mkdir(parents=True, exist_ok=True)
        spooling.settle(found, None)
    found = Survey.from_json(json.loads(json.dumps(found.to_json())))
    return found, Reader(found, run_root / DIRECTORY)


def read_in_place(path: Path, options: SurveyOptions = JSONL) -> tuple[Survey, Reader]:
    found = survey([path], options)
    return found, Reader(found)


def everything(found: Survey, reader: Reader) -> Any:
    rows = [(row.index, row.data) for number in range(len(found.ranges)) for row in reader.rows(number)]
    tables = [reader.table(number, found.columns).to_pylist() for number in range(len(found.ranges))]
    hashes = [piece.hash for piece in found.ranges]
    return found.schema, hashes, [file.hash for file in found.files], rows, tables


ROWS = st.lists(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.text(max_size=40) | st.integers() | st.none(), max_size=3),
    max_size=30,
)


@contextmanager
def small_ranges() -> Iterator[None]:
    """Automatic ranges of 2 … 8 rows, a quarter of all; text in pieces of 64 bytes."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"BLOCK_ROWS": 2, "SMALLEST": 2, "LARGEST": 8, "_PARTS": 4}.items():
            patch.setattr(tiles, name, value)
        patch.setattr(stream, "LARGEST", 8)
        patch.setattr(unpack, "BLOCK_BYTES", 64)
        yield


def assert_a_frame_a_range(found: Survey) -> None:
    """Every range has a frame of its own in each file that it lies in, and nothing else has one."""
    for number, file in enumerate(found.files):
        if file.spool:
            pieces = [piece for each in found.ranges for piece in each.segments if piece.file == number]
            begins = [0, *(frame.end for frame in file.frames)]
            assert len(file.frames) == len(pieces)
            for piece, (begin, end) in zip(pieces, itertools.pairwise(begins), strict=True):
                assert begin <= piece.start <= piece.end <= end


@settings(deadline=None, max_examples=60)
@given(
    rows=ROWS.filter(len),
    blank=st.lists(st.sampled_from([b"", b"", b"", b"\n", b" \n\r\n", b"\n" * 200]), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 2000), max_size=4),
    rows_per_part=st.sampled_from(["auto", "auto", 1, 3, 100]),
)
def test_plain_gzip_zstd_and_stdin_are_the_same_rows_tables_and_hashes(
    rows: list[Any], blank: list[bytes], cuts: list[int], rows_per_part: Any
) -> None:
    text = b"".join(gap + lines([row]) for gap, row in zip(itertools.cycle(blank), rows, strict=False)) + blank[-1]
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[begin:end] for begin, end in itertools.pairwise(edges)]
    options = SurveyOptions(rows_per_part=rows_per_part)
    with tempfile.TemporaryDirectory() as folder, small_ranges():
        base = Path(folder)
        plain, packed, frames = base / "t.jsonl", base / "t.jsonl.gz", base / "t.jsonl.zst"
        plain.write_bytes(text)
        packed.write_bytes(b"".join(map(gzip.compress, pieces)))
        frames.write_bytes(b"".join(map(zstd, pieces)))
        expected = everything(*read_in_place(plain, options))
        for path in (packed, frames):
            found, reader = settled(base / "run", [path], options)
            assert everything(found, reader) == expected
            assert_a_frame_a_range(found)
            assert unzstd(base / "run", found) == text
            assert everything(*read_in_place(path, options)) == expected
        with piped(text):
            assert everything(*settled(base / "piped", [STDIN], options)) == expected


@pytest.mark.parametrize("name", ["t.csv.gz", "t.csv.zst", "-"])
def test_csv_is_read_from_packed_files_and_from_stdin(tmp_path: Path, name: str) -> None:
    text = b'\xef\xbb\xbfid,text\r\n1,"x\r\ny"\r\n' + b"2,z\n" * 5
    (tmp_path / "t.csv").write_bytes(text)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text))
    (tmp_path / "t.csv.zst").write_bytes(zstd(text))
    options = replace(JSONL, format="csv")
    expected = everything(*read_in_place(tmp_path / "t.csv", options))
    with piped(text):
        assert everything(*settled(tmp_path / "run", expand([name], tmp_path), options)) == expected


def test_ranges_may_span_files_of_any_packing(tmp_path: Path) -> None:
    rows = [{"n": n} for n in range(20)]
    (tmp_path / "a.jsonl").write_bytes(lines(rows[:4]))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines(rows[4:8])))
    (tmp_path / "c.ndjson.zst").write_bytes(zstd(lines(rows[8:11])))
    with piped(lines(rows[11:])):
        found, reader = settled(tmp_path / "run", expand([".", "-"], tmp_path))
    assert [file.path.name for file in found.files] == ["a.jsonl", "b.jsonl.gz", "c.ndjson.zst", "stdin"]
    assert [row.data for number in range(len(found.ranges)) for row in reader.rows(number)] == rows


def test_a_limit_leaves_the_rest_unread(tmp_path: Path) -> None:
    with piped(lines([{"n": n} for n in range(9)]) + b'{"n": 1'):
        _, reader = settled(tmp_path / "run", [STDIN], replace(JSONL, limit=4))
    assert [row.data for number in range(2) for row in reader.rows(number)] == [{"n": n} for n in range(4)]


@settings(deadline=None, max_examples=40)
@given(order=st.permutations(range(7)), taken=st.integers(0, 3))
def test_without_a_copy_ranges_are_found_by_reading_on_in_any_order(order: list[int], taken: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.jsonl.gz"
        path.write_bytes(gzip.compress(lines([{"n": n} for n in range(20)])))
        reader = Reader(survey([path], JSONL))
        for number in order:
            list(zip(reader.rows(number), range(taken), strict=False))  # left in the middle
            assert [row.data for row in reader.rows(number)] == [{"n": n} for n in range(20)[number * 3 :][:3]]


NOISE = random.Random(7).randbytes(3000).hex()
WRITTEN = {
    "gz": gzip.compress(lines([{"a": NOISE}] * 3)) + gzip.compress(lines([{"b": NOISE[::-1]}])),
    "zst": zstd(lines([{"a": NOISE}] * 3)) + zstd(lines([{"b": NOISE[::-1]}])),
}
FIRST = {"gz": len(gzip.compress(lines([{"a": NOISE}] * 3))), "zst": len(zstd(lines([{"a": NOISE}] * 3)))}


@pytest.mark.parametrize("kind", WRITTEN)
@settings(deadline=None, max_examples=EXAMPLES)
@given(data=st.data())
def test_a_packed_file_cut_anywhere_inside_a_member_is_refused(kind: str, data: Any) -> None:
    size = data.draw(st.integers(1, len(WRITTEN[kind]) - 1).filter(lambda size: size != FIRST[kind]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"t.jsonl.{kind}"
        path.write_bytes(WRITTEN[kind][:size])
        with pytest.raises(InputError) as caught:
            survey([path], JSONL)
        assert caught.value.message.startswith(f"t.jsonl.{kind} is cut off or damaged: its text is good up to byte ")
        assert caught.value.hint


@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize("garbage", [b"x", b"\0\0\0\0garbage", b"\x1f", b"{}\n"])
def test_something_else_behind_the_last_member_is_refused(tmp_path: Path, kind: str, garbage: bytes) -> None:
    path = tmp_path / f"t.jsonl.{kind}"
    path.write_bytes(WRITTEN[kind] + garbage)
    with pytest.raises(InputError, match="is cut off or damaged"):
        survey([path], JSONL)


@pytest.mark.parametrize(
    ("name", "data", "rows"),
    [
        ("t.jsonl.gz", b"", 0),
        ("t.jsonl.zst", b"", 0),
        ("t.jsonl.gz", gzip.compress(b"", mtime=0), 0),
        ("t.jsonl.zst", zstd(b""), 0),
        ("t.JSONL.GZ", gzip.compress(b"{}\n", mtime=0) + bytes(512), 1),  # padded to a block, as on tapes
        ("t.jsonl.zst", b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstd(b"{}\n{}"), 2),  # pzstd's skippable frames
    ],
)
def test_what_packers_write_is_taken(tmp_path: Path, name: str, data: bytes, rows: int) -> None:
    (tmp_path / name).write_bytes(data)
    assert survey([tmp_path / name], JSONL).rows == rows
    assert settled(tmp_path / "run", [tmp_path / name])[0].rows == rows


@pytest.mark.parametrize(("name", "pack"), [("t.jsonl.gz", lambda data: gzip.compress(data, 9)), ("t.jsonl.zst", zstd)])
def test_a_file_that_unpacks_to_a_thousand_times_its_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(unpack, "FREE_BYTES", 4 << 20)
    (tmp_path / name).write_bytes(pack(bytes(40 << 20)))
    with pytest.raises(InputError, match=rf"^{name} unpacks to more than 1,000 times its size: ") as caught:
        survey([tmp_path / name], JSONL)
    assert caught.value.hint


def test_what_only_looks_packed_is_told(tmp_path: Path) -> None:
    twice, plain = tmp_path / "twice.jsonl.gz", tmp_path / "plain.jsonl.gz"
    twice.write_bytes(gzip.compress(gzip.compress(b"{}\n")))
    plain.write_bytes(b"{}\n")
    with pytest.raises(InputError, match=r"twice\.jsonl\.gz is compressed by gzip"):
        survey([twice], JSONL)
    with pytest.raises(InputError, match=r"plain\.jsonl\.gz is cut off or damaged: its text is good up to byte 0 "):
        survey([plain], JSONL)


FAIL_ROW = replace(JSONL, on_bad_line="fail_row")
CSV = replace(JSONL, format="csv")


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (b"", JSONL, "stdin ended before its first byte"),
        (b'{"a": 1}\n{"a": 2', JSONL, "stdin ended in the middle of line 2: what wrote it was cut off"),
        (b'{"a": 1}\n{"a": 2', FAIL_ROW, "stdin ended in the middle of line 2: what wrote it was cut off"),
        (b'{"a', FAIL_ROW, "stdin ended in the middle of line 1: what wrote it was cut off"),
        (b"a,b\n1,2\n3,4", CSV, "stdin ended in the middle of line 3: what wrote it was cut off"),
        (b"a,b", CSV, "stdin ended in the middle of line 1: what wrote it was cut off"),
        (b'a,b\n1,"2', CSV, "stdin ended in the middle of line 2: what wrote it was cut off"),
        (gzip.compress(b"{}\n", mtime=0), JSONL, "stdin is compressed by gzip"),
    ],
)
def test_a_pipe_that_was_cut_as_far_as_it_shows_is_refused(
    tmp_path: Path, data: bytes, options: SurveyOptions, message: str
) -> None:
    with piped(data), Spooling(tmp_path / "run") as spooling, pytest.raises(InputError) as caught:
        survey([STDIN], options, spooling=spooling)
    assert caught.value.message == message
    assert caught.value.hint


def test_what_ends_a_pipeline_may_reach_its_writer_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(unpack.time, "sleep", waited.append)
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"{}\n")
    with path.open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert settled(tmp_path / "a", [STDIN])[0].rows == 1
    assert waited == []  # nobody writes to a file meanwhile
    reading, writing = os.pipe()
    os.write(writing, b"{}\n")
    os.close(writing)
    with os.fdopen(reading) as pipe:
        monkeypatch.setattr("sys.stdin", pipe)
        assert settled(tmp_path / "b", [STDIN])[0].rows == 1
    assert waited == [unpack._AFTER_END_S]


def test_a_signal_that_no_read_has_seen_is_seen_though_nothing_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both kinds: one that Python has noted and the system call has not, and a pull at the leash of another thread."""
    reading, writing = os.pipe()
    looked: list[int] = []

    def looks(size: int) -> None:
        looked.append(size)
        if len(looked) == 2:
            raise KeyboardInterrupt

    with os.fdopen(reading) as pipe, Spooling(tmp_path / "run") as spooling:
        monkeypatch.setattr("sys.stdin", pipe)
        monkeypatch.setattr(unpack, "_LOOK_UP_MS", 50)
        late = threading.Timer(30, os.close, [writing])  # what does not look up finds the end then
        late.start()
        with pytest.raises(KeyboardInterrupt):
            next(unpack.text_of(STDIN, "stdin", looks))
        noted = threading.Timer(0.2, _thread.interrupt_main)
        with pytest.raises(KeyboardInterrupt):
            noted.start()
            survey([STDIN], JSONL, spooling=spooling)
        with pytest.raises(KeyboardInterrupt):
            survey([STDIN], JSONL, _interrupt, spooling=spooling)
        late.cancel()
        os.close(writing)
    assert looked == [0, 0]


def _interrupt(done: int, total: int) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("data", [b'{"a": 1}\n{"a": 2}', b'{"a": 1}\n{"a": 2}\n', b'{"a": 1}\n{"a": 2}\n  '])
def test_a_last_line_that_is_whole_needs_no_newline(tmp_path: Path, data: bytes) -> None:
    with piped(data):
        assert settled(tmp_path / "run", [STDIN])[0].rows == 2


def test_stdin_is_for_run_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stdin can be read only once"):
        survey([STDIN], JSONL)
    monkeypatch.setattr("sys.stdin", None)
    with Spooling(tmp_path / "run") as spooling, pytest.raises(InputError, match="stdin holds no rows"):
        survey([STDIN], JSONL, spooling=spooling)


def test_a_copy_is_for_its_owner_alone_and_readable_by_zstd(tmp_path: Path) -> None:
    text = lines([{"n": n} for n in range(10)])
    with piped(text):
        found, _ = settled(tmp_path / "runs" / "r", [STDIN])
    (copy,) = (tmp_path / "runs" / "r" / DIRECTORY).iterdir()
    assert copy.name == found.files[0].spool
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700
    assert unzstd(tmp_path / "runs" / "r", found) == text
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["r"]


def test_a_survey_that_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    root = tmp_path / "new" / "runs" / "r"
    with pytest.raises(InputError), Spooling(root) as spooling, piped(b"{}\nnull\n"):
        survey([STDIN], JSONL, spooling=spooling)
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_is_swept_by_the_next_start_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    root = tmp_path / "r"
    left = tmp_path / f".r.{DIRECTORY}-0badcafe"
    left.mkdir()
    (left / "00000.0badcafe.zst").write_bytes(b"half")
    (tmp_path / f".other.{DIRECTORY}-0badcafe").mkdir()
    with Spooling(root) as spooling:
        assert not left.exists()
        made = spooling.file(0, "zst")
        with Spooling(root):
            assert made.path.is_file()
    assert [path.name for path in tmp_path.iterdir()] == [f".other.{DIRECTORY}-0badcafe"]


def test_copies_that_survey_json_names_outlive_their_replacement(tmp_path: Path) -> None:
    root, path = tmp_path / "r", tmp_path / "t.jsonl.gz"
    names = []
    saved = None
    (root / DIRECTORY).mkdir(parents=True)
    (root / DIRECTORY / "frame.parquet").touch()
    for n in range(3):
        path.write_bytes(gzip.compress(lines([{"n": n}])))
        with Spooling(root) as spooling:
            found = survey([path], JSONL, spooling=spooling)
            assert spooling.settle(found, saved)
        saved = found.to_json()
        names.append(found.files[0].spool)
    assert {file.name for file in (root / DIRECTORY).iterdir()} == {*names[1:], "frame.parquet"}


def test_a_full_disk_is_told_and_nothing_stays_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("runner.files.os.write", full)
    with piped(b"{}\n"), Spooling(tmp_path / "r") as spooling, pytest.raises(StorageError, match="No space left"):
        survey([STDIN], JSONL, spooling=spooling)
    assert list(tmp_path.iterdir()) == []


def _flip(copy: Path) -> None:
    data = bytearray(copy.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "stands"), [(_flip, True), (Path.unlink, False), (lambda copy: os.truncate(copy, 5), False)]
)
def test_a_copy_that_was_harmed_is_told_by_name(tmp_path: Path, harm: Callable[[Path], None], stands: bool) -> None:
    with piped(lines([{"n": n} for n in range(10)])):
        found, reader = settled(tmp_path / "r", [STDIN])
    assert copies_stand(found.files, tmp_path / "r")
    (copy,) = (tmp_path / "r" / DIRECTORY).iterdir()
    harm(copy)
    assert copies_stand(found.files, tmp_path / "r") == stands
    with pytest.raises(ChangedError) as caught:
        for number in range(len(found.ranges)):
            reader.verify(number)
            list(reader.rows(number))
    assert caught.value.message == f"the copy of stdin in {copy} is damaged or gone"
    assert caught.value.hint.endswith("give the same rows on stdin")


def test_the_original_of_a_copy_may_change_while_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"n": 1}\n'))
    _, reader = settled(tmp_path / "r", [path])
    path.unlink()
    reader.verify(0)
    assert [row.data for row in reader.rows(0)] == [{"n": 1}]


def test_a_changed_original_without_a_copy_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a\n1\n"))
    reader = Reader(survey([path], JSONL))
    path.write_bytes(gzip.compress(b"a\n1\n", 1))
    reader.verify(0)
    path.write_bytes(gzip.compress(b"b\n1\n"))
    os.utime(path, ns=(1, 1))
    with pytest.raises(ChangedError, match=r"^t\.csv\.gz: the rows 0 to 0 are not the ones"):
        reader.verify(0)


WIDE = pa.table(
    {
        "text": pa.array([None if n % 7 == 0 else f"t{n}" for n in range(1000)]),
        "kind": pa.array([f"k{n % 5}" for n in range(1000)]).dictionary_encode(),
        "money": pa.array([Decimal(n) / 100 for n in range(1000)], pa.decimal128(12, 2)),
        "when": pa.array(range(1000), pa.timestamp("us", "UTC")),
        "many": pa.array([[{"x": n}] * (n % 3) for n in range(1000)]),
        "raw": pa.array([bytes([n % 256]) for n in range(1000)], pa.large_binary()),
    }
)


@pytest.mark.parametrize(("rows", "limit"), [(1000, None), (7, 500), (1, 20)])
def test_huge_row_groups_are_copied_and_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, limit: int | None
) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(WIDE, path, row_group_size=600)
    options = SurveyOptions(rows_per_part=rows, limit=limit)
    plain = survey([path], options)
    monkeypatch.setattr(hugegroups, "HUGE_GROUP_RANGES", 0)
    monkeypatch.setattr(hugegroups, "_BATCH_BYTES", 4000)
    found, reader = settled(tmp_path / "r", [path], options)
    assert found.files[0].spool.endswith(".arrows.zst")
    assert_a_frame_a_range(found)
    assert not plain.files[0].spool
    path.unlink()  # from here on the copy alone is read
    pq.write_table(WIDE, path, row_group_size=600)
    assert everything(found, reader) == everything(plain, Reader(plain))
    last = len(found.ranges) - 1
    assert reader.table(last, ["many", "kind"]).equals(Reader(plain).table(last, ["many", "kind"]))
    assert [row.data for row in reader.rows(last, {"text"})] == [row.data for row in Reader(plain).rows(last, {"text"})]
    assert reader.table(0, []).num_rows == found.ranges[0].rows


@pytest.mark.parametrize(
    ("name", "value", "huge"),
    [("HUGE_GROUP_RANGES", 3, False), ("HUGE_GROUP_RANGES", 2, True), ("HUGE_GROUP_BYTES", 100, True)],
)
def test_only_files_with_huge_row_groups_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: int, huge: bool
) -> None:
    monkeypatch.setattr(hugegroups, name, value)
    pq.write_table(WIDE, tmp_path / "t.parquet", row_group_size=300)
    found, _ = settled(tmp_path / "r", [tmp_path / "t.parquet"], SurveyOptions(rows_per_part=100))
    assert bool(found.files[0].spool) == huge


def test_a_survey_of_files_joins_the_small_frames_of_the_early_ones(tmp_path: Path) -> None:
    rows = [{"n": n} for n in range(60)]
    for name, begin, end in [("a", 0, 5), ("b", 5, 7), ("c", 7, 60)]:
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines(rows[begin:end])))
    with small_ranges():
        found, reader = settled(tmp_path / "r", expand(["*.gz"], tmp_path), SurveyOptions())
    assert (found.rows_per_part, len(found.ranges)) == (8, 8)
    assert [len(file.frames) for file in found.files] == [1, 1, 8]
    assert_a_frame_a_range(found)
    assert len(list((tmp_path / "r" / DIRECTORY).iterdir())) == 3
    assert [row.data for number in range(8) for row in reader.rows(number)] == rows


def test_frames_that_are_as_large_as_ranges_get_are_never_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[int] = []
    join = copies.SpoolFile.join

    def noting(small: Any, part: int, target: Any) -> None:
        join(small, part, target)
        moved.append(target._frames[-1].end)

    monkeypatch.setattr(copies.SpoolFile, "join", noting)
    text = lines([{"n": f"{n:03}"} for n in range(200)])
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(text))
    with small_ranges():
        found, _ = settled(tmp_path / "r", [tmp_path / "t.jsonl.gz"], SurveyOptions())
    assert_a_frame_a_range(found)
    assert moved == [found.ranges[2].segments[0].start]  # once, the first 16 rows: 4 ranges of 4 at most


def test_a_limit_ends_the_copy_behind_its_last_row(tmp_path: Path) -> None:
    text = lines([{"n": n} for n in range(9)])
    for limit in (0, 1, 3, 4):
        with piped(b"n,m\n1,2\n3,4\n5,6\n7,8\n9,0\n"):
            found, _ = settled(tmp_path / f"c{limit}", [STDIN], replace(CSV, limit=limit))
        assert unzstd(tmp_path / f"c{limit}", found) == b"n,m\n1,2\n3,4\n5,6\n7,8\n"[: 4 + 4 * limit if limit else 0]
        with piped(text):
            found, _ = settled(tmp_path / f"r{limit}", [STDIN], replace(JSONL, limit=limit or 5))
        assert unzstd(tmp_path / f"r{limit}", found) == text[: 9 * (limit or 5)]
        assert_a_frame_a_range(found)


def test_a_range_is_read_out_of_its_own_frame(tmp_path: Path) -> None:
    with piped(lines([{"n": n} for n in range(10)])):
        found, reader = settled(tmp_path / "r", [STDIN])
    copy = tmp_path / "r" / DIRECTORY / found.files[0].spool
    begin, end = found.files[0].frames[0].stop, found.files[0].frames[1].stop
    copy.write_bytes(bytes(begin) + copy.read_bytes()[begin:end] + bytes(copy.stat().st_size - end))
    assert [row.data for row in reader.rows(1)] == [{"n": 3}, {"n": 4}, {"n": 5}]


BLANKS, ROW = b" " * 9_999 + b"\n", b'{"n": "' + b"x" * 9_990 + b'"}\n'


@pytest.mark.parametrize(("filling", "rows_per_part"), [(BLANKS, 1), (BLANKS, 1_000_000), (ROW, 1_000_000)])
def test_memory_is_bounded_whatever_a_range_holds(tmp_path: Path, filling: bytes, rows_per_part: int) -> None:
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"n": "1"}\n' + filling * 3_000 + b'{"n": "2"}\n', 1))
    tracemalloc.start()
    try:
        found, reader = settled(tmp_path / "r", [path], SurveyOptions(rows_per_part=rows_per_part))
        assert sum(1 for _ in reader.rows(len(found.ranges) - 1)) in (1, found.rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    assert_a_frame_a_range(found)


def test_runs_with_text_in_frames_of_a_megabyte_go_on(tmp_path: Path) -> None:
    rows = [{"n": n, "text": "x" * (n % 5)} for n in range(20)]
    with piped(lines(rows)):
        found, reader = settled(tmp_path / "r", [STDIN])
    expected = everything(found, reader)
    text, place, ends = lines(rows), tmp_path / "r" / DIRECTORY, (50, 51, 200, 201, 300, len(lines(rows)))
    pieces = [zstd(text[begin:end]) for begin, end in itertools.pairwise([0, *ends])]
    assert everything(*earlier(found, place, "00000.0badcafe.zst", ends, pieces)) == expected


def earlier(
    found: Survey, place: Path, name: str, ends: Sequence[int], pieces: Sequence[bytes]
) -> tuple[Survey, Reader]:
    """The survey as an earlier version made it, with a copy in other frames."""
    (place / name).write_bytes(b"".join(pieces))
    stops = itertools.accumulate(map(len, pieces))
    frames = tuple(
        Frame(end, stop, tiles.hash_of([piece])) for end, stop, piece in zip(ends, stops, pieces, strict=True)
    )
    found = replace(found, files=(replace(found.files[0], spool=name, frames=frames),))
    assert copies_stand(found.files, place.parent)
    return found, Reader(found, place)


def test_runs_with_arrow_streams_that_pack_themselves_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(WIDE, path)
    monkeypatch.setattr(hugegroups, "HUGE_GROUP_RANGES", 0)
    found, reader = settled(tmp_path / "r", [path], SurveyOptions(rows_per_part=300))
    expected = everything(found, reader)
    ends, pieces = (250, 400, 1000), []
    for begin, end in itertools.pairwise([0, *ends]):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, WIDE.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(WIDE.slice(begin, end - begin))
        pieces.append(sink.getvalue().to_pybytes())
    place = tmp_path / "r" / DIRECTORY
    assert everything(*earlier(found, place, "00000.0badcafe.arrows", ends, pieces)) == expected


def test_a_copy_that_cannot_be_read_again_is_the_disk_s_fault(tmp_path: Path) -> None:
    small, target = copies.SpoolFile(tmp_path / "a.zst"), copies.SpoolFile(tmp_path / "b.zst")
    small.path.unlink()
    with pytest.raises(StorageError, match=r"^cannot read .*/a\.zst: it is no longer there$"):
        small.join(8, target)
    small.close()
    target.close()


def test_a_parquet_file_that_ends_too_early_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(WIDE, path)
    copy = copies.SpoolFile(tmp_path / "a.arrows.zst")
    with pytest.raises(InputError, match=r"^t\.parquet has fewer rows than it says$"):
        hugegroups.copy_rows(shape(path, "t.parquet"), [hugegroups.Piece(0, 1001)], copy)
    copy.close()
