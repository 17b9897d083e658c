"""What `status` tells: how far a run is, read from its directory."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import LaterError
from runner.halts import duration
from runner.lock import is_held, read_owner
from runner.parts import totals_to_json
from runner.reading import open_directory, ranges_in, undisturbed
from runner.records import Tally
from runner.recovery import look
from runner.say import dollars
from runner.store import RunDirectory


@dataclass(frozen=True, slots=True)
class RunStatus:
    """One run at this moment. `live`: what the process that works on it said last; None when it has said nothing yet,
    or when none works on it."""

    root: Path
    name: str
    simulated: bool
    rows: int
    totals: Tally
    finished: bool
    owner: dict[str, object] | None
    live: dict[str, Any] | None

    @property
    def state(self) -> str:
        return "running" if self.owner else "finished" if self.finished else "stopped"

    def to_json(self) -> dict[str, Any]:
        return {
            "run": str(self.root),
            "name": self.name,
            "simulated": self.simulated,
            "state": self.state,
            "rows": self.rows,
            "settled": self.totals.settled,
            "not_ok": self.totals.not_ok,
            "totals": totals_to_json(self.totals),
            "pid": self.owner["pid"] if self.owner else None,
            "live": self.live,
        }

    def lines(self) -> list[str]:
        """For people."""
        share = 100 * self.totals.settled / self.rows if self.rows else 100.0
        mark = " (simulated)" if self.simulated else ""
        lines = [
            f"{self.root}{mark}: {self.state}",
            f"  {self.totals.settled:,} of {self.rows:,} rows ({share:.0f} %): {outcomes(self.totals)}",
            f"  {money(self.totals)}",
        ]
        if self.owner:
            lines.append(f"  process {self.owner['pid']} on {self.owner['host']} since {self.owner['since']}")
        if self.owner and self.live:
            lines += [f"  {words}" for words in _pace(self.live)]
        return lines


def _pace(live: dict[str, Any]) -> list[str]:
    """What status.json says of now: `12.3 rows/s, 32 in flight, 5 min left`, and what it waits for."""
    left = live.get("left_s")
    words = [
        f"{live['rows_per_s']:.1f} rows/s, {live['in_flight']} in flight" + (f", {duration(left)} left" if left else "")
    ]
    return [*words, live["waiting_for"]] if live.get("waiting_for") else words


def outcomes(totals: Tally) -> str:
    """`158 ok, 2 failed`."""
    return (
        ", ".join(f"{count:,} {status}" for status, count in sorted(totals.rows.items(), key=_ok_first)) or "none yet"
    )


def _ok_first(item: tuple[str, int]) -> tuple[bool, str]:
    return item[0] != "ok", item[0]


def money(totals: Tally) -> str:
    """`$0.0123 for 163 exchanges, $0.0001 of it wasted; 2 of unknown cost`."""
    words = f"{dollars(totals.cost_usd)} for {totals.exchanges:,} exchange{'s' * (totals.exchanges != 1)}"
    words += f", {dollars(totals.wasted_usd)} of it wasted" if totals.wasted_usd else ""
    return words + (f"; {totals.unknown_exchanges:,} of unknown cost" if totals.unknown_exchanges else "")


def status_of(path: Path) -> RunStatus:
    """Read-only; right while the run goes on. Raises RunDirectoryError when `path` is no run."""
    with suppress(LaterError):
        return _status(open_directory(path))
    return _status(open_directory(path))


def _status(directory: RunDirectory) -> RunStatus:
    with undisturbed(directory):
        return _told(directory)


def _told(directory: RunDirectory) -> RunStatus:
    known = directory.read_run() or {}
    rows, ranges = ranges_in(directory)
    held = is_held(directory.lock)
    owner = read_owner(directory.lock) if held else None
    standing = look(directory, ranges, live=held)
    totals = standing.settled
    totals.add(standing.removed)
    for part in standing.open.values():
        for cost in part.pending.values():
            totals.add(cost)
    return RunStatus(
        root=directory.root,
        name=known["name"],
        simulated=known["simulated"],
        rows=rows,
        totals=totals,
        finished=directory.read("manifest.json") is not None,
        owner=owner,
        live=_live(directory, owner) if owner else None,
    )


def _live(directory: RunDirectory, owner: dict[str, object]) -> dict[str, Any] | None:
    """status.json, unless it is from a process before this one."""
    said = directory.read("status.json")
    return said if said and said["updated_at"] >= str(owner["since"]) else None


def runs_under(path: Path) -> list[Path]:
    """`path` itself when it is a run, else the runs directly below it."""
    if (path / "run.json").exists():
        return [path]
    if not path.is_dir():
        return []
    return sorted(
        child for child in path.iterdir() if RunDirectory(child).root.is_dir() and (child / "run.json").exists()
    )
