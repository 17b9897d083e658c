from __future__ import annotations

import base64
import csv
import io
import json
import os
import stat
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_run import MadeRun, made_run
from thorough import EXAMPLES

import runner
from runner.errors import RunDirectoryError, StorageError, UsageError
from runner.export import Exported, Target, Wanted, export, format_of
from runner.export.plain import values
from runner.export.target import Checked
from runner.export.writers import defused
from runner.reading import read_table
from runner.records import Attempt, Choice, Completion, Failure, Kind, Request, Settled, Status, Usage

AT = "2025-01-02T03:04:05.000006Z"
LABEL = {
    "type": "json_schema",
    "json_schema": {
        "name": "label",
        "schema": {
            "type": "object",
            "properties": {
                "label": {"type": "string"},
                "items": {"type": "array", "items": {"type": "integer"}},
                "of": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
            },
            "required": ["label", "items", "of"],
        },
    },
}
REQUEST = {"model": "m-1", "messages": [{"role": "user", "content": "say {{ text }}"}]}


def answered(row: int, content: str = "fine", parsed: Any = None) -> Settled:
    cost = Decimal("0.000123")
    attempt = Attempt(1, 1, AT, 0.5, 0.0, 200, usage=Usage(10, 4, None, 5), cost_usd=cost, request_hash="h")
    outcome = Completion(Status.OK, (Choice(0, content, "stop"),), Usage(10, 4, None, 5, None, 15), parsed=parsed)
    return Settled(Request(row, b"{}", "h", "m-1", 1), outcome, (attempt,), "job", AT, AT, cost)


def failed(row: int) -> Settled:
    attempt = Attempt(1, 1, AT, 0.5, 0.0, 400, "REQUEST", "no", cost_usd=Decimal(0))
    return Settled(Request(row, b"{}", "h", "m-1", 1), Failure(Kind.REQUEST, "no", 400), (attempt,), None, AT, AT)


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{"id": number, "text": f"row {number}"} for number in range(count)]


def finished(root: Path, rows: list[dict[str, Any]], settled: list[Settled] | None = None, **job: Any) -> MadeRun:
    made = made_run(root, rows, **job)
    every = settled or [answered(number) for number in range(len(rows))]
    for part in made.ranges:
        made.seal(part.number, every[part.first_row : part.first_row + part.rows])
    return made


def written(made: MadeRun, form: str, **wanted: Any) -> bytes:
    target = Target(made.directory.root.parent.parent / f"out.{form}", force=True)
    export(made.directory, Wanted(form, **wanted), target)
    assert target.path
    return target.path.read_bytes()


def json_lines(made: MadeRun, **wanted: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written(made, "jsonl", **wanted).split(b"\n")[:-1]]


def records(made: MadeRun, **wanted: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(written(made, "csv", **wanted).decode(), newline="")))


def iso(value: Any) -> str:
    assert isinstance(value, datetime)
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def test_json_lines_say_what_read_results_says(tmp_path: Path) -> None:
    rows = rows_of(600)
    settled = [failed(n) if n % 7 == 0 else answered(n, f"„{n}“\n\u2028") for n in range(600)]
    made = finished(tmp_path, rows, settled, output={"rows_per_part": 256})
    assert len(made.ranges) == 3
    kept = read_table(made.directory).to_pylist()
    assert json_lines(made) == json.loads(json.dumps(kept, default=iso))
    frame = runner.read_results(made.directory.root)
    assert [row["content"] for row in json_lines(made)] == frame["content"].replace({float("nan"): None}).tolist()
    assert "„1“".encode() in written(made, "jsonl")


def test_mixed_columns_come_back_as_the_json_they_were(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "any": {"k": [1, None, "é"]}},
        {"text": "b", "any": 12345678901234567890123},
        {"text": "c", "any": "text"},
        {"text": "d", "any": None},
        {"text": "e"},
    ]
    made = finished(tmp_path, rows)
    assert [row["any"] for row in json_lines(made)] == [row.get("any") for row in rows]
    cells = [row["any"] for row in records(made)]
    assert cells == ['{"k":[1,null,"é"]}', "12345678901234567890123", '"text"', "", ""]


@pytest.mark.parametrize(
    ("form", "parsed", "expected"),
    [
        ({"type": "json_object"}, '{"a":[1]}', {"a": [1]}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}, "[1]", [1]),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string"}}}, "[1]", "[1]"),
        (LABEL, {"label": "x", "items": [1], "of": {"n": 2}}, {"label": "x", "items": [1], "of": {"n": 2}}),
    ],
)
def test_parsed_is_what_the_answer_says(tmp_path: Path, form: Any, parsed: Any, expected: Any) -> None:
    made = finished(tmp_path, rows_of(1), [answered(0, parsed=parsed)], request=REQUEST | {"response_format": form})
    assert json_lines(made, columns=("parsed",)) == [{"parsed": expected}]


