"""One schema for several Parquet files.

Rule: the types of a column are equal, or become one that loses nothing of any value; else the input is refused, naming
both files. A column that a file lacks is null there. Nothing is decoded to find out, so timestamps of different units
are refused: only the values know whether 9999-12-31 occurs, which nanoseconds cannot hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyarrow import types as is_type

from runner.errors import InputError

_MANTISSA_BITS = {16: 11, 32: 24, 64: 53}
_WIDER = {
    (pa.string(), pa.large_string()),
    (pa.binary(), pa.large_binary()),
    (pa.date32(), pa.date64()),
    (pa.time32("s"), pa.time32("ms")),
    (pa.time32("s"), pa.time64("us")),
    (pa.time32("s"), pa.time64("ns")),
    (pa.time32("ms"), pa.time64("us")),
    (pa.time32("ms"), pa.time64("ns")),
    (pa.time64("us"), pa.time64("ns")),
}


def unify(labels: Sequence[str], schemas: Sequence[Any]) -> Any:
    """The pa.Schema of all files, columns in first-seen order. Raises InputError."""
    fields: dict[str, tuple[Any, str]] = {}
    for label, schema in zip(labels, schemas, strict=True):
        for field in map(_bare, schema):
            known, owner = fields.get(field.name, (field, label))
            fields[field.name] = (
                known if known.type.equals(field.type) else _joined(known, owner, field, label),
                owner,
            )
    return pa.schema([field for field, _ in fields.values()])


def lossless(source: Any, target: Any) -> bool:
    """Whether every value of `source` is the same value as `target`."""
    if source.equals(target) or is_type.is_null(source) or (source, target) in _WIDER:
        return True
    if is_type.is_integer(source):
        return _integer_fits(source, target)
    if is_type.is_floating(source):
        return bool(is_type.is_floating(target) and target.bit_width >= source.bit_width)
    if is_type.is_decimal(source) and is_type.is_decimal(target):
        return _digits(target) >= _digits(source) and bool(target.scale >= source.scale)
    if is_type.is_dictionary(source) and is_type.is_dictionary(target):
        return lossless(source.index_type, target.index_type) and lossless(source.value_type, target.value_type)
    return _nested_fits(source, target)


def _joined(known: Any, owner: str, field: Any, label: str) -> Any:
    merged = _permissive(known, field)
    if merged is None or not (_casts(known.type, merged.type) and _casts(field.type, merged.type)):
        raise InputError(
            f"the column `{field.name}` is {known.type} in {owner} and {field.type} in {label}: "
            "no type holds both exactly",
            hint="write the files with one type for it",
        )
    return merged


def _permissive(one: Any, other: Any) -> Any | None:
    try:
        return pa.unify_schemas([pa.schema([one]), pa.schema([other])], promote_options="permissive").field(0)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None


def _casts(source: Any, target: Any) -> bool:
    """Lossless by the rules above, and a cast that pyarrow has."""
    if not lossless(source, target):
        return False
    try:
        pa.nulls(1, source).cast(target)
    except pa.ArrowNotImplementedError:
        return False
    return True


def _digits(decimal: Any) -> int:
    return int(decimal.precision - decimal.scale)


def _integer_fits(source: Any, target: Any) -> bool:
    magnitude = source.bit_width - is_type.is_signed_integer(source)
    if is_type.is_floating(target):
        return bool(_MANTISSA_BITS[target.bit_width] >= magnitude)
    if not is_type.is_integer(target) or (is_type.is_signed_integer(source) and not is_type.is_signed_integer(target)):
        return False
    return bool(target.bit_width - is_type.is_signed_integer(target) >= magnitude)


def _nested_fits(source: Any, target: Any) -> bool:
    if is_type.is_map(source) and is_type.is_map(target):
        return lossless(source.key_type, target.key_type) and lossless(source.item_type, target.item_type)
    if _is_list(source) and (is_type.is_list(target) or is_type.is_large_list(target)):
        return lossless(source.value_type, target.value_type)
    if not (is_type.is_struct(source) and is_type.is_struct(target) and _names(source) == _names(target)):
        return False
    return all(lossless(one.type, other.type) for one, other in zip(source, target, strict=True))


def _is_list(type_: Any) -> bool:
    return bool(is_type.is_list(type_) or is_type.is_large_list(type_) or is_type.is_fixed_size_list(type_))


def _names(struct: Any) -> list[str]:
    return [field.name for field in struct]


def _bare(field: Any) -> Any:
    """Nullable, since another file may lack it; without the field numbers of the file it came from."""
    metadata = {key: value for key, value in (field.metadata or {}).items() if not key.startswith(b"PARQUET:")}
    return field.with_nullable(True).with_metadata(metadata or None)
