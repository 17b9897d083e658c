from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from runner.demand import GUESSED_LATENCY_S, Answer, Demand, Limits, Told
from runner.records import Request, Usage

RATES = {"m": (2, 8), "dear": (20, 80)}  # dollars per million tokens


def charge(model: str, usage: Usage, tier: str | None) -> Decimal | None:
    if model not in RATES or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    into, out = RATES[model]
    half = 2 if tier == "flex" else 1
    return Decimal(usage.prompt_tokens * into + usage.completion_tokens * out) / 1_000_000 / half


def request(row: int = 0, model: str = "m", prompt: int = 100, cap: int = 50, **more: Any) -> Request:
    given = {"reserved_usd": Decimal("0.01"), "tokens": prompt + cap, "prompt_tokens": prompt} | more
    return Request(row, b"{}", "h", model, **given)


def answer(row: int = 0, model: str = "m", **more: Any) -> Answer:
    given = {"status": "ok", "prompt_tokens": 120, "completion_tokens": 10, "busy_s": 3.0, "exchanges": 2}
    return Answer(row, model=model, **({"usd": Decimal("0.00032")} | given | more))


def told(*answers: tuple[Answer, int | None]) -> dict[str, Told]:
    found: dict[str, Told] = {}
    for each, reckoned in answers:
        found.setdefault(each.model, Told()).add(each, reckoned)
    return found


def demand(*requests: Request, cap: int | None = 50, known: dict[str, Told] | None = None) -> Demand:
    made = Demand(charge, known or {})
    for each in requests:
        made.add(each, cap)
    return made


def test_nothing_takes_nothing() -> None:
    empty = demand()
    assert (empty.rows, empty.prompt_tokens, empty.output_tokens, empty.expected_output_tokens) == (0, 0, 0, None)
    assert (empty.at_most_usd, empty.full_usd, empty.expected_usd, empty.latency_s) == (0, 0, None, None)
    assert empty.seconds(Limits(4)) == 0


def test_before_an_answer_it_is_what_bytes_and_caps_say() -> None:
    made = demand(request(), request(1, prompt=300, choices=2))
    assert (made.rows, made.prompt_tokens, made.output_tokens) == (2, 400, 150)
    assert made.at_most_usd == Decimal("0.02")
    assert made.full_usd == 2 * charge("m", Usage(200, completion_tokens=75), None)  # type: ignore[operator]
    assert (made.expected_output_tokens, made.expected_usd) == (None, None)


def test_a_row_without_a_cap_or_a_price_has_no_bound_and_neither_has_the_whole() -> None:
    uncapped = demand(request(), request(1, reserved_usd=None), cap=None)
    assert (uncapped.output_tokens, uncapped.at_most_usd, uncapped.full_usd) == (None, None, None)
    unpriced = demand(request(), request(1, "nobody knows", reserved_usd=None))
    assert (unpriced.output_tokens, unpriced.at_most_usd, unpriced.full_usd) == (100, None, None)


def test_answers_correct_the_tokens_and_tell_the_lengths() -> None:
    made = demand(request(), request(1), known=told((answer(), 100), (answer(prompt_tokens=180), 200)))
    assert made.prompt_tokens == 200  # 300 tokens were reported where 300 had been reckoned
    made = demand(request(), request(1), known=told((answer(), 100)))
    assert (made.prompt_tokens, made.output_tokens, made.expected_output_tokens) == (240, 100, 20)
    assert made.expected_usd == Decimal("0.00064")


def test_an_answer_to_another_prompt_tells_its_length_alone() -> None:
    made = demand(request(), known=told((answer(), None)))
    assert (made.prompt_tokens, made.expected_output_tokens) == (100, 10)


def test_answers_that_cost_other_than_their_tokens_say_make_the_rest_cost_so_too() -> None:
    """Half of the prompt was cached, or every row was asked twice: what it came to is what it will come to."""
    cheaper = told((answer(usd=Decimal("0.00016")), 100))
    assert demand(request(prompt=200), known=cheaper).expected_usd == Decimal("0.00028")
    server = told((answer(model="s", usd=Decimal("0.05")), 100))
    made = demand(request(model="s", reserved_usd=None), request(1, "s", reserved_usd=None), known=server)
    assert (made.at_most_usd, made.expected_usd) == (None, Decimal("0.10"))  # the server alone knows its prices


def test_answers_of_unknown_cost_tell_their_tokens() -> None:
    made = demand(request(), known=told((answer(usd=None), 100)))
    assert made.expected_usd == charge("m", Usage(120, completion_tokens=10), None)


def test_a_row_without_an_answer_tells_nothing() -> None:
    made = demand(request(), known=told((answer(status="failed", completion_tokens=None), 100)))
    assert (made.expected_output_tokens, made.expected_usd, made.latency_s) == (None, None, None)


def test_models_are_reckoned_apart_and_one_without_an_answer_by_the_lengths_of_the_others() -> None:
    known = told((answer(usd=Decimal("0.00064")), 100))
    made = demand(request(), request(1, "dear"), known=known)
    assert made.prompt_tokens == 240
    assert made.expected_output_tokens == 20
    dear = charge("dear", Usage(120, completion_tokens=10), None)
    assert dear is not None
    assert made.expected_usd == Decimal("0.00064") + dear  # that m was asked twice says nothing about it


def test_tiers_have_prices_of_their_own() -> None:
    made = Demand(charge)
    made.add(request(), 50, "flex")
    made.add(request(1), 50)
    assert made.full_usd == Decimal("0.0009")


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        (Limits(4), 300 * GUESSED_LATENCY_S / 4),
        (Limits(300), GUESSED_LATENCY_S),
        (Limits(300, requests_per_minute=60), 200),  # each model has limits of its own: the larger one decides
        (Limits(300, tokens_per_minute=600), 200 * 150 / 10),
        (Limits(1, True, 60_000, 6_000_000), 300 * GUESSED_LATENCY_S),
    ],
)
def test_time_is_by_what_binds_first(limits: Limits, seconds: float) -> None:
    made = demand(*(request(row, "m" if row < 200 else "dear") for row in range(300)))
    assert made.seconds(limits) == pytest.approx(seconds)


def test_time_is_by_the_answers_when_there_are_some() -> None:
    made = demand(*map(request, range(100)), known=told((answer(busy_s=3.0, exchanges=2), 100)))
    assert made.latency_s == 1.5
    assert made.seconds(Limits(10)) == 100 * 3.0 / 10  # a row keeps its slot for both of its exchanges
    assert made.seconds(Limits(10, tokens_per_minute=60)) == 100 * 130  # 120 of the prompt and 10 of the answer


def test_rows_that_cannot_be_sent_are_counted_and_the_first_is_told() -> None:
    made = demand(request())
    made.refuse(7, "no column x")
    made.refuse(9, "too large")
    assert (made.unsendable, made.example, made.rows) == (2, (7, "no column x"), 1)
