"""A run in this process beside an endpoint that numbers its exchanges, and the audit that lays the two side by side.

Rule: what the endpoint saw is the truth. Every exchange is named by its number (`x-request-id`) and every answer says
which exchange it came from, so that an answer that strays, or an exchange that leaves the bill, has a name.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from endpoint import KEY, Endpoint, Place, Said, Seen, ok, refused, snapshot

from runner.ending import Ending
from runner.opening import RunOptions
from runner.prepare import Asked
from runner.running import run
from runner.say import Say

ANSWER_USD = Decimal("0.00028")  #: 100 prompt and 10 completion tokens at 2 and 8 dollars per million
QUOTA = refused(429, "You exceeded your current quota.", "insufficient_quota")


@dataclass
class Teller:
    """What the endpoint says: `bad` texts are refused, `long` ones cut off, all others answered."""

    bad: set[str] = field(default_factory=set)
    long: set[str] = field(default_factory=set)
    left: int | None = None  #: answers before the quota is gone; None: no quota
    asked: dict[int, str] = field(default_factory=dict)  #: the text of every exchange
    status: dict[int, int] = field(default_factory=dict)  #: and how it was answered

    @property
    def answered(self) -> list[int]:
        """The exchanges that cost money."""
        return [number for number, status in self.status.items() if status == 200]

    def settling(self, since: int = 0) -> Counter[str]:
        """The texts of the exchanges that made a row final."""
        return Counter(self.asked[n] for n, status in self.status.items() if n >= since and status in (200, 400))

    def __call__(self, seen: Seen) -> Said:
        said = self._said(seen)
        self.asked[seen.number], self.status[seen.number] = seen.text, said.status
        return replace(said, headers={"x-request-id": str(seen.number)})

    def _said(self, seen: Seen) -> Said:
        if self.left is not None:
            if self.left <= 0:
                return QUOTA
            self.left -= 1
        if any(word in seen.text.split() for word in self.bad):
            return refused(400, f"no: {seen.text}")
        cut = any(word in seen.text.split() for word in self.long)
        return ok(answer_of(seen.number, seen.text), finish="length" if cut else "stop")


def answer_of(number: int, text: str) -> str:
    return f"{text} | {number}"


@dataclass
class Desk:
    """A place whose run is carried out in this process."""

    place: Place
    teller: Teller

    @property
    def root(self) -> Path:
        return self.place.run_root

    @property
    def sent(self) -> int:
        return self.place.sent

    def run(self, **options: Any) -> Ending:
        """`runner run job.yaml`; options: those of RunOptions."""
        given = RunOptions(environ={"TRIAL_KEY": KEY}, signals=False, **options)
        return run(Asked(self.place.root / "job.yaml"), given, Say(quiet=True))

    def write(self, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> None:
        """An input file, new in size or time whatever the clock's grain."""
        path = self.place.root / name
        path.unlink(missing_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def desk(root: Path, endpoint: Endpoint, **job: Any) -> Desk:
    """A desk with a small job: parts of 8 rows."""
    root.mkdir(exist_ok=True)
    teller = Teller()
    endpoint.answer = teller
    made = Desk(Place(root, endpoint), teller)
    made.place.job(**({"output": {"rows_per_part": 8}} | job))
    return made


def records(root: Path) -> list[dict[str, Any]]:
    """The rows of the parts, in the order of their files."""
    found: list[dict[str, Any]] = []
    for path in sorted((root / "results").glob("part-*.parquet")):
        found += pq.read_table(path, partitioning=None).to_pylist()
    return found


def removed(root: Path) -> list[dict[str, Any]]:
    """The exchanges of rows that left the input."""
    path = root / "removed.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n") if line] if path.exists() else []


def asked_of(row: dict[str, Any], teller: Teller) -> str | None:
    """What a row's last exchange asked."""
    attempts = [attempt for attempt in row["attempts"] if attempt["request_id"] is not None]
    return teller.asked[int(attempts[-1]["request_id"])] if attempts else None


def complaints(desk: Desk) -> list[str]:
    """What is wrong with the bill of a finished run. An exchange that was on the wire at a death has no number: for
    each such one, an exchange that the endpoint saw may be missing, with its answer."""
    rows, teller = records(desk.root), desk.teller
    exchanges = [attempt for row in rows for attempt in row["attempts"]] + removed(desk.root)
    named = [each for each in exchanges if each["request_id"] is not None]
    numbers = Counter(int(each["request_id"]) for each in named)
    nameless = len(exchanges) - len(named)
    totals: dict[str, Any] = json.loads((desk.root / "manifest.json").read_bytes())["totals"]
    gone = teller.asked.keys() - numbers.keys()
    paid = [number for number in teller.answered if number not in gone]
    cost = ANSWER_USD * len(paid)
    said = {int(row["attempts"][-1]["request_id"]): row["content"] for row in rows if row["status"] != "failed"}
    said |= {int(each["request_id"]): each["answer"] for each in named if each["answer"] is not None}
    keys = [(row["row_index"], each["epoch"], each["n"]) for row in rows for each in row["attempts"]]
    found: dict[str, list[Any]] = {
        "gone from the bill": sorted(gone)[nameless:],
        "invented": sorted(numbers.keys() - teller.asked.keys()),
        "billed twice": [number for number, count in numbers.items() if count > 1],
        "one name for two exchanges": [key for key, count in Counter(keys).items() if count > 1],
        "answers lost": [number for number in paid if said.get(number) != answer_of(number, teller.asked[number])],
        "exchanges": [] if totals["exchanges"] == len(exchanges) else [totals["exchanges"], len(exchanges)],
        "dollars": [] if Decimal(totals["cost_usd"]) == cost else [totals["cost_usd"], str(cost)],
        "unknown": [] if totals["unknown_exchanges"] == nameless else [totals["unknown_exchanges"], nameless],
    }
    return [f"{name}: {value[:9]}" for name, value in found.items() if value]


def without_talk(root: Path) -> dict[str, bytes]:
    """Every file of a run but the log and the lock, which any command may touch."""
    return {name: data for name, data in snapshot(root).items() if name not in ("run.log", "lock")}
