"""What a changed job or input means for a run: each row as it is now beside what the run holds.

Rule: nothing is written. Rows of unchanged ranges under the same job are not rendered again; every other one is, and
under each earlier job whose answers are to stay too: the hash alone says whose answer is whose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice, zip_longest
from typing import Any, NamedTuple

from runner import files
from runner.errors import ChangedError
from runner.journal import replay
from runner.parts import Range, result_columns
from runner.plan import NONE, Plan, Stored, plan
from runner.prepare import Prepared, identity, past_recipe
from runner.recipe import Asked, Recipe
from runner.records import Failure, Row
from runner.relayout import Old
from runner.renamed import Earlier, earlier
from runner.say import dollars
from runner.spec import JobSpec

#: Rows that tell which column has another name now: the first of some ranges.
_SAMPLE_RANGES, _SAMPLE_ROWS = 8, 16


@dataclass(frozen=True, slots=True)
class Made:
    """A plan, and what sending its rows takes at most."""

    plan: Plan
    tokens: int
    cost_usd: Decimal | None  #: None: no price or no output cap is known
    unsendable: int = 0  #: of the changed and new rows: cannot be rendered, or its provider would not take it

    @property
    def to_send(self) -> int:
        return self.plan.changed + self.plan.new - self.unsendable

    def words(self) -> str:
        """`412 kept, 3 changed, 2 new; 4 to send (about 280 tokens, at most $0.0021), 1 cannot be sent and fails`."""
        said = f"{self.plan.words()}; {self.to_send:,} to send"
        if self.to_send:
            cost = "unknown cost" if self.cost_usd is None else f"at most {dollars(self.cost_usd)}"
            said += f" (about {self.tokens:,} tokens, {cost})"
        fails = "fails" if self.unsendable == 1 else "fail"
        return said + (f", {self.unsendable:,} cannot be sent and {fails}" if self.unsendable else "")


class _Fact(NamedTuple):
    """What a row would ask now."""

    hash: str | None  #: None: it cannot be rendered
    tokens: int = 0
    cost_usd: Decimal | None = None
    sendable: bool = False


def make_plan(prepared: Prepared, old: Old, known: Mapping[str, Any], *, keep: bool) -> Made:
    """keep: the ok answers of the job in `known` (run.json) are to stay, as those of its `kept_jobs` do anyway. Raises
    ChangedError when it cannot be told whose they are."""
    stored = _stored(old)
    same_job = identity(prepared.loaded) == identity(old.prepared.loaded)
    rendered = list(_rendered(prepared, old, stored if same_job else None))
    jobs = kept_jobs(known, identity(prepared.loaded), keep=keep)
    under = [_hashes_under(job, prepared, old, stored) for job in jobs]
    if keep and under and isinstance(under[-1], Earlier):
        raise _cannot_be_told(under[-1])
    kept = [hashes for hashes in under if not isinstance(hashes, Earlier)]
    kept += [_hashes_then(prepared, old, stored)] if keep and same_job else []
    made = plan(stored, [fact.hash for fact in rendered], kept)
    asked = [rendered[j] for j, source in enumerate(made.sources) if source == NONE]
    sent = [fact for fact in asked if fact.sendable]
    priced = [fact.cost_usd for fact in sent if fact.cost_usd is not None]
    total = sum(priced, Decimal(0)) if len(priced) == len(sent) else None
    return Made(made, sum(fact.tokens for fact in sent), total, len(asked) - len(sent))


def kept_jobs(known: Mapping[str, Any], now: Mapping[str, Any], *, keep: bool) -> list[Mapping[str, Any]]:
    """The earlier jobs whose ok answers stay. A job that asks otherwise, agreed to without --keep-answers, ends that:
    nobody could ever be rid of them."""
    then = known["identity"]
    if all(then[name] == now[name] for name in ("request", "vars", "base_url")):
        return list(known.get("kept_jobs", ()))
    return [*known.get("kept_jobs", ()), known["job"]] if keep else []


def _hashes_under(
    job: Mapping[str, Any], prepared: Prepared, old: Old, stored: Sequence[Stored]
) -> list[str | None] | Earlier:
    """What the rows as they are now would have been asked by an earlier job; the job's prompt, when it reads columns
    that are gone and no other one stands for them."""
    prompt, recipe = past_recipe(replace(prepared.loaded, job=JobSpec.model_validate(job)))
    then = earlier(prompt, recipe, prepared.survey.columns, old.prepared.survey.columns)
    asked = {row.request_hash for row in stored if row.ok and row.request_hash is not None}
    now = then.over(_sample(prepared) if then.gone else (), asked)
    return then if now is None else [fact.hash for fact in _rendered(replace(prepared, recipe=now), old, None)]


def _sample(prepared: Prepared) -> list[Row]:
    """Rows with all their columns, from all over the input."""
    count = len(prepared.survey.ranges)
    numbers = range(0, count, max(1, count // _SAMPLE_RANGES))
    return [row for number in numbers for row in islice(prepared.reader.rows(number), _SAMPLE_ROWS)]


def _cannot_be_told(then: Earlier) -> ChangedError:
    names = ", ".join(f"`{name}`" for name in then.gone)
    return ChangedError(
        f"the earlier job's messages read {names}, which the input has no more: no answer can be told to be a row's",
        hint="nothing was sent. Give the input the column back, under any name and with the values of then; "
        "--accept-changes asks every row by the changed job, -o DIR gives it a directory of its own",
    )


def _rendered(prepared: Prepared, old: Old, stored: Sequence[Stored] | None) -> Iterator[_Fact]:
    """Of every row. stored: of the same job; its unchanged ranges need no rendering."""
    for number in range(len(prepared.survey.ranges)):
        known = _known(prepared, old, number, stored) if stored is not None else ()
        if known and not prepared.recipe.asks_disk and all(row.request_hash is not None for row in known):
            yield from (_Fact(row.request_hash, cost_usd=Decimal(0), sendable=True) for row in known)
            continue
        for row, was in zip_longest(prepared.reader.rows(number, prepared.recipe.columns), known):
            asked = prepared.recipe.asked(row)
            if isinstance(asked, Failure):  # where only files can differ, one that is gone takes no answer away
                yield _Fact(was.request_hash if was else None)
            else:
                yield _fact(prepared.recipe, asked)


def _known(prepared: Prepared, old: Old, number: int, stored: Sequence[Stored]) -> Sequence[Stored]:
    """What the run holds of the rows of a range whose input is what it was; nothing for another one."""
    part = prepared.survey.ranges[number]
    before = old.ranges[number] if number < len(old.ranges) else None
    same = before and (before.rows, before.input_hash) == (part.rows, part.hash)
    return stored[part.first : part.first + part.rows] if same else ()


def _hashes_then(prepared: Prepared, old: Old, stored: Sequence[Stored]) -> list[str | None]:
    """What the rows of unchanged ranges were asked, whatever has become of the files that they carried."""
    found: list[str | None] = []
    for number, part in enumerate(prepared.survey.ranges):
        found += [row.request_hash for row in _known(prepared, old, number, stored)] or [None] * part.rows
    return found


def _fact(recipe: Recipe, asked: Asked) -> _Fact:
    """A row that its provider would not take keeps the answer that it has, and is not sent without one."""
    made = recipe.fitted(asked)
    if isinstance(made, Failure):
        return _Fact(asked.request.hash)
    return _Fact(made.hash, made.tokens, made.reserved_usd, sendable=True)


def _stored(old: Old) -> list[Stored]:
    """What the run holds of each old row."""
    rows = [Stored(None)] * sum(part.rows for part in old.ranges)
    for part in old.ranges:
        for row, (request_hash, status) in _hashes(old, part).items():
            rows[row] = Stored(request_hash or None, status == "ok")
    return rows


def _hashes(old: Old, part: Range) -> dict[int, tuple[str, str]]:
    """Request hash and status of the final rows of a range."""
    path, found = old.directory.part(part.number), {}
    if path.exists():
        table = result_columns(path, ("row_index", "request_hash", "status"))
        columns = [column.to_pylist() for column in table.columns]
        found = {row: (request_hash, status) for row, request_hash, status in zip(*columns, strict=True)}
    opened = old.standing.open.get(part.number)
    if opened is None:
        return found
    journal = replay(files.read_file(old.directory.journal(part.number)) or b"", part.run, part.number)
    found |= {row: (record["request_hash"], record["status"]) for row, record in journal.records.items()}
    return {row: facts for row, facts in found.items() if row in opened.done}
