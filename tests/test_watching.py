from __future__ import annotations

import io
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner import watching
from runner.errors import UsageError
from runner.records import Tally
from runner.standing import RunStatus
from runner.watching import fold, interval, shown_on, watch

OWNER = {"pid": 7, "host": "here", "since": "2025-01-02T03:04:05Z"}
LIVE = {"rows_per_s": 12.34, "in_flight": 32, "left_s": 75.0, "waiting_for": None}


def standing(ok: int, *, going: bool = True, name: str = "run", **live: Any) -> RunStatus:
    """So many of 8 rows are final."""
    owner, said = (OWNER, LIVE | live) if going else (None, None)
    return RunStatus(Path(name), name, False, 8, Tally(rows={"ok": ok}), not going, owner, said)


class Terminal(io.StringIO):
    """A stream that is a terminal, and what stands on it: as much as this program moves its cursor."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        rows, at = [""], 0
        for count, move, letter in re.findall("\x1b\\[([0-9]*)([A-Z])|((?s:.))", self.getvalue()):
            if move == "A":
                at -= int(count)
                assert at >= 0, "above the first line"
            elif move == "J":
                rows[at:] = [""]
            elif move == "K":
                rows[at] = ""
            elif letter == "\n":
                at += 1
                rows[len(rows) :] = [""] * (at + 1 - len(rows))
            elif letter != "\r":
                rows[at] += letter
        return rows


def watched(looks: Sequence[Sequence[RunStatus]], out: io.StringIO, monkeypatch: pytest.MonkeyPatch, **how: Any) -> int:
    """How often was slept."""
    left, slept = list(looks), list[float]()
    monkeypatch.setattr(time, "sleep", slept.append)
    watch(lambda: left.pop(0), shown_on(out, as_json=how.get("as_json", False), again=True), 5.0)
    assert left == []
    assert set(slept) <= {5.0}
    return len(slept)


LOOKS = [[standing(1)], [standing(5)], [standing(8, going=False)]]


def test_off_a_terminal_each_look_is_a_block_until_the_run_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    assert watched(LOOKS, out, monkeypatch) == 2
    blocks = out.getvalue().split("\n\n")
    assert [block.split("\n")[0] for block in blocks] == ["run: running", "run: running", "run: finished"]
    assert ["12 %" in blocks[0], "62 %" in blocks[1], "100 %" in blocks[2]] == [True] * 3
    assert "  12.3 rows/s, 32 in flight, 75 s left" in blocks[0].split("\n")
    assert "\x1b" not in out.getvalue()


def test_json_is_one_line_a_run_and_look(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    other = standing(8, going=False, name="other")
    assert watched([[standing(1), other], [standing(8, going=False), other]], out, monkeypatch, as_json=True) == 1
    told = [json.loads(line) for line in out.getvalue().rstrip("\n").split("\n")]
    assert [(each["name"], each["state"], each["settled"]) for each in told] == [
        ("run", "running", 1),
        ("other", "finished", 8),
        ("run", "finished", 8),
        ("other", "finished", 8),
    ]


@pytest.mark.parametrize("columns", [120, 20, 7])
def test_on_a_terminal_only_the_last_look_stands(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((columns, 40)))
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    assert watched(LOOKS, out, monkeypatch) == 2
    screen = out.screen()
    assert "".join(screen) == "".join(standing(8, going=False).lines())
    assert max(map(len, screen)) < columns
    assert "\x1b[3" not in out.getvalue().replace("\x1b[3A", "")  # no colours


def test_a_terminal_that_is_too_low_shows_the_first_lines_and_never_scrolls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((80, 6)))
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    many = [standing(1, name=f"run-{n}") for n in range(9)]
    ended = [standing(8, going=False, name=f"run-{n}") for n in range(9)]
    shown = shown_on(out, as_json=False, again=True)
    shown.show(many)
    assert out.screen() == [*[row for each in many for row in each.lines()][:4], "…", ""]
    shown.show(ended)
    assert out.screen() == [*[row for each in ended for row in each.lines()], ""]


def test_a_dumb_terminal_gets_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    watched(LOOKS, out, monkeypatch)
    assert "\x1b" not in out.getvalue()
    assert out.getvalue().count("run: ") == 3


def test_one_look_moves_no_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    shown_on(out, as_json=False, again=False).show([standing(3)])
    assert out.getvalue() == "\n".join(standing(3).lines()) + "\n"


def test_ctrl_c_ends_it_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((120, 40)))
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    watch(lambda: [standing(1)], shown_on(out, as_json=False, again=True), 1.0)
    assert out.screen() == [*standing(1).lines(), ""]
    assert out.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize(
    ("given", "target", "found"),
    [
        ("2", None, (2.0, None)),
        ("0.5", Path("runs"), (0.5, Path("runs"))),
        ("runs/x", None, (watching.EVERY_S, Path("runs/x"))),
    ],
)
def test_what_follows_watch_is_seconds_or_the_run(
    given: str, target: Path | None, found: tuple[float, Path | None]
) -> None:
    assert interval(given, target) == found


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "1e9", "0.01"])
def test_an_interval_that_cannot_be_waited_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match=f"--watch {given}") as caught:
        interval(given, None)
    assert caught.value.exit_code == 2


def test_a_second_word_that_is_no_number_is_refused() -> None:
    with pytest.raises(UsageError, match="--watch often") as caught:
        interval("often", Path("runs"))
    assert "from 0.1" in caught.value.hint


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.text("ab —界e\u0301", max_size=40), st.integers(2, 12))
def test_folding_loses_nothing_and_no_row_is_too_wide(line: str, columns: int) -> None:
    rows = fold(line, columns)
    assert "".join(rows) == line
    assert all(sum({"界": 2, "\u0301": 0}.get(letter, 1) for letter in row) <= columns for row in rows)
    assert rows == [""] or "" not in rows
