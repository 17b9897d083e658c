"""What a run remembers of exchanges that cost more than was possible."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner import notes, overrun
from runner.budget import Budget
from runner.notes import NOTES, Dearer, Sampled
from runner.pricing import Price
from runner.records import Request
from runner.recovery import Standing
from runner.store import RunDirectory

PRICE = Price("m", Decimal(1), None, None, Decimal(2), "job", "m")


class Process:
    """One process's look at a run: its budget, its engine, and what it says."""

    def __init__(self, root: Path, price: Price | None = PRICE, *, budget: bool = True) -> None:
        self.said: list[str] = []
        self.budget = Budget(Decimal(1)) if budget else None
        self.engine: Any = SimpleNamespace(settings=SimpleNamespace(budget=self.budget), on_dearer=None)
        prices = SimpleNamespace(of=lambda model: price)
        run: Any = SimpleNamespace(
            directory=RunDirectory(root),
            id="r",
            standing=Standing(),
            prepared=SimpleNamespace(prices=prices),
            say=SimpleNamespace(line=self.said.append),
        )
        overrun.watch(run, self.engine)

    def bill(self, worst: str, cost: str) -> None:
        assert self.budget
        request = Request(7, b"", "h", "m", 1, reserved_usd=Decimal(worst))
        if self.budget.ended((7, 1), Decimal(worst), Decimal(cost)):
            self.engine.on_dearer(request, Decimal(cost))


def test_the_next_process_knows_what_one_has_learned(tmp_path: Path) -> None:
    first = Process(tmp_path)
    first.bill("0.01", "0.02")
    first.bill("0.01", "0.015")
    first.bill("0.01", "0.031")
    assert [line.split(":")[0] for line in first.said] == ["warning", "warning"]
    assert "row 7 cost $0.0200, and at most $0.0100 was possible" in first.said[0]
    assert "the rest is reckoned at 3.1 times as much (give pricing.m as it is billed)" in first.said[1]
    second = Process(tmp_path)
    assert second.budget and second.budget.times == Decimal("3.1")
    assert second.said == []


@pytest.mark.parametrize("price", [None, Price("m", Decimal(1), None, None, Decimal(3), "job", "m")])
def test_another_price_is_a_fresh_start(tmp_path: Path, price: Price | None) -> None:
    Process(tmp_path).bill("0.01", "0.02")
    other = Process(tmp_path, price)
    assert other.budget and other.budget.times == 1


def test_what_was_to_be_free_is_sent_no_more(tmp_path: Path) -> None:
    first = Process(tmp_path)
    first.bill("0", "0.02")
    assert "no more such requests are sent" in first.said[0]
    second = Process(tmp_path)
    assert second.budget and not second.budget.fits(Decimal(0))


def test_without_a_budget_nothing_is_watched(tmp_path: Path) -> None:
    assert Process(tmp_path, budget=False).engine.on_dearer is None


def test_notes_of_it_stand_beside_others(tmp_path: Path) -> None:
    path, kept = tmp_path / NOTES, [Dearer("m", {"input": "1"}, Decimal("1.5")), Dearer("n", {}, None)]
    notes.add(path, "r", [kept[0], Sampled((1,), 0, 9), kept[1]])
    assert notes.dearer(path, "r") == kept
    assert notes.sampled(path, "r") == Sampled((1,), 0, 9)
    assert notes.dearer(path, "another run") == []
    with path.open("ab") as file:
        file.write(b'{"line":"dearer","model":"m","pri')  # a death in the middle of it
    assert notes.dearer(path, "r") == kept
