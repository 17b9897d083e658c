"""What runs have cost: the groups, the waste, the sums, and the words."""

from __future__ import annotations

import csv
import io
import random
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.bill import Bill, bill, by_model_and_day, fill, words
from runner.bill.exchanges import FEW, SUMS, Adding
from runner.bill.grouping import as_text, days_in
from runner.columns import attempt_record, record
from runner.errors import UsageError
from runner.journal import Head, Journal, attempt_line, record_line
from runner.reading import read_table
from runner.records import Attempt, Choice, Completion, Failure, Kind, Request, Settled, Status, Usage
from runner.recovery import look
from runner.reopen import Selection, reopen, select
from runner.standing import status_of
from tests.made_run import MadeRun, made_run

ROWS = [{"text": f"row {number}", "team": "a" if number % 2 else "b"} for number in range(6)]
SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string"},
        "deep": {"type": "object", "properties": {"size": {"type": "integer"}}},
    },
    "required": ["label"],
}
ANSWERS = {"type": "json_schema", "json_schema": {"name": "label", "schema": SCHEMA}}


def attempt(n: int, usd: str | None, **more: Any) -> Attempt:
    given = {"epoch": 1, "n": n, "started_at": "2026-03-01T23:30:00.000000Z", "seconds": 0.5, "waited_s": 0.0}
    cost = None if usd is None else Decimal(usd)
    return Attempt(**(given | {"usage": Usage(10, 4, None, 2, 1, 12), "cost_usd": cost} | more))


def settled(index: int, outcome: Completion | Failure, *attempts: Attempt) -> Settled:
    request = Request(index, b"{}", f"{index:032x}", "m-1", 1)
    paid = attempts[-1].cost_usd if attempts else None
    moment = "2026-03-02T00:00:01.000000Z"
    return Settled(request, outcome, attempts, "job", moment, moment, paid)


def answer(label: str | None = None, status: Status = Status.OK) -> Completion:
    return Completion(status, (Choice(0, "x", "stop"),), parsed=label and {"label": label, "deep": {"size": 3}})


FAILED = Failure(Kind.SERVER, "broken", 500)
BROKEN = attempt(1, "0.25", error_kind="SERVER", http_status=500)


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    made = made_run(
        tmp_path / "run",
        ROWS,
        tags={"project": "spring"},
        request={"model": "m-1", "messages": [{"role": "user", "content": "{{ text }}"}], "response_format": ANSWERS},
    )
    made.seal(
        0,
        [
            settled(0, answer("x"), attempt(1, "0.1")),
            settled(1, answer("y"), BROKEN, attempt(2, "0.000000000001", started_at="2026-03-02T00:10:00.000000Z")),
            settled(2, FAILED, attempt(1, "0", error_kind="SERVER"), attempt(2, None, error_kind="TIMEOUT")),
            settled(3, Failure(Kind.INPUT, "no text")),
            settled(4, answer("x"), attempt(1, "0.2"), attempt(2, "0.3", epoch=2)),
            settled(5, Failure(Kind.OUTPUT, "bad", answer=answer()), attempt(1, "0.7", error_kind="OUTPUT")),
        ],
    )
    return made


def keyed(made: Bill) -> dict[tuple[str | None, ...], Decimal]:
    return {key: sums.cost_usd for key, sums in made.lines.items()}


def test_every_exchange_is_in_the_total_and_the_unknown_are_counted(run: MadeRun) -> None:
    total = bill([run.directory.root]).total
    assert total.rows == {"ok": 3, "failed": 3}
    assert (total.exchanges, total.unknown_exchanges) == (8, 1)
    assert total.cost_usd == Decimal("1.550000000001")
    assert (total.prompt_tokens, total.cached_tokens, total.completion_tokens, total.reasoning_tokens) == (
        80,
        32,
        16,
        8,
    )


def test_waste_is_told_by_its_reason(run: MadeRun) -> None:
    total = bill([run.directory.root]).total
    assert total.wasted == {"SERVER": Decimal("0.25"), "replaced": Decimal("0.2")}
    assert total.wasted_usd == Decimal("0.45")


