"""Any edit of job and input: only requests that were not answered before are sent, and no exchange leaves the bill."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from endpoint import KEY, Endpoint
from ledger import Desk, asked_of, complaints, desk, records, without_talk
from thorough import THOROUGH

from runner import reading
from runner.errors import ChangedError
from runner.opening import RunOptions
from runner.prepare import Asked
from runner.running import run
from runner.say import Say
from runner.store import RunDirectory

BAD, LONG = "t3", "t5"  #: words whose rows never become ok
#: Of each kind, and the edits of each; THOROUGH=1 tells many more.
STORIES, STEPS = (40, 20) if THOROUGH else (5, 10)


@dataclass
class Input:
    """Files of rows, and the word that the prompt begins with."""

    luck: random.Random
    files: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    word: str = "say"
    fresh: int = 0
    spelled: bool = False  #: `extra` is text now

    def extra(self) -> int | str:
        number = self.luck.randrange(9)
        return f"x{number}" if self.spelled else number

    def row(self) -> dict[str, Any]:
        """Texts are few, so that many rows ask the same."""
        self.fresh += 1
        number = self.luck.choice([self.luck.randrange(30), 100 + self.fresh])
        return {"id": self.fresh, "text": f"t{number}", "extra": self.extra()}

    def some(self) -> list[dict[str, Any]]:
        """One of the files; the rows of a file are edited in place."""
        return self.files[self.luck.choice(sorted(self.files))]

    def place_in(self, rows: list[dict[str, Any]]) -> int:
        return self.luck.randrange(len(rows) + 1)


def insert(at: Input) -> None:
    rows = at.some()
    rows.insert(at.place_in(rows), at.row())


def delete(at: Input) -> None:
    rows = at.some()
    del rows[at.place_in(rows) :][: at.luck.randrange(3)]
    if rows:
        del rows[at.luck.randrange(len(rows))]


def cut(at: Input) -> None:
    rows = at.some()
    del rows[at.place_in(rows) :]


def change(at: Input) -> None:
    rows = at.some()
    for row in at.luck.sample(rows, min(len(rows), at.luck.randrange(1, 4))):
        row["text"] = at.row()["text"]


def append(at: Input) -> None:
    rows = at.files[max(at.files)]
    rows += [at.row() for _ in range(at.luck.randrange(1, 12))]


def shuffle(at: Input) -> None:
    at.luck.shuffle(at.some())


def double(at: Input) -> None:
    rows = at.some()
    for row in at.luck.sample(rows, min(len(rows), 3)):
        rows.insert(at.place_in(rows), dict(row))


def new_file(at: Input) -> None:
    """Half of them sort before all others."""
    at.fresh += 1
    name = f"rows-{at.luck.choice('az')}{at.fresh:03d}.jsonl"
    at.files[name] = [at.row() for _ in range(at.luck.randrange(1, 10))]


def drop_file(at: Input) -> None:
    if len(at.files) > 1:
        del at.files[at.luck.choice(sorted(at.files))]


def new_column(at: Input) -> None:
    at.fresh += 1
    for rows in at.files.values():
        for row in rows:
            row[f"c{at.fresh}"] = at.luck.randrange(9)


def pass_through(at: Input) -> None:
    for row in at.some():
        if at.luck.random() < 0.5:
            row["extra"] = at.extra()


def retype(at: Input) -> None:
    at.spelled = not at.spelled
    for rows in at.files.values():
        for row in rows:
            row["extra"] = at.extra()


def prompt(at: Input) -> None:
    at.word = at.luck.choice(["say", "tell", "sing"])


EDITS = [insert, delete, cut, change, append, append, shuffle, double, new_file, drop_file]
EDITS += [new_column, pass_through, retype, prompt]


@dataclass
class Figures:
    edits: Counter[str] = field(default_factory=Counter)
    sends: int = 0
    ideal: int = 0
    refusals: int = 0
    stops: int = 0
    kept: int = 0  #: changes with --keep-answers


@dataclass
class Story:
    """One run through many edits."""

    desk: Desk
    input: Input
    figures: Figures
    keeps: bool = False  #: changes of the prompt, and some others, are carried out with --keep-answers

    def write(self) -> None:
        for path in self.desk.place.root.glob("rows-*.jsonl"):
            if path.name not in self.input.files:
                path.unlink()
        for name, rows in self.input.files.items():
            self.desk.write(rows, name)
        content = f"{self.input.word} {{{{ text }}}}"
        message = {"role": "user", "content": content}
        output = {"rows_per_part": 8}
        self.desk.place.job(input={"path": "rows-*.jsonl"}, request={"messages": [message]}, output=output)

    def rows(self) -> list[dict[str, Any]]:
        """The input in the run's order of files."""
        survey = orjson.loads((self.desk.root / "survey.json").read_bytes())
        names = [Path(file["path"]).name for file in survey["files"]]
        assert sorted(names) == sorted(self.input.files)
        return [row for name in names for row in self.input.files[name]]

    def wanted(self) -> Counter[str]:
        texts = (row["text"] for rows in self.input.files.values() for row in rows)
        return Counter(f"{self.input.word} {text}" for text in texts)

    def stored(self) -> list[dict[str, Any]]:
        """What is final now, as readers see it."""
        if not (self.desk.root / "run.json").exists():
            return []
        found: list[dict[str, Any]] = reading.read_table(RunDirectory(self.desk.root)).to_pylist()
        return found

    def step(self) -> None:
        luck, word = self.input.luck, self.input.word
        for _ in range(luck.choice([1, 1, 1, 2, 3])):
            edit = luck.choice(EDITS)
            edit(self.input)
            if not self.wanted():
                append(self.input)  # an empty input has a test of its own
            self.figures.edits[edit.__name__] += 1
        self.write()
        self.desk.teller.left = luck.randrange(8) if luck.random() < 0.4 else None
        keep = self.keeps and (word != self.input.word or luck.random() < 0.2)
        self.figures.kept += keep
        self.carry_out(self.answers(keep or word == self.input.word), keep=keep)

    def answers(self, whatever_was_asked: bool) -> Counter[str]:
        """The answers that the run holds, under the request that each would be now. An ok answer that was kept, or is
        to be kept, stands for its row's text whatever the prompt was."""
        found: Counter[str] = Counter()
        for row in self.stored():
            asked = asked_of(row, self.desk.teller) or ""
            kept = whatever_was_asked and row["status"] == "ok"
            found[f"{self.input.word} {asked.split()[1]}" if kept else asked] += 1
        return found

    def carry_out(self, stored: Counter[str], *, keep: bool = False) -> None:
        """Without consent first; what is sent is what was not answered before."""
        before, files, wanted = self.desk.sent, without_talk(self.desk.root), self.wanted()
        loses = bool(stored - wanted)  # an answer that no row of the input asks for any more
        if loses:
            with pytest.raises(ChangedError):
                self.desk.run()
            assert self.desk.sent == before
            assert without_talk(self.desk.root) == files
            self.figures.refusals += 1
        ending = self.desk.run(accept_changes=True if loses else None, keep_answers=keep)
        if ending.error:
            assert self.desk.teller.left == 0, ending.error
            self.figures.stops += 1
            assert ending.totals.exchanges == self.desk.sent
            self.desk.teller.left = None
            assert self.desk.teller.settling(before) <= wanted - stored
            ending = self.desk.run()
        assert ending.error is None
        assert self.desk.teller.settling(before) == wanted - stored
        self.figures.sends += self.desk.teller.settling(before).total()
        self.figures.ideal += (wanted - stored).total()
        self.audit(stored)

    def audit(self, stored: Counter[str]) -> None:
        rows, inputs = records(self.desk.root), self.rows()
        assert [row["row_index"] for row in rows] == list(range(len(inputs)))
        for row, given in zip(rows, inputs, strict=True):
            names = [name for name in row if name in given or (name.startswith("c") and name[1:].isdigit())]
            assert {name: row[name] for name in names} == {name: given.get(name) for name in names}
            assert {"id", "text", "extra"} <= row.keys()
            self.audit_answer(row, given["text"], stored)
        assert complaints(self.desk) == []

    def audit_answer(self, row: dict[str, Any], text: str, stored: Counter[str]) -> None:
        asked, now = asked_of(row, self.desk.teller) or "", f"{self.input.word} {text}"
        assert asked == now or (self.keeps and asked.split()[1] == text and stored[now])
        assert row["status"] == {BAD: "failed", LONG: "truncated"}.get(text, "ok")
        if row["status"] != "failed":
            assert row["content"] == f"{asked} | {row['attempts'][-1]['request_id']}"


