"""`runner status --watch`: how far runs are, told again and again until they end.

Rule: on a terminal the lines are drawn over the last ones and never scroll; elsewhere each look is a block of its own,
or with --json a line a run, flushed at once. Only cursor movements are used, no colours, and none on a dumb terminal.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

from runner.errors import UsageError
from runner.say import plain
from runner.standing import RunStatus

EVERY_S = 2.0
LEAST_S, MOST_S = 0.1, 86_400.0
#: Up so many lines; clear from here to the end; clear the line, over a ^C that the terminal has echoed.
_UP, _CLEAR, _CLEAR_LINE = "\x1b[{}A", "\x1b[J", "\r\x1b[K"


class Shown(Protocol):
    """Where looks go."""

    def show(self, found: Sequence[RunStatus]) -> None: ...

    def leave(self) -> None:
        """Ctrl-C."""


def interval(given: str, target: Path | None) -> tuple[float, Path | None]:
    """Seconds between two looks, and what is looked at: in `--watch runs/x` the run is no number of seconds."""
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0 if target else EVERY_S
        target = target or Path(given)
    if not LEAST_S <= seconds <= MOST_S:
        raise UsageError(f"--watch {given}: not a number of seconds", hint=f"from {LEAST_S:g} to {MOST_S:,.0f}")
    return seconds, target


def watch(look: Callable[[], Sequence[RunStatus]], shown: Shown, every_s: float) -> None:
    """Until no run goes on any more, or Ctrl-C."""
    try:
        while True:
            found = look()
            shown.show(found)
            if not _going(found):
                return
            time.sleep(every_s)
    except KeyboardInterrupt:
        shown.leave()


def shown_on(out: TextIO, *, as_json: bool, again: bool) -> Shown:
    """How looks are shown on this stream. again: there will be more than one."""
    if as_json:
        return _Json(out)
    if again and out.isatty() and os.environ.get("TERM") != "dumb":
        return _Screen(out)
    return _Blocks(out)


def _going(found: Sequence[RunStatus]) -> bool:
    return any(each.state == "running" for each in found)


def _lines(found: Sequence[RunStatus]) -> list[str]:
    return [plain(line) for each in found for line in each.lines()]


def _write(out: TextIO, lines: Sequence[str]) -> None:
    out.write("".join(f"{line}\n" for line in lines))
    out.flush()


@dataclass(slots=True)
class _Json:
    """One line a run."""

    out: TextIO

    def show(self, found: Sequence[RunStatus]) -> None:
        _write(self.out, [json.dumps(each.to_json(), ensure_ascii=False) for each in found])

    def leave(self) -> None:
        pass


@dataclass(slots=True)
class _Blocks:
    """One block a look, an empty line between two."""

    out: TextIO
    _between: tuple[str, ...] = ()

    def show(self, found: Sequence[RunStatus]) -> None:
        _write(self.out, [*self._between, *_lines(found)])
        self._between = ("",)

    def leave(self) -> None:
        pass


@dataclass(slots=True)
class _Screen:
    """One block, drawn over the last. Lines are folded here, so that it is known how many there are."""

    out: TextIO
    _height: int = 0

    def show(self, found: Sequence[RunStatus]) -> None:
        size = shutil.get_terminal_size()
        rows = [row for line in _lines(found) for row in fold(line, max(2, size.columns - 1))]
        if _going(found) and len(rows) > size.lines - 1:  # what scrolls off the top cannot be drawn over
            rows = [*rows[: max(1, size.lines - 2)], "…"]
        self.out.write(_CLEAR_LINE + (_UP.format(self._height) if self._height else "") + _CLEAR)
        _write(self.out, rows)
        self._height = len(rows)

    def leave(self) -> None:
        self.out.write(_CLEAR_LINE)
        self.out.flush()


def fold(line: str, columns: int) -> list[str]:
    """A line as rows of at most so many columns: letters of East Asian scripts take two, combining marks none."""
    rows, width = [""], 0
    for letter in line:
        wide = 0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if width + wide > columns:
            rows.append("")
            width = 0
        rows[-1] += letter
        width += wide
    return rows