def test_a_truncated_answer_that_was_asked_for_again_is_waste_of_its_own(tmp_path: Path) -> None:
    made = made_run(tmp_path / "run", ROWS[:1])
    made.seal(0, [settled(0, answer(), attempt(1, "0.5", finish_reason="length"), attempt(2, "0.25"))])
    assert bill([made.directory.root]).total.wasted == {"truncated": Decimal("0.5")}


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (("team",), {("a",): "0.950000000001", ("b",): "0.6"}),
        (("parsed.label",), {("x",): "0.6", ("y",): "0.250000000001", (None,): "0.7"}),
        (("parsed.deep.size",), {("3",): "0.850000000001", (None,): "0.7"}),
        (("model", "status"), {("m-1", "failed"): "0.7", ("m-1", "ok"): "0.850000000001"}),
        (("tags.project",), {("spring",): "1.550000000001"}),
        (("project",), {("spring",): "1.550000000001"}),
        (("day",), {("2026-03-01",): "1.55", ("2026-03-02",): "0.000000000001"}),
        (("error_kind",), {("INPUT",): "0", ("OUTPUT",): "0.7", ("SERVER",): "0", (None,): "0.850000000001"}),
    ],
)
def test_it_groups_by(run: MadeRun, by: tuple[str, ...], expected: dict[tuple[str | None, ...], str]) -> None:
    assert keyed(bill([run.directory.root], by)) == {key: Decimal(usd) for key, usd in expected.items()}


def test_days_are_those_of_the_time_zone_asked_for(run: MadeRun) -> None:
    days = bill([run.directory.root], ("day",), "Europe/Berlin")
    assert list(days.lines) == [("2026-03-02",)]
    with pytest.raises(UsageError, match="no such time zone"):
        bill([run.directory.root], ("day",), "Mars/Olympus")


def test_a_row_belongs_to_the_day_of_its_last_exchange(run: MadeRun) -> None:
    days = bill([run.directory.root], ("day",))
    assert {key: sum(sums.rows.values()) for key, sums in days.lines.items()} == {
        ("2026-03-01",): 4,
        ("2026-03-02",): 2,  # the second exchange of row 1, and row 3, which was never sent
    }


def test_an_unknown_column_is_refused_with_the_nearest(run: MadeRun) -> None:
    with pytest.raises(UsageError, match="did you mean team") as caught:
        bill([run.directory.root], ("teem",))
    assert caught.value.hint.startswith("it has text, team, row_index, status, ")
    assert caught.value.hint.endswith(
        ", request_hash, parsed.label, parsed.deep, parsed.deep.size, day, run, tags.project"
    )
    with pytest.raises(UsageError, match=r"has no such column; did you mean parsed\.label\?"):
        bill([run.directory.root], ("parsed.labels",))


def test_a_bill_says_how_much_of_it_is_made_up(run: MadeRun, tmp_path: Path) -> None:
    other = made_run(tmp_path / "other", ROWS[:1])
    other.directory.write("run.json", (other.directory.read_run() or {}) | {"simulated": True})
    for roots, said in (
        ([run], []),
        ([other], ["simulated: these dollars are made up"]),
        ([run, other], ["simulated: 1 of the 2 runs; what these have cost is made up, and in the sums"]),
    ):
        lines = words.summary(bill([made.directory.root for made in roots]))
        assert [line for line in lines if "simulated" in line] == said


def test_two_runs_add_up_and_one_named_twice_counts_once(run: MadeRun, tmp_path: Path) -> None:
    other = made_run(tmp_path / "other", ROWS[:1], tags={"project": "autumn"})
    other.seal(0, [settled(0, answer(), attempt(1, "2"))])
    roots = [run.directory.root, other.directory.root, run.directory.root]
    assert keyed(bill(roots, ("tags.project",))) == {
        ("autumn",): Decimal(2),
        ("spring",): Decimal("1.550000000001"),
    }


def test_rows_in_journals_count_and_exchanges_of_rows_that_are_not_final_stand_beside(tmp_path: Path) -> None:
    made = made_run(tmp_path / "run", ROWS)
    made.keep(0, [settled(0, answer(), attempt(1, "0.1"))], {1: attempt(1, "0.4", error_kind="SERVER")})
    found = bill([made.directory.root], ("team",))
    assert keyed(found) == {("b",): Decimal("0.1")}
    assert found.beside["not final"].cost_usd == Decimal("0.4")
    assert (found.total.cost_usd, found.total.wasted) == (Decimal("0.5"), {"not final": Decimal("0.4")})