def test_members_of_parsed_are_columns_of_the_csv(tmp_path: Path) -> None:
    settled = [
        answered(0, parsed={"label": 'a, "b"\r\nc', "items": [1, 2], "of": {"n": 5}}),
        failed(1),
        answered(2, parsed={"label": "=1+1", "items": [], "of": None}),
    ]
    request = REQUEST | {"response_format": LABEL}
    made = finished(tmp_path, rows_of(3), settled, request=request, output={"prefix": "r_"})
    names = ("id", "r_parsed", "r_status")
    assert records(made, columns=names) == [
        {
            "id": "0",
            "r_parsed.label": 'a, "b"\r\nc',
            "r_parsed.items": "[1,2]",
            "r_parsed.of.n": "5",
            "r_status": "ok",
        },
        {"id": "1", "r_parsed.label": "", "r_parsed.items": "", "r_parsed.of.n": "", "r_status": "failed"},
        {"id": "2", "r_parsed.label": "'=1+1", "r_parsed.items": "[]", "r_parsed.of.n": "", "r_status": "ok"},
    ]
    frame = pd.read_csv(io.BytesIO(written(made, "csv")))
    assert frame["r_parsed.label"].tolist()[0] == 'a, "b"\r\nc'
    assert frame["r_cost_usd"].tolist()[0] == 0.000123
    assert json.loads(frame["r_attempts"][1])[0]["error_kind"] == "REQUEST"


def test_parsed_stays_whole_where_the_input_has_the_name_of_a_member(tmp_path: Path) -> None:
    rows = [{"text": "a", "parsed.label": "mine"}]
    settled = [answered(0, parsed={"label": "x", "items": [], "of": None})]
    made = finished(tmp_path, rows, settled, request=REQUEST | {"response_format": LABEL})
    assert records(made, columns=("parsed.label", "parsed")) == [
        {"parsed.label": "mine", "parsed": '{"label":"x","items":[],"of":null}'}
    ]


HOSTILE = ["=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1)", "\tx", "\rx", "\n=1", "＝1", '="a""b"', "- item"]


def test_no_text_is_a_formula_to_a_spreadsheet(tmp_path: Path) -> None:
    rows = [{"text": text, "=name": [text], "n": -number} for number, text in enumerate(HOSTILE)]
    made = finished(tmp_path, rows, [answered(n, text) for n, text in enumerate(HOSTILE)])
    found = records(made)
    assert [row["text"] for row in found] == [f"'{text}" for text in HOSTILE]
    assert [row["content"] for row in found] == [f"'{text}" for text in HOSTILE]
    assert [row["n"] for row in found] == [str(-number) for number in range(len(HOSTILE))]
    assert [json.loads(row["'=name"]) for row in found] == [[text] for text in HOSTILE]
    assert [row["content"] for row in json_lines(made)] == HOSTILE
    for cell in next(csv.reader(io.StringIO(written(made, "csv").decode(), newline=""))):
        assert cell[0] not in "=+-@"


