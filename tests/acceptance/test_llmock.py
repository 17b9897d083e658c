"""An endpoint by others that breaks on demand, sees every exchange with its timing, and judges its client."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from replies import WORD, Job

import runner

ROWS = 60
START_S = 30.0
ATTEMPT_S = 2.0  #: how long the job waits for an answer; half as long as one is held back
BEHAVIORS = [
    *({"type": "fail", "status": 429, "retry_after": 1} for _ in range(3)),
    {"type": "fail", "status": 500},
    {"type": "fail", "status": 503},
    {"type": "fail", "status": 400},
    {"type": "delay", "seconds": 4},
]
STREAMS = [
    {"type": "slow_first_token", "seconds": 1, "times": 6},  # each falls together with a fault; the last stands alone
    {"type": "stream_fault", "kind": "disconnect", "after_chunks": 0},
    {"type": "stream_fault", "kind": "disconnect", "after_chunks": 2},
    {"type": "stream_fault", "kind": "truncate", "after_chunks": 2},
    {"type": "stream_fault", "kind": "malformed", "after_chunks": 1},
    {"type": "stream_fault", "kind": "stall", "after_chunks": 2, "stall_seconds": 20},
]


@dataclass(frozen=True)
class Mock:
    """A running llmock."""

    root: str

    def ask(self, path: str, posted: Any = None) -> Any:
        data = None if posted is None else json.dumps(posted).encode()
        request = urllib.request.Request(self.root + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.loads(reply.read())

    def up(self) -> bool:
        try:
            self.ask("/health")
        except (urllib.error.URLError, OSError):
            return False
        return True


@contextmanager
def serving(tmp_path: Path, *rates: str) -> Iterator[Mock]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(sys.executable).with_name("llmock")
    words = ["serve", "--port", str(port), "--log-level", "warning", *rates]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLMOCK_")}
    with (tmp_path / "llmock.txt").open("wb") as talk:
        process = subprocess.Popen([script, *words], stdin=subprocess.DEVNULL, stdout=talk, stderr=talk, env=kept)
    try:
        found = Mock(f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + START_S
        while not found.up():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "llmock.txt").read_text()
            time.sleep(0.05)
        yield found
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def mock(tmp_path: Path) -> Iterator[Mock]:
    with serving(tmp_path, "--error-rate", "429=0.1", "--error-rate", "500=0.05") as mock:
        yield mock


@pytest.fixture
def steady(tmp_path: Path) -> Iterator[Mock]:
    """Without luck: a random error would use up what is scripted for a stream."""
    with serving(tmp_path) as mock:
        yield mock


def test_llmock_finds_nothing_to_complain_about(mock: Mock, tmp_path: Path) -> None:
    mock.ask("/_llmock/scenario", {"behaviors": BEHAVIORS})
    sections = {
        "limits": {"concurrency": 8},
        "retry": {"max_backoff_s": 2},
        "timeouts": {"attempt_s": ATTEMPT_S},
    }
    job = Job(tmp_path, f"{mock.root}/v1", ROWS, rows_per_part=16, sections=sections)
    ended = program(job)
    rows = job.table().to_pylist()
    seen = statuses(mock)
    verdict = mock.ask("/_llmock/verdict")

    assert (verdict["passed"], verdict["errors"]) == (True, 0), verdict["findings"]
    assert verdict["faults_injected"] >= len(BEHAVIORS)
    assert verdict["calls"] in (ROWS, ROWS + 1)  # it takes the exchange that was late for a call of its own
    assert ended.returncode == 1, ended.stderr  # the row that was told 400 is not ok
    for row in rows:
        own = seen[row["row_index"]]
        told = [attempt["http_status"] for attempt in row["attempts"] if attempt["error_kind"] != "TIMEOUT"]
        assert told == [status for status in own if status is not None], row["row_index"]
        assert len(row["attempts"]) == len(own)
        assert expected(own) == (row["status"], row["error_kind"]), own
    kinds = [attempt["error_kind"] for row in rows for attempt in row["attempts"]]
    assert {"RATE", "SERVER", "OVERLOADED", "REQUEST", "TIMEOUT"} <= set(kinds)
    assert (kinds.count("REQUEST"), kinds.count("OVERLOADED"), kinds.count("TIMEOUT")) == (1, 1, 1)


def test_llmock_finds_nothing_to_complain_about_in_streams(steady: Mock, tmp_path: Path) -> None:
    steady.ask("/_llmock/scenario", {"behaviors": STREAMS})
    sections = {
        "limits": {"concurrency": 8},
        "retry": {"max_backoff_s": 1},
        "timeouts": {"stall_s": 1},
    }
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    job = Job(tmp_path, f"{steady.root}/v1", ROWS // 2, rows_per_part=16, request=asked, sections=sections)
    ended = program(job)
    rows = job.table().to_pylist()
    verdict = steady.ask("/_llmock/verdict")
    seen = steady.ask("/_llmock/requests")["requests"]

    # A warning stays: what was sent again after a malformed chunk is another call to it, for that one ended in order.
    assert (verdict["passed"], verdict["errors"]) == (True, 0), verdict["findings"]
    assert verdict["faults_injected"] >= len(STREAMS) - 1  # a slow first token is no fault
    assert ended.returncode == 0, ended.stderr
    assert {row["status"] for row in rows} == {"ok"}
    assert all(0 < row["first_token_s"] <= row["latency_s"] for row in rows)
    assert all(row["prompt_tokens"] and row["cost_usd"] for row in rows)
    assert sum(row["first_token_s"] > 1 for row in rows) == 1
    attempts = [attempt for row in rows for attempt in row["attempts"]]
    assert len(attempts) == len(seen)
    broken = [(attempt["error_kind"], attempt["cost_usd"]) for attempt in attempts if attempt["http_status"] == 200]
    kinds = Counter(kind for kind, _ in broken if kind)
    assert kinds == {"NETWORK": 2, "BAD_REPLY": 2, "TIMEOUT": 1}
    assert [cost for kind, cost in broken if kind in ("NETWORK", "TIMEOUT")] == [None] * 3  # may have been billed


def program(job: Job) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNNER_")}
    return subprocess.run(
        [sys.executable, "-m", "runner", "run", str(job.file)],
        capture_output=True,
        encoding="utf-8",
        env=kept | {"REPLIES_KEY": "sk-replies", "PYTHONPATH": str(Path(runner.__file__).parents[1])},
        timeout=60,
        check=False,
    )


def statuses(mock: Mock) -> dict[int, list[int | None]]:
    """What each row was answered, in order; None for an answer that came too late."""
    seen: dict[int, list[int | None]] = {}
    for record in mock.ask("/_llmock/requests")["requests"]:
        row = int(record["body"]["messages"][-1]["content"].removeprefix(WORD))
        seen.setdefault(row, []).append(None if record["duration"] > ATTEMPT_S else record["status"])
    return seen


def expected(told: list[int | None]) -> tuple[str, str | None]:
    """What a row must have become, by its last exchange."""
    return {200: ("ok", None), 400: ("failed", "REQUEST"), 500: ("failed", "SERVER")}[told[-1] or 0]