def test_exchanges_of_rows_that_are_sent_again_count_while_they_are_not_final(run: MadeRun) -> None:
    directory, (part,) = run.directory, run.ranges
    standing = look(directory, run.ranges, live=False)
    reopen(directory, directory.read_run() or {}, select(directory, run.ranges, standing, Selection()))
    again = Journal(directory.journal(0), Head(part.run, 0, part.epoch + 1, part.rows, part.input_hash))
    again.append(attempt_line(5, attempt_record(attempt(1, "0.4", epoch=2, error_kind="OUTPUT")), again.seed))
    again.sync()
    again.close()
    found = bill([directory.root])
    assert found.total.cost_usd == Decimal("1.950000000001")
    assert found.total.exchanges == 9
    assert found.beside["not final"].cost_usd == Decimal("1.1")
    assert status_of(directory.root).totals.cost_usd == found.total.cost_usd


def test_sums_of_many_tables_are_folded_and_stay_exact() -> None:
    adding, tables = Adding(["key0"]), 2 * FEW + 3
    for number in range(tables):
        keys = pa.array([None, f"k{number % 3}"])
        exchanges = {name: pa.array([0, 10**12 + 1]) for name in SUMS}
        adding.add(
            pa.table({"key0": keys, "status": ["ok", "failed"]}),
            pa.table({"key0": keys, "reason": pa.array([None, "RATE"])} | exchanges),
        )
    assert len(adding._rows) < FEW
    found = Bill([], ("k",))
    fill(found, adding, ["key0"])
    assert found.total.rows == {"ok": tables, "failed": tables}
    assert found.total.cost_usd == tables * Decimal("1.000000000001")
    assert found.lines[("k0",)].rows == {"failed": -(-tables // 3)}


def test_the_bill_nobody_grouped_is_by_model_and_by_day(run: MadeRun) -> None:
    models, days = by_model_and_day([run.directory.root])
    assert list(models.lines) == [("m-1",)]
    assert list(days.lines) == [("2026-03-01",), ("2026-03-02",)]
    assert models.total == days.total


money = st.none() | st.decimals(0, 999, places=12)
tries = st.lists(st.tuples(money, st.sampled_from([None, "SERVER", "OUTPUT", "TIMEOUT"])), max_size=3)


@settings(deadline=None, max_examples=40)
@given(st.lists(tries, min_size=6, max_size=6), st.sampled_from([(), ("team",), ("day", "status"), ("parsed.label",)]))
def test_groups_add_up_to_the_sum_over_attempts_to_the_last_digit(
    tmp_path_factory: pytest.TempPathFactory, given_: list[list[tuple[Decimal | None, str | None]]], by: tuple[str, ...]
) -> None:
    made = made_run(
        tmp_path_factory.mktemp("bill"),
        ROWS,
        request={"model": "m-1", "messages": [{"role": "user", "content": "{{ text }}"}], "response_format": ANSWERS},
    )
    rows = []
    for index, made_of in enumerate(given_):
        attempts = [
            attempt(n, None if usd is None else str(usd), error_kind=kind) for n, (usd, kind) in enumerate(made_of, 1)
        ]
        ok = bool(made_of) and made_of[-1][1] is None
        rows.append(settled(index, answer("x") if ok else FAILED, *attempts))
    made.seal(0, rows)
    found = bill([made.directory.root], by)
    expected = sum((usd for row in given_ for usd, _ in row if usd is not None), Decimal(0))
    assert found.total.cost_usd == expected
    assert sum((sums.cost_usd for sums in found.lines.values()), Decimal(0)) == expected
    stored = [exchange for row in read_table(made.directory)["attempts"].to_pylist() for exchange in row]
    assert found.total.exchanges == len(stored)
    assert found.total.unknown_exchanges == sum(exchange["cost_usd"] is None for exchange in stored)
    own = sum((row[-1][0] or Decimal(0) for row in given_ if row and row[-1][1] is None), Decimal(0))
    assert found.total.wasted_usd == expected - own


ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Sao_Paulo")


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(st.datetimes(datetime(2009, 1, 1), datetime(2033, 1, 1)), min_size=1), st.sampled_from(ZONES))
def test_the_days_of_a_time_zone_are_the_calendar_s(instants: list[datetime], zone: str) -> None:
    array = pa.array(instants, pa.timestamp("us", tz="UTC"))
    local = [instant.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).date() for instant in instants]
    assert days_in(zone)(array).to_pylist() == local