FIGURES = Figures()


@pytest.mark.parametrize("keeps", [False, True], ids=["accepting", "keeping"])
@pytest.mark.parametrize("seed", range(STORIES))
def test_only_requests_without_an_answer_are_sent_whatever_was_edited(tmp_path: Path, seed: int, keeps: bool) -> None:
    luck = random.Random(seed)
    at = Input(luck)
    at.files["rows-m.jsonl"] = [at.row() for _ in range(luck.randrange(45))]
    with Endpoint() as endpoint:
        story = Story(desk(tmp_path, endpoint), at, FIGURES, keeps)
        story.desk.teller.bad, story.desk.teller.long = {BAD}, {LONG}
        story.write()
        story.carry_out(Counter())
        for _ in range(STEPS):
            story.step()
        assert complaints(story.desk) == []
        assert [row["text"] for row in records(story.desk.root)] == [row["text"] for row in story.rows()]
        assert FIGURES.sends == FIGURES.ideal


def test_random_edits_were_many_and_sent_no_request_too_many(record_property: Any) -> None:
    if FIGURES.edits.total() < 2 * STORIES * STEPS:
        pytest.skip("the stories were not all told")
    line = f"{FIGURES.edits.total()} random edits {dict(FIGURES.edits)}, {FIGURES.stops} of them with a stop half-way, "
    line += f"{FIGURES.kept} keeping answers, {FIGURES.refusals} refused first: "
    line += f"{FIGURES.sends} requests sent, {FIGURES.ideal} without an answer"
    record_property("summary", line)
    print(f"\n{line}")
    assert FIGURES.edits.total() >= 150
    assert FIGURES.sends == FIGURES.ideal


