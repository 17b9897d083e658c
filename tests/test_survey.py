"""One pass tells rows, columns, ranges and bad lines; the reader gives exactly these rows again."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import ChangedError, InputError, RunDirectoryError
from runner.sources import Reader
from runner.survey import Survey, SurveyOptions, stale, survey

ALL = SurveyOptions()
FAIL_ROW = SurveyOptions(on_bad_line="fail_row")


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_all(found: Survey) -> list[tuple[int, Any]]:
    reader = Reader(found)
    return [(row.index, row.data) for number in range(len(found.ranges)) for row in reader.rows(number)]


def table_of(found: Survey) -> Any:
    reader = Reader(found)
    return pa.concat_tables([reader.table(number, found.columns) for number in range(len(found.ranges))])


def test_jsonl_is_surveyed(tmp_path: Path) -> None:
    rows = [{"id": n, "text": f"t{n}", "more": {"x": n}} for n in range(600)]
    path = jsonl(tmp_path / "t.jsonl", rows)
    found = survey([path], ALL)
    assert (found.rows, found.rows_per_part, [piece.rows for piece in found.ranges]) == (600, 256, [256, 256, 88])
    assert found.columns == ("id", "text", "more")
    assert found.schema.types == [pa.int64(), pa.string(), pa.string()]
    assert (found.files[0].path, found.files[0].format, found.files[0].rows) == (path, "jsonl", 600)
    assert found.files[0].size == path.stat().st_size
    assert read_all(found) == list(enumerate(rows))
    assert table_of(found).column("more").to_pylist() == [f'{{"x":{n}}}' for n in range(600)]


def test_csv_is_surveyed(tmp_path: Path) -> None:
    one, two = tmp_path / "a.csv", tmp_path / "b.csv"
    one.write_bytes(b'\xef\xbb\xbfid,text\r\n1,"x\r\ny"\r\n')
    two.write_bytes(b"text,lang\nz,en\n")
    found = survey([one, two], ALL)
    assert found.schema == pa.schema([(name, pa.string()) for name in ("id", "text", "lang")])
    assert read_all(found) == [(0, {"id": "1", "text": "x\r\ny"}), (1, {"text": "z", "lang": "en"})]
    assert table_of(found).to_pylist() == [
        {"id": "1", "text": "x\r\ny", "lang": None},
        {"id": None, "text": "z", "lang": "en"},
    ]


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [("e.jsonl", b"", ()), ("e.jsonl", b"\n\n", ()), ("e.csv", b"a,b\n", ("a", "b")), ("e.parquet", None, ("a",))],
)
def test_no_rows_are_ordinary(tmp_path: Path, name: str, content: bytes | None, columns: tuple[str, ...]) -> None:
    path = tmp_path / name
    if content is None:
        pq.write_table(pa.table({"a": pa.array([], pa.int64())}), path)
    else:
        path.write_bytes(content)
    found = survey([path], ALL)
    assert (found.rows, found.ranges, found.columns, found.rows_per_part) == (0, (), columns, 256)
    assert Survey.from_json(found.to_json()) == found


def test_a_file_without_rows_among_others_changes_nothing(tmp_path: Path) -> None:
    names = ["a.jsonl", "b.jsonl", "c.jsonl"]
    paths = [jsonl(tmp_path / name, rows) for name, rows in zip(names, [[{"a": 1}], [], [{"a": 2}]], strict=True)]
    assert read_all(survey(paths, ALL)) == [(0, {"a": 1}), (1, {"a": 2})]


@pytest.mark.parametrize("limit", [0, 1, 5, 6, 7, 100])
@pytest.mark.parametrize("format_", ["jsonl", "csv", "parquet"])
def test_a_limit_takes_the_first_rows(tmp_path: Path, format_: str, limit: int) -> None:
    paths = [tmp_path / f"{name}.{format_}" for name in "ab"]
    for path in paths:
        if format_ == "parquet":
            pq.write_table(pa.table({"a": ["x"] * 6}), path, row_group_size=4)
        else:
            head = "a\n" if format_ == "csv" else ""
            path.write_text(head + ('{"a":"x"}\n' if format_ == "jsonl" else "x\n") * 6)
    found = survey(paths, SurveyOptions(limit=limit, rows_per_part=4))
    taken = min(limit, 12)
    assert (found.rows, [file.rows for file in found.files]) == (taken, [min(taken, 6), max(taken - 6, 0)])
    assert sum(piece.rows for piece in found.ranges) == taken
    assert read_all(found) == [(n, {"a": "x"}) for n in range(taken)]


def test_bad_lines_stop_before_anything_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a":1}\n' + "nonsense\n" * 25)
    with pytest.raises(InputError) as caught:
        survey([path], ALL)
    first, *shown, more = caught.value.message.split("\n")
    assert first == "25 bad lines in the input:"
    assert shown[0] == "t.jsonl:2 (byte 8): is not JSON: Expecting value at column 1"
    assert (len(shown), shown[-1][:12]) == (20, "t.jsonl:21 (")
    assert more == "… and 5 more"
    assert caught.value.hint == "mend them, or set `input.on_bad_line: fail_row` to make each a failed row"


def test_one_bad_line_is_said_in_the_singular(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1\n")
    with pytest.raises(
        InputError, match=r"^1 bad line in the input:\nt\.csv:2 \(byte 4\): has 1 field, the header has 2$"
    ):
        survey([path], ALL)


def test_a_bad_line_may_become_a_failed_row(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a":1}\nnull\n\n{"a":2}\n')
    found = survey([path], FAIL_ROW)
    said = "t.jsonl:2 (byte 8): is null, not an object"
    assert (found.rows, found.bad_lines.count, found.bad_lines.first) == (3, 1, (said,))
    assert [(row.index, row.data, row.error) for row in Reader(found).rows(0)] == [
        (0, {"a": 1}, None),
        (1, None, said),
        (2, {"a": 2}, None),
    ]
    assert table_of(found).to_pydict() == {"a": [1, None, 2]}


def test_a_bad_line_keeps_its_number_in_a_later_range(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a":1}\n\n\n{"a":2}\nnull\n')
    found = survey([path], replace(FAIL_ROW, rows_per_part=1))
    (row,) = Reader(found).rows(2)
    assert row.error == "t.jsonl:5 (byte 18): is null, not an object"


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.jsonl").write_text("null\n")
    found = survey([tmp_path / "x" / "t.jsonl", tmp_path / "y" / "t.jsonl"], FAIL_ROW)
    assert [text.split(":")[0] for text in found.bad_lines.first] == [str(file.path) for file in found.files]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b"\x1f\x8b\x08\x00", "t.jsonl is compressed by gzip"),
        ("t.jsonl", b"\x28\xb5\x2f\xfd", "t.jsonl is compressed by zstd"),
        ("t.csv", b"PAR1\x00", "t.csv is a Parquet file"),
        ("t.csv", "a,b\n".encode("utf-16"), "t.csv is UTF-16"),
    ],
)
def test_a_file_that_begins_as_no_text_does_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        survey([tmp_path / name], ALL)
    assert caught.value.message == message
    assert caught.value.hint


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.jsonl: No such file or directory"):
        survey([tmp_path / "gone.jsonl"], ALL)


def test_a_file_that_changes_while_it_is_surveyed_is_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", [{"a": 1}])

    def appending(done: int, total: int) -> None:
        jsonl(path, [{"a": 1}, {"a": 2}])

    with pytest.raises(InputError, match=r"t\.jsonl changed while it was read"):
        survey([path], ALL, appending)


@pytest.mark.parametrize("format_", ["jsonl", "csv", "parquet"])
def test_progress_goes_up_to_all_bytes(tmp_path: Path, format_: str) -> None:
    path = tmp_path / f"t.{format_}"
    if format_ == "parquet":
        pq.write_table(pa.table({"a": [os.urandom(1000) for _ in range(13_000)]}), path, use_dictionary=False)
    else:
        line = '{"a":"' + "x" * 1000 + '"}\n' if format_ == "jsonl" else "x" * 1000 + "\n"
        path.write_text(("a\n" if format_ == "csv" else "") + line * 13_000)
    told: list[tuple[int, int]] = []
    survey([path], ALL, lambda done, total: told.append((done, total)))
    size = path.stat().st_size
    assert {total for _, total in told} == {size}
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1] == (size, size)
    assert 3 <= len(told) <= 5


@pytest.mark.parametrize("format_", ["jsonl", "csv", "parquet"])
def test_a_survey_goes_through_json(tmp_path: Path, format_: str) -> None:
    path = tmp_path / f"t.{format_}"
    if format_ == "parquet":
        pq.write_table(pa.table({"a": [1, 2], "b": pa.array(["x", "y"]).dictionary_encode()}), path)
    else:
        path.write_text('{"a":{}}\nnull\n' if format_ == "jsonl" else "a,b\n1\n2,3\n")
    found = survey([path], replace(FAIL_ROW, rows_per_part=1, limit=10))
    back = Survey.from_json(json.loads(json.dumps(found.to_json())))
    assert back == found
    assert back.schema.equals(found.schema, check_metadata=True)
    assert (type(back.ranges), type(back.files[0].columns), type(back.bad_lines.first)) == (tuple, tuple, tuple)
    assert read_all(back) == read_all(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "the survey has version 99, this program reads 1"),
        ({"schema": "AAAA"}, "the survey is damaged: "),
        ({"schema": "!"}, "the survey is damaged: "),
        ({"files": [{}]}, "the survey is damaged: KeyError: 'path'"),
        ({"ranges": [[1, 2]]}, "the survey is damaged: ValueError: "),
    ],
)
def test_a_damaged_survey_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    data = survey([jsonl(tmp_path / "t.jsonl", [{"a": 1}])], ALL).to_json()
    with pytest.raises(RunDirectoryError) as caught:
        Survey.from_json({**data, **change})
    assert caught.value.message.startswith(message)
    assert caught.value.hint


def test_stale_names_the_files_that_changed(tmp_path: Path) -> None:
    paths = [jsonl(tmp_path / f"{name}.jsonl", [{"a": 1}]) for name in "abcd"]
    found = survey(paths, ALL)
    assert stale(found) == []
    os.utime(paths[1], ns=(0, 0))
    jsonl(paths[2], [{"a": 1}, {"a": 2}])
    paths[3].unlink()
    assert stale(found) == paths[1:]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda data: data, []),
        (lambda data: data.replace(b"0007", b"0008"), [0]),
        (lambda data: data.replace(b"0029", b"0030"), [2]),
        (lambda data: data + b'{"n":"0031"}\n', []),
        (lambda data: data[:-1], []),
        (lambda data: data.replace(b"}\n", b" \n", 1), [0]),
        (lambda data: b"\n" + data, [0, 1, 2]),
        (lambda data: data[:150], [1, 2]),
        (lambda data: b"", [0, 1, 2]),
    ],
)
def test_verify_catches_a_changed_byte_in_its_range(tmp_path: Path, change: Any, expected: list[int]) -> None:
    path = jsonl(tmp_path / "t.jsonl", [{"n": f"{n:04}"} for n in range(30)])
    found = survey([path], SurveyOptions(rows_per_part=10))
    path.write_bytes(change(path.read_bytes()))
    os.utime(path, ns=(1, 1))
    assert [n for n in range(3) if verdict(found, n)] == expected


def verdict(found: Survey, number: int) -> str:
    try:
        Reader(found).verify(number)
    except ChangedError as error:
        return error.message
    return ""


def test_verify_trusts_size_and_time_alone_when_they_stand(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", [{"n": 1}])
    found = survey([path], ALL)
    path.write_bytes(path.read_bytes().replace(b"1", b"2"))
    os.utime(path, ns=(0, found.files[0].mtime_ns))
    assert verdict(found, 0) == ""
    os.utime(path, ns=(0, 0))
    assert verdict(found, 0).startswith("t.jsonl: the rows 0 to 0 are not the ones that this run was started with")


def test_a_renamed_csv_column_is_a_changed_range(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n")
    found = survey([path], ALL)
    path.write_text("a,c\n1,2\n")
    os.utime(path, ns=(0, 0))
    assert verdict(found, 0) != ""


def test_a_file_that_vanishes_or_shrinks_under_the_reader_is_told(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", [{"n": 1}, {"n": 2}])
    reader = Reader(survey([path], ALL))
    path.write_text('{"n":1}\n')
    with pytest.raises(ChangedError, match=r"t\.jsonl is shorter than it was"):
        list(reader.rows(0))
    path.write_text('{"n":1}' + " " * 20)
    with pytest.raises(ChangedError, match=r"t\.jsonl: 1 of the 2 rows from line 1 on are gone"):
        reader.table(0, ["n"])
    path.write_text('{"n":1}\n{"n":"x"}')
    with pytest.raises(ChangedError, match=r"t\.jsonl has values that its survey did not see"):
        reader.table(0, ["n"])
    path.unlink()
    with pytest.raises(InputError, match=r"t\.jsonl: No such file or directory"):
        list(reader.rows(0))


def test_a_slice_has_the_asked_columns_in_their_order(tmp_path: Path) -> None:
    found = survey([jsonl(tmp_path / "t.jsonl", [{"a": 1, "b": 2}] * 3)], ALL)
    assert Reader(found).table(0, ["b", "a"]).column_names == ["b", "a"]
    assert Reader(found).table(0, []).shape == (3, 0)
    with pytest.raises(KeyError):
        Reader(found).table(0, ["c"])


SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUE = SCALAR | st.lists(SCALAR, max_size=3) | st.dictionaries(st.text(max_size=3), SCALAR, max_size=2)
ROWS = st.lists(st.dictionaries(st.sampled_from("abc"), VALUE), max_size=6)


@settings(deadline=None, max_examples=60)
@given(files=st.lists(ROWS, min_size=1, max_size=3), part=st.integers(1, 4))
def test_what_is_written_as_jsonl_comes_back(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[dict[str, Any]]], part: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    paths = [jsonl(folder / f"round{number}.jsonl", rows) for number, rows in enumerate(files)]
    found = survey(paths, SurveyOptions(rows_per_part=part))
    rows = [row for each in files for row in each]
    assert read_all(found) == list(enumerate(rows))
    tables = [Reader(found).table(number, found.columns) for number in range(len(found.ranges))]
    back = [row for table in tables for row in table.to_pylist()]
    texts = [field.name for field in found.schema if field.metadata]
    for row in back:
        row.update({name: json.loads(row[name]) for name in texts if row[name] is not None})
    assert back == [{name: row.get(name) for name in found.columns} for row in rows]


@settings(deadline=None, max_examples=60)
@given(
    files=st.lists(
        st.lists(st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]))] * 2)), min_size=1, max_size=3
    ),
    part=st.integers(1, 4),
)
def test_what_is_written_as_csv_comes_back(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[tuple[str, ...]]], part: int
) -> None:
    paths = []
    for number, rows in enumerate(files):
        text = io.StringIO()
        csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
        paths.append(tmp_path_factory.getbasetemp() / f"round{number}.csv")
        paths[-1].write_bytes(text.getvalue().encode())
    found = survey(paths, SurveyOptions(rows_per_part=part))
    expected = [dict(zip("ab", row, strict=True)) for each in files for row in each]
    assert read_all(found) == list(enumerate(expected))
    tables = [Reader(found).table(number, ["a", "b"]) for number in range(len(found.ranges))]
    assert [row for table in tables for row in table.to_pylist()] == expected
