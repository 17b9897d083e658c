"""An endpoint that answers by a script and remembers what reached it, and a place where the program is run against it.

Rule: the program is a process of its own, spoken to with words, files, signals and sockets; nothing of it is imported
to steer it. A command is a fork of a process that has imported it (nursery.py); `Place.exec` starts a fresh interpreter
where that matters.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nursery
import pyarrow as pa
import pyarrow.parquet as pq
from nursery import Child, Order
from serving import PATIENCE_S, Heard, Served, reply

KEY = "sk-acceptance-0123456789"


@dataclass(frozen=True)
class Seen:
    """A request that arrived whole."""

    number: int  #: from 0, in order of arrival
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """The last message: it says which row this is."""
        return str(self.body["messages"][-1]["content"])


@dataclass(frozen=True)
class Said:
    """A reply."""

    status: int = 200
    body: Any = None  #: bytes and text as they are, anything else as JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0  #: since `once`
    once: Callable[[], object] = lambda: True  #: it is not said before this is so

    def wire(self) -> bytes:
        body = self.body if isinstance(self.body, bytes) else _text(self.body).encode()
        return reply(self.status, {"content-type": "application/json", **self.headers}, body)


USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


def ok(content: str | None = "fine", *, usage: Any = USAGE, finish: str = "stop", **message: Any) -> Said:
    """A chat completion; usage=None: without one."""
    said = {"role": "assistant", "content": content, **message}
    members = {"id": "c-1", "object": "chat.completion", "created": 1_700_000_000, "model": "m-1-2025"}
    members["choices"] = [{"index": 0, "message": said, "finish_reason": finish}]
    return Said(200, members | ({"usage": usage} if usage else {}))


def refused(status: int, message: str, code: str | None = None, **headers: str) -> Said:
    """An error in the API's shape. Headers with _ for -."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return Said(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


PAGE = Said(404, "<!DOCTYPE html><html><head><title>Not Found</title></head></html>", {"content-type": "text/html"})


@dataclass
class Endpoint(Served):
    """`with Endpoint() as endpoint:` serves on a thread; `answer` may be replaced at any time."""

    answer: Callable[[Seen], Said] = lambda seen: ok()
    seen: list[Seen] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return self.base_url

    async def exchange(self, heard: Heard, writer: asyncio.StreamWriter) -> None:
        seen = Seen(len(self.seen), heard.path, heard.headers, json.loads(heard.body or b"{}"))
        self.seen.append(seen)
        said = self.answer(seen)
        while not said.once():
            await asyncio.sleep(0.005)
        await asyncio.sleep(said.delay_s)
        writer.write(said.wire())


def _text(body: Any) -> str:
    return body if isinstance(body, str) else json.dumps(body)


def environment(**more: str) -> dict[str, str]:
    """Ours, with a key, and without settings of the program."""
    return nursery.environment(**({"TRIAL_KEY": KEY} | more))


@dataclass
class Life:
    """A command that was started."""

    child: Child
    out_path: Path
    err_path: Path

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def out(self) -> str:
        return self.out_path.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return self.err_path.read_text(encoding="utf-8")

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and its end."""
        self.child.kill()

    def wait(self) -> Done:
        """Its end. Fails with its own words when it does not come, or shows a traceback."""
        try:
            code = self.child.wait(PATIENCE_S)
        except TimeoutError:
            self.kill()
            raise AssertionError(f"still running after {PATIENCE_S} s, having said:\n{self.err}") from None
        done = Done(code, self.out if self.out_path.is_file() else "", self.err)
        assert "Traceback" not in done.err, done.err
        return done


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The last line of `--json`."""
        members: dict[str, Any] = json.loads(self.out.rstrip("\n").split("\n")[-1])
        return members

    @property
    def errors(self) -> list[str]:
        """The sentences after `error: `."""
        return [line.removeprefix("error: ") for line in self.err.split("\n") if line.startswith("error: ")]

    @property
    def hint(self) -> str:
        return self.err.partition("\n\nhint: ")[2].strip()


