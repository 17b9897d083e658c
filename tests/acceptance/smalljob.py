"""A job of a few rows in this process, without sockets, threads or a disk that makes it wait.

Rule: everything of the program is real but three things: the wire is a function call, what it does in threads it does
in the loop, and an fsync returns at once. So every life makes the same file calls in the same order, and thousands of
them can be tried. `Memory` notes what a life has declared durable, as it declares it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import anyio.lowlevel
import anyio.to_thread
import orjson
import pyarrow.parquet as pq
import pytest
from endpoint import KEY, Endpoint, Place, Said, Seen, refused
from ledger import Teller, answer_of, removed

import runner.opening
import runner.running
from runner.ending import Ending
from runner.keep import Keeper
from runner.opening import RunOptions
from runner.ports import Ended
from runner.prepare import Asked
from runner.records import Attempt, Completion, Reply, Settled
from runner.reopen import Selection
from runner.say import Say

CONCURRENCY, ROWS_PER_PART = 2, 2
Tap = Callable[[pytest.MonkeyPatch], AbstractContextManager[object]]
UNREACHED = Endpoint(port=9)  #: nobody listens there, and nobody calls


@dataclass(frozen=True)
class Kept:
    """What was declared durable of a row: its exchanges so far, and, when it is final, its answer."""

    text: str
    exchanges: tuple[tuple[int, Decimal | None], ...]  #: (number, dollars)
    answer: str | None
    final: bool


def kept(text: str, attempts: tuple[Attempt, ...], answer: str | None, *, final: bool) -> Kept:
    exchanges = ((int(each.request_id), each.cost_usd) for each in attempts if each.request_id is not None)
    return Kept(text, tuple(exchanges), answer, final)


@dataclass
class Memory:
    """What one life sent, and what it declared durable, each with the number of file operations before it."""

    clock: Callable[[], int] = lambda: 0
    acknowledged: list[tuple[int, Kept]] = field(default_factory=list)
    left: list[tuple[int, str]] = field(default_factory=list)
    believed: list[tuple[int, str]] = field(default_factory=list)  #: texts of rows that it found final
    texts: Sequence[str] = ()  #: of the rows, as they are asked
    _pending: dict[int, list[Kept]] = field(default_factory=dict)

    def until(self, operations: int) -> Memory:
        """As it was then."""
        return Memory(
            acknowledged=[(at, each) for at, each in self.acknowledged if at <= operations],
            left=[(at, text) for at, text in self.left if at <= operations],
            believed=[(at, text) for at, text in self.believed if at <= operations],
        )

    def then(self, later: Memory) -> Memory:
        """Both lives as one."""
        return Memory(
            acknowledged=[*self.acknowledged, *later.acknowledged],
            left=[*self.left, *later.left],
            believed=[*self.believed, *later.believed],
        )

    @property
    def final(self) -> set[str]:
        """The texts that are not to be asked again."""
        return {each.text for _, each in self.acknowledged if each.final} | {text for _, text in self.believed}

    def install(self, patch: pytest.MonkeyPatch) -> None:
        attempt, record, write, begin = Keeper._attempt, Keeper._record, Keeper._write, Keeper.__init__

        def noting_begin(keeper: Keeper, *given: Any) -> None:
            begin(keeper, *given)
            rows = [row for opened in keeper.open.values() for row in opened.done]
            self.believed += [(self.clock(), self.texts[row]) for row in rows]

        def noting_attempt(keeper: Keeper, batch: Any, ended: Ended) -> None:
            attempt(keeper, batch, ended)
            self._note(batch, kept(_text(ended.request.body), (ended.attempt,), None, final=False))

        def noting_record(keeper: Keeper, batch: Any, settled: Settled) -> None:
            record(keeper, batch, settled)
            done = settled.outcome
            answer = done.choices[0].content if isinstance(done, Completion) else None
            self._note(batch, kept(_text(settled.request.body), settled.attempts, answer, final=True))

        async def noting_write(keeper: Keeper, batch: Any) -> None:
            await write(keeper, batch)
            self.acknowledged += [(self.clock(), each) for each in self._pending.pop(id(batch), [])]

        patch.setattr(Keeper, "__init__", noting_begin)
        patch.setattr(Keeper, "_attempt", noting_attempt)
        patch.setattr(Keeper, "_record", noting_record)
        patch.setattr(Keeper, "_write", noting_write)

    def _note(self, batch: Any, each: Kept) -> None:
        self._pending.setdefault(id(batch), []).append(each)


def _text(body: bytes) -> str:
    return str(orjson.loads(body)["messages"][-1]["content"])


@dataclass
class Moody(Teller):
    """The same; `busy` texts are answered only the second time."""

    busy: set[str] = field(default_factory=set)

    def _said(self, seen: Seen) -> Said:
        mood = self.busy & set(seen.text.split())
        self.busy -= mood
        return refused(500, "Try again.") if mood else super()._said(seen)


class Wireless:
    """A transport whose endpoint is a function."""

    def __init__(self, job: SmallJob) -> None:
        self._job = job

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def rekey(self) -> None:
        pass

    async def send(self, body: bytes) -> Reply:
        await anyio.lowlevel.checkpoint()
        said = self._job.answer(body)
        return Reply(said.status, dict(said.headers), orjson.dumps(said.body), 0.01)


async def _in_the_loop(act: Callable[..., Any], *given: Any, **_: Any) -> Any:
    await anyio.lowlevel.checkpoint()
    return act(*given)


@contextmanager
def unplugged(job: SmallJob) -> Iterator[pytest.MonkeyPatch]:
    """The three things that are not real."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner.running, "transport_of", lambda *_: Wireless(job))
        patch.setattr(anyio.to_thread, "run_sync", _in_the_loop)
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, lambda descriptor: None)
        patch.setattr(runner.opening, "versions", dict)  # a quarter of the time, and none of our business
        yield patch


