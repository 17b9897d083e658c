"""A budget is a promise: over stops, kills, retries and changed jobs, on real sockets and a real disk."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint, Place, Said, ok, refused, until

from runner.standing import status_of

#: 20 output tokens at 8 dollars per million, and a body of some 110 bytes at 2.
WORST_USD = Decimal("0.0004")
ANSWER_USD = Decimal("0.00028")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint() as endpoint:
        made = Place(tmp_path, endpoint)
        made.rows(60)
        yield made


def message(kind: str, **value: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": kind, kind: value}]}]


def spent(place: Place) -> Decimal:
    totals = status_of(place.run_root).totals
    return totals.cost_usd + totals.unknown_usd


def test_a_run_stops_with_3_before_its_budget_is_passed_and_goes_on_with_more(place: Place) -> None:
    place.job(budget={"max_usd": 0.005}, request={"max_completion_tokens": 20})
    done = place.run("--json")
    assert (done.code, done.json["reason"]) == (3, "stopped")
    assert "budget has no room for another row" in done.json["error"]
    assert "--max-usd" in done.json["hint"]
    first = spent(place)
    assert Decimal("0.005") - WORST_USD < first <= Decimal("0.005")
    assert place.run().code == 3
    assert spent(place) == first
    assert place.run("--max-usd", "0.008").code == 3
    assert first < spent(place) <= Decimal("0.008")
    second, sent = spent(place), place.sent
    lower = place.run("--max-usd", "0.006")
    assert (lower.code, place.sent) == (3, sent)
    assert f": ${second.normalize():f} of $0.006 are spent" in lower.errors[0]
    found = re.search(r"--max-usd ([0-9.]+) or more", lower.hint)
    assert found
    assert (place.run("--max-usd", found[1]).code, place.sent) == (3, sent + 1)  # room for one row more, and no other
    assert place.run("--max-usd", "1").code == 0
    assert spent(place) == 60 * ANSWER_USD
    assert place.sent == 60


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pricing": {"m-1": {"output": None}}}, "no price is known for m-1"),
        ({"request": {"max_completion_tokens": None}}, "the output is not capped"),
        ({"request": {"web_search_options": {"search_context_size": "low"}}}, "what request.web_search_options costs"),
        ({"request": {"messages": message("input_audio", data="AAAA", format="wav")}}, "no price of sound is known"),
        ({"request": {"messages": message("file", file_id="f-1")}}, "neither is the context of m-1"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused_before_anything_is_sent(
    place: Place, changes: dict[str, Any], said: str
) -> None:
    place.job(**changes, budget={"max_usd": 1})
    for command in ("check", "run"):
        done = place.call(command, "job.yaml")
        assert (done.code, place.sent) == (2, 0)
        assert said in done.errors[0]
        assert done.errors[0].startswith("job.yaml:")


def test_what_an_earlier_start_has_spent_without_a_bound_is_told_when_a_budget_is_given(place: Place) -> None:
    quota = refused(429, "You exceeded your current quota.", "insufficient_quota")
    place.endpoint.answer = lambda seen: ok(usage=None) if seen.number < 3 else quota
    place.job(pricing={"m-1": None}, limits={"concurrency": 1})
    assert "warning" not in place.run().err
    place.endpoint.answer = lambda seen: ok()
    place.job(budget={"max_usd": 1})
    done = place.run()
    assert done.code == 0
    assert done.err.count("what 3 earlier exchanges cost is not known and was bounded by nothing when sent") == 1


def test_a_row_whose_worst_case_is_not_known_is_never_sent_under_a_budget(place: Place) -> None:
    (place.root / "rows.jsonl").write_text('{"text": "a", "which": "m-1"}\n{"text": "b", "which": "nobody-knows"}\n')
    place.job(budget={"max_usd": 1}, request={"model": "{{ which }}"})
    done = place.run()
    assert (done.code, place.sent) == (1, 1)
    failed = place.records()[1]
    assert failed["error_kind"] == "INPUT"
    assert "needs a price" in failed["error"]


def test_a_file_out_of_the_data_is_reckoned_at_the_whole_context_of_its_model(place: Place) -> None:
    """$2 a million and a context of 128,000 tokens: one at a time has room in 30 cents."""
    file = {"type": "file", "file": {"file_id": "f-1"}}
    rows = [{"say": [{"role": "user", "content": [file]}], "which": which} for which in ("gpt-4o", "m-1", "gpt-4o")]
    (place.root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rates = {"input": 2, "output": 8}
    place.endpoint.answer = lambda seen: Said(200, ok().body, delay_s=0.1)
    place.job(
        budget={"max_usd": 0.3},
        request={"model": "{{ which }}", "messages": "{{ say }}"},
        pricing={"m-1": rates, "gpt-4o": rates},
    )
    done = place.run()
    assert (done.code, place.sent, place.endpoint.connections) == (1, 2, 1)
    assert [row["status"] for row in place.records()] == ["ok", "failed", "ok"]
    assert "a known context if it is sent files" in place.records()[1]["error"]
    place.job(
        budget={"max_usd": 0.25},
        name="less",
        request={"model": "{{ which }}", "messages": "{{ say }}"},
        pricing={"m-1": rates, "gpt-4o": rates},
    )
    done = place.run()
    assert (done.code, place.sent) == (3, 2)
    assert "that may cost $0.25616: $0 of $0.25 are spent" in done.errors[0]


def test_what_was_on_the_wire_at_a_kill_stays_spent(place: Place) -> None:
    place.job(budget={"max_usd": 0.004}, limits={"concurrency": 4})
    place.endpoint.answer = lambda seen: Said(200, b"", once=lambda: False) if seen.number >= 4 else ok()
    life = place.start("run", "job.yaml")
    journal = place.run_root / "journal" / "00000.jsonl"
    assert until(lambda: place.sent == 8 and journal.read_bytes().count(b'"line":"record"') == 4)
    life.signal(signal.SIGKILL)
    life.wait()
    place.endpoint.answer = lambda seen: ok()
    assert place.run().code == 3
    totals = status_of(place.run_root).totals
    assert totals.unknown_exchanges == 4
    assert 4 * ANSWER_USD < totals.unknown_usd <= 4 * WORST_USD
    assert totals.cost_usd + totals.unknown_usd <= Decimal("0.004")
    billed = ANSWER_USD * (place.sent - 4) + totals.unknown_usd
    assert billed <= Decimal("0.004")


def test_what_sealed_rows_have_cost_is_spent_for_retry_too(place: Place) -> None:
    place.rows(6)
    place.job(budget={"max_usd": 0.00195}, output={"rows_per_part": 2})
    place.endpoint.answer = lambda seen: ok(finish="length")
    assert (place.run().code, place.sent) == (1, 6)
    assert len(list((place.run_root / "results").glob("part-*.parquet"))) == 3
    done = place.call("retry", "job.yaml")
    assert (done.code, place.sent) == (3, 6)
    assert "$0.00168 of $0.00195 are spent" in done.errors[0]
    place.endpoint.answer = lambda seen: ok()
    assert (place.call("retry", "job.yaml", "--max-usd", "0.0025").code, place.sent) == (3, 8)
    assert spent(place) == 8 * ANSWER_USD
    place.job(budget={"max_usd": 0.0025}, request={"messages": [{"role": "user", "content": "now say {{ text }}"}]})
    assert (place.run("--accept-changes").code, place.sent) == (3, 8)  # what is asked anew is paid for besides
    assert (place.run("--max-usd", "0.00279").code, place.sent) == (3, 9)
    assert spent(place) == 9 * ANSWER_USD


def test_a_worst_case_stays_in_the_bill_through_sealing_retry_and_a_moved_row(place: Place) -> None:
    place.rows(6)
    place.job(retry={"max_attempts": 2, "max_backoff_s": 0.05}, output={"rows_per_part": 2})
    cut = {"say row 1", "say row 3"}
    place.endpoint.answer = lambda seen: Said(200, b"{") if seen.text in cut else ok()
    assert place.run().code == 1
    first = status_of(place.run_root).totals
    assert first.unknown_exchanges == 4
    assert 4 * ANSWER_USD < first.unknown_usd <= 4 * WORST_USD
    place.endpoint.answer = lambda seen: ok()
    assert place.call("retry", "job.yaml").code == 0
    assert status_of(place.run_root).totals.unknown_usd == first.unknown_usd
    lines = (place.root / "rows.jsonl").read_text().split("\n")[:-1]
    time.sleep(0.02)
    (place.root / "rows.jsonl").write_text("\n".join([lines[0], '{"id": 9, "text": "new"}', *lines[2:]]) + "\n")
    assert place.run("--accept-changes").code == 0
    moved = status_of(place.run_root).totals
    assert (moved.unknown_exchanges, moved.unknown_usd) == (4, first.unknown_usd)
    told = place.call("cost", "runs/trial", "--json").json["total"]
    assert Decimal(told["unknown_usd_at_most"]) == first.unknown_usd
    said = place.call("cost", "runs/trial").out
    assert "unknown    4 of the exchanges are of unknown cost, and not in it: at most $0.0014 together" in said


@pytest.mark.parametrize(
    ("replied", "changes"),
    [
        ({"usage": {"prompt_tokens": 100, "completion_tokens": 60}}, {}),  # a cap that is ignored
        ({"usage": {"prompt_tokens": 310, "completion_tokens": 10}}, {}),  # a prompt beside ours
        ({"service_tier": "priority"}, {"pricing": {"m-1": {"priority": 3}}}),  # a tier that was not asked for
    ],
)
def test_a_server_that_bills_more_than_was_possible_is_told_of_and_reckoned_dearer(
    place: Place, replied: dict[str, Any], changes: dict[str, Any]
) -> None:
    said = ok()
    place.endpoint.answer = lambda seen: Said(200, said.body | replied)
    place.job(budget={"max_usd": 0.01}, **changes)
    done = place.run("-c", "4")
    assert done.code == 3
    assert re.search(r"warning: row \d cost \$", done.err)
    assert " at most $0.00035 was possible by its price and its output cap: to keep the budget" in done.err
    assert done.err.count("warning: ") == 1
    first, sent = spent(place), place.sent
    assert first <= Decimal("0.01")
    assert "times what is possible, as others have" in done.errors[0]
    raised = first + 3 * first / sent + Decimal("0.0002")  # what three rows cost, and not a fourth
    again = place.run("-c", "4", "--max-usd", f"{raised:.6f}")
    assert (again.code, place.sent) == (3, sent + 3)  # it is known before the first request of this process
    assert spent(place) <= raised
    place.job(budget={"max_usd": 0.01}, pricing={"m-1": {"input": 7, "output": 80}})  # the price is put right
    mended = place.run()
    assert (mended.code, place.sent) == (3, sent + 3)
    assert "that may cost $0.002" in mended.errors[0]
    assert "times what is possible" not in mended.errors[0]
