from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from runner.checking import Checked, examine
from runner.prepare import Asked, Prepared, load, prepare, take_survey
from runner.progress import rows_bar
from runner.records import Attempt, Choice, Completion, Failure, Kind, Request, Settled, Status, Usage
from runner.say import Say
from tests.made_run import MadeRun, made_run

PRICED = {"m-1": {"input": 2, "output": 8}}
ROWS = [{"id": f"t{number}", "text": f"row {number}"} for number in range(10)]


def asks(**more: Any) -> dict[str, Any]:
    return {"model": "m-1", "messages": [{"role": "user", "content": "say {{ text }}"}], **more}


def prepared(root: Path, rows: Sequence[Mapping[str, Any]], **job: Any) -> Prepared:
    """A job that has never run, priced and capped unless it says otherwise."""
    given = {"request": asks(max_completion_tokens=50), "pricing": PRICED} | job
    path = made_run(root, rows, **given).prepared.loaded.asked.job
    for name in ("runs/made/run.json", "runs/made/survey.json"):
        (root / name).unlink()
    return again(path)


def again(path: Path, *sets: str) -> Prepared:
    loaded = load(Asked(path, sets))
    return prepare(loaded, take_survey(loaded, None, lambda done, total: None))


def checked(given: Prepared) -> Checked:
    return examine(given, Say(quiet=True), {})


def lines(given: Prepared, heading: str) -> list[str]:
    return [line[11:] for line in checked(given).lines() if line.startswith(heading)]


