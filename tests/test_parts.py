from __future__ import annotations

import stat
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runner import parts
from runner.columns import ResultSpec, part_schema, record, result_schema, tally
from runner.errors import RunDirectoryError, StorageError
from runner.journal import Head, Journal, attempt_line, record_line, seed, sent_line
from runner.parts import Range, Shape, read_footer, result_columns, seal, totals_from_json, totals_to_json, write_empty
from runner.records import Attempt, Choice, Completion, Failure, Kind, Request, Settled, Status, Tally, Usage

AT = "2025-01-02T03:04:05.000006Z"
LABEL = pa.struct([("label", pa.string()), ("line", pa.string())])
SPEC = ResultSpec(parsed=LABEL, choices=False, logprobs=False, raw=False, endpoint="https://api.example.com/v1")
INPUTS = pa.schema([("id", pa.int64()), ("when", pa.timestamp("ns")), ("kind", pa.dictionary(pa.int32(), pa.string()))])
RESULTS = result_schema(SPEC)
SHAPE = Shape(RESULTS, part_schema(INPUTS, RESULTS, "r_"))
PART = Range("r-1", 3, first_row=12, rows=4, epoch=1, input_hash="abc")


def settled(row: int, text: str = "yes", tries: int = 1) -> Settled:
    cost = Decimal("0.000123")
    attempts = tuple(
        Attempt(1, n, AT, 0.5, 0.0, None, None if n == tries else "SERVER", usage=Usage(10, 4, None, 5), cost_usd=cost)
        for n in range(1, tries + 1)
    )
    answer = Completion(
        Status.OK, (Choice(0, text, "stop"),), Usage(10, 4, None, 5, None, 15), parsed={"label": text, "line": "1"}
    )
    return Settled(Request(row, b"{}", "h", "m", 1), answer, attempts, None, AT, AT, cost)


def failed(row: int) -> Settled:
    attempt = Attempt(1, 1, AT, 0.5, 0.0, 400, "REQUEST", "no", cost_usd=Decimal(0))
    return Settled(Request(row, b"{}", "h", "m", 1), Failure(Kind.REQUEST, "no", 400), (attempt,), None, AT, AT)


def inputs(rows: int = 4) -> Any:
    values = list(range(100, 100 + rows))
    kinds = pa.array([f"k{value % 2}" for value in values]).dictionary_encode()
    return pa.table([pa.array(values), pa.array(values, pa.timestamp("ns")), kinds], schema=INPUTS)


ROWS = (settled(14, "c"), settled(12, "a\n\x00 ä", tries=3), failed(15), settled(13, "b"))


def journal(directory: Path, rows: tuple[Settled, ...] = ROWS, extra: bytes = b"") -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / "00003.jsonl"
    opened = Journal(path, Head(PART.run, PART.number, PART.epoch, PART.rows, PART.input_hash))
    opened.append(sent_line(12, (1, 1), None, AT, opened.seed))
    opened.append(attempt_line(12, {"epoch": 1, "n": 1}, opened.seed))
    for row in rows:
        opened.append(record_line(record(row, SPEC), opened.seed))
    opened.append(extra)
    opened.close()
    return path


def totals(rows: tuple[Settled, ...] = ROWS) -> Tally:
    total = Tally()
    for row in rows:
        total.add(tally(record(row, SPEC)))
    return total


def sealed(tmp_path: Path, path: Path, part: Range = PART) -> Path:
    results = tmp_path / "results"
    results.mkdir(exist_ok=True)
    target = results / "part-00003.parquet"
    seal(part, totals(), (path, target), SHAPE, inputs)
    return target


def test_a_sealed_range_holds_inputs_and_records_in_row_order(tmp_path: Path) -> None:
    target = sealed(tmp_path, journal(tmp_path / "journal"))
    table = pq.read_table(target)
    assert table.schema.equals(SHAPE.part)
    assert table.select(INPUTS.names).equals(inputs())
    rows = table.to_pylist()
    assert [row["r_row_index"] for row in rows] == [12, 13, 14, 15]
    assert [row["r_content"] for row in rows] == ["a\n\x00 ä", "b", "c", None]
    assert [row["r_status"] for row in rows] == ["ok", "ok", "ok", "failed"]
    assert rows[1]["r_parsed"] == {"label": "b", "line": "1"}
    assert [attempt["n"] for attempt in rows[0]["r_attempts"]] == [1, 2, 3]
    assert rows[0]["r_total_usd"] == 0.000369
    assert (rows[3]["r_error_kind"], rows[3]["r_http_status"]) == ("REQUEST", 400)


