"""`runner retry`: which rows are sent again, what stays of them, and what a run says of rows that are not ok."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint
from ledger import Desk, complaints, desk, records

from runner.parts import read_footer
from runner.reopen import Selection

NOT_OK = {"t1": "failed", "t2": "truncated", "t9": "failed", "t20": "truncated"}


def rows(count: int) -> list[dict[str, Any]]:
    return [{"id": n, "text": f"t{n}"} for n in range(count)]


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    """A finished run of 30 rows in four parts; of three parts some rows are not ok, the last is whole."""
    with Endpoint() as endpoint:
        at = desk(tmp_path, endpoint)
        at.teller.bad = {text for text, status in NOT_OK.items() if status == "failed"}
        at.teller.long = NOT_OK.keys() - at.teller.bad
        at.write(rows(30))
        assert at.run().exit_code == 1
        yield at


def mend(at: Desk) -> None:
    at.teller.bad, at.teller.long = set(), set()


def not_ok(at: Desk) -> dict[str, str]:
    return {row["text"]: row["status"] for row in records(at.root) if row["status"] != "ok"}


def epochs(at: Desk) -> list[int]:
    return [read_footer(path).epoch for path in sorted((at.root / "results").glob("part-*.parquet"))]


ALL = Counter(f"say {text}" for text in NOT_OK)
FAILED, LONG = Counter(["say t1", "say t9"]), Counter(["say t2", "say t20"])


@pytest.mark.parametrize(
    ("words", "sent", "reached"),
    [
        ((), ALL, [2, 2, 2, 1]),
        (("--status", "truncated"), LONG, [2, 1, 2, 1]),
        (("--status", "failed"), FAILED, [2, 2, 1, 1]),
        (("--kind", "request"), FAILED, [2, 2, 1, 1]),
        (("--status", "truncated", "--kind", "REQUEST"), ALL, [2, 2, 2, 1]),
        (("--kind", "TIMEOUT"), Counter[str](), [1, 1, 1, 1]),
        (("--status", "refused"), Counter[str](), [1, 1, 1, 1]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_sent_again_is_what_was_named(
    at: Desk, words: tuple[str, ...], sent: Counter[str], reached: list[int]
) -> None:
    mend(at)
    before = at.sent
    parts = {path: path.read_bytes() for path in (at.root / "results").iterdir()}
    done = at.place.call("retry", "job.yaml", *words)
    assert done.code == (0 if sent == ALL else 1), done.err
    assert at.teller.settling(before) == sent
    assert not_ok(at) == {text: status for text, status in NOT_OK.items() if f"say {text}" not in sent}
    assert epochs(at) == reached
    untouched = [path for path, epoch in zip(sorted(parts), reached, strict=True) if epoch == 1]
    assert all(path.read_bytes() == parts[path] for path in untouched)
    assert ("no final row is to be sent again" in done.err) == (not sent)
    assert complaints(at) == []


def test_ok_rows_can_be_sent_again_too(at: Desk) -> None:
    assert at.run(retry=Selection(frozenset({"ok"}))).exit_code == 1
    assert at.sent == 30 + 26
    assert epochs(at) == [2, 2, 2, 2]
    assert complaints(at) == []


@pytest.mark.parametrize("words", [("--status", "broken"), ("--kind", "BROKEN")])
def test_a_status_or_kind_that_is_not_one_is_refused(at: Desk, words: tuple[str, ...]) -> None:
    done = at.place.call("retry", "job.yaml", *words)
    assert (done.code, at.sent) == (2, 30)
    assert "one of" in done.hint


def test_a_run_without_failures_has_nothing_to_send(at: Desk) -> None:
    mend(at)
    assert at.place.call("retry", "job.yaml").code == 0
    done = at.place.call("retry", "job.yaml")
    assert (done.code, at.sent) == (0, 34)
    assert "no final row is to be sent again" in done.err


def test_there_is_nothing_to_repair_where_nothing_ran(at: Desk) -> None:
    done = at.place.call("retry", "job.yaml", "-o", "elsewhere")
    assert (done.code, at.sent) == (2, 30)
    assert "there is no run in" in done.errors[0]
    assert not (at.place.root / "elsewhere").exists()


def test_what_a_row_said_and_cost_before_stays_in_its_attempts(at: Desk) -> None:
    assert at.run(retry=Selection()).exit_code == 1
    mend(at)
    ending = at.run(retry=Selection())
    assert (ending.exit_code, ending.totals.exchanges) == (0, 38)
    found = {row["text"]: row for row in records(at.root)}
    tries = [(each["epoch"], each["n"], each["error_kind"], each["answer"]) for each in found["t1"]["attempts"]]
    assert tries == [(1, 1, "REQUEST", None), (2, 1, "REQUEST", None), (3, 1, None, None)]
    ends = [(each["epoch"], each["finish_reason"]) for each in found["t2"]["attempts"]]
    assert ends == [(1, "length"), (2, "length"), (3, "stop")]
    assert [each["answer"] is None for each in found["t2"]["attempts"]] == [False, False, True]
    assert (found["t2"]["cost_usd"], found["t2"]["wasted_usd"], found["t2"]["total_usd"]) == (0.00028, 0.00056, 0.00084)
    assert complaints(at) == []


def test_a_retry_that_fails_again_keeps_both_failures(at: Desk) -> None:
    assert at.run(retry=Selection()).totals.exchanges == 34
    assert not_ok(at) == NOT_OK
    assert epochs(at) == [2, 2, 2, 1]
    assert complaints(at) == []


def test_a_retry_that_was_stopped_goes_on_with_run(at: Desk) -> None:
    mend(at)
    at.teller.left = 1
    at.place.job(output={"rows_per_part": 8}, limits={"concurrency": 1})
    stopped = at.place.call("retry", "job.yaml")
    assert stopped.code == 3
    assert not (at.root / "manifest.json").exists()
    at.teller.left = None
    done = at.place.run()
    assert done.code == 0, done.err
    assert at.teller.settling(30) == ALL
    assert epochs(at) == [2, 2, 2, 1]
    assert complaints(at) == []


def test_a_retry_on_an_interrupted_run_sends_the_rest_and_the_failures(tmp_path: Path) -> None:
    with Endpoint() as endpoint:
        at = desk(tmp_path, endpoint, limits={"concurrency": 1})
        at.teller.bad, at.teller.left = {"t1", "t9"}, 12
        at.write(rows(30))
        assert at.run().exit_code == 3
        before, at.teller.left, at.teller.bad = at.sent, None, set()
        ending = at.run(retry=Selection())
        assert ending.exit_code == 0
        assert at.teller.settling(before) == Counter(f"say t{n}" for n in (1, 9, *range(12, 30)))
        assert ending.totals.exchanges == at.sent
        assert complaints(at) == []


def test_a_retry_that_is_asked_for_twice_while_interrupted_counts_its_rows_once(at: Desk) -> None:
    mend(at)
    for _ in range(3):
        at.teller.left = 0
        assert at.run(retry=Selection()).exit_code == 3
    at.teller.left = None
    assert at.run(retry=Selection()).exit_code == 0
    assert at.teller.settling(30) == ALL
    assert complaints(at) == []


def test_a_run_directory_can_be_repaired_without_its_job_file(at: Desk) -> None:
    mend(at)
    (at.place.root / "job.yaml").unlink()
    done = at.place.call("retry", str(at.root))
    assert done.code == 0, done.err
    assert at.teller.settling(30) == ALL
    assert complaints(at) == []


def test_the_settings_of_a_retry_hold_for_a_run_directory_too(at: Desk) -> None:
    """Dear answers: the price that is said now is the price of what is sent now."""
    mend(at)
    done = at.place.call("retry", str(at.root), "--set", "pricing.m-1.input=4")
    assert done.code == 0, done.err
    assert {row["text"]: row["cost_usd"] for row in records(at.root)}["t1"] == 0.00048


def test_a_finished_run_says_how_many_rows_are_not_ok_and_what_to_type(at: Desk) -> None:
    done = at.place.run()
    assert (done.code, at.sent) == (1, 30)
    assert f"to send the 4 rows that are not ok again: runner retry {at.root}\n" in done.err
    mend(at)
    typed = done.err.partition("again: runner ")[2].split("\n")[0].split()
    assert at.place.call(*typed).code == 0
    assert at.sent == 34


def test_an_edited_job_is_not_repaired_by_accident(at: Desk) -> None:
    at.place.job(request={"temperature": 0.5}, output={"rows_per_part": 8})
    done = at.place.call("retry", "job.yaml")
    assert (done.code, at.sent) == (2, 30)
    assert "--accept-changes" in done.hint


def test_the_manifest_names_the_epoch_of_each_part(at: Desk) -> None:
    mend(at)
    assert at.run(retry=Selection(frozenset({"truncated"}))).exit_code == 1
    manifest = json.loads((at.root / "manifest.json").read_bytes())
    assert [part["epoch"] for part in manifest["parts"]] == [2, 1, 2, 1]
    assert manifest["totals"]["exchanges"] == 32