@settings(deadline=None)
@given(st.sampled_from("=+-@\t\r\n'a") | st.text(max_size=8))
def test_defused_text_is_the_text_behind_at_most_one_apostrophe(text: str) -> None:
    safe = defused(text)
    assert safe in (text, f"'{text}")
    assert safe[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n")


def test_csv_is_rfc_4180(tmp_path: Path) -> None:
    made = finished(tmp_path, rows_of(2), [answered(0, 'say "hi",\n'), answered(1, "")])
    assert written(made, "csv", columns=("id", "content", "refusal")) == (
        b'id,content,refusal\r\n0,"say ""hi"",\n",\r\n1,,\r\n'
    )


def test_parquet_is_the_parts_in_one_file(tmp_path: Path) -> None:
    made = finished(tmp_path, rows_of(600), output={"rows_per_part": 256})
    table = pq.read_table(io.BytesIO(written(made, "parquet")))
    assert table.equals(read_table(made.directory))
    part = pq.read_schema(made.directory.part(0)).remove_metadata()
    assert table.schema.remove_metadata().equals(part)
    file = pq.ParquetFile(io.BytesIO(written(made, "parquet")))
    assert (file.num_row_groups, file.metadata.row_group(0).column(0).compression) == (3, "ZSTD")


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_columns_are_those_asked_for_in_that_order(tmp_path: Path, form: str) -> None:
    made = finished(tmp_path, rows_of(2))
    data = io.BytesIO(written(made, form, columns=("status", "id", "status")))
    read = {
        "jsonl": lambda: pd.read_json(data, lines=True),
        "csv": lambda: pd.read_csv(data),
        "parquet": lambda: pd.read_parquet(data),
    }
    assert read[form]().to_dict("list") == {"status": ["ok", "ok"], "id": [0, 1]}


def test_a_column_that_there_is_not_is_named_with_the_nearest(tmp_path: Path) -> None:
    made = finished(tmp_path, rows_of(1))
    with pytest.raises(UsageError, match="no column `statu`; did you mean status") as caught:
        written(made, "csv", columns=("id", "statu"))
    assert caught.value.hint.startswith("they have id, text, row_index, status")
    assert not (tmp_path / "out.csv").exists()


def test_rows_may_be_chosen_by_status(tmp_path: Path) -> None:
    made = finished(tmp_path, rows_of(3), [answered(0), failed(1), answered(2)])
    assert json_lines(made, columns=("id",), statuses=frozenset({"failed"})) == [{"id": 1}]
    assert json_lines(made, columns=("id",), statuses=frozenset({"ok"})) == [{"id": 0}, {"id": 2}]


def test_rows_in_journals_are_exported_beside_parts_in_input_order(tmp_path: Path) -> None:
    made = made_run(tmp_path, rows_of(600), output={"rows_per_part": 256})
    made.keep(0, [answered(9), answered(4)])
    made.seal(1, [answered(n) for n in range(256, 512)])
    made.keep(2, [failed(599)])
    expected = [4, 9, *range(256, 512), 599]
    assert [row["row_index"] for row in json_lines(made)] == expected
    assert [int(row["id"]) for row in records(made)] == expected
    assert pq.read_table(io.BytesIO(written(made, "parquet")))["id"].to_pylist() == expected
    done = export(made.directory, Wanted(), Target(tmp_path / "again.jsonl"))
    assert done == Exported(written=259, settled=259, rows=600)
    assert done.words(Target(Path("x"))) == "259 rows in x; 341 of 600 rows are not final yet and are not in it"
    assert done.words(Target(None)) == "341 of 600 rows are not final yet and are not in it"


def test_a_run_without_rows_has_a_header_and_a_schema(tmp_path: Path) -> None:
    made = made_run(tmp_path, [], request={"model": "m-1", "messages": [{"role": "user", "content": "x"}]})
    made.end_empty()
    assert written(made, "jsonl") == b""
    assert written(made, "csv").startswith(b"row_index,status,content,")
    assert written(made, "csv").count(b"\r\n") == 1
    table = pq.read_table(io.BytesIO(written(made, "parquet")))
    assert table.num_rows == 0
    assert table.schema.equals(made.prepared.shape.part)


# Where it goes


def test_a_file_is_the_users_own_and_is_not_overwritten_unasked(tmp_path: Path) -> None:
    made = finished(tmp_path, rows_of(1))
    path = tmp_path / "out.csv"
    before = os.umask(0o022)
    try:
        export(made.directory, Wanted("csv"), Target(path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"out.csv is there already") as caught:
        export(made.directory, Wanted("csv"), Target(path))
    assert "--force" in caught.value.hint
    assert path.read_text() == "mine"
    export(made.directory, Wanted("csv"), Target(path, force=True))
    assert path.read_text().startswith("id,text")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("rows.jsonl", "is the input of the run"),
        ("runs/made/results/all.parquet", "is inside the run"),
        ("runs", "is a directory"),
        ("nowhere/x.csv", "cannot write in .*nowhere: No such file"),
    ],
)
def test_some_places_are_refused_even_with_force(tmp_path: Path, place: str, said: str) -> None:
    made = finished(tmp_path, rows_of(1))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=said):
        export(made.directory, Wanted(), Target(tmp_path / place, force=True))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    made = finished(tmp_path, rows_of(1))
    (tmp_path / "real.jsonl").write_text("old")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real.jsonl")
    export(made.directory, Wanted(columns=("id",)), Target(tmp_path / "link.jsonl", force=True))
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "real.jsonl").read_text() == '{"id":0}\n'


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_what_cannot_be_read_leaves_the_old_file_as_it_was(tmp_path: Path, form: str) -> None:
    made = finished(tmp_path, rows_of(600), output={"rows_per_part": 256})
    part = made.directory.part(1)
    part.write_bytes(part.read_bytes()[:500])
    (tmp_path / "out").write_text("old")
    with pytest.raises(RunDirectoryError, match="cannot be read"):
        export(made.directory, Wanted(form), Target(tmp_path / "out", force=True))
    assert (tmp_path / "out").read_text() == "old"
    assert not list(tmp_path.glob(".*"))