def test_a_day_of_23_hours_and_one_of_25_begin_and_end_at_their_own_midnight(tmp_path: Path) -> None:
    instants = {
        "2026-03-28T22:59:59.999999Z": "2026-03-28",
        "2026-03-28T23:00:00.000000Z": "2026-03-29",  # 23 hours long in Berlin
        "2026-03-29T21:59:59.999999Z": "2026-03-29",
        "2026-03-29T22:00:00.000000Z": "2026-03-30",
        "2026-10-24T22:00:00.000000Z": "2026-10-25",  # 25 hours long
        "2026-10-25T22:59:59.999999Z": "2026-10-25",
    }
    made = made_run(tmp_path / "run", ROWS)
    made.seal(0, [settled(n, answer(), attempt(1, "1", started_at=at)) for n, at in enumerate(instants)])
    days = bill([made.directory.root], ("day",), "Europe/Berlin")
    assert {key: sums.cost_usd for (key,), sums in days.lines.items()} == Counter(instants.values())


def test_what_a_row_is_grouped_by_is_written_as_people_write_it() -> None:
    texts = pa.array(["a", "b", None])
    for array, expected in (
        (texts.dictionary_encode(), ["a", "b", None]),
        (texts.cast(pa.string_view()), ["a", "b", None]),
        (texts.cast(pa.large_string()), ["a", "b", None]),
        (pa.array([7, None]).dictionary_encode(), ["7", None]),
        (pa.array([0.1, 2.0, None]), ["0.1", "2", None]),
        (pa.array([True, None]), ["true", None]),
        (pa.array([Decimal("1.50")]), ["1.50"]),
        (pa.array([date(2026, 3, 1)]), ["2026-03-01"]),
        (pa.array([timedelta(seconds=90)]), ["90.000000"]),
        (pa.array([b"\xff"]), ["/w=="]),
        (pa.array([[1, None], None]), ["[1,null]", None]),
        (pa.array([{"a": "b"}]), ['{"a":"b"}']),
        (pa.nulls(1), [None]),
    ):
        assert as_text(array).to_pylist() == expected, array.type


def test_only_what_is_needed_is_read(tmp_path: Path) -> None:
    """Of a part with megabytes of answers, and of one that is open again."""
    made = made_run(tmp_path / "run", ROWS)
    noise = random.Random(7)
    long = [Completion(Status.OK, (Choice(0, noise.randbytes(500_000).hex(), "stop"),)) for _ in ROWS]
    made.seal(0, [settled(index, each, attempt(1, "0.1")) for index, each in enumerate(long)])
    size = made.directory.part(0).stat().st_size
    assert size > 3_000_000
    assert read_of_files(lambda: bill([made.directory.root], ("team", "day"))) < size / 10
    again = Journal(made.directory.journal(0), Head("r-1", 0, 2, 6, made.ranges[0].input_hash))
    again.append(record_line(record(settled(5, answer(), attempt(1, "0.2")), made.prepared.spec), again.seed))
    again.sync()
    again.close()
    columns = ["row_index", "cost_usd"]
    assert read_of_files(lambda: read_table(made.directory, columns)) < size / 10
    assert read_table(made.directory, ["cost_usd"])["cost_usd"].to_pylist() == [0.1] * 5 + [0.2]


def read_of_files(work: Callable[[], object]) -> int:
    """Bytes that this process reads meanwhile."""
    work()  # modules and time zones are read the first time
    counter = Path("/proc/self/io")
    if not counter.exists():
        pytest.skip("only Linux counts what a process reads")
    before = int(counter.read_text().split()[1])
    work()
    return int(counter.read_text().split()[1]) - before


HOSTILE = ["=1+2", "-5", "+cmd|x", "@SUM(A1)", "two\nlines", "a\rb", 'quo"te', ";,", "plain", "\tx", "-5e3", "−5"]


