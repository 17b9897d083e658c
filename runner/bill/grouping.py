"""What the bill can be grouped by: columns of the results, members of `parsed`, days, tags, runs.

Rule: a column of the run comes first, so an input column called `day` is that column. `day` is the day on which an
exchange was sent, in the time zone asked for; a row belongs to the day of its last exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from runner.errors import UsageError
from runner.export.plain import values
from runner.prepare import Prepared

DAY, RUN = "day", "run"
MOST_NAMED = 200


@dataclass(frozen=True, slots=True)
class Key:
    """One of the things grouped by, for one run. `column`: what must be read; `path`: the members below it."""

    name: str
    column: str | None = None
    path: tuple[str, ...] = ()
    constant: str | None = None

    @property
    def is_day(self) -> bool:
        return self.column is None and self.constant is None

    def of_rows(self, table: Any) -> Any:
        """The key of each row, as text; null where there is none. Not for the day, which an exchange has."""
        if self.column is None:
            return pa.array([self.constant] * table.num_rows, pa.string())
        array = table[self.column].combine_chunks()
        for member in self.path:
            array = pc.struct_field(array, member)
        return as_text(array)


def as_text(array: Any) -> Any:
    """Any Arrow array as text that people can read; nested values as compact JSON."""
    kind = array.type
    if types.is_string(kind):
        return array
    if types.is_dictionary(kind):
        return as_text(array.dictionary_decode())
    if any(fits(kind) for fits in _WRITTEN):
        return array.cast(pa.string())
    return pa.array([_text(value) for value in values(array)], pa.string())


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


#: What Arrow itself writes as people do.
_WRITTEN = (
    *(types.is_large_string, types.is_boolean, types.is_integer, types.is_floating, types.is_decimal),
    *(types.is_date, types.is_time, types.is_timestamp),
)


def _below(name: str, kind: Any) -> Iterator[str]:
    for member in kind if types.is_struct(kind) else ():
        path = f"{name}.{member.name}"
        yield path
        yield from _below(path, member.type)


@dataclass(frozen=True, slots=True)
class Names:
    """What one run has to offer: its columns, its tags, its name."""

    prepared: Prepared
    run: str
    tags: dict[str, str] = field(default_factory=dict)

    def key(self, name: str) -> Key:
        """Raises UsageError for a name that this run does not know."""
        for rule in (self._column, self._parsed, self._word):
            found = rule(name)
            if found:
                return found
        raise UsageError(f"--by {name}: {self.run} has no such column{self._near(name)}", hint=self._hint())

    def _column(self, name: str) -> Key | None:
        prefix, columns = self.prepared.job.output.prefix, self.prepared.shape.part.names
        return next((Key(name, column) for column in (name, prefix + name) if column in columns), None)

    def _parsed(self, name: str) -> Key | None:
        """`parsed.label`, `parsed.address.city`."""
        top, *path = name.split(".")
        column = self.prepared.job.output.prefix + "parsed"
        if top not in ("parsed", column) or not path or column not in self.prepared.shape.part.names:
            return None
        kind = self.prepared.shape.part.field(column).type
        for member in path:
            if not types.is_struct(kind) or kind.get_field_index(member) < 0:
                return None
            kind = kind.field(member).type
        return Key(name, column, tuple(path))

    def _word(self, name: str) -> Key | None:
        if name == DAY:
            return Key(DAY)
        if name == RUN:
            return Key(RUN, constant=self.run)
        tag = name.removeprefix("tags.").removeprefix("tag.")
        return Key(name, constant=self.tags.get(tag, "")) if tag != name or tag in self.tags else None

    def _near(self, name: str) -> str:
        found = get_close_matches(name, [*self.prepared.shape.part.names, *self._members(), *self.tags, DAY, RUN], 1)
        return f"; did you mean {found[0]}?" if found else ""

    def _hint(self) -> str:
        names = [*self.prepared.shape.part.names, *self._members(), DAY, RUN, *(f"tags.{tag}" for tag in self.tags)]
        more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
        return f"it has {', '.join(names[:MOST_NAMED])}{more}"

    def _members(self) -> list[str]:
        """`parsed.label`, `parsed.address`, `parsed.address.city`."""
        column = self.prepared.job.output.prefix + "parsed"
        shape = self.prepared.shape.part
        return list(_below(column, shape.field(column).type)) if column in shape.names else []


@dataclass(frozen=True, slots=True)
class Reading:
    """What has to be read of a run for these keys: columns, and of nested ones only the members."""

    keys: Sequence[Key]
    prefix: str
    needed: Sequence[str] = ("status", "error_kind", "finished_at", "row_index")
    exchange: Sequence[str] = field(
        default=(
            "started_at",
            "error_kind",
            "finish_reason",
            "prompt_tokens",
            "cached_tokens",
            "completion_tokens",
            "reasoning_tokens",
            "cost_usd",
        )
    )

    @property
    def attempts(self) -> str:
        return f"{self.prefix}attempts"

    @property
    def columns(self) -> list[str]:
        keys = [key.column for key in self.keys if key.column]
        return list(dict.fromkeys([*(self.prefix + name for name in self.needed), self.attempts, *keys]))

    @property
    def within(self) -> dict[str, list[str]]:
        members: dict[str, list[str]] = {}
        for key in self.keys:
            if key.column and key.path:
                members.setdefault(key.column, []).append(".".join(key.path))
        whole = {key.column for key in self.keys if not key.path}
        kept = {column: paths for column, paths in members.items() if column not in whole}
        return kept | {self.attempts: [f"list.element.{name}" for name in self.exchange]}


def keys_of(names: Names, asked: Sequence[str]) -> list[Key]:
    return [names.key(name) for name in asked]


Zone = Callable[[Any], Any]


def days_in(zone: str) -> Zone:
    """Instants (UTC) -> their days (date32) in a time zone. Raises UsageError for a zone that there is not."""
    kind = pa.timestamp("us", tz=zone)

    def days(instants: Any) -> Any:
        return pc.local_timestamp(instants.cast(kind)).cast(pa.date32(), safe=False)

    try:
        days(pa.array([0], pa.timestamp("us", tz="UTC")))
    except (pa.ArrowException, ValueError) as error:
        raise UsageError(f"--tz {zone}: there is no such time zone", hint="such as UTC or Europe/Berlin") from error
    return days
