"""An endpoint by others that breaks on demand, sees every exchange with its timing, and judges its client."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from replies import WORD, Job, program

from runner.ending import Ending

ROWS = 40
PATIENCE_S = 60.0
ATTEMPT_S, STALL_S = 2.0, 1.0  #: how long the job waits for an answer, and inside a stream
LATE_S = 3.0  #: how long llmock holds back what is too late for that
#: All of these times once more, so many times longer, where the machine stood still longer than the job waits.
SLOWER = (1, 4, 12)
TIMES = ("seconds", "stall_seconds")  #: of llmock's behaviours
#: Warnings that say nothing: full jitter may draw two like waits, and what is sent again after a malformed chunk is
#: another call to llmock, for that one had ended in order.
WARNED = {"no_backoff", "malformed_chunk_ignored"}
RETRIED = {"on_invalid": {"attempts": 1, "feedback": True}, "on_truncation": {"factor": 2, "max_tokens": 400}}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
        },
    }
]


@dataclass(frozen=True)
class Row:
    """What llmock does to a row, and what must become of it: its status, and the kind of each exchange (None: an
    answer). Where a stream is broken, or the job asks again, `streamed` and `retried` say what becomes of it then."""

    script: list[dict[str, Any]]
    status: str = "ok"
    kinds: tuple[str | None, ...] = (None,)
    streamed: tuple[str | None, ...] | None = None
    retried: tuple[str | None, ...] | None = None
    tools: bool = False

    def expected(self, stream: bool, retries: bool) -> tuple[str, tuple[str | None, ...]]:
        if stream and self.streamed:
            return "ok", self.streamed
        return ("ok", self.retried) if retries and self.retried else (self.status, self.kinds)


def fail(status: int, **more: Any) -> list[dict[str, Any]]:
    return [{"type": "fail", "status": status, **more}]


def broken(kind: str, after_chunks: int, **more: Any) -> list[dict[str, Any]]:
    return [{"type": "stream_fault", "kind": kind, "after_chunks": after_chunks, **more}]


#: By the name of the row's model: what is asked for a model is done to no other.
TABLE: dict[str, Row] = {
    "plain": Row([]),
    "plain-tools": Row([], tools=True),
    **{f"rate-{after}": Row(fail(429, retry_after=after), kinds=("RATE", None)) for after in (0.5, 1)},
    "rate-again": Row(fail(429, retry_after=0.3, times=3), kinds=("RATE", "RATE", "RATE", None)),
    "rate-no-hint": Row(fail(429), kinds=("RATE", None)),
    "no-quota": Row(fail(429, retry_after=0.3, message="slow_down"), kinds=("RATE", None)),
    "overloaded": Row(fail(503, retry_after=0.5), kinds=("OVERLOADED", None)),
    "overloaded-529": Row(fail(529), kinds=("OVERLOADED", None)),
    **{f"server-{status}": Row(fail(status), kinds=("SERVER", None)) for status in (500, 502, 504)},
    **{f"timeout-{status}": Row(fail(status), kinds=("TIMEOUT", None)) for status in (408, 409)},
    "server-for-ever": Row(fail(500, times=3), "failed", ("SERVER", "SERVER", "SERVER")),
    "server-soon": Row(fail(500, retry_after=0.5), kinds=("SERVER", None)),
    **{f"request-{status}": Row(fail(status), "failed", ("REQUEST",)) for status in (400, 413, 422)},
    "no-such-model": Row(fail(404), "failed", ("CONFIG",)),
    "too-long": Row(fail(400, code="context_length_exceeded"), "failed", ("REQUEST",)),
    "not-this": Row(fail(400, code="content_policy_violation"), "failed", ("POLICY",)),
    "delay": Row([{"type": "delay", "seconds": 0.5}]),
    "delay-too-long": Row([{"type": "delay", "seconds": LATE_S}], kinds=("TIMEOUT", None)),
    "slow-first-token": Row([{"type": "slow_first_token", "seconds": STALL_S + 0.3}]),
    "disconnect-at-once": Row(broken("disconnect", 0), streamed=("NETWORK", None)),
    "disconnect": Row(broken("disconnect", 2), streamed=("NETWORK", None)),
    "truncate": Row(broken("truncate", 2), streamed=("BAD_REPLY", None)),
    "malformed": Row(broken("malformed", 1), streamed=("BAD_REPLY", None)),
    "stall": Row(broken("stall", 2, stall_seconds=20), streamed=("TIMEOUT", None)),
    "disconnect-tools": Row(broken("disconnect", 2), streamed=("NETWORK", None), tools=True),
    "truncate-tools": Row(broken("truncate", 2), streamed=("BAD_REPLY", None), tools=True),
    **{
        kind: Row([{"type": "tool_fault", "kind": kind}], "failed", ("OUTPUT",), retried=("OUTPUT", None), tools=True)
        for kind in ("malformed_arguments", "unknown_tool")
    },
    "length": Row([{"type": "reply", "text": "cut", "finish_reason": "length"}], "truncated", retried=(None, None)),
    "filtered": Row([{"type": "reply", "text": "", "finish_reason": "content_filter"}], "filtered"),
}


@dataclass(frozen=True)
class Mock:
    """A running llmock."""

    root: str

    def ask(self, path: str, posted: Any = None) -> Any:
        data = None if posted is None else json.dumps(posted).encode()
        request = urllib.request.Request(self.root + path, data, {"content-type": "application/json"})
        directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with directly.open(request, timeout=PATIENCE_S) as reply:
            return json.loads(reply.read())

    def told(self, path: str, exchanges: int) -> Any:
        """What it says at `path` once all these have ended: it may still be serving one that the job has left."""
        deadline = time.monotonic() + PATIENCE_S
        while self.ask("/_llmock/requests")["count"] < exchanges and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.ask(path)


#: llmock on a socket that is ours, whose number is the argument, with connections that may be idle: its own command
#: takes a port that somebody else may have by then, and closes what was idle for 5 s under the next request.
_PROGRAM = """
import socket, sys, uvicorn
served = {"factory": True, "log_level": "warning", "timeout_keep_alive": 3600}
uvicorn.Server(uvicorn.Config("llmock.main:create_app", **served)).run([socket.socket(fileno=int(sys.argv[1]))])
"""


@contextmanager
def serving(tmp_path: Path, **rates: float) -> Iterator[Mock]:
    """rates: of errors, as s429=0.1."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLMOCK_")}
    kept |= {f"LLMOCK_ERROR_RATE_{name.removeprefix('s')}": str(rate) for name, rate in rates.items()}
    with socket.create_server(("127.0.0.1", 0), backlog=256) as ours, (tmp_path / "llmock.txt").open("wb") as talk:
        words = [sys.executable, "-c", _PROGRAM, str(ours.fileno())]
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": talk, "stderr": talk}
        process = subprocess.Popen(words, **streams, env=kept, pass_fds=[ours.fileno()])
        port = ours.getsockname()[1]
    try:
        found = Mock(f"http://127.0.0.1:{port}")
        assert found.ask("/health")["status"] == "ok", (tmp_path / "llmock.txt").read_text()
        yield found
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def unsteady(tmp_path: Path) -> Iterator[Mock]:
    with serving(tmp_path, s429=0.1, s500=0.05) as mock:
        yield mock


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mock]:
    with serving(tmp_path_factory.mktemp("llmock")) as mock:
        yield mock