def test_csv_is_read_back_as_it_was_and_runs_in_no_spreadsheet(tmp_path: Path) -> None:
    rows = [{"text": "x", "team": team, "n": -number} for number, team in enumerate(HOSTILE)]
    made = made_run(tmp_path / "run", rows)
    made.seal(0, [settled(index, answer(), attempt(1, "0.5")) for index in range(len(rows))])
    found = bill([made.directory.root], ("team", "n"))
    lines = list(csv.DictReader(io.StringIO(words.to_csv(found), newline="")))
    teams = [line["team"] for line in lines]
    assert sorted(team.removeprefix("'") for team in teams) == sorted(HOSTILE)
    assert {team for team in teams if team.startswith("'")} == {"'=1+2", "'+cmd|x", "'@SUM(A1)", "'\tx"}
    assert {line["n"] for line in lines} == {str(-number) for number in range(len(rows))}


def test_json_csv_and_the_table_tell_the_same(run: MadeRun) -> None:
    for by in (("team",), ("status", "parsed.label"), ("day", "team", "model")):
        made = bill([run.directory.root], by)
        plain = words.to_json(made)
        assert orjson.loads(orjson.dumps(plain)) == plain
        of_csv = list(csv.DictReader(io.StringIO(words.to_csv(made), newline="")))
        assert len(of_csv) == len(plain["lines"])
        for line, cells in zip(plain["lines"], of_csv, strict=True):
            assert [cells[name] for name in by] == [line["key"][name] or "" for name in by]
            assert [cells[name] for name in words.FIELDS] == [str(line[name]) for name in words.FIELDS]
        table = [re.split(r" {2,}", line) for line in words.table(made)[1:-1]]
        shown = [[key or "(none)" for key in line["key"].values()] + figures(line) for line in plain["lines"]]
        assert table == shown


def figures(line: dict[str, Any]) -> list[str]:
    """As the table rounds them; nothing but unknown costs is no sum."""
    money = {name: f"${Decimal(line[name]):.4f}" for name in ("cost_usd", "wasted_usd")}
    if line["cost_usd"] == "0" and line["unknown_exchanges"]:
        money["cost_usd"] = "unknown"
    return [str((line | money)[name]) for name in words.FIELDS]


def test_csv_and_json_hold_every_digit(run: MadeRun) -> None:
    made = bill([run.directory.root], ("team",))
    lines = list(csv.DictReader(io.StringIO(words.to_csv(made))))
    assert [(line["team"], line["cost_usd"]) for line in lines] == [("a", "0.950000000001"), ("b", "0.6")]
    plain = words.to_json(made)
    assert plain["lines"][0]["key"] == {"team": "a"}
    assert plain["total"]["cost_usd"] == "1.550000000001"
    assert plain["total"]["wasted_by_reason"] == {"SERVER": "0.25", "replaced": "0.2"}


def test_the_table_for_people_is_aligned_and_ends_with_the_total(run: MadeRun) -> None:
    lines = words.table(bill([run.directory.root], ("parsed.label",)))
    assert lines[0].split() == [
        *("parsed.label", "rows", "ok", "exchanges", "prompt", "cached", "completion", "reasoning"),
        *("cost", "wasted", "unknown"),
    ]
    assert lines[-1].split() == ["total", "6", "3", "8", "80", "32", "16", "8", "$1.5500", "$0.4500", "1"]
    assert len({len(line) for line in lines}) == 1


def test_text_of_the_data_cannot_break_the_table(tmp_path: Path) -> None:
    made = made_run(tmp_path / "run", [{"text": "x", "team": "two\nlines\tand " + "long " * 20}])
    made.seal(0, [settled(0, answer(), attempt(1, "0.1"))])
    lines = words.table(bill([made.directory.root], ("team",)))
    assert lines[1].startswith("two lines and long")
    assert "…" in lines[1]


def test_wide_letters_take_two_columns_and_marks_none(tmp_path: Path) -> None:
    teams = ["日本語チーム", "cafe\u0301", "日" * 50, "x" * 41, "ok"]
    made = made_run(tmp_path / "run", [{"text": "x", "team": team} for team in teams])
    made.seal(0, [settled(index, answer(), attempt(1, "0.1")) for index in range(len(teams))])
    lines = words.table(bill([made.directory.root], ("team",)))
    starts = {line.split()[0]: line.index(next(filter(str.isdigit, line))) for line in lines[1:]}
    assert starts == {
        "日本語チーム": 6 + 40 - 12 + 5,
        "cafe\u0301": 41 + 5,
        "日" * 19 + "…": 20 + 1 + 5,
        "x" * 39 + "…": 40 + 5,
        "ok": 45,
        "total": 45,
    }
