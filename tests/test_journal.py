from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.errors import StorageError
from runner.journal import (
    Head,
    Journal,
    Line,
    Replayed,
    Sent,
    attempt_line,
    head_line,
    intact_lines,
    record_line,
    record_row,
    replay,
    seed,
    sent_line,
    unknown_attempt,
)

RUN, RANGE = "r-1", 7
SEED = seed(RUN, RANGE)
HEAD = Head(RUN, RANGE, 1, 4, "abc")
AT = "2025-01-02T03:04:05.000006Z"
#: Texts that look like a journal from the inside.
LOOKALIKES = ('{"line":"record","row_index":1', ',"crc":"01234567"}', '\n{"line":"sent"}\n', "\\", '"', "\u2028", "")


def attempt(n: int, epoch: int = 1, **more: Any) -> dict[str, Any]:
    return {"epoch": epoch, "n": n, "error": None, **more}


def record(row: int, content: Any = "x", attempts: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"row_index": row, "content": content, "attempts": list(attempts)}


def lines_of_every_kind() -> list[bytes]:
    return [
        head_line(HEAD),
        sent_line(28, (1, 1), "0.00012", AT, SEED),
        attempt_line(28, attempt(1, error="slow down"), SEED),
        sent_line(28, (1, 2), None, AT, SEED),
        record_line(record(28, "ä\n{}", (attempt(1), attempt(2))), SEED),
        sent_line(29, (1, 1), "1", AT, SEED),
        record_line(record(30, '{"line":"record"', (attempt(1),)), SEED),
    ]


def facts(found: Replayed) -> tuple[Any, ...]:
    return found.head, found.records, found.attempts, found.sent


def facts_of(lines: list[bytes]) -> tuple[Any, ...]:
    """What the lines say, read one by one without the walk over bytes that is under test."""
    head: Head | None = None
    records: dict[int, Any] = {}
    attempts: dict[int, dict[tuple[int, int], Any]] = {}
    sent: dict[tuple[int, int, int], Sent] = {}
    for line in lines:
        members = orjson.loads(line)
        kind = members.pop("line")
        del members["crc"]
        if kind == "head":
            del members["format"]
            head = Head(**members)
        elif kind == "record":
            records[members["row_index"]] = members
        elif kind == "attempt":
            attempts.setdefault(members.pop("row"), {})[members["epoch"], members["n"]] = members
        else:
            sent[members["row"], members["epoch"], members["n"]] = Sent(**members)
    return head, records, attempts, sent


def spans(lines: list[bytes]) -> list[tuple[int, int]]:
    """(first byte, its newline) of each line."""
    begin, result = 0, []
    for line in lines:
        result.append((begin, begin + len(line) - 1))
        begin += len(line)
    return result


def test_a_whole_journal_gives_back_every_line() -> None:
    lines = lines_of_every_kind()
    found = replay(b"".join(lines), RUN, RANGE)
    assert facts(found) == facts_of(lines)
    assert found.records[28]["content"] == "ä\n{}"
    assert found.sent[28, 1, 1] == Sent(28, 1, 1, "0.00012", AT)
    assert found.damaged == 0
    assert found.length == sum(map(len, lines))


def test_every_line_is_json_whose_last_key_is_its_checksum() -> None:
    for line in lines_of_every_kind():
        assert line.endswith(b"\n")
        keys = list(orjson.loads(line))
        assert (keys[0], keys[-1]) == ("line", "crc")


def test_a_journal_cut_at_every_byte_keeps_exactly_the_whole_lines() -> None:
    lines = lines_of_every_kind()
    data = b"".join(lines)
    for cut in range(len(data) + 1):
        whole = [line for line, (_, newline) in zip(lines, spans(lines), strict=True) if newline <= cut]
        found = replay(data[:cut], RUN, RANGE)
        assert facts(found) == facts_of(whole), cut
        assert found.damaged == 0, cut
        assert found.length == min(cut, sum(map(len, whole))), cut  # a whole line may lack its newline


@pytest.mark.parametrize("pattern", [0x01, 0x02, 0x20, 0x80, 0xFF])
def test_a_journal_flipped_at_every_byte_keeps_exactly_the_unharmed_lines(pattern: int) -> None:
    lines = lines_of_every_kind()
    data = b"".join(lines)
    for at in range(len(data) - 1):
        flipped = data[:at] + bytes([data[at] ^ pattern]) + data[at + 1 :]
        unharmed = [line for line, (a, b) in zip(lines, spans(lines), strict=True) if not a <= at < b]
        assert facts(replay(flipped, RUN, RANGE)) == facts_of(unharmed), at


@pytest.mark.parametrize("byte", [b"\n", b"{", b"}", b'"', b"0", b"\0"])
def test_a_journal_with_every_byte_replaced_by_a_telling_one_keeps_the_unharmed_lines(byte: bytes) -> None:
    lines = lines_of_every_kind()
    data = b"".join(lines)
    for at in range(len(data) - 1):
        harmed = data[:at] + byte + data[at + 1 :]
        same = harmed == data
        unharmed = [line for line, (a, b) in zip(lines, spans(lines), strict=True) if same or not a <= at < b]
        assert facts(replay(harmed, RUN, RANGE)) == facts_of(unharmed), at