def test_every_row_counts_wherever_it_stands(tmp_path: Path) -> None:
    """300 ranges of one row: a long prompt in one of them is in the sum."""
    rows = [{"text": "x" * (4000 if number == 217 else 40)} for number in range(300)]
    given = prepared(tmp_path, rows, output={"rows_per_part": 1})
    bodies = [given.recipe.request(row) for number in range(300) for row in given.reader.rows(number)]
    sizes = [len(made.body) for made in bodies if isinstance(made, Request)]
    demand = checked(given).demand
    assert (demand.rows, demand.prompt_tokens) == (300, sum(size // 4 for size in sizes))
    assert demand.output_tokens == 15_000
    assert demand.at_most_usd == sum(Decimal(size * 2 + 50 * 8) for size in sizes) / 1_000_000


def test_what_it_tells_of_a_job_that_has_not_begun(tmp_path: Path) -> None:
    given = prepared(tmp_path, ROWS, limits={"concurrency": 5})
    assert lines(given, "estimate") == ["10 requests, about 230 prompt tokens"]
    assert lines(given, "output") == ["at most 500 tokens"]
    assert lines(given, "cost") == [
        "at most $0.0059 for one answer a row, about $0.0045 if every answer is as long as it may be; "
        "$2.00 in, $8.00 out per million tokens (the job's price)"
    ]
    assert lines(given, "time") == ["about 4 s at 5 in flight, if an answer takes 2 s (a guess)"]
    assert [line for line in checked(given).lines() if line.startswith(("warning", "advice", "changed"))] == []


def test_media_are_reckoned_by_their_tables_and_not_by_their_bytes(tmp_path: Path) -> None:
    """An image of 40 kB of base64 text in each row, and a local one of 3 MB: 85 tokens each, and at most 16,384."""
    (tmp_path / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 3_000_000)
    image = "data:image/png;base64," + "A" * 40_000
    rows = [{"url": image}, {"url": image}]
    parts = [
        {"type": "image_url", "image_url": {"url": "{{ url }}", "detail": "low"}},
        {"type": "image_url", "image_url": {"file": "large.png", "detail": "low"}},
    ]
    asked = asks(messages=[{"role": "user", "content": parts}], max_completion_tokens=50)
    demand = checked(prepared(tmp_path, rows, request=asked)).demand
    assert 2 * 2 * 85 < demand.prompt_tokens < 2 * 2 * 85 + 2 * 120
    assert demand.at_most_usd is not None
    tokens = (demand.at_most_usd * 10**6 - 2 * 50 * 8) / 2
    assert 2 * 2 * 16_384 < tokens < 2 * 2 * 16_384 + 2 * 480


def test_an_output_without_a_cap_is_warned_of_and_has_no_bound(tmp_path: Path) -> None:
    given = prepared(tmp_path, ROWS, request=asks())
    assert lines(given, "warning") == ["the output is not capped: give request.max_completion_tokens to bound the cost"]
    assert lines(given, "output") == ["no cap"]
    assert lines(given, "cost") == [
        "unknown: the output has no cap; $2.00 in, $8.00 out per million tokens (the job's price)"
    ]


def test_what_a_request_does_beside_answering_is_warned_of_where_no_price_holds_it(tmp_path: Path) -> None:
    searching = asks(max_completion_tokens=5, extra_body={"plugins": [{"id": "web"}]})
    given = prepared(tmp_path, ROWS, request=searching)
    assert lines(given, "warning") == [
        "what request.plugins costs beside its tokens is in no price: the bill lacks it where the server tells no "
        "cost; give pricing.m-1.per_request"
    ]
    assert lines(given, "cost")[0].startswith("about $0.00098 if every answer is as long")
    priced = {"m-1": PRICED["m-1"] | {"per_request": 0.01}}
    (tmp_path / "priced").mkdir()
    held = prepared(tmp_path / "priced", ROWS, request=searching, pricing=priced)
    assert lines(held, "warning") == []
    assert lines(held, "cost")[0].startswith("at most $0.1")


def test_a_model_without_a_price_is_named(tmp_path: Path) -> None:
    given = prepared(tmp_path, ROWS, pricing={})
    assert lines(given, "cost") == ["unknown: no price is known for m-1 (give it under pricing)"]


def test_two_ways_of_sampling_at_once_are_warned_of_once(tmp_path: Path) -> None:
    given = prepared(tmp_path, ROWS, request=asks(max_completion_tokens=5, temperature=1, top_p=0.5))
    assert lines(given, "warning") == ["top_p: given together with temperature; change one of them, not both"]


def test_what_one_row_in_a_thousand_asks_is_warned_of_too(tmp_path: Path) -> None:
    """The parameter is a template: row 900 alone has both."""
    rows = [{"text": "x", "t": 0.5 if number == 900 else None} for number in range(1000)]
    given = prepared(tmp_path, rows, request=asks(max_completion_tokens=5, temperature="{{ t }}", top_p=0.5))
    assert lines(given, "warning") == ["top_p: given together with temperature; change one of them, not both"]


def test_rows_that_cannot_be_sent_are_counted_and_the_first_is_told(tmp_path: Path) -> None:
    rows = [*ROWS, {"id": "t10"}, {"id": "t11"}]
    (told,) = lines(prepared(tmp_path, rows), "warning")
    assert told.startswith("2 rows cannot be sent and fail; row 10: ")
    assert checked(prepared(tmp_path / "b", rows)).demand.rows == 10


LONG = [{"id": f"t{number}", "text": "word " * (110_000 if number in (2, 4, 5, 7) else 1)} for number in range(9)]


@pytest.mark.parametrize(("id_column", "named"), [("id", "t2, t4, t5, …"), (None, "row 2, row 4, row 5, …")])
def test_prompts_beyond_their_models_context_are_named(tmp_path: Path, id_column: str | None, named: str) -> None:
    """gpt-4o takes 128,000 tokens; 550,000 bytes are about 137,500."""
    request = asks(max_completion_tokens=50) | {"model": "gpt-4o"}
    given = prepared(tmp_path, LONG, request=request, input={"id_column": id_column})
    said = f"4 prompts with the answer's cap do not fit into the 128,000 tokens of gpt-4o, by estimate: {named}"
    assert lines(given, "warning") == [said]


def test_the_room_of_the_answer_is_part_of_the_context(tmp_path: Path) -> None:
    rows = [{"text": "x" * 510_000}]  # about 127,500 tokens
    assert lines(prepared(tmp_path / "a", rows, request=asks(max_tokens=100) | {"model": "gpt-4o"}), "warning") == []
    (told,) = lines(prepared(tmp_path / "b", rows, request=asks(max_tokens=900) | {"model": "gpt-4o"}), "warning")
    assert told.startswith("1 prompt with the answer's cap does not fit into the 128,000 tokens of gpt-4o")


def test_rows_that_ask_the_same_are_counted(tmp_path: Path) -> None:
    rows = [{"text": text} for text in ("a", "b", "a", "a", "c", "b")]
    assert lines(prepared(tmp_path, rows), "advice") == ["3 rows ask what another row asks too; each of them is sent"]


def test_models_of_the_rows_are_reckoned_apart(tmp_path: Path) -> None:
    rows = [{"text": "x", "kind": "dear" if number % 2 else "m-1"} for number in range(10)]
    pricing = PRICED | {"dear": {"input": 200, "output": 800}}
    given = prepared(tmp_path, rows, request=asks(max_completion_tokens=50) | {"model": "{{ kind }}"}, pricing=pricing)
    demand = checked(given).demand
    assert {load.model: load.rows for load in demand.loads.values()} == {"m-1": 5, "dear": 5}
    dear, cheap = (demand.loads[model, None] for model in ("dear", "m-1"))
    assert dear.at_most_usd > 99 * cheap.at_most_usd
    assert lines(given, "cost")[0].endswith("as it may be")  # no one price to be told


def test_json_says_the_same(tmp_path: Path) -> None:
    given = prepared(tmp_path, [*ROWS, {"id": "t10"}], limits={"concurrency": 5})
    found = json.loads(json.dumps(checked(given).to_json()))
    assert found.pop("run").endswith("runs/made")
    assert "cannot be sent" in found["remarks"][0].pop("text")
    assert found == {
        "exit_code": 0,
        "job": "made",
        "rows": 11,
        "final": 0,
        "requests": 10,
        "unsendable": 1,
        "alike": 0,
        "prompt_tokens": 230,
        "output_tokens": {"at_most": 500, "expected": None},
        "usd": {"at_most": "0.005860", "full": "0.004460", "expected": None},
        "budget_left_usd": None,
        "seconds": 4.0,
        "in_flight": 5,
        "latency_s": None,
        "models": ["m-1"],
        "columns": {"id": "string", "text": "string"},
        "remarks": [{"kind": "warning"}],
    }


# A run that has begun


def begun(root: Path) -> MadeRun:
    """Ten rows in two ranges: of the first all but one are final, of the second one; one failed."""
    made = made_run(root, ROWS, request=asks(max_completion_tokens=50), pricing=PRICED, output={"rows_per_part": 5})
    known = made.directory.read("run.json") or {}
    facts = {"epoch": 1, "changes": [], "kept_jobs": [], **_identity(made.prepared)}
    made.directory.write("run.json", known | facts)
    made.keep(0, [answer(0), answer(1), answer(2), failed(3)])
    made.keep(1, [answer(9)])
    return made


def _identity(given: Prepared) -> dict[str, Any]:
    from runner.prepare import identity, input_identity

    return {"identity": identity(given.loaded), "input": input_identity(given.survey)}


def attempt(n: int, seconds: float, usage: Usage, usd: str) -> Attempt:
    at = "2026-03-01T23:30:00.000000Z"
    return Attempt(1, n, at, seconds, 0.0, 200, usage=usage, cost_usd=Decimal(usd))


def answer(row: int) -> Settled:
    """Its prompt is 54 tokens, more than twice what we reckon; it took 0.5 s and came to half of its tokens."""
    usage, made = Usage(54, None, None, 8, None, 62), Request(row, b"{}", f"{row:032x}", "m-1", 1)
    outcome = Completion(Status.OK, (Choice(0, "x", "stop"),), usage)
    exchange = attempt(1, 0.5, usage, "0.000086")
    return Settled(made, outcome, (exchange,), "job", exchange.started_at, exchange.started_at, exchange.cost_usd)


def failed(row: int) -> Settled:
    made = Request(row, b"{}", f"{row:032x}", "m-1", 1)
    return Settled(made, Failure(Kind.SERVER, "broken", 500), (attempt(1, 9.0, Usage(), "0"),))


def test_only_what_is_left_is_reckoned_and_answers_say_how(tmp_path: Path) -> None:
    given = begun(tmp_path).prepared
    assert lines(given, "estimate") == ["5 requests, about 270 prompt tokens; 5 rows are final"]
    assert lines(given, "output") == ["at most 250 tokens, about 40 expected by the answers so far"]
    (cost,) = lines(given, "cost")
    assert ", about $0.00043 expected by the answers so far" in cost  # 5 × $0.000172, half of it cached: $0.00043
    (time,) = lines(given, "time")
    assert time.endswith("where an exchange has taken 0.5 s")
    found = checked(given).to_json()
    assert (found["final"], found["requests"], found["usd"]["expected"]) == (5, 5, "0.000430")


@pytest.mark.parametrize(
    ("budget", "left", "said"),
    [
        ("1", "0.999656", ", which is enough for one answer a row"),
        ("0.0025", "0.002156", ", which may be enough"),
        ("0.0007", "0.000356", ", which is not enough by estimate: when no row has room any more, the run stops with "),
        ("0.0001", "0.000000", ", which is not enough by estimate: when no row has room any more, the run stops with "),
    ],
)
def test_what_is_left_of_a_budget_is_held_against_the_rest(tmp_path: Path, budget: str, left: str, said: str) -> None:
    """Four answers have cost $0.000344; the other five rows may take $0.0029, and $0.00043 are expected."""
    given = again(begun(tmp_path).prepared.loaded.asked.job, f"budget.max_usd={budget}")
    (line,) = lines(given, "budget")
    assert f" left{said}" in line
    assert checked(given).to_json()["budget_left_usd"] == left


def test_check_touches_nothing_of_the_run(tmp_path: Path) -> None:
    given = begun(tmp_path).prepared
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    checked(given)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_changed_job_is_reckoned_by_its_plan(tmp_path: Path) -> None:
    made = begun(tmp_path)
    path = made.prepared.loaded.asked.job
    given = again(path, 'request.messages=[{"role": "user", "content": "now say {{ text }}"}]')
    (plan,) = lines(given, "changed")
    assert plan.startswith("since the run began: ")
    assert "5 changed, 5 new; 10 to send" in plan
    assert lines(given, "estimate")[0].startswith("10 requests, ")
    assert "about 80 expected" in lines(given, "output")[0]


def test_a_terminal_sees_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("runner.progress.DELAY_S", 0)
    terminal = Terminal()
    examine(prepared(tmp_path, [{"text": "x"}] * 2500), Say(stream=terminal), {})
    assert "rendering every row" in terminal.getvalue()
    show, close = rows_bar(Say(stream=terminal), "reckoning", 2500)
    time.sleep(0.11)  # how often tqdm draws at most
    show(1500)
    close()
    assert "reckoning:  60%" in terminal.getvalue()