class Full(io.BytesIO):
    def write(self, data: Any) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_said_with_its_name() -> None:
    with pytest.raises(StorageError, match=r"cannot write to out.csv: No space left on device"):
        Checked(Full(), "out.csv").write(b"x")


def test_a_reader_that_has_gone_is_told_as_that_and_only_once() -> None:
    class Gone(io.BytesIO):
        def write(self, data: Any) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    stream = Checked(Gone(), "standard output")
    with pytest.raises(BrokenPipeError):
        stream.write(b"x")
    assert stream.write(b"abc") == 3


@pytest.mark.parametrize(
    ("given_format", "path", "expected"),
    [
        (None, None, "jsonl"),
        (None, "x.csv", "csv"),
        (None, "x.PARQUET", "parquet"),
        (None, "x.txt", "jsonl"),
        ("csv", "x.parquet", "csv"),
    ],
)
def test_the_format_is_the_one_asked_for_or_the_files(given_format: Any, path: Any, expected: str) -> None:
    assert format_of(given_format, Path(path) if path else None) == expected


@pytest.mark.parametrize("name", ["batch", "message", "xlsx"])
def test_other_formats_are_refused_in_words(name: str) -> None:
    with pytest.raises(UsageError, match=f"-f {name}: "):
        format_of(name, None)


# Values

INSTANT = datetime(2025, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([INSTANT, None], pa.timestamp("us", "UTC")), [AT, None]),
        (pa.array([INSTANT], pa.timestamp("us", "America/New_York")), [AT]),
        (pa.array([5], pa.timestamp("ns")), ["1970-01-01T00:00:00.000000005"]),
        (pa.array([5], pa.timestamp("s", "UTC")), ["1970-01-01T00:00:05Z"]),
        (pa.array([date(2025, 1, 2)], pa.date32()), ["2025-01-02"]),
        (pa.array([date(2025, 1, 2)], pa.date64()), ["2025-01-02"]),
        (pa.array([time(1, 2, 3, 4)], pa.time64("us")), ["01:02:03.000004"]),
        (pa.array([timedelta(seconds=-1.5), None], pa.duration("us")), ["-1.500000", None]),
        (pa.array([Decimal("-1.50")], pa.decimal128(5, 2)), ["-1.50"]),
        (pa.array([b"\xff\x00", None], pa.binary()), [base64.b64encode(b"\xff\x00").decode(), None]),
        (pa.array([b"ab"], pa.binary(2)), ["YWI="]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.array([[("k", INSTANT)], None], pa.map_(pa.string(), pa.timestamp("us", "UTC"))), [[["k", AT]], None]),
        (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), [[1, 2], None]),
        (pa.array([[INSTANT], [], None], pa.large_list(pa.timestamp("us", "UTC"))), [[AT], [], None]),
        (pa.array([{"a": {"at": INSTANT}}, None, {"a": None}]), [{"a": {"at": AT}}, None, {"a": None}]),
        (pa.array([None, None], pa.null()), [None, None]),
        (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
        (pa.array([{}, None], pa.struct([])), [{}, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_every_arrow_type_has_a_plain_value(array: Any, expected: list[Any]) -> None:
    assert values(array) == expected


NESTED = pa.list_(pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]))
ITEM = st.none() | st.fixed_dictionaries(
    {"a": st.none() | st.integers(-5, 5), "b": st.none() | st.lists(st.none() | st.text(max_size=3), max_size=3)}
)


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(st.none() | st.lists(ITEM, max_size=4), max_size=8), st.integers(0, 4), st.integers(0, 8))
def test_nested_values_of_any_slice_are_those_of_arrow(rows: list[Any], start: int, length: int) -> None:
    array = pa.array(rows, NESTED).slice(start, length)
    assert values(array) == array.to_pylist()


def test_parquet_inputs_keep_their_types_and_become_text_elsewhere(tmp_path: Path) -> None:
    table = pa.table({"text": ["a"], "at": pa.array([INSTANT], pa.timestamp("us", "UTC")), "d": [Decimal("-1.50")]})
    note = pa.field("note", pa.string(), metadata={b"json": b"1"})
    table = table.append_column(note, pa.array(["not json"]))
    pq.write_table(table, tmp_path / "rows.parquet")
    made = finished(tmp_path, [{}], [answered(0)], input={"path": "rows.parquet"})
    (row,) = json_lines(made, columns=("at", "d", "note"))
    assert row == {"at": AT, "d": "-1.50", "note": "not json"}
    assert records(made, columns=("at", "d")) == [{"at": AT, "d": "-1.50"}]
    assert pq.read_table(io.BytesIO(written(made, "parquet")))["d"].to_pylist() == [Decimal("-1.50")]