def test_a_journal_with_any_byte_missing_or_one_too_many_keeps_the_unharmed_lines() -> None:
    lines = lines_of_every_kind()
    data = b"".join(lines)
    for at in range(len(data) - 1):
        for harmed in (data[:at] + data[at + 1 :], data[:at] + b"?" + data[at:]):
            unharmed = [line for line, (a, b) in zip(lines, spans(lines), strict=True) if not a <= at < b]
            found = facts(replay(harmed, RUN, RANGE))
            inserted_before = any(at == a for a, _ in spans(lines)) and len(harmed) > len(data)
            assert found == (facts_of(lines) if inserted_before else facts_of(unharmed)), at


def test_a_damaged_last_newline_loses_no_acknowledged_line() -> None:
    lines = lines_of_every_kind()
    assert facts(replay(b"".join(lines)[:-1] + b"\x8a", RUN, RANGE)) == facts_of(lines)


def test_a_damaged_line_is_counted_and_a_damaged_newline_loses_nothing() -> None:
    lines = lines_of_every_kind()
    data = b"".join(lines)
    newline = len(lines[0]) + len(lines[1]) - 1
    joined = replay(data[:newline] + b"\x0b" + data[newline + 1 :], RUN, RANGE)
    assert (joined.damaged, facts(joined)) == (0, facts_of(lines))
    inside = replay(data[: newline - 3] + b"?" + data[newline - 2 :], RUN, RANGE)
    assert inside.damaged == 1


def test_damage_across_several_lines_spares_the_ones_around_it() -> None:
    lines = lines_of_every_kind()
    begin = len(lines[0]) + 5
    data = b"".join(lines)
    end = sum(map(len, lines[:3])) + 5
    found = replay(data[:begin] + b"\0" * (end - begin) + data[end:], RUN, RANGE)
    assert facts(found) == facts_of([lines[0], *lines[4:]])
    assert found.damaged == 1


@pytest.mark.parametrize(("run", "range_no"), [("r-2", RANGE), (RUN, 8), (RUN, 70), ("r-", 17), ("", 0)])
def test_lines_of_another_run_or_range_never_pass(run: str, range_no: int) -> None:
    lines = lines_of_every_kind()
    found = replay(b"".join(lines), run, range_no)
    assert facts(found) == (None, {}, {}, {})
    assert found.damaged == len(lines)


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.text(min_size=1), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_whole_line_never_passes_for_another_range(run: str, one: int, other: int) -> None:
    line = record_line(record(1), seed(run, one))
    assert (replay(line, run, other).records == {}) is (one != other)


texts = st.text(st.characters(exclude_categories=["Cs"])) | st.lists(
    st.sampled_from(LOOKALIKES) | st.text(max_size=3), max_size=6
).map("".join)
nested = texts | st.fixed_dictionaries({"line": st.just("record"), "crc": st.just("01234567")}).map(lambda x: [x, x])


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(nested.map(lambda x: orjson.loads(orjson.dumps(x))), min_size=2, max_size=5), st.data())
def test_any_content_survives_the_loss_of_any_newline(contents: list[Any], data: Any) -> None:
    lines = [record_line(record(row, content), SEED) for row, content in enumerate(contents)]
    joint = data.draw(st.integers(0, len(lines) - 2))
    harmed = b"".join(line[:-1] + b"\x8a" if number == joint else line for number, line in enumerate(lines))
    for bytes_ in (b"".join(lines), harmed):
        found = replay(bytes_, RUN, RANGE)
        assert {row: members["content"] for row, members in found.records.items()} == dict(enumerate(contents))


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(nested, min_size=1, max_size=4), st.data())
def test_any_content_cut_anywhere_is_whole_or_absent(contents: list[Any], data: Any) -> None:
    lines = [record_line(record(row, content), SEED) for row, content in enumerate(contents)]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    kept = [row for row, (_, newline) in enumerate(spans(lines)) if newline <= cut]
    assert sorted(replay(whole[:cut], RUN, RANGE).records) == kept


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.binary(max_size=300))
def test_no_bytes_at_all_can_make_replay_fail(data: bytes) -> None:
    found = replay(data, RUN, RANGE)
    assert found.records == {}
    assert found.length == data.rfind(b"\n") + 1


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.integers(0, 10**12), st.integers(1, 99), st.integers(1, 99), st.none() | st.decimals(0, 9, places=6))
def test_a_sent_line_says_what_it_was_given(row: int, epoch: int, n: int, usd: Any) -> None:
    reserved = None if usd is None else format(usd, "f")
    found = replay(sent_line(row, (epoch, n), reserved, AT, SEED), RUN, RANGE)
    assert found.sent == {(row, epoch, n): Sent(row, epoch, n, reserved, AT)}