def test_every_value_of_a_part_is_the_records(tmp_path: Path) -> None:
    table = pq.read_table(sealed(tmp_path, journal(tmp_path / "journal")))
    got = table.select([f"r_{name}" for name in RESULTS.names]).rename_columns(RESULTS.names).to_pylist()
    by_row = {settled.request.index: record(settled, SPEC) for settled in ROWS}
    for line in got:
        wanted = by_row[line["row_index"]]
        for name in RESULTS.names:
            if name not in ("attempts", "started_at", "finished_at"):
                assert line[name] == wanted[name], name
        assert line["started_at"].isoformat() == "2025-01-02T03:04:05.000006+00:00"
        assert tally(line) == tally(wanted)


def test_the_footer_says_whose_rows_these_are_and_their_exact_totals(tmp_path: Path) -> None:
    target = sealed(tmp_path, journal(tmp_path / "journal"), replace(PART, epoch=2))
    footer = read_footer(target)
    assert (footer.run, footer.range, footer.epoch, footer.rows, footer.input_hash) == ("r-1", 3, 2, 4, "abc")
    assert footer.totals == totals()
    assert footer.totals.cost_usd == Decimal("0.000123") * 5
    assert footer.totals.rows == {"ok": 3, "failed": 1}


def test_a_part_is_private_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    target = sealed(tmp_path, journal(tmp_path / "journal"))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "journal").iterdir()] == ["00003.jsonl"]
    assert [path.name for path in (tmp_path / "results").iterdir()] == [target.name]


def test_sealing_twice_gives_the_same_part(tmp_path: Path) -> None:
    path = journal(tmp_path / "journal")
    first = pq.read_table(sealed(tmp_path, path))
    assert pq.read_table(sealed(tmp_path, path)).equals(first)


@pytest.mark.parametrize("gone", range(4))
def test_a_journal_without_a_record_of_every_row_is_refused(tmp_path: Path, gone: int) -> None:
    path = journal(tmp_path / "journal", ROWS[:gone] + ROWS[gone + 1 :])
    with pytest.raises(RunDirectoryError, match=f"first .{ROWS[gone].request.index}"):
        sealed(tmp_path, path)
    assert list((tmp_path / "results").iterdir()) == []


def test_a_record_of_another_range_is_refused(tmp_path: Path) -> None:
    stranger = record_line(record(settled(16), SPEC), seed(PART.run, PART.number))
    with pytest.raises(RunDirectoryError, match="cannot be sealed"):
        sealed(tmp_path, journal(tmp_path / "journal", extra=stranger))


def test_damage_beside_the_records_does_not_hinder_and_the_last_record_of_a_row_wins(tmp_path: Path) -> None:
    again = record_line(record(settled(13, "new"), SPEC), seed(PART.run, PART.number))
    path = journal(tmp_path / "journal", extra=b"garbage\n" + again + b'{"line":"rec')
    rows = pq.read_table(sealed(tmp_path, path)).to_pylist()
    assert [row["r_content"] for row in rows] == ["a\n\x00 ä", "new", "c", None]


def test_small_chunks_give_the_same_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = journal(tmp_path / "journal")
    whole = pq.read_table(sealed(tmp_path, path))
    monkeypatch.setattr(parts, "CHUNK_BYTES", 1)
    assert pq.read_table(sealed(tmp_path, path)).equals(whole)


def assert_row_14_is_sealed_as_failed(target: Path) -> None:
    rows = pq.read_table(target).to_pylist()
    assert [row["r_status"] for row in rows] == ["ok", "ok", "failed", "failed"]
    assert (rows[2]["r_row_index"], rows[2]["r_error_kind"], rows[2]["id"]) == (14, "BAD_REPLY", 102)


