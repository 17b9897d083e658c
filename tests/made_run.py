"""Run directories made without sending anything: records written as a run writes them, sealed or still in journals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.columns import attempt_record, record, tally
from runner.journal import Head, Journal, attempt_line, record_line
from runner.parts import Range, seal, write_empty
from runner.prepare import Asked, Prepared, load, prepare, take_survey
from runner.records import Attempt, Settled, Tally
from runner.recovery import ranges_of
from runner.store import FORMAT, RunDirectory

RUN = "r-1"


@dataclass(frozen=True)
class MadeRun:
    """A run of the job in `root`, without any final row at first."""

    prepared: Prepared
    directory: RunDirectory

    @property
    def ranges(self) -> list[Range]:
        return ranges_of(self.prepared.survey, {"run": RUN, "epoch": 1})

    def keep(self, number: int, rows: Sequence[Settled], tries: Mapping[int, Attempt] | None = None) -> None:
        """Write the records of rows, and exchanges of rows that are not final, into a range's journal."""
        part = self.ranges[number]
        head = Head(RUN, number, part.epoch, part.rows, part.input_hash)
        journal = Journal(self.directory.journal(number), head)
        for row in rows:
            journal.append(record_line(record(row, self.prepared.spec), journal.seed))
        for index, attempt in (tries or {}).items():
            journal.append(attempt_line(index, attempt_record(attempt), journal.seed))
        journal.sync()
        journal.close()

    def seal(self, number: int, rows: Sequence[Settled]) -> None:
        """Make a range a part."""
        self.keep(number, rows)
        totals = Tally()
        for row in rows:
            totals.add(tally(record(row, self.prepared.spec)))
        paths = self.directory.journal(number), self.directory.part(number)
        names = self.prepared.input_columns
        seal(self.ranges[number], totals, paths, self.prepared.shape, lambda: self.prepared.reader.table(number, names))
        paths[0].unlink()

    def end_empty(self) -> None:
        """The one part of a run without rows."""
        part = Range(RUN, 0, 0, 0, 1, "")
        write_empty(part, self.directory.journals, self.directory.part(0), self.prepared.shape)


def made_run(root: Path, rows: Sequence[Mapping[str, Any]], **job: Any) -> MadeRun:
    """rows: the input, as JSON lines. job: members of the job file beside name, input and endpoint."""
    root.mkdir(parents=True, exist_ok=True)
    given = {"path": "rows.jsonl"} | job.pop("input", {})
    if given["path"] == "rows.jsonl":
        lines = (json.dumps(row) + "\n" for row in rows)
        (root / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    plain = {
        "name": "made",
        "input": given,
        "request": {"model": "m-1", "messages": [{"role": "user", "content": "say {{ text }}"}]},
        "endpoint": {"base_url": "https://api.example.com/v1", "api_key_env": "TRIAL_KEY"},
    }
    (root / "job.yaml").write_text(json.dumps(plain | job), encoding="utf-8")
    loaded = load(Asked(root / "job.yaml"))
    taken = take_survey(loaded, None, lambda done, total: None)
    directory = RunDirectory(loaded.run_root)
    directory.claim()
    directory.furnish()
    members = {"format": FORMAT, "run": RUN, "epoch": 1, "simulated": False, "name": "made"}
    directory.write("run.json", members | {"job_file": str(loaded.asked.job), "job": loaded.job.dump()})
    directory.write("survey.json", taken.to_json())
    return MadeRun(prepare(loaded, taken), directory)
