"""The type of a column fits every row, and its values come back from the Arrow table."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.sources.types import Columns, array, is_json_text, json_text

JSON = "json"
BIG = 2**53


def schema_of(rows: list[dict[str, Any]]) -> Any:
    columns = Columns()
    for row in rows:
        columns.add(row, 10)
    return columns.schema()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([True, None], pa.bool_()),
        ([1, -5, None], pa.int64()),
        ([2**63 - 1, -(2**63)], pa.int64()),
        ([2**63], JSON),
        ([-(2**63) - 1], JSON),
        ([1.5], pa.float64()),
        ([BIG, -BIG, 1.5], pa.float64()),
        ([BIG + 1, 1.5], JSON),
        ([-BIG - 1, 1.5], JSON),
        (["a"], pa.string()),
        ([None, None], pa.string()),
        ([True, 1], JSON),
        ([1, "1"], JSON),
        (["a", ["a"]], JSON),
        ([{}], JSON),
        ([None, {"a": 1}], JSON),
        ([[]], pa.list_(pa.string())),
        ([[], None, [None]], pa.list_(pa.string())),
        ([[1], [None, 2], []], pa.list_(pa.int64())),
        ([[1], [2.5]], pa.list_(pa.float64())),
        ([[True]], pa.list_(pa.bool_())),
        ([["a"], ["b", None]], pa.list_(pa.string())),
        ([[1], ["a"]], JSON),
        ([[BIG + 1], [0.5]], JSON),
        ([[2**64]], JSON),
        ([[[1]]], JSON),
        ([[{}]], JSON),
    ],
)
def test_a_column_has_the_narrowest_type_that_loses_nothing(values: list[Any], expected: Any) -> None:
    (field,) = schema_of([{"a": value} for value in values])
    assert is_json_text(field) is (expected == JSON)
    assert field.type == (pa.string() if expected == JSON else expected)


def test_a_late_row_changes_the_type_of_all() -> None:
    rows: list[dict[str, Any]] = [{"a": 1} for _ in range(5000)]
    assert schema_of(rows).field("a").type == pa.int64()
    assert is_json_text(schema_of([*rows, {"a": "x"}]).field("a"))


def test_columns_come_in_first_seen_order() -> None:
    rows = [{"b": 1, "a": 1}, {"c": 1}, {"a": 1, "b": 1}, {"d": 1, "b": 1}]
    assert schema_of(rows).names == ["b", "a", "c", "d"]
    assert schema_of([{f"k{n}": 1} for n in range(3000)]).names == [f"k{n}" for n in range(3000)]


def test_no_rows_have_no_columns() -> None:
    assert schema_of([]).names == []
    assert schema_of([{}, {}]).names == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", '"a"'),
        ("é\u2028", '"é\u2028"'),
        (1, "1"),
        (1.0, "1.0"),
        (True, "true"),
        ({"b": [1, None], "a": "x"}, '{"b":[1,null],"a":"x"}'),
        (2**70, "1180591620717411303424"),
        ({"a": 2**70}, '{"a":1180591620717411303424}'),
        ("\ud800", '"\ufffd"'),
        ({"\udfff": "é"}, '{"\ufffd":"é"}'),
    ],
)
def test_json_text_is_compact_and_exact(value: Any, text: str) -> None:
    assert json_text(value) == text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a\ud800b", None, "c"], ["a\ufffdb", None, "c"]),
        ([["\udc00"], None, [None, "x"]], [["\ufffd"], None, [None, "x"]]),
        (["\ud800", 1], ['"\ufffd"', "1"]),
    ],
)
def test_lone_surrogates_are_replaced_in_the_table_only(values: list[Any], expected: list[Any]) -> None:
    (field,) = schema_of([{"a": value} for value in values])
    assert array(values, field).to_pylist() == expected


def test_a_value_that_does_not_fit_is_an_arrow_error() -> None:
    with pytest.raises(pa.ArrowException):
        array(["x"], pa.field("a", pa.int64()))


@settings(deadline=None, max_examples=EXAMPLES)
@given(values=st.lists(st.integers(-BIG, BIG)) | st.lists(st.text()))
def test_texts_and_whole_numbers_are_the_arrays_that_arrow_makes_of_them(values: list[Any]) -> None:
    kind = pa.string() if values and isinstance(values[0], str) else pa.int64()
    made = array(values, pa.field("a", kind))
    made.validate(full=True)
    assert made.equals(pa.array(values, kind))


def test_texts_and_whole_numbers_without_nulls_import_no_pandas() -> None:
    """It takes 0.3 s, in the midst of a run."""
    script = (
        "import sys, pyarrow as pa\nfrom runner.sources.types import array\n"
        "array(['a', 'b'], pa.field('a', pa.string())), array([1, 2], pa.field('a', pa.int64()))\n"
        "sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUE = SCALAR | st.lists(SCALAR, max_size=3) | st.dictionaries(st.text(), SCALAR, max_size=2)


def column() -> st.SearchStrategy[list[Any]]:
    """Mostly of one kind, as columns are; sometimes a mixture."""
    kinds = [st.integers(-BIG, BIG), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.booleans(), VALUE]
    one = st.sampled_from(kinds).flatmap(lambda kind: st.lists(kind | st.none(), min_size=1, max_size=6))
    several = st.sampled_from(kinds).flatmap(lambda kind: st.lists(st.lists(kind, max_size=3), min_size=1, max_size=4))
    return one | several | st.lists(VALUE, min_size=1, max_size=5)


@settings(deadline=None, max_examples=EXAMPLES)
@given(values=column())
def test_every_value_comes_back_from_the_table(values: list[Any]) -> None:
    (field,) = schema_of([{"a": value} for value in values])
    back = array(values, field).to_pylist()
    if is_json_text(field):
        back = [None if text is None else json.loads(text) for text in back]
    assert back == values