def test_of_two_records_of_a_row_the_later_wins_and_attempts_merge() -> None:
    data = [record_line(record(1, "a"), SEED), record_line(record(1, "b"), SEED)]
    data += [attempt_line(2, attempt(1, error=text), SEED) for text in ("x", "y")]
    found = replay(b"".join(data), RUN, RANGE)
    assert found.records[1]["content"] == "b"
    assert found.attempts == {2: {(1, 1): attempt(1, error="y")}}


def test_unanswered_are_the_requests_that_left_and_have_no_end() -> None:
    found = replay(b"".join(lines_of_every_kind()), RUN, RANGE)
    assert found.unanswered() == [Sent(29, 1, 1, "1", AT)]


@pytest.mark.parametrize(("ended_epoch", "ended_n", "unanswered"), [(1, 1, 0), (1, 2, 1), (2, 1, 1)])
def test_an_end_answers_only_its_own_epoch_and_number(ended_epoch: int, ended_n: int, unanswered: int) -> None:
    sent = sent_line(5, (1, 1), None, AT, SEED)
    for end in (
        attempt_line(5, attempt(ended_n, ended_epoch), SEED),
        record_line(record(5, "x", (attempt(ended_n, ended_epoch),)), SEED),
    ):
        assert len(replay(sent + end, RUN, RANGE).unanswered()) == unanswered


@pytest.mark.parametrize(
    ("lines", "epoch"),
    [
        ([], None),
        ([head_line(Head(RUN, RANGE, 3, 4, "abc"))], 3),
        ([sent_line(1, (2, 1), None, AT, SEED)], 2),
        ([attempt_line(1, attempt(1, 4), SEED), sent_line(1, (2, 1), None, AT, SEED)], 4),
        ([record_line(record(1, "x", (attempt(1, 1), attempt(1, 2))), SEED)], 2),
    ],
)
def test_the_epoch_is_the_heads_or_else_the_highest_of_the_lines(lines: list[bytes], epoch: int | None) -> None:
    assert replay(b"".join(lines), RUN, RANGE).epoch == epoch


def test_an_unknown_attempt_keeps_identity_and_start_and_claims_no_cost() -> None:
    made = unknown_attempt(Sent(5, 2, 3, "0.1", AT))
    assert (made.epoch, made.n, made.started_at, made.error_kind) == (2, 3, AT, "UNKNOWN")
    assert made.cost_usd is None
    assert made.seconds is None


def test_record_rows_are_read_without_parsing_and_other_lines_have_none() -> None:
    data = b"".join(lines_of_every_kind())
    rows = [record_row(data, line) for line in intact_lines(data, SEED) if line]
    assert rows == [None, None, None, None, 28, None, 30]


def test_a_record_with_row_index_alone_has_its_row() -> None:
    data = record_line({"row_index": 123}, SEED)
    assert [record_row(data, line) for line in intact_lines(data, SEED) if line] == [123]


def test_intact_lines_stand_where_they_say() -> None:
    lines = lines_of_every_kind()
    assert list(intact_lines(b"".join(lines), SEED)) == [Line(a, b) for a, b in spans(lines)]


def test_an_opened_journal_has_its_head_and_a_second_opening_only_appends(tmp_path: Path) -> None:
    path = tmp_path / "00007.jsonl"
    first = Journal(path, HEAD)
    first.append(record_line(record(28), first.seed))
    first.sync()
    first.close()
    first.close()
    second = Journal(path, HEAD)
    second.append(record_line(record(29), second.seed))
    second.close()
    found = replay(path.read_bytes(), RUN, RANGE)
    assert (found.head, list(found.records), found.damaged) == (HEAD, [28, 29], 0)
    assert path.read_bytes().count(b'"head"') == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_empty_file_is_given_its_head(tmp_path: Path) -> None:
    path = tmp_path / "00007.jsonl"
    path.touch()
    Journal(path, HEAD).close()
    assert path.read_bytes() == head_line(HEAD)


def test_a_damaged_line_full_of_lookalikes_is_given_up_quickly() -> None:
    """Answers may have objects whose first key is `line`; they are not taken for beginnings of ours."""
    items = [{"line": f"item {number}", "text": "y" * 60} for number in range(3_000)]
    line = record_line(record(1, items), SEED)
    harmed = line.replace(b"item 1500", b"item 1x00")
    assert replay(harmed + record_line(record(2), SEED), RUN, RANGE).records.keys() == {2}


def test_a_journal_that_was_removed_under_its_writer_is_told_at_the_next_commit(tmp_path: Path) -> None:
    """The bytes would go where nobody finds them."""
    journal = Journal(tmp_path / "00007.jsonl", HEAD)
    journal.path.unlink()
    journal.append(sent_line(28, (1, 1), None, AT, journal.seed))
    with pytest.raises(StorageError, match="it is no longer there") as caught:
        journal.sync()
    assert "put it back" in caught.value.hint
    journal.close()
