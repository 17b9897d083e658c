"""A tool loop as a chain of jobs: the commands that the example names, run as they stand there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from endpoint import environment
from nursery import SOURCE

ROWS = 12


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The example's jobs over the first rows of their input."""
    for name in ("reply_search.yaml", "reply_write.yaml"):
        (tmp_path / "jobs").mkdir(exist_ok=True)
        shutil.copy(SOURCE / "jobs" / name, tmp_path / "jobs")
    tickets = (SOURCE / "sample_data" / "tickets.jsonl").read_bytes().split(b"\n")[:ROWS]
    (tmp_path / "sample_data").mkdir()
    (tmp_path / "sample_data" / "tickets.jsonl").write_bytes(b"\n".join([*tickets, b""]))
    return tmp_path


def commands(job: Path) -> str:
    """The lines of the job's first comment that stand further in."""
    comment = job.read_text(encoding="utf-8").split("\n\nname:")[0].split("\n")
    return "\n".join(line.removeprefix("#   ") for line in comment if line.startswith("#   "))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def shell(script: str, place: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settled = {"cwd": place, "env": environment(PATH=path), "capture_output": True, "text": True, "timeout": 120}
    done = subprocess.run(["sh", "-e", "-c", script], check=False, **settled)
    assert done.returncode == 0, done.stderr


def test_the_commands_of_the_tool_loop_run_as_they_stand(checkout: Path) -> None:
    shell(commands(checkout / "jobs" / "reply_search.yaml"), checkout)
    history = [line["history"] for line in lines(checkout / "jobs/runs/answered.jsonl")]
    assert [[message["role"] for message in told] for told in history] == [
        ["system", "user", "assistant", "tool"]
    ] * ROWS
    assert all(told[3]["tool_call_id"] == told[2]["tool_calls"][0]["id"] for told in history)
    rows = pq.read_table(checkout / "jobs/runs/reply_write.simulated/results").to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * ROWS
    assert all(row["content"] and row["gold"] for row in rows)

    shell("runner export jobs/reply_write.yaml --simulate -f messages -o jobs/runs/replies.jsonl", checkout)
    longer = lines(checkout / "jobs/runs/replies.jsonl")
    for line, told, row in zip(longer, history, rows, strict=True):
        assert line["history"][:4] == told
        assert [message["role"] for message in line["history"][4:]] == ["user", "assistant"]
        assert line["history"][5]["content"] == row["content"]
        assert line["title"] and line["ticket_id"] == row["ticket_id"]