# Consent, one rule at a time


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    """A finished run of 20 rows, one of which was refused."""
    with Endpoint() as endpoint:
        at = desk(tmp_path, endpoint)
        at.teller.bad = {BAD}
        at.write(rows(20))
        assert at.run().exit_code == 1
        yield at


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": n, "text": f"t{n}", "extra": n, **more} for n in range(count)]


def say(at: Desk, word: str, **request: Any) -> None:
    message = {"role": "user", "content": f"{word} {{{{ text }}}}"}
    at.place.job(request={"messages": [message], **request}, output={"rows_per_part": 8})


def refused(at: Desk, words: str, **options: Any) -> ChangedError:
    """What is said when nothing may be done; that nothing was."""
    sent, files = at.sent, without_talk(at.root)
    with pytest.raises(ChangedError, match=words) as caught:
        at.run(**options)
    assert at.sent == sent
    assert without_talk(at.root) == files
    assert caught.value.exit_code == 2
    return caught.value


def contents(at: Desk) -> list[Any]:
    return [row["content"] for row in records(at.root)]


def test_changed_rows_are_asked_again_only_as_many_as_were_agreed_to(at: Desk) -> None:
    changed = rows(20)
    for n in (1, 9, 17):
        changed[n]["text"] = f"other{n}"
    at.write(changed)
    error = refused(at, "^3 answered rows would be asked again$")
    assert "--accept-changes" in error.hint
    assert "--keep-answers" in error.hint
    refused(at, "more than --accept-changes 2 allows", accept_changes=2)
    refused(at, "more than --accept-changes 0 allows", accept_changes=0)
    ending = at.run(accept_changes=3)
    assert (ending.exit_code, at.sent, ending.totals.exchanges) == (1, 23, 23)
    replaced = [row["attempts"][0]["answer"] for row in records(at.root) if len(row["attempts"]) == 2]
    assert sorted(text.partition(" |")[0] for text in replaced) == ["say t1", "say t17", "say t9"]
    assert complaints(at) == []


def test_rows_that_would_drop_out_take_consent_and_stay_in_the_bill(at: Desk) -> None:
    at.write(rows(18))
    refused(at, "^2 would drop out of the results$")
    refused(at, "^2 would drop out of the results$", keep_answers=True)
    ending = at.run(accept_changes=0)  # nothing is asked again
    assert (at.sent, ending.rows, ending.totals.exchanges, len(records(at.root))) == (20, 18, 20, 18)
    assert complaints(at) == []
    at.write(rows(20))
    assert at.run().totals.exchanges == at.sent == 22
    assert complaints(at) == []


