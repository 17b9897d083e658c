"""The bill beside what an endpoint knows it has charged, over the whole life of a run."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint, Place, Said, Seen, ok, refused, until
from ledger import removed

from runner.bill import bill
from runner.bill.words import to_json

TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
PRICING = {"m-1": {"input": 3, "cached_input": 0.30001, "output": 7.000001}}


@dataclass
class Till:
    """What was charged: every exchange with its own counts, some of them broken, cut off, or without any usage."""

    seen: int = 0
    unknown: int = 0
    usd: Decimal = Decimal(0)
    tokens: Counter[str] = field(default_factory=Counter)
    quota_at: int = 10**9  #: from this exchange on nothing is left
    tries: Counter[str] = field(default_factory=Counter)

    def __call__(self, seen: Seen) -> Said:
        number, self.seen = self.seen, self.seen + 1
        if number >= self.quota_at:
            return refused(429, "You exceeded your current quota.", "insufficient_quota")
        self.tries[seen.text] += 1
        row, again = int(seen.text.split()[-1]), self.tries[seen.text] > 1
        if row % 5 == 1 and not again:
            return refused(500, "oops")
        if row % 7 == 3:
            return refused(400, f"no: {seen.text}")
        if row % 6 == 2 and not again:
            self.unknown += 1
            return Said(200, b"{")
        return self._answer(number, "length" if row % 4 == 0 and not again else "stop")

    def _answer(self, number: int, finish: str) -> Said:
        prompt, cached, written, thought = 100 + number, 7 * (number % 9), 30 + number % 4, number % 3
        for name, count in zip(TOKENS, (prompt, cached, written, thought), strict=True):
            self.tokens[name] += count
        self.usd += (3 * (prompt - cached) + Decimal("0.30001") * cached + Decimal("7.000001") * written) / 10**6
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": thought},
        }
        return ok(json.dumps({"label": "abc"[number % 3]}), usage=usage, finish=finish)


SCHEMA = {"type": "object", "properties": {"label": {"enum": ["a", "b", "c"]}}, "required": ["label"]}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint(answer=Till()) as endpoint:
        yield Place(tmp_path, endpoint)


def write(place: Place, numbers: list[int]) -> None:
    lines = (json.dumps({"text": f"row {number}", "team": f"t{number % 3}"}) + "\n" for number in numbers)
    (place.root / "rows.jsonl").write_text("".join(lines))


def job(place: Place, **changes: Any) -> None:
    answers = {"type": "json_schema", "json_schema": {"name": "label", "schema": SCHEMA}}
    plain = {
        "request": {"response_format": answers},
        "retry": {"on_truncation": {"factor": 2, "max_tokens": 40}, "max_backoff_s": 0.02},
        "pricing": PRICING,
        "tags": {"project": "spring"},
        "output": {"rows_per_part": 16},
    }
    place.job(**(plain | changes))


def billed(place: Place, *words: str) -> dict[str, Any]:
    """What the command says of the run."""
    found: dict[str, Any] = json.loads(place.call("cost", "runs/trial", "--json", *words).out)
    return found


VIEWS: tuple[tuple[str, ...], ...] = (
    ("parsed.label", "day"),
    ("status", "error_kind", "team", "project"),
    ("text",),
)


def same_as_charged(place: Place) -> None:
    """Every view of the bill adds up to what the endpoint has charged."""
    till = place.endpoint.answer
    assert isinstance(till, Till)
    for found in (billed(place), *(to_json(bill([place.run_root], by)) for by in VIEWS)):
        total, parts = found["total"], [*found["lines"], *found["beside"].values()]
        assert Decimal(total["cost_usd"]) == till.usd
        assert {name: total[name] for name in TOKENS} == dict(till.tokens)
        assert (total["exchanges"], total["unknown_exchanges"]) == (till.seen, till.unknown)
        for name in ("exchanges", "unknown_exchanges", *TOKENS, "rows", "ok"):
            assert sum(part[name] for part in parts) == total[name], name
        for name in ("cost_usd", "wasted_usd"):
            assert sum(Decimal(part[name]) for part in parts) == Decimal(total[name]), name
        assert sum(map(Decimal, total["wasted_by_reason"].values())) == Decimal(total["wasted_usd"])


def test_the_bill_is_what_was_charged_over_stops_retries_and_a_new_layout(place: Place) -> None:
    till = place.endpoint.answer = Till(quota_at=40)
    write(place, list(range(40)))
    job(place)
    assert place.run().code == 3
    same_as_charged(place)
    till.quota_at = 10**9
    assert place.run().code == 1
    same_as_charged(place)
    assert place.call("retry", "job.yaml").code == 1
    same_as_charged(place)
    write(place, [*range(5), 100, 101, *range(9, 40), 200])  # changed, removed, appended
    assert place.run("--accept-changes").code == 1
    same_as_charged(place)
    found = billed(place)
    assert found["beside"]["removed"]["exchanges"] > 0
    rows = [attempt for row in place.records() for attempt in row["attempts"]] + removed(place.run_root)
    paid = [Decimal(repr(each["cost_usd"])) for each in rows if each["cost_usd"] is not None]
    assert Decimal(found["total"]["cost_usd"]) == sum(paid)


def test_the_bill_of_a_run_that_goes_on_is_what_was_charged_so_far(place: Place) -> None:
    till = Till()
    place.endpoint.answer = lambda seen: Said(200, "", once=lambda: False) if seen.text == "say row 4" else till(seen)
    write(place, list(range(24)))
    job(place)
    life = place.start("run", "job.yaml")
    found: dict[str, Any] = {}

    def all_others_are_final() -> bool:
        nonlocal found
        begun = till.seen and (place.run_root / "run.json").exists()
        found = to_json(bill([place.run_root], ("team",))) if begun else {}
        return bool(found) and found["total"]["rows"] == 23

    assert until(all_others_are_final)
    assert (Decimal(found["total"]["cost_usd"]), found["total"]["exchanges"]) == (till.usd, till.seen)
    assert sum(Decimal(line["cost_usd"]) for line in found["lines"]) == till.usd
    life.kill()
    # what was on the wire is told once nobody can be waiting for it
    stopped = billed(place)["total"]
    assert (stopped["exchanges"], stopped["unknown_exchanges"]) == (till.seen + 1, till.unknown + 1)
    assert Decimal(stopped["cost_usd"]) == till.usd
    assert Decimal(stopped["unknown_usd_at_most"]) > Decimal(found["total"]["unknown_usd_at_most"])


def test_several_runs_add_up_and_are_told_apart(place: Place) -> None:
    till = place.endpoint.answer = Till()
    write(place, list(range(8)))
    job(place)
    assert place.run().code == 1
    of_first = till.usd
    job(place, tags={"project": "autumn"}, name="second")
    assert place.run().code == 1
    done = place.call("cost", "runs", "runs/second", "--by", "project,run", "--csv")
    lines = list(csv.DictReader(io.StringIO(done.out)))
    assert [(line["project"], Path(line["run"]).name, Decimal(line["cost_usd"])) for line in lines] == [
        ("autumn", "second", till.usd - of_first),
        ("spring", "trial", of_first),
    ]
    assert sum(int(line["exchanges"]) for line in lines) == till.seen
    refused_ = place.call("cost", "runs/trial", "--by", "teem")
    assert (refused_.code, refused_.out) == (2, "")
    assert refused_.errors == ["--by teem: runs/trial has no such column; did you mean team?"]
    assert refused_.hint.startswith("it has text, team, row_index")


def test_only_what_has_a_bound_is_said_to_cost_at_most_so_much(place: Place) -> None:
    """Replies without usage: of the model that has a price a worst case is known, of the other one nothing is."""
    place.endpoint.answer = lambda seen: ok(usage=None)
    which = ["m-1", "nobody", "m-1", "nobody", "nobody"]

    def write_all(texts: str) -> None:
        rows = [json.dumps({"text": text, "which": name}) for text, name in zip(texts, which, strict=False)]
        (place.root / "rows.jsonl").write_text("\n".join(rows))

    write_all("abcde")
    place.job(request={"model": "{{ which }}"})
    assert place.run().code == 0
    for texts in ("abcde", "abcd"):
        write_all(texts)
        assert place.run("--accept-changes").code == 0
        total = billed(place)["total"]
        assert (total["unknown_exchanges"], total["unknown_bounded"]) == (5, 2)
        assert Decimal("0.0005") < Decimal(total["unknown_usd_at_most"]) < Decimal("0.001")
        said = place.call("cost", "runs/trial").out
        assert "5 of the exchanges are of unknown cost, and not in it: at most $0.000" in said
        assert " for 2 of them, no bound is known for 3\n" in said
        assert " for 2 of them, no bound is known for 3<" in place.call("report", "runs/trial", "-o", "-").out
