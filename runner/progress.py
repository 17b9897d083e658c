"""How far a run is: a bar on a terminal, a plain line every 30 s elsewhere, status.json every 10 s.

Rule: the only import of tqdm. Strategy: a `Snapshot` is taken from the books now and then; everything shown is
arithmetic over two snapshots, so nothing is counted a second time here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from runner.halts import duration
from runner.say import Say, dollars

LINE_EVERY_S = 30.0
BAR_EVERY_S = 0.5
STATUS_EVERY_S = 10.0
#: A pass over the input that is done by then shows nothing.
DELAY_S = 1.0
WIDE_COLUMNS = 110
_WIDE = "{n_fmt}/{total_fmt} rows {bar} {percentage:3.0f}%{postfix}"
_NARROW = "{n_fmt}/{total_fmt} {percentage:.0f}%{postfix}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run at a moment. `at_s`: seconds since this process began to send."""

    at_s: float
    rows: int
    settled: int
    settled_here: int
    not_ok: int
    tokens_here: int
    cost_usd: Decimal
    unknown_exchanges: int
    in_flight: int
    waiting_for: str | None = None

    @property
    def rows_per_s(self) -> float:
        return self.settled_here / self.at_s if self.at_s > 0 else 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens_here / self.at_s if self.at_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds to the end at the pace so far; None while nothing has settled."""
        return (self.rows - self.settled) / self.rows_per_s if self.settled_here else None

    def words(self) -> str:
        """`412 of 1,200 rows (34 %), 12.3 rows/s, …` in one line."""
        share = 100 * self.settled / self.rows if self.rows else 100.0
        parts = [f"{self.settled:,} of {self.rows:,} rows ({share:.0f} %)", *self.details()]
        if self.left_s is not None:
            parts.append(f"{duration(round(self.left_s))} left")
        return ", ".join(parts)

    def brief(self) -> str:
        """The same for a bar of 80 columns."""
        left = [] if self.left_s is None else [f"{duration(round(self.left_s))} left"]
        tokens = f"{self.tokens_per_s / 1000:.0f}k" if self.tokens_per_s >= 1000 else f"{self.tokens_per_s:.0f}"
        parts = [*left, f"{self.rows_per_s:.3g} rows/s", f"{tokens} tokens/s", dollars(self.cost_usd)]
        parts += [f"{self.not_ok} not ok", f"{self.in_flight} in flight"]
        return " ".join([*parts, self.waiting_for] if self.waiting_for else parts)

    def details(self) -> list[str]:
        unknown = f" + {self.unknown_exchanges} unknown" if self.unknown_exchanges else ""
        parts = [
            f"{self.rows_per_s:.1f} rows/s",
            f"{self.tokens_per_s:,.0f} tokens/s",
            f"{dollars(self.cost_usd)}{unknown}",
            f"{self.not_ok} not ok",
            f"{self.in_flight} in flight",
        ]
        return [*parts, self.waiting_for] if self.waiting_for else parts

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "settled": self.settled,
            "not_ok": self.not_ok,
            "cost_usd": str(self.cost_usd),
            "unknown_exchanges": self.unknown_exchanges,
            "in_flight": self.in_flight,
            "rows_per_s": round(self.rows_per_s, 3),
            "tokens_per_s": round(self.tokens_per_s, 1),
            "left_s": None if self.left_s is None else round(self.left_s, 1),
            "waiting_for": self.waiting_for,
        }


class Progress:
    """Shows snapshots. `with Progress(say, rows) as progress: progress.show(snapshot)`."""

    def __init__(self, say: Say, rows: int, done: int) -> None:
        self._say = say
        self._rows = rows
        self._done = done
        self._bar: Any = None
        self._wide = shutil.get_terminal_size().columns >= WIDE_COLUMNS
        self._next_line_s = LINE_EVERY_S

    @property
    def every_s(self) -> float:
        """How often it likes to be shown something."""
        return BAR_EVERY_S

    def __enter__(self) -> Progress:
        if self._say.on_terminal and not self._say.quiet and os.environ.get("TERM") != "dumb":
            from tqdm import tqdm  # 20 ms that a run without a terminal has no use for

            self._bar = tqdm(
                total=self._rows,
                initial=self._done,
                file=self._say.stream,
                unit="rows",
                dynamic_ncols=True,
                bar_format=_WIDE if self._wide else _NARROW,
                ascii=_ascii_only(self._say),
                miniters=1,
                leave=False,  # the summary says it all
            )
            self._say.around = self._aside
        return self

    def __exit__(self, *exc: object) -> None:
        self._say.around = nullcontext
        if self._bar is not None:
            self._bar.close()

    def _postfix(self, snapshot: Snapshot) -> str:
        if not self._wide:
            return snapshot.brief()
        left = [] if snapshot.left_s is None else [f"{duration(round(snapshot.left_s))} left"]
        return ", ".join([*left, *snapshot.details()])

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Take the bar off its line, let somebody write, and draw it again below."""
        self._bar.clear()
        yield
        self._bar.refresh()

    def show(self, snapshot: Snapshot) -> None:
        if self._bar is not None:
            self._bar.n = snapshot.settled
            self._bar.set_postfix_str(self._postfix(snapshot), refresh=True)
        elif snapshot.at_s >= self._next_line_s:
            self._next_line_s = snapshot.at_s + LINE_EVERY_S
            self._say.line(snapshot.words())


def _ascii_only(say: Say) -> bool:
    encoding = getattr(say.stream, "encoding", None) or "ascii"
    return "utf" not in encoding.lower()


def survey_bar(say: Say) -> tuple[Callable[[int, int], None], Callable[[], None]]:
    """(progress, close) for the pass over the input: a bar on a terminal once it takes longer than a second."""
    return _bar(say, "reading the input", "B")


def rows_bar(say: Say, what: str, rows: int) -> tuple[Callable[[int], None], Callable[[], None]]:
    """The same for a pass over rows."""
    show, close = _bar(say, what, "rows")
    return (lambda done: show(done, rows)), close


def _bar(say: Say, what: str, unit: str) -> tuple[Callable[[int, int], None], Callable[[], None]]:
    if not say.on_terminal or say.quiet:
        return (lambda done, total: None), (lambda: None)
    from tqdm import tqdm

    bar = tqdm(file=say.stream, desc=what, unit=unit, unit_scale=True, leave=False, delay=DELAY_S, dynamic_ncols=True)

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return progress, bar.close