def test_keep_answers_keeps_every_ok_answer_and_asks_the_rest_by_the_new_job(at: Desk) -> None:
    before = contents(at)
    say(at, "tell")
    refused(at, "^20 answered rows would be asked again$")
    at.teller.bad = set()
    assert at.run(keep_answers=True).exit_code == 0
    assert at.sent == 21
    after = contents(at)
    assert after[:3] + after[4:] == before[:3] + before[4:]
    assert after[3].startswith("tell t3 |")
    assert complaints(at) == []


@pytest.mark.parametrize("edit", ["append", "insert"])
def test_answers_that_were_kept_once_stay_kept_when_rows_are_added(at: Desk, edit: str) -> None:
    at.teller.bad = set()
    say(at, "tell")
    assert at.run(keep_answers=True).exit_code == 0
    more = rows(20)
    more.insert(20 if edit == "append" else 3, {"id": 99, "text": "t99", "extra": 9})
    at.write(more)
    assert at.run().exit_code == 0
    assert at.sent == 22


def test_answers_that_were_kept_once_can_be_kept_again(at: Desk) -> None:
    at.teller.bad = set()
    say(at, "tell")
    assert at.run(keep_answers=True).exit_code == 0
    say(at, "sing")
    assert at.run(keep_answers=True).exit_code == 0
    assert at.sent == 21


def test_answers_that_were_kept_once_are_asked_again_when_that_is_agreed_to(at: Desk) -> None:
    """Otherwise nobody could ever be rid of them: every change would go on beside answers of the first prompt."""
    at.teller.bad = set()
    say(at, "tell")
    assert at.run(keep_answers=True).exit_code == 0
    before = at.sent
    say(at, "sing")
    refused(at, "^20 answered rows would be asked again$")
    assert at.run(accept_changes=True).exit_code == 0
    assert at.teller.settling(before) == Counter(f"sing t{n}" for n in range(20))
    assert complaints(at) == []


def ask(at: Desk, content: str, rows: list[dict[str, Any]]) -> None:
    """Another prompt over other rows."""
    at.write(rows)
    message = {"role": "user", "content": content}
    at.place.job(request={"messages": [message]}, output={"rows_per_part": 8})


def test_kept_answers_stay_with_their_rows_when_the_column_that_was_asked_has_another_name(at: Desk) -> None:
    """Their place is no proof: the rows are shuffled and one is put in front."""
    before = {row["id"]: row["content"] for row in records(at.root) if row["status"] == "ok"}
    at.teller.bad = set()
    other = [{"id": 99, "note": "x", "body": "t99", "extra": 9}]
    other += [{"id": row["id"], "note": "x", "body": row["text"], "extra": row["extra"]} for row in rows(20)]
    random.Random(1).shuffle(other)
    ask(at, "tell {{ body }}", other)
    refused(at, "^1 would drop out of the results$", keep_answers=True)  # the refusal of t3, which has moved
    assert at.run(keep_answers=True, accept_changes=True).exit_code == 0
    after = {row["id"]: row["content"] for row in records(at.root)}
    assert len(before) == 19
    assert {number: after[number] for number in before} == before
    assert at.teller.settling(20) == Counter(["tell t3", "tell t99"])
    assert complaints(at) == []


def test_kept_answers_stay_when_two_columns_have_other_names_and_one_row_is_another(tmp_path: Path) -> None:
    with Endpoint() as endpoint:
        at = desk(tmp_path, endpoint)
        ask(at, "say {{ text }} {{ extra }}", rows(12))
        assert at.run().exit_code == 0
        before = contents(at)
        other = [{"number": row["extra"], "id": row["id"], "body": row["text"]} for row in rows(12)]
        other[5]["body"] = "t99"
        ask(at, "tell {{ body }}, {{ number }}", other)
        assert at.run(keep_answers=True).exit_code == 0
        assert at.teller.settling(12) == Counter(["tell t99, 5"])
        assert contents(at)[:5] + contents(at)[6:] == before[:5] + before[6:]
        assert complaints(at) == []


def test_answers_to_a_column_that_is_gone_are_not_kept_by_guessing(at: Desk) -> None:
    at.teller.bad = set()
    ask(at, "tell {{ id }}", [{"id": row["id"], "extra": row["extra"]} for row in rows(20)])
    error = refused(at, "^the earlier job's messages read `text`, which the input has no more", keep_answers=True)
    assert "under any name" in error.hint
    assert "--accept-changes" in error.hint
    refused(at, "^20 answered rows would be asked again$")
    assert at.run(accept_changes=True).exit_code == 0
    assert at.teller.settling(20) == Counter(f"tell {n}" for n in range(20))
    assert complaints(at) == []