@dataclass
class Place:
    """A directory with a job and its input, an endpoint, and the commands run there."""

    root: Path
    endpoint: Endpoint
    commands: int = 0

    @property
    def run_root(self) -> Path:
        return self.root / "runs" / "trial"

    @property
    def sent(self) -> int:
        return len(self.endpoint.seen)

    def rows(self, count: int, name: str = "rows.jsonl") -> Path:
        """An input of {"id": 0, "text": "row 0"}, …"""
        path = self.root / name
        lines = (json.dumps({"id": number, "text": f"row {number}"}) + "\n" for number in range(count))
        path.write_text("".join(lines), encoding="utf-8")
        return path

    def job(self, **changes: Any) -> Path:
        """Write job.yaml: the plain job with `changes` laid over it (JSON is YAML)."""
        path = self.root / "job.yaml"
        path.write_text(json.dumps(_laid_over(self._plain(), changes), indent=1), encoding="utf-8")
        return path

    def _plain(self) -> dict[str, Any]:
        messages = [{"role": "user", "content": "say {{ text }}"}]
        return {
            "name": "trial",
            "input": {"path": "rows.jsonl"},
            "request": {"model": "m-1", "messages": messages, "max_completion_tokens": 20},
            "endpoint": {"base_url": self.endpoint.url, "api_key_env": "TRIAL_KEY"},
            "limits": {"concurrency": 4},
            "retry": {"max_backoff_s": 0.2},
            "timeouts": {"auth_wait_s": 1},
            "pricing": {"m-1": {"input": 2, "cached_input": 0.5, "output": 8}},
        }

    def start(self, *words: str, tty: str | None = None, program: str | None = None, **more: Any) -> Life:
        """`runner WORDS` in the place. tty: a terminal's path for its three streams; program: Python in the place of
        the command line's; more: paths for `stdin` and `out`, and the rest for the environment."""
        self.commands += 1
        stdin = more.pop("stdin", os.devnull)
        out, err = more.pop("out", self._said("out")), self._said("err")
        streams = (tty, tty, tty) if tty else (str(stdin), str(out), str(err))
        order = Order(words, self.root, environment(**more), *streams, **({"program": program} if program else {}))
        return Life(nursery.start(order), out, err)

    def _said(self, stream: str) -> Path:
        path = self.root / f"{stream}-{self.commands}.txt"
        path.touch()
        return path

    def call(self, *words: str, **env: str) -> Done:
        """`runner WORDS` to its end."""
        return self.start(*words, **env).wait()

    def run(self, *words: str, **env: str) -> Done:
        """`runner run job.yaml WORDS` to its end."""
        return self.call("run", "job.yaml", *words, **env)

    def exec(self, *words: str, **env: str) -> Done:
        """`python -m runner WORDS` in an interpreter of its own."""
        command = [sys.executable, "-m", "runner", *words]
        settings: dict[str, Any] = {"cwd": self.root, "env": environment(**env), "timeout": PATIENCE_S}
        ended = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, **settings)
        assert "Traceback" not in ended.stderr, ended.stderr
        return Done(ended.returncode, ended.stdout, ended.stderr)

    def results(self, root: Path | None = None) -> Any:
        """The parts of a finished run as one Arrow table."""
        parts = sorted(((root or self.run_root) / "results").glob("part-*.parquet"))
        return pa.concat_tables([pq.read_table(part, partitioning=None) for part in parts])

    def records(self, root: Path | None = None) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.results(root).to_pylist()
        return rows


def _laid_over(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    merged = {**below, **{name: _laid_over(below.get(name), value) for name, value in above.items()}}
    return {name: value for name, value in merged.items() if value is not None}


def until(condition: Callable[[], object], *, within_s: float = PATIENCE_S) -> bool:
    """Wait for something to become true; whether it did."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return False


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file under `root`, to see that nothing was touched."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