@pytest.mark.parametrize("retries", [False, True], ids=["kept", "asked again"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_llmock_finds_nothing_to_complain_about_whatever_it_does(
    stream: bool, retries: bool, shared: Mock, tmp_path: Path
) -> None:
    for slower in SLOWER:
        ending, rows = trial(shared, tmp_path / f"{slower}", (stream, retries), slower)
        found = {name: (row["status"], kinds_of(row)) for name, row in rows.items()}
        wanted = {name: row.expected(stream, retries) for name, row in TABLE.items()}
        if not stood_still(found, wanted):
            break
    exchanges = sum(len(row["attempts"]) for row in rows.values())
    seen = shared.told("/_llmock/requests", exchanges)["requests"]
    verdict = shared.told("/_llmock/verdict", exchanges)

    assert found == wanted
    assert ending.exit_code == 1  # some are not ok
    assert (verdict["passed"], verdict["errors"]) == (True, 0), verdict["findings"]
    assert {finding["code"] for finding in verdict["findings"]} <= WARNED
    assert verdict["faults_injected"] == sum(record["fault"] is not None for record in seen) >= faults(stream)
    assert Counter(record["body"]["model"] for record in seen) == {n: len(r["attempts"]) for n, r in rows.items()}
    for name, row in rows.items():
        answered = row["status"] in ("ok", "truncated", "filtered")
        assert (row["cost_usd"] is not None) == (answered or row["error_kind"] == "OUTPUT"), name
        assert (row["first_token_s"] is not None) == (stream and bool(row["content"] or row["tool_calls"])), name
        in_text = retries and TABLE[name].retried is not None  # it does not call a tool twice
        assert bool(row["tool_calls"]) == (TABLE[name].tools and not in_text), name
    assert rows["delay"]["latency_s"] >= 0.5 * slower
    if stream:  # before its first byte a model may think
        assert rows["slow-first-token"]["first_token_s"] > STALL_S * slower
    print(figures(stream, retries, verdict))


Story = tuple[str, tuple[str | None, ...]]  #: a status, and the kind of each exchange


def kinds_of(row: Mapping[str, Any]) -> tuple[str | None, ...]:
    return tuple(attempt["error_kind"] for attempt in row["attempts"])


def stood_still(found: Mapping[str, Story], wanted: Mapping[str, Story]) -> bool:
    """Whether answers came too late that llmock did not hold back."""
    return any(kinds.count("TIMEOUT") > wanted[name][1].count("TIMEOUT") for name, (_, kinds) in found.items())


def trial(mock: Mock, root: Path, mode: tuple[bool, bool], slower: int) -> tuple[Ending, dict[str, dict[str, Any]]]:
    """All of the table once, as (streamed, asked again); its rows by their models."""
    mock.ask("/_llmock/reset", {})
    script = [
        {"match": {"model": name}, **{what: value * slower if what in TIMES else value for what, value in act.items()}}
        for name, row in TABLE.items()
        for act in row.script
    ]
    mock.ask("/_llmock/scenario", {"behaviors": script})
    job = table_job(root, f"{mock.root}/v1", mode, slower)
    ending = job.run()
    return ending, {row["model"]: row for row in job.table().to_pylist()}


def table_job(root: Path, base_url: str, mode: tuple[bool, bool], slower: int) -> Job:
    """A row for each line of the table, which says by its model which one it is."""
    stream, retries = mode
    asked = {"model": "{{ llm }}", "tools": "{{ tools }}", "max_tokens": 100, "stream": stream}
    prices = {name: {"input": 2, "output": 8} for name in TABLE}
    sections = {
        "limits": {"concurrency": 8},
        "retry": {"max_backoff_s": 0.3} | (RETRIED if retries else {}),
        "timeouts": {"attempt_s": ATTEMPT_S * slower, "stall_s": STALL_S * slower},
        "pricing": prices,
    }
    job = Job(root, base_url, len(TABLE), rows_per_part=16, request=asked, sections=sections)
    lines = [
        {"text": f"{WORD}{place}", "llm": name, "tools": TOOLS if row.tools else None}
        for place, (name, row) in enumerate(TABLE.items())
    ]
    (root / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return job


def faults(stream: bool) -> int:
    """How many exchanges llmock breaks: each refusal, and each stream."""
    kinds = [behavior for row in TABLE.values() for behavior in row.script]
    refusals = sum(behavior.get("times", 1) for behavior in kinds if behavior["type"] == "fail")
    return refusals + sum(behavior["type"] == "stream_fault" for behavior in kinds) * stream


def figures(stream: bool, retries: bool, verdict: Mapping[str, Any]) -> str:
    behaviors = {(each["type"], each.get("kind")) for row in TABLE.values() for each in row.script}
    return (
        f"llmock, {'streamed' if stream else 'whole'}, {'asked again' if retries else 'kept'}: {len(behaviors)} "
        f"behaviours, {len(TABLE)} rows, {verdict['attempts']} exchanges, {verdict['faults_injected']} faults, "
        f"{verdict['errors']} FAIL, {verdict['warnings']} WARN"
    )


def test_llmock_finds_nothing_to_complain_about_in_bad_weather(unsteady: Mock, tmp_path: Path) -> None:
    unsteady.ask("/_llmock/scenario", {"behaviors": fail(429, retry_after=1, times=3) + fail(503) + fail(400)})
    sections = {"limits": {"concurrency": 8}, "retry": {"max_backoff_s": 1}}
    job = Job(tmp_path, f"{unsteady.root}/v1", ROWS, rows_per_part=16, sections=sections)
    ended = program(job)
    rows = job.table().to_pylist()
    seen = statuses(unsteady)
    verdict = unsteady.ask("/_llmock/verdict")

    assert (verdict["passed"], verdict["errors"]) == (True, 0), verdict["findings"]
    assert verdict["calls"] == ROWS
    assert ended.code == 1, ended.err  # the row that was told 400 is not ok
    for row in rows:
        own = seen[row["row_index"]]
        assert [attempt["http_status"] for attempt in row["attempts"]] == own, row["row_index"]
        assert expected(own) == (row["status"], row["error_kind"]), own
    kinds = Counter(attempt["error_kind"] for row in rows for attempt in row["attempts"])
    assert kinds["RATE"] >= 3
    assert (kinds["REQUEST"], kinds["OVERLOADED"]) == (1, 1)


def statuses(mock: Mock) -> dict[int, list[int]]:
    """What each row was answered, in order."""
    seen: dict[int, list[int]] = {}
    for record in mock.ask("/_llmock/requests")["requests"]:
        row = int(record["body"]["messages"][-1]["content"].removeprefix(WORD))
        seen.setdefault(row, []).append(record["status"])
    return seen


def expected(told: list[int]) -> tuple[str, str | None]:
    """What a row must have become, by its last exchange."""
    return {200: ("ok", None), 400: ("failed", "REQUEST"), 500: ("failed", "SERVER")}[told[-1]]