@dataclass
class SmallJob:
    """A job of `runs/trial` under `root`, of rows that are told apart by their texts."""

    root: Path
    teller: Moody = field(default_factory=Moody)
    lives: list[Memory] = field(default_factory=list)
    numbers: int = 0  #: exchanges so far, over all lives
    options: dict[str, Any] = field(default_factory=dict)  #: of the command
    texts: list[str] = field(default_factory=list)  #: what its rows ask

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        changes = {"limits": {"concurrency": CONCURRENCY}, "output": {"rows_per_part": ROWS_PER_PART}}
        retry = {"max_backoff_s": 0.01, "max_attempts": 3}
        path = Place(self.root, UNREACHED).job(**changes, retry=retry)
        self._members = json.loads(path.read_text(encoding="utf-8"))

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def run_root(self) -> Path:
        return self.runs / "trial"

    def write(self, rows: list[dict[str, Any]]) -> None:
        path = self.root / "rows.jsonl"
        path.unlink(missing_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        self.texts = [f"say {row['text']}" for row in rows]

    def answer(self, body: bytes) -> Any:
        seen = Seen(self.numbers, "/v1/chat/completions", {}, orjson.loads(body))
        self.numbers += 1
        self.memory.left.append((self.memory.clock(), seen.text))
        return self.teller(seen)

    def live(self, tap: Tap = lambda patch: nullcontext(), clock: Callable[[], int] = lambda: 0, **more: Any) -> Ending:
        """One life of the command, with a memory of its own. Raises what leaves the program.

        tap: what stands between the program and `os`; clock: what the memory notes beside each fact."""
        self.lives.append(Memory(clock, texts=self.texts))
        with unplugged(self) as patch, tap(patch):
            self.memory.install(patch)
            return self.run(**more)

    @property
    def memory(self) -> Memory:
        """Of the last life."""
        return self.lives[-1]

    def undisturbed(self, **more: Any) -> Undisturbed:
        """Let the command run to its end: what it comes to when nothing happens to it."""
        before = [each for life in self.lives for each in life.acknowledged]
        assert self.live(**more).finished
        return Undisturbed(
            [*map(_plain, self.records())], frozenset(text for _, text in self.memory.left), self.memory, before
        )

    def run(self, **more: Any) -> Ending:
        options = RunOptions(environ={"TRIAL_KEY": KEY}, signals=False, **(self.options | more))
        asked = Asked(self.root / "job.yaml", members=self._members)
        return runner.running.run(asked, options, Say(quiet=True))

    def records(self) -> list[dict[str, Any]]:
        """The rows of the parts, in the order of their files."""
        found: list[dict[str, Any]] = []
        for path in sorted((self.run_root / "results").glob("*.parquet")):
            found += pq.read_table(path, columns=_COLUMNS, partitioning=None, use_threads=False).to_pylist()
        return found


_COLUMNS = ["id", "text", "row_index", "status", "content", "attempts"]


def _plain(row: dict[str, Any]) -> tuple[Any, ...]:
    """A row as any run of the same job must have it: what tells one exchange from another is left out."""
    return row["row_index"], row["id"], row["text"], row["status"], row["content"] and row["content"].split(" | ")[0]


# Scenarios: what was there, and the command that is disturbed


def texts(*numbers: int) -> list[dict[str, Any]]:
    return [{"id": n, "text": f"t{n}"} for n in numbers]


def plain(job: SmallJob) -> None:
    """A run from nothing to its end: five rows in three parts; one fails, one is cut off, one is asked twice."""
    job.teller.bad, job.teller.long, job.teller.busy = {"t1"}, {"t3"}, {"t2"}
    job.write(texts(0, 1, 2, 3, 4))


def retried(job: SmallJob) -> None:
    """A finished run of seven rows, two of them not ok: `retry`."""
    job.teller.bad, job.teller.long, job.teller.busy = {"t1"}, {"t6"}, {"t5"}
    job.write(texts(*range(7)))
    job.live()
    job.teller.bad, job.teller.long, job.teller.busy = set(), set(), {"t1"}
    job.options = {"retry": Selection()}


def _open_and_not_ok(job: SmallJob, *rows: int) -> None:
    """A run of nine rows, two not ok, one of which was being asked again when the quota ended."""
    job.teller.bad, job.teller.long = {"t1"}, {"t6"}
    job.write(texts(*rows))
    job.live()
    job.teller.left = 1
    assert job.live(retry=Selection()).exit_code == 3
    job.teller.left, job.teller.bad, job.teller.long = None, set(), set()


def moved(job: SmallJob) -> None:
    """A line in front, one edited, one less: answers move into other ranges, and one leaves the input."""
    _open_and_not_ok(job, *range(9))
    job.write([*texts(50, 0, 1), {"id": 2, "text": "t20"}, *texts(3, 4, 6, 7, 8)])
    job.options = {"accept_changes": True}


def in_place(job: SmallJob) -> None:
    """One line edited and two appended: answers stay where they are."""
    _open_and_not_ok(job, *range(7))
    job.write([*texts(0, 1), {"id": 2, "text": "t20"}, *texts(3, 4, 5, 6, 7, 8)])
    job.options = {"accept_changes": True}


SCENARIOS = {"plain": plain, "retry": retried, "moved": moved, "in place": in_place}


# The audit


@dataclass(frozen=True)
class Undisturbed:
    """What the command comes to when nothing happens to it."""

    rows: list[tuple[Any, ...]]
    asked: frozenset[str]  #: the texts that it sends
    memory: Memory
    before: list[tuple[int, Kept]]  #: what earlier commands had declared durable


def wrong(job: SmallJob, until: Memory, right: Undisturbed) -> list[str]:
    """What is wrong with a run that has gone on to its end.

    until: of the life that was disturbed, up to then. The life that went on is the job's last."""
    after = Counter(text for _, text in job.memory.left)
    before = Counter(text for _, text in until.left)
    again = {text for text in after if before[text]}
    records = job.records()
    rows = [*map(_plain, records)]
    found: dict[str, Any] = {
        "rows": [] if len(rows) == len(right.rows) else [len(rows), len(right.rows)],
        "rows differ": [(a, b) for a, b in zip(rows, right.rows, strict=False) if a != b],
        "sent though acknowledged": sorted(after.keys() & until.final),
        "sent for nothing": sorted(after.keys() - right.asked),
        "sent again beyond the bound": sorted(again) if len(again) > 2 * CONCURRENCY else [],
        **_bill(job, records, [*right.before, *until.acknowledged]),
    }
    return [f"{name}: {value[:5]}" for name, value in found.items() if value]


def _bill(job: SmallJob, rows: list[dict[str, Any]], acknowledged: list[tuple[int, Kept]]) -> dict[str, list[Any]]:
    """Every exchange that was declared durable is there once, at its price, with its answer."""
    exchanges = [each for row in rows for each in row["attempts"]] + removed(job.run_root)
    numbers = Counter(int(each["request_id"]) for each in exchanges if each["request_id"] is not None)
    costs = {int(each["request_id"]): _usd(each["cost_usd"]) for each in exchanges if each["request_id"] is not None}
    said = {int(row["attempts"][-1]["request_id"]): row["content"] for row in rows if row["status"] != "failed"}
    said |= {int(each["request_id"]): each["answer"] for each in exchanges if each["answer"] is not None}
    priced = {number: usd for _, each in acknowledged for number, usd in each.exchanges}
    final = {each.exchanges[-1][0]: each.answer for _, each in acknowledged if each.final and each.answer}
    totals = json.loads((job.run_root / "manifest.json").read_bytes())["totals"]
    asked = job.teller.asked
    return {
        "gone from the bill": sorted(priced.keys() - numbers.keys()),
        "billed twice": [number for number, count in numbers.items() if count > 1],
        "invented": sorted(numbers.keys() - asked.keys()),
        "at another price": [n for n, usd in priced.items() if n in costs and costs[n] != _usd(usd)],
        "answers lost": [n for n, answer in final.items() if said.get(n) != answer],
        "strayed": [n for n, answer in said.items() if answer != answer_of(n, asked[n])],
        "exchanges": [] if totals["exchanges"] == len(exchanges) else [totals["exchanges"], len(exchanges)],
        "dollars": [] if Decimal(totals["cost_usd"]) == _sum(exchanges) else [totals["cost_usd"], _sum(exchanges)],
    }


def _usd(amount: Any) -> Decimal | None:
    return None if amount is None else Decimal(str(amount)).quantize(Decimal("1e-12"))


def _sum(exchanges: list[dict[str, Any]]) -> Decimal:
    return sum((_usd(each["cost_usd"]) or Decimal(0) for each in exchanges), Decimal(0))