@pytest.mark.parametrize("wrong", [{"content": 5}, {"created": "soon"}, {"started_at": "yesterday"}, {"parsed": [1]}])
def test_a_record_that_arrow_refuses_is_sealed_as_failed_and_blocks_nobody(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    line = record_line(record(ROWS[0], SPEC) | wrong, seed(PART.run, PART.number))
    target = sealed(tmp_path, journal(tmp_path / "journal", extra=line))
    assert_row_14_is_sealed_as_failed(target)
    row = pq.read_table(target).to_pylist()[2]
    assert (row["r_cost_usd"], row["r_total_usd"], row["r_prompt_tokens"]) == (0.000123, 0.000123, 10)


@pytest.mark.parametrize("wrong", [{"prompt_tokens": "many"}, {"cost_usd": "dear"}, {"prompt_tokens": 2**63 + 1}])
def test_a_record_whose_money_arrow_refuses_blocks_nobody_either(tmp_path: Path, wrong: dict[str, Any]) -> None:
    line = record_line(record(ROWS[0], SPEC) | wrong, seed(PART.run, PART.number))
    assert_row_14_is_sealed_as_failed(sealed(tmp_path, journal(tmp_path / "journal", extra=line)))


def test_ten_megabytes_of_text_are_sealed(tmp_path: Path) -> None:
    long = "ä\n" * 5_000_000
    path = journal(tmp_path / "journal", (settled(12, long), *ROWS[:1], ROWS[2], ROWS[3]))
    assert pq.read_table(sealed(tmp_path, path))["r_content"][0].as_py() == long


def test_a_part_without_any_input_column_is_possible(tmp_path: Path) -> None:
    path = journal(tmp_path / "journal")
    target = tmp_path / "part-00003.parquet"
    shape = Shape(RESULTS, part_schema(pa.schema([]), RESULTS, ""))
    seal(PART, totals(), (path, target), shape, lambda: inputs().select([]))
    assert pq.read_table(target)["row_index"].to_pylist() == [12, 13, 14, 15]


def test_an_empty_run_has_one_part_without_rows_and_with_the_full_schema(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    target = tmp_path / "part-00000.parquet"
    write_empty(Range("r-1", 0, 0, 0, 1, "-"), tmp_path / "journal", target, SHAPE)
    table = pq.read_table(target)
    assert table.num_rows == 0
    assert table.schema.equals(SHAPE.part)
    assert read_footer(target).totals == Tally()


def test_totals_survive_json_to_the_last_digit() -> None:
    exact = totals()
    exact.wasted_usd = Decimal("0.000000000001")
    assert totals_from_json(orjson.loads(orjson.dumps(totals_to_json(exact)))) == exact


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 1000])
def test_a_file_that_is_no_part_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "part-00000.parquet"
    path.write_bytes(content)
    with pytest.raises(RunDirectoryError, match="is not a whole part") as caught:
        read_footer(path)
    assert "move it out" in caught.value.hint


def test_a_parquet_file_of_others_is_refused(tmp_path: Path) -> None:
    pq.write_table(inputs(), tmp_path / "a.parquet")
    with pytest.raises(RunDirectoryError):
        read_footer(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("read_metadata", OSError(5, "Input/output error"), "cannot read .*: Input/output error"),
        ("read_metadata", FileNotFoundError("part-00000.parquet"), "cannot read .*: it is no longer there"),
        ("read_table", OSError(5, "Input/output error"), "cannot read .*: Input/output error"),
    ],
)
def test_a_part_that_the_disk_does_not_give_back_is_no_damaged_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: OSError, said: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    sealed(tmp_path, journal(tmp_path / "journal"))
    (part,) = (tmp_path / "results").iterdir()
    monkeypatch.setattr(pq, name, fail)
    with pytest.raises(StorageError, match=said):
        read_footer(part) if name == "read_metadata" else result_columns(part, ["row_index"])


def test_a_full_disk_while_sealing_is_a_storage_error_and_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = journal(tmp_path / "journal")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fdatasync", full)
    with pytest.raises(StorageError, match="No space left"):
        sealed(tmp_path, path)
    assert list((tmp_path / "results").iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(StorageError, match="No space left"):
        sealed(tmp_path, path)
    assert list((tmp_path / "results").iterdir()) == []
