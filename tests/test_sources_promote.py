"""Several Parquet files have one schema, or are refused by name."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from runner.errors import InputError
from runner.sources.promote import lossless, unify

P = pa
CATEGORY = pa.dictionary(pa.int8(), pa.string())


def unified(*types: Any) -> Any:
    schemas = [pa.schema([("a", type_)]) for type_ in types]
    return unify([f"{n}.parquet" for n in range(len(schemas))], schemas).field("a").type


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (P.int32(), P.int64(), P.int64()),
        (P.uint8(), P.int64(), P.int64()),
        (P.uint32(), P.int32(), P.int64()),
        (P.int16(), P.float32(), P.float32()),
        (P.int32(), P.float32(), P.float64()),
        (P.int32(), P.float16(), P.float64()),
        (P.float32(), P.float64(), P.float64()),
        (P.string(), P.large_string(), P.large_string()),
        (P.binary(), P.large_binary(), P.large_binary()),
        (P.decimal128(10, 2), P.decimal128(12, 4), P.decimal128(12, 4)),
        (P.decimal128(38, 2), P.decimal128(38, 30), P.decimal256(66, 30)),
        (P.date32(), P.date64(), P.date64()),
        (P.time32("s"), P.time64("us"), P.time64("us")),
        (P.null(), P.list_(P.int32()), P.list_(P.int32())),
        (P.list_(P.int32()), P.list_(P.int64()), P.list_(P.int64())),
        (P.list_(P.null()), P.list_(P.string()), P.list_(P.string())),
        (P.list_(P.int32()), P.large_list(P.int32()), P.large_list(P.int32())),
        (P.list_(P.int32(), 3), P.list_(P.int32()), P.list_(P.int32())),
        (P.struct([("x", P.int32())]), P.struct([("x", P.int64())]), P.struct([("x", P.int64())])),
        (P.map_(P.string(), P.int32()), P.map_(P.string(), P.int64()), P.map_(P.string(), P.int64())),
        (CATEGORY, P.dictionary(P.int32(), P.string()), P.dictionary(P.int32(), P.string())),
        (P.timestamp("ns", "UTC"), P.timestamp("ns", "UTC"), P.timestamp("ns", "UTC")),
    ],
)
def test_types_become_one_that_loses_nothing(one: Any, other: Any, expected: Any) -> None:
    assert unified(one, other) == expected
    assert unified(other, one) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (P.int64(), P.float64()),
        (P.uint64(), P.int64()),
        (P.string(), P.binary()),
        (P.string(), P.int64()),
        (P.bool_(), P.int8()),
        (P.int64(), P.decimal128(10, 2)),
        (P.timestamp("us"), P.timestamp("ns")),
        (P.timestamp("us"), P.timestamp("us", "UTC")),
        (P.date32(), P.timestamp("us")),
        (CATEGORY, P.string()),
        (P.list_(P.int64()), P.list_(P.float64())),
        (P.struct([("x", P.int32())]), P.struct([("x", P.int32()), ("y", P.int32())])),
        (P.struct([("x", P.int64())]), P.struct([("x", P.float64())])),
        (P.map_(P.string(), P.int64()), P.map_(P.string(), P.float64())),
        (P.list_(P.int32()), P.int32()),
    ],
)
def test_types_that_cannot_be_one_are_refused_with_both_files(one: Any, other: Any) -> None:
    for types in ((one, other), (other, one)):
        with pytest.raises(InputError) as caught:
            unified(*types)
        said = f"the column `a` is {types[0]} in 0.parquet and {types[1]} in 1.parquet: no type holds both exactly"
        assert caught.value.message == said
        assert caught.value.hint


def test_columns_are_the_union_in_first_seen_order() -> None:
    schemas = [pa.schema([("b", pa.int8()), ("a", pa.int8())]), pa.schema([("c", pa.int8()), ("a", pa.int64())])]
    assert unify(["x", "y"], schemas) == pa.schema([("b", pa.int8()), ("a", pa.int64()), ("c", pa.int8())])


def test_a_required_column_may_be_null_and_loses_its_field_number() -> None:
    field = pa.field("a", pa.int8(), nullable=False, metadata={b"PARQUET:field_id": b"3", b"unit": b"s"})
    (found,) = unify(["x"], [pa.schema([field], metadata={b"pandas": b"{}"})])
    assert found.nullable
    assert found.metadata == {b"unit": b"s"}


def test_lossless_is_one_way() -> None:
    assert lossless(pa.int32(), pa.float64())
    assert not lossless(pa.float64(), pa.int32())
    assert not lossless(pa.int8(), pa.uint64())
    assert lossless(pa.uint32(), pa.int64())
