"""How a run ended: for people, for scripts, for the shell.

Rule: the exit code is decided here and nowhere else; `--json` says the same as the sentences.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.drawn import Sample
from runner.errors import RunnerError, UsageError
from runner.parts import totals_to_json
from runner.prepare import Asked
from runner.records import Tally

_MAX_USD = "budget.max_usd="


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended. `signal`: None when nobody interrupted it."""

    root: Path
    rows: int
    totals: Tally
    exit_code: int
    command: str
    error: RunnerError | None = None
    signal: int | None = None
    examples: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    fewer: tuple[int, str] = (0, "")  #: rows with fewer choices than were asked for, and the first of them in words
    sample: Sample | None = None  #: what it says, where only a sample was asked for and all of it is final

    @property
    def finished(self) -> bool:
        return self.totals.settled == self.rows and self.error is None

    def to_json(self) -> dict[str, Any]:
        """The last line of `--json`."""
        reason = "interrupted" if self.signal else "sampled" if self.sample else "stopped"
        return {
            "exit_code": self.exit_code,
            "reason": "finished" if self.finished else reason,
            "error": self.error.message if self.error else None,
            "hint": self.error.hint if self.error else None,
            "run": str(self.root),
            "results": str(self.root / "results"),
            "rows": self.rows,
            "totals": totals_to_json(self.totals),
            **({"sample": self.sample.to_json()} if self.sample else {}),
            "next": None if self.finished else self.command,
        }


def refusal(asked: Asked, error: RunnerError) -> dict[str, Any]:
    """The last line of `--json` for what was refused or broke before there was an ending."""
    return _without_run(asked, error.exit_code, "refused") | {"error": error.message, "hint": error.hint}


def left_early(asked: Asked, code: int) -> dict[str, Any]:
    """The last line of `--json` for a command that a signal ended before anything was sent."""
    return _without_run(asked, code, "interrupted")


def _without_run(asked: Asked, code: int, reason: str) -> dict[str, Any]:
    told = {"exit_code": code, "reason": reason, "error": None, "hint": None}
    return told | {"run": None, "results": None, "rows": None, "totals": None, "next": command_again(asked)}


def exit_code(ended: tuple[RunnerError | None, int | None], not_ok: int, allowed: int | None) -> int:
    """ended: (error, signal) that stopped the run, if any did; allowed: rows that may be not ok."""
    error, signal = ended
    if error:
        return error.exit_code
    if signal:
        return 128 + signal
    return 0 if not_ok <= (allowed or 0) else 1


def share(text: str | None, rows: int) -> int | None:
    """`5` or `2%` of the rows, as a number of rows. Raises UsageError."""
    if text is None:
        return None
    number, percent = text.removesuffix("%"), text.endswith("%")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e18 or (not percent and value != int(value)) or (percent and value > 100):
        raise UsageError(f"`{text}` is neither a number of rows nor a share such as 2%")
    return int(rows * value / 100) if percent else int(value)


def command_again(asked: Asked, sample: int | None = None) -> str:
    """The command that goes on with this run. A job that is in no file is in the run's directory, once it has one.

    sample: the size of a sample that is not complete."""
    drawing = ["--sample", str(sample)] if sample else []
    if asked.members is not None:
        return shlex.join(["runner", "run", str(asked.output), *drawing])
    words = ["runner", "run", str(asked.job)]
    words += ["--simulate"] if asked.simulate else []
    words += ["-o", str(asked.output)] if asked.output else []
    for text in asked.sets:
        words += ["--max-usd", text.removeprefix(_MAX_USD)] if text.startswith(_MAX_USD) else ["--set", text]
    return shlex.join([*words, *drawing])