def test_answers_that_were_kept_before_stay_kept_when_a_column_gets_another_name_later(at: Desk) -> None:
    at.teller.bad = set()
    say(at, "tell")
    assert at.run(keep_answers=True).exit_code == 0
    before, sent = contents(at), at.sent
    ask(at, "tell {{ body }}", [{"id": row["id"], "body": row["text"], "extra": row["extra"]} for row in rows(20)])
    refused(at, "^19 answered rows would be asked again$")
    assert at.run(keep_answers=True).exit_code == 0
    assert (contents(at), at.sent) == (before, sent)


def test_rows_that_cannot_be_rendered_are_not_said_to_be_sent(at: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    at.write([*rows(20), {"id": 20, "text": "t20"}, {"id": 21, "extra": 21}, {"id": 22, "extra": 22}])
    given = RunOptions(environ={"TRIAL_KEY": KEY}, signals=False)
    assert run(Asked(at.place.root / "job.yaml"), given, Say()).exit_code == 1
    said = capsys.readouterr().err
    assert "changed: 20 kept, 3 new (1 of them not ok); 1 to send (about " in said
    assert "), 2 cannot be sent and fail\n" in said
    assert at.sent == 21
    assert [row["error_kind"] for row in records(at.root)[20:]] == [None, "INPUT", "INPUT"]


def test_other_passthrough_columns_rewrite_the_parts_and_send_nothing(at: Desk) -> None:
    other = rows(20)
    for row in other:
        row["extra"] += 100
    at.write(other)
    before = contents(at)
    assert at.run().exit_code == 1
    assert (at.sent, contents(at)) == (20, before)
    assert [row["extra"] for row in records(at.root)] == list(range(100, 120))
    at.place.job(output={"rows_per_part": 8, "columns": ["id"], "prefix": "my_"})
    assert at.run().exit_code == 1
    found = records(at.root)
    assert [row["my_content"] for row in found] == before
    assert found[0].keys() & {"id", "extra", "text"} == {"id"}
    assert at.sent == 20


def test_answers_in_other_columns_cannot_be_kept_beside_the_old_ones(at: Desk) -> None:
    at.place.job(output={"rows_per_part": 8, "keep_raw": True})
    refused(at, "answers in other columns \\(raw\\)", accept_changes=True)
    say(at, "tell", logprobs=True)
    refused(at, "answers in other columns", keep_answers=True)
    ending = at.run(accept_changes=True)  # nothing is kept: all are asked again
    assert (ending.totals.exchanges, at.sent) == (40, 40)
    assert "logprobs" in records(at.root)[0]
    assert complaints(at) == []


def test_an_input_that_became_empty_keeps_its_bill_and_may_fill_again(at: Desk) -> None:
    at.write([])
    refused(at, "^20 would drop out of the results$")
    assert at.run(accept_changes=True).totals.exchanges == 20
    assert complaints(at) == []
    at.write(rows(3))
    assert at.run().totals.exchanges == at.sent == 23
    assert complaints(at) == []


def test_an_empty_table_may_fill(tmp_path: Path) -> None:
    with Endpoint() as endpoint:
        at = desk(tmp_path, endpoint, input={"path": "rows.csv"})
        path = at.place.root / "rows.csv"
        path.write_text("text,extra\n")
        assert at.run().exit_code == 0
        path.write_text("text,extra\na,1\nb,2\n")
        assert at.run().exit_code == 0
        assert [row["extra"] for row in records(at.root)] == ["1", "2"]


def test_a_row_that_was_never_answered_takes_the_answer_that_becomes_free(tmp_path: Path) -> None:
    """Rows 0 and 15 ask the same; 0 was answered and is edited, 15 was not reached."""
    with Endpoint() as endpoint:
        at = desk(tmp_path, endpoint, limits={"concurrency": 1})
        given = rows(16)
        given[15]["text"] = "t0"
        at.write(given)
        at.teller.left = 12
        assert at.run().exit_code == 3
        at.teller.left, before = None, at.sent
        given[0]["text"] = "other"
        at.write(given)
        at.run(accept_changes=True)
        assert at.teller.settling(before) == Counter(["say other", "say t12", "say t13", "say t14"])
