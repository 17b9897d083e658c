"""A run that another version wrote, or that is damaged, is refused in words by whoever reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from runner.bill import bill
from runner.errors import RunDirectoryError
from runner.reading import read_table
from runner.store import ESSENTIAL, FORMAT
from tests.made_run import MadeRun, made_run
from tests.reported import REQUEST, answer, attempt, settled


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    made = made_run(tmp_path / "run", [{"text": "a"}, {"text": "b"}], request=REQUEST)
    made.seal(0, [settled(0, answer("spam"), attempt(1, "0.1")), settled(1, answer("ham"), attempt(1, "0.2"))])
    return made


def refusal(made: MadeRun, **members: Any) -> RunDirectoryError:
    """What a reader says once these members of run.json are changed; ... takes one away."""
    known = (made.directory.read_run() or {}) | members
    made.directory.write("run.json", {name: value for name, value in known.items() if value is not ...})
    with pytest.raises(RunDirectoryError) as caught:
        bill([made.directory.root])
    assert (caught.value.exit_code, "the version that started" in caught.value.hint) == (2, True)
    return caught.value


@pytest.mark.parametrize("name", ESSENTIAL)
def test_a_run_json_that_lacks_what_every_version_writes_is_refused(run: MadeRun, name: str) -> None:
    said = refusal(run, **{name: ...}).message
    assert said == f"{run.directory.root / 'run.json'} is damaged, or of another version of runner: it lacks {name}"


@pytest.mark.parametrize("number", [FORMAT + 1, 0, None, ...])
def test_another_format_is_refused(run: MadeRun, number: Any) -> None:
    found = None if number is ... else number
    said = refusal(run, format=number).message
    assert said.endswith(f"was written by another version of runner (format {found}, this one writes {FORMAT})")


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ({"gone": 1}, "gone: unknown key"),
        ({"limits": {"bursts": 3}}, "limits.bursts: unknown key"),
        ({"request": ...}, "request: is required"),
        ({"budget": 3}, "budget: must be a mapping, not a number"),
    ],
)
def test_a_kept_job_that_this_version_does_not_know_is_refused(run: MadeRun, job: dict[str, Any], words: str) -> None:
    kept = (run.directory.read_run() or {})["job"] | job
    said = refusal(run, job={name: value for name, value in kept.items() if value is not ...}).message
    assert said.startswith(f"the run's job is damaged, or of another version of runner: {run.directory.root}")
    assert f"run.json: {words}" in said


def test_a_part_that_lacks_a_column_or_a_member_of_one_is_refused(run: MadeRun) -> None:
    path = run.directory.part(0)
    whole = pq.read_table(path, partitioning=None)
    pq.write_table(whole.drop_columns(["finished_at"]), path)
    with pytest.raises(RunDirectoryError, match=r"part-00000\.parquet is damaged, or .* it has no column finished_at$"):
        bill([run.directory.root])
    assert read_table(run.directory, ["content"]).num_rows == 2  # who does not need it reads on
    exchanges = whole["attempts"].to_pylist()
    fewer = [[{name: each[name] for name in each if name != "cost_usd"} for each in row] for row in exchanges]
    place = whole.column_names.index("attempts")
    pq.write_table(whole.set_column(place, "attempts", [fewer]).replace_schema_metadata(whole.schema.metadata), path)
    with pytest.raises(RunDirectoryError, match=r"it has no column attempts\.list\.element\.cost_usd$"):
        bill([run.directory.root])
