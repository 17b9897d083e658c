from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from runner import files
from runner.columns import ResultSpec, attempt_record, part_schema, record, result_schema, tally
from runner.errors import ChangedError, RunDirectoryError, StorageError
from runner.journal import Head, Journal, attempt_line, head_line, record_line, replay, seed, sent_line
from runner.parts import Range, Shape, seal
from runner.records import Attempt, Choice, Completion, Request, Settled, Status, Tally, Usage
from runner.recovery import Standing, recover
from runner.store import RunDirectory

AT = "2025-01-02T03:04:05.000006Z"
SPEC = ResultSpec(parsed=None, choices=False, logprobs=False, raw=False, endpoint="https://api.example.com/v1")
RESULTS = result_schema(SPEC)
INPUTS = pa.schema([("id", pa.int64())])
SHAPE = Shape(RESULTS, part_schema(INPUTS, RESULTS, "r_"))
RANGES = [Range("r-1", number, number * 3, 3, 1, f"hash {number}") for number in range(3)]
SEED = seed("r-1", 0)
HEAD = Head("r-1", 0, 1, 3, "hash 0")


def attempt(n: int, kind: str | None = None, cost: str | None = "0.001") -> Attempt:
    usd = None if cost is None else Decimal(cost)
    return Attempt(1, n, AT, 0.5, 0.0, error_kind=kind, usage=Usage(10, None, None, 5), cost_usd=usd)


def settled(row: int, *attempts: Attempt) -> Settled:
    answer = Completion(Status.OK, (Choice(0, f"answer {row}", "stop"),), Usage(10, None, None, 5))
    tries = attempts or (attempt(1),)
    return Settled(Request(row, b"{}", "h", "m", 1), answer, tries, None, AT, AT, tries[-1].cost_usd)


def sent(row: int, n: int = 1, usd: str | None = "0.01", epoch: int = 1) -> bytes:
    return sent_line(row, (epoch, n), usd, AT, SEED)


def tried(row: int, made: Attempt) -> bytes:
    return attempt_line(row, attempt_record(made), SEED)


def final(row: int, *attempts: Attempt) -> bytes:
    return record_line(record(settled(row, *attempts), SPEC), SEED)


#: Row 0 is final, row 1 has a failed exchange and one on the wire, row 2 has not left.
MIDWAY = head_line(HEAD) + sent(0) + sent(1) + final(0) + tried(1, attempt(1, "SERVER")) + sent(1, 2)
COMPLETE = head_line(HEAD) + b"".join(sent(row) + final(row) for row in range(3))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.claim()
    directory.furnish()
    return directory


def put(run: RunDirectory, data: bytes, number: int = 0) -> Path:
    path = run.journal(number)
    path.write_bytes(data)
    return path


def make_part(run: RunDirectory, part: Range = RANGES[0], number: int | None = None) -> None:
    path = run.journals / "complete.jsonl"
    path.unlink(missing_ok=True)
    opened = Journal(path, Head(part.run, part.number, part.epoch, part.rows, part.input_hash))
    total = Tally()
    for row in range(part.first_row, part.first_row + part.rows):
        made = record(settled(row), SPEC)
        total.add(tally(made))
        opened.append(record_line(made, opened.seed))
    opened.close()
    target = run.part(part.number if number is None else number)
    seal(part, total, (path, target), SHAPE, lambda: pa.table([pa.array([1, 2, 3])], schema=INPUTS))
    path.unlink()


def facts(standing: Standing) -> dict[int, tuple[set[int], dict[int, list[tuple[int, str | None]]]]]:
    return {
        number: (
            opened.done,
            {row: [(a.n, a.error_kind) for a in tries] for row, tries in opened.prior.items()},
        )
        for number, opened in standing.open.items()
    }


def test_a_new_run_has_nothing_behind_it(run: RunDirectory) -> None:
    assert recover(run, RANGES) == Standing()


def test_a_run_midway_keeps_what_is_final_and_what_was_tried(run: RunDirectory) -> None:
    put(run, MIDWAY)
    standing = recover(run, RANGES)
    assert facts(standing) == {0: ({0}, {1: [(1, "SERVER"), (2, "UNKNOWN")]})}
    assert not standing.open[0].complete
    assert (standing.damaged, [s.row for s in standing.unanswered]) == (0, [1])
    assert standing.settled.rows == {"ok": 1}
    assert standing.settled.cost_usd == Decimal("0.001")
    pending = standing.open[0].pending[1]
    assert (pending.exchanges, pending.unknown_exchanges, pending.cost_usd) == (2, 1, Decimal("0.001"))


def test_requests_without_an_end_are_written_down_once(run: RunDirectory) -> None:
    path = put(run, MIDWAY)
    first = recover(run, RANGES)
    after = path.read_bytes()
    assert after.startswith(MIDWAY)
    assert after[len(MIDWAY) :].count(b"\n") == 1
    found = replay(after, "r-1", 0)
    assert found.attempts[1][1, 2]["error_kind"] == "UNKNOWN"
    assert found.attempts[1][1, 2]["cost_usd"] is None
    second = recover(run, RANGES)
    assert path.read_bytes() == after
    assert second.unanswered == []
    assert facts(second) == facts(first)
    assert second.open[0].pending == first.open[0].pending


