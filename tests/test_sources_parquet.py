"""Parquet types pass through, rows come lazily from row groups, and damage is told by name."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runner.errors import ChangedError, InputError
from runner.sources.parquet import Cut, ParquetSource, cuts, shape
from runner.sources.reader import Reader
from runner.survey import SurveyOptions, survey

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)

#: type -> (a value as Arrow takes it, the same as Python gets it)
KINDS: list[tuple[Any, Any, Any]] = [
    (pa.int8(), 1, 1),
    (pa.uint64(), 2**64 - 1, 2**64 - 1),
    (pa.float32(), 0.5, 0.5),
    (pa.bool_(), True, True),
    (pa.string(), "é", "é"),
    (pa.large_string(), "x", "x"),
    (pa.binary(), b"\x00\xff", b"\x00\xff"),
    (pa.binary(3), b"abc", b"abc"),
    (pa.decimal128(20, 3), Decimal("12.345"), Decimal("12.345")),
    (pa.decimal256(60, 3), Decimal("12.345"), Decimal("12.345")),
    (pa.date32(), date(2024, 5, 1), date(2024, 5, 1)),
    (pa.time64("us"), time(1, 2, 3, 4), time(1, 2, 3, 4)),
    (pa.timestamp("us"), datetime(2024, 5, 1), datetime(2024, 5, 1)),
    (pa.timestamp("ms", "UTC"), NOON, NOON),
    (pa.timestamp("ns"), 1714521600123456789, pd.Timestamp("2024-05-01 00:00:00.123456789")),
    (pa.timestamp("ns", "UTC"), 1714521600123456789, pd.Timestamp("2024-05-01 00:00:00.123456789", tz="UTC")),
    (pa.duration("us"), timedelta(seconds=1), timedelta(seconds=1)),
    (pa.dictionary(pa.int32(), pa.string()), "red", "red"),
    (pa.list_(pa.int16()), [1, None], [1, None]),
    (pa.large_list(pa.string()), ["a"], ["a"]),
    (pa.struct([("x", pa.int8()), ("y", pa.list_(pa.string()))]), {"x": 1, "y": ["a"]}, {"x": 1, "y": ["a"]}),
    (pa.map_(pa.string(), pa.int32()), [("a", 1)], [("a", 1)]),
    (pa.null(), None, None),
]


def write(path: Path, table: Any, **options: Any) -> Path:
    pq.write_table(table, path, **options)
    return path


def reader(*paths: Path, **options: Any) -> Reader:
    return Reader(survey(paths, SurveyOptions(**options)))


@pytest.mark.parametrize(("kind", "value", "python"), KINDS, ids=[str(kind) for kind, _, _ in KINDS])
def test_a_type_passes_through(tmp_path: Path, kind: Any, value: Any, python: Any) -> None:
    column = pa.array([value, None], pa.int64()).cast(kind) if isinstance(python, pd.Timestamp) else None
    table = pa.table({"a": pa.array([value, None], kind) if column is None else column})
    found = survey([write(tmp_path / "t.parquet", table)], SurveyOptions())
    assert found.schema.field("a").type == kind
    assert Reader(found).table(0, ["a"]).equals(table)
    rows = list(Reader(found).rows(0))
    assert [row.data for row in rows] == [{"a": python}, {"a": None}]
    assert type(rows[0].data["a"]) is type(python)  # type: ignore[index]  # as just asserted


@pytest.mark.parametrize(
    ("ends", "start", "stop", "expected"),
    [
        ((), 0, 0, []),
        ((5,), 0, 5, [(0, 0, 5)]),
        ((5,), 2, 3, [(0, 2, 3)]),
        ((5, 10), 5, 6, [(1, 0, 1)]),
        ((5, 10), 4, 6, [(0, 4, 5), (1, 0, 1)]),
        ((5, 5, 5, 8), 0, 8, [(0, 0, 5), (3, 0, 3)]),
        ((0, 5), 0, 1, [(1, 0, 1)]),
        ((5, 10), 0, 0, []),
        ((5, 10), 10, 10, []),
    ],
)
def test_rows_are_cut_from_the_blocks_they_touch(
    ends: tuple[int, ...], start: int, stop: int, expected: list[tuple[int, int, int]]
) -> None:
    assert list(cuts(ends, start, stop)) == [Cut(*cut) for cut in expected]


@pytest.mark.parametrize("group_rows", [1, 7, 100, 1000])
@pytest.mark.parametrize("part", [1, 30, 1000])
def test_ranges_give_every_row_whatever_the_row_groups(tmp_path: Path, group_rows: int, part: int) -> None:
    one = write(tmp_path / "a.parquet", pa.table({"n": range(100)}), row_group_size=group_rows)
    two = write(tmp_path / "b.parquet", pa.table({"n": range(100, 150)}), row_group_size=group_rows)
    found = survey([one, two], SurveyOptions(rows_per_part=part))
    each = Reader(found)
    rows = [row for n in range(len(found.ranges)) for row in each.rows(n)]
    assert [(row.index, row.data) for row in rows] == [(n, {"n": n}) for n in range(150)]
    tables = [each.table(n, ["n"]) for n in range(len(found.ranges))]
    assert pa.concat_tables(tables).column("n").to_pylist() == list(range(150))
    assert [table.num_rows for table in tables] == [piece.rows for piece in found.ranges]


def test_files_of_different_columns_and_widths_are_one_input(tmp_path: Path) -> None:
    one = write(tmp_path / "a.parquet", pa.table({"n": pa.array([1], pa.int32()), "x": ["a"]}))
    two = write(tmp_path / "b.parquet", pa.table({"y": [True], "n": pa.array([2**40], pa.int64())}))
    found = survey([one, two], SurveyOptions())
    assert found.schema == pa.schema([("n", pa.int64()), ("x", pa.string()), ("y", pa.bool_())])
    expected = {"n": [1, 2**40], "x": ["a", None], "y": [None, True]}
    assert Reader(found).table(0, ["n", "x", "y"]).to_pydict() == expected
    assert [row.data for row in Reader(found).rows(0)] == [
        {"n": 1, "x": "a", "y": None},
        {"n": 2**40, "x": None, "y": True},
    ]


def test_a_file_with_none_of_the_asked_columns_has_its_rows_still(tmp_path: Path) -> None:
    one = write(tmp_path / "a.parquet", pa.table({"a": range(600)}))
    two = write(tmp_path / "b.parquet", pa.table({"b": range(600)}))
    each = reader(one, two, rows_per_part=1100)
    assert [row.data for row in each.rows(0, ["b"])] == [{"b": None}] * 600 + [{"b": n} for n in range(500)]
    assert [row.data for row in each.rows(1, ["a"])] == [{"a": None}] * 100
    assert each.table(0, ["b"]).column("b").to_pylist() == [None] * 600 + list(range(500))
    assert each.table(0, []).num_rows == 1100


def test_only_the_asked_columns_are_converted(tmp_path: Path) -> None:
    table = pa.table({"a": [1], "b": [2], "s": [{"b": 3}], "s.b": [4]})
    each = reader(write(tmp_path / "t.parquet", table))
    assert [row.data for row in each.rows(0, {"a", "nowhere"})] == [{"a": 1}]
    assert [row.data for row in each.rows(0, ["s.b"])] == [{"s.b": 4}]
    assert [row.data for row in each.rows(0, ["s"])] == [{"s": {"b": 3}}]
    assert [row.data for row in each.rows(0, [])] == [{}]
    assert each.table(0, ["s.b", "a"]).to_pydict() == {"s.b": [4], "a": [1]}
    assert each.table(0, []).shape == (1, 0)


def test_a_value_that_python_cannot_hold_fails_its_row_only(tmp_path: Path) -> None:
    when = pa.array([0, 10**18, 1], pa.int64()).cast(pa.timestamp("us"))
    each = reader(write(tmp_path / "t.parquet", pa.table({"n": [1, 2, 3], "when": when})))
    first, second, third = each.rows(0)
    assert (first.data, third.index) == ({"n": 1, "when": datetime(1970, 1, 1)}, 2)
    assert (second.data, second.index) == (None, 1)
    assert second.error == "t.parquet: row 1: column `when`: date value out of range"
    assert [row.data for row in each.rows(0, ["n"])] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert each.table(0, ["when"]).column("when").combine_chunks().equals(when)


def test_a_row_group_is_decoded_once_for_its_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.parquet", pa.table({"n": range(1000), "m": range(1000)}))
    found = survey([path], SurveyOptions(rows_per_part=10))
    decoded: list[tuple[str, ...]] = []
    decode = ParquetSource._decode

    def counted(self: Any, number: int, group: int, names: tuple[str, ...]) -> Any:
        decoded.append(names)
        return decode(self, number, group, names)

    monkeypatch.setattr(ParquetSource, "_decode", counted)
    each = Reader(found)
    for number in range(len(found.ranges)):
        list(each.rows(number, {"n"}))
        each.table(number, ["m", "n"])
    assert decoded == [("n",), ("m", "n")]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"n\n1\n" * 10, b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_file_that_is_no_parquet_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^t\.parquet cannot be read as Parquet: ") as caught:
        survey([path], SurveyOptions())
    assert caught.value.hint


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(InputError, match=r"t\.parquet: the column `a` is there twice"):
        shape(write(tmp_path / "t.parquet", table), "t.parquet")


def test_a_damaged_page_is_told_with_its_row_group(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", pa.table({"a": ["x" * 50] * 100}), compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[4:60] = b"\xff" * 56
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"^t\.parquet: row group 0 is damaged: ") as caught:
        list(reader(path).rows(0))
    assert caught.value.hint


def test_a_file_with_other_row_groups_than_surveyed_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", pa.table({"a": range(10)}))
    each = reader(path)
    write(path, pa.table({"a": range(9)}))
    with pytest.raises(ChangedError, match="row group 0 has 9 rows, 10 were surveyed"):
        each.table(0, ["a"])
    path.unlink()
    with pytest.raises(InputError, match=r"t\.parquet cannot be read"):
        list(each.rows(0))


@pytest.mark.parametrize(
    ("table", "options", "changed"),
    [
        (pa.table({"n": range(100)}), {"row_group_size": 50}, []),
        (pa.table({"n": [*range(99), -1]}), {"row_group_size": 50}, [1, 2, 3]),
        (pa.table({"m": range(100)}), {"row_group_size": 50}, [0, 1, 2, 3]),
        (pa.table({"n": range(50)}), {"row_group_size": 50}, [1, 2, 3]),
    ],
)
def test_verify_sees_which_ranges_changed(tmp_path: Path, table: Any, options: Any, changed: list[int]) -> None:
    path = write(tmp_path / "t.parquet", pa.table({"n": range(100)}), row_group_size=50)
    found = survey([path], SurveyOptions(rows_per_part=30))
    write(path, table, **options)
    path.touch()
    found_changed = []
    for number in range(4):
        try:
            Reader(found).verify(number)
        except ChangedError as error:
            assert "t.parquet: the rows" in error.message
            found_changed.append(number)
    assert found_changed == changed