def test_they_are_durable_before_recovery_returns(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(run, MIDWAY)
    synced: list[int] = []
    monkeypatch.setattr(files, "_datasync", lambda descriptor: synced.append(path.stat().st_size))
    recover(run, RANGES)
    assert synced == [path.stat().st_size]


def test_a_failing_sync_while_they_are_written_down_is_a_storage_error(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(run, MIDWAY)

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "_datasync", broken)
    with pytest.raises(StorageError):
        recover(run, RANGES)


@pytest.mark.parametrize(
    ("reserved", "words"),
    [
        (
            ["0.01"],
            "1 request was on the wire when the last process ended and may have been billed, at most $0.01; "
            "sending it again",
        ),
        (
            ["0.01", "0.03"],
            "2 requests were on the wire when the last process ended and may have been billed, at most "
            "$0.04; sending them again",
        ),
        (
            ["0.0001"],
            "1 request was on the wire when the last process ended and may have been billed, at most "
            "$0.000100; sending it again",
        ),
        (
            ["0.01", None],
            "2 requests were on the wire when the last process ended and may have been billed; sending them again",
        ),
        ([], None),
    ],
)
def test_what_was_on_the_wire_is_told(run: RunDirectory, reserved: list[str | None], words: str | None) -> None:
    put(run, head_line(HEAD) + b"".join(sent(row, usd=usd) for row, usd in enumerate(reserved)))
    assert recover(run, RANGES).unanswered_words() == words


def test_a_complete_journal_without_its_part_is_open_and_complete(run: RunDirectory) -> None:
    path = put(run, COMPLETE)
    standing = recover(run, RANGES)
    assert standing.open[0].complete
    assert standing.sealed == {}
    assert path.exists()


def test_a_journal_beside_its_part_was_sealed_already_and_goes(run: RunDirectory) -> None:
    make_part(run)
    path = put(run, COMPLETE)
    standing = recover(run, RANGES)
    assert not path.exists()
    assert (list(standing.sealed), standing.open) == ([0], {})
    assert standing.settled.rows == {"ok": 3}
    assert standing.settled.cost_usd == Decimal("0.003")


def test_temporary_files_of_a_seal_go(run: RunDirectory) -> None:
    put(run, COMPLETE)
    leftover = run.journals / "part-00000.parquet.tmp"
    leftover.write_bytes(b"PAR1 half")
    assert recover(run, RANGES).open[0].complete
    assert not leftover.exists()


def test_a_whole_line_without_its_newline_counts_and_gets_one(run: RunDirectory) -> None:
    path = put(run, MIDWAY + final(2)[:-1])
    assert facts(recover(run, RANGES))[0][0] == {0, 2}
    assert path.read_bytes().startswith(MIDWAY + final(2))
    with path.open("ab") as file:
        file.write(final(1))
    assert facts(recover(run, RANGES))[0][0] == {0, 1, 2}


@pytest.mark.parametrize("torn", [b"{", b'{"line":"record","row_index":2,"status":"ok"', final(2)[:-2]])
def test_a_torn_end_is_cut_and_what_follows_is_intact(run: RunDirectory, torn: bytes) -> None:
    path = put(run, MIDWAY + torn)
    standing = recover(run, RANGES)
    assert facts(standing)[0][0] == {0}
    assert path.read_bytes().startswith(MIDWAY)
    with path.open("ab") as file:
        file.write(final(2))
    assert facts(recover(run, RANGES))[0][0] == {0, 2}
    assert recover(run, RANGES).damaged == 0


def test_every_cut_of_a_journal_recovers_and_never_gains(run: RunDirectory) -> None:
    for cut in range(0, len(MIDWAY), 23):
        path = put(run, MIDWAY[:cut])
        standing = recover(run, RANGES)
        whole = replay(MIDWAY[:cut], "r-1", 0)
        if whole.head is None:
            assert not path.exists()
            assert standing.open == {}
            continue
        assert standing.open[0].done == set(whole.records)
        ended = sum(len(tries) for tries in whole.attempts.values()) + len(whole.records)
        assert ended + len(standing.unanswered) == len(whole.sent)
        assert recover(run, RANGES).unanswered == []


def test_a_damaged_line_is_skipped_told_and_its_row_sent_again(run: RunDirectory) -> None:
    put(run, MIDWAY.replace(b"answer 0", b"answer X"))
    standing = recover(run, RANGES)
    assert standing.damaged == 1
    assert facts(standing) == {0: (set(), {0: [(1, "UNKNOWN")], 1: [(1, "SERVER"), (2, "UNKNOWN")]})}


def test_a_damaged_head_does_not_lose_the_rest(run: RunDirectory) -> None:
    put(run, MIDWAY.replace(b'"head"', b'"heap"'))
    standing = recover(run, RANGES)
    assert facts(standing)[0][0] == {0}
    assert standing.damaged == 1


def test_an_empty_journal_goes(run: RunDirectory) -> None:
    path = put(run, b"")
    assert recover(run, RANGES) == Standing()
    assert not path.exists()


def test_a_journal_whose_lines_are_all_strange_is_not_deleted(run: RunDirectory) -> None:
    path = put(run, COMPLETE)
    with pytest.raises(RunDirectoryError):
        recover(run, [replace(part, run="r-2") for part in RANGES])
    assert path.exists()


@pytest.mark.parametrize(
    ("part", "error"),
    [
        (replace(RANGES[0], run="r-2"), RunDirectoryError),
        (replace(RANGES[0], input_hash="other"), ChangedError),
        (replace(RANGES[0], rows=2), ChangedError),
        (replace(RANGES[0], number=7), RunDirectoryError),
    ],
)
def test_a_part_that_is_not_of_this_run_is_refused(run: RunDirectory, part: Range, error: type[Exception]) -> None:
    make_part(run, part)
    with pytest.raises(error) as caught:
        recover(run, RANGES)
    assert type(caught.value) is error


def test_a_part_under_another_ones_name_is_refused(run: RunDirectory) -> None:
    make_part(run, RANGES[1], number=0)
    with pytest.raises(RunDirectoryError):
        recover(run, RANGES)


def test_a_journal_of_changed_input_is_refused_and_stays_as_it_is(run: RunDirectory) -> None:
    path = put(run, MIDWAY + b"torn")
    with pytest.raises(ChangedError, match="rows 0 to 2"):
        recover(run, [replace(RANGES[0], input_hash="other")])
    assert path.read_bytes() == MIDWAY + b"torn"


def test_a_journal_of_no_range_is_refused_and_stays(run: RunDirectory) -> None:
    path = put(run, MIDWAY, number=9)
    with pytest.raises(RunDirectoryError, match="no range"):
        recover(run, RANGES)
    assert path.exists()


@pytest.mark.parametrize(
    ("part_epoch", "journal_epoch", "expected"),
    [
        (1, 1, "goes"),
        (2, 1, "goes"),
        (2, 2, "goes"),
        (1, 2, "open"),
        (1, 3, "refused"),
        (None, 2, "refused"),
    ],
)
def test_epochs_decide_whether_a_journal_is_old_open_or_wrong(
    run: RunDirectory, part_epoch: int | None, journal_epoch: int, expected: str
) -> None:
    if part_epoch is not None:
        make_part(run, replace(RANGES[0], epoch=part_epoch))
    path = put(run, head_line(replace(HEAD, epoch=journal_epoch)))
    if expected == "refused":
        with pytest.raises(RunDirectoryError, match="epoch"):
            recover(run, RANGES)
        return
    standing = recover(run, RANGES)
    assert (0 in standing.open) is (expected == "open")
    assert path.exists() is (expected == "open")


def test_a_row_that_is_final_has_no_pending_cost_beside_its_record(run: RunDirectory) -> None:
    tries = (attempt(1, "SERVER"), attempt(2))
    put(run, head_line(HEAD) + sent(0) + tried(0, tries[0]) + sent(0, 2) + final(0, *tries))
    standing = recover(run, RANGES)
    assert (standing.open[0].prior, standing.open[0].pending) == ({}, {})
    assert standing.settled.exchanges == 2
    assert standing.settled.wasted_usd == Decimal("0.001")


def test_ranges_sealed_and_open_add_up(run: RunDirectory) -> None:
    make_part(run, RANGES[1])
    put(run, MIDWAY)
    standing = recover(run, RANGES)
    assert (list(standing.sealed), list(standing.open)) == ([1], [0])
    assert standing.settled.rows == {"ok": 4}
    assert standing.settled.cost_usd == Decimal("0.004")


def test_what_a_killed_process_left_is_made_durable_before_it_is_believed(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(run, MIDWAY)
    put(run, b"", 2)
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync", lambda descriptor, path: synced.append(path))
    monkeypatch.setattr(files, "sync_directory", synced.append)
    run.settle()
    assert synced == [run.journal(0), run.journal(2), run.journals, run.results, run.root]
    assert run.journal(0).read_bytes() == MIDWAY


def test_the_name_of_a_new_run_and_of_what_is_made_above_it_is_durable_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_directory", synced.append)
    directory = RunDirectory(tmp_path / "a" / "b" / "run")
    directory.claim()
    assert synced == [tmp_path / "a" / "b", tmp_path / "a", tmp_path]
    directory.claim()
    assert synced[3:] == [tmp_path / "a" / "b"]  # the process before may have died on the way here
    members = {"format": 1, "run": "r", "epoch": 1, "simulated": False, "name": "n", "job_file": "j", "job": {}}
    directory.write("run.json", members, durable=False)
    directory.claim()
    assert len(synced) == 4
