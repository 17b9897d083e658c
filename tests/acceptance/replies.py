"""An endpoint that answers what a script says, byte for byte, and a job of a few rows to send there.

Rule: nothing is added to what the script says but a content-length, so that a test shows what the program makes of
exactly these bytes. `arrivals` is only ever appended to.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import nursery
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from nursery import Order
from serving import Heard, Served, reply

from runner.ending import Ending
from runner.prepare import Asked
from runner.running import RunOptions
from runner.running import run as run_job
from runner.say import Say
from runner.standing import status_of

WORD = "row "  #: every prompt is this and the row's ordinal


@dataclass(frozen=True)
class Said:
    """One answer, `after_s` seconds."""

    body: bytes
    status: int = 200
    after_s: float = 0.0
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


def message(content: Any = "fine", **members: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **members}


def completion(content: Any = "fine", **members: Any) -> dict[str, Any]:
    """A chat completion as OpenAI's documents show it, `members` over its own."""
    whole = {
        "id": "r-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m-1",
        "choices": [{"index": 0, "message": message(content), "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }
    return whole | members


def plain(row: int, _: int = 0) -> Said:
    """The answer of a well-behaved server."""
    return Said(orjson.dumps(completion(f"answer {row}")))


class Replies(Served):
    """`with Replies(script) as server:`; script(row, nth) is the answer to the nth request (0, 1, …) of a row."""

    def __init__(self, script: Callable[[int, int], Said] = plain) -> None:
        self.script = script
        self.arrivals: list[int] = []

    async def exchange(self, heard: Heard, writer: asyncio.StreamWriter) -> None:
        row = int(json.loads(heard.body)["messages"][-1]["content"].removeprefix(WORD))
        nth = self.arrivals.count(row)
        self.arrivals.append(row)
        said = self.script(row, nth)
        await asyncio.sleep(said.after_s)
        writer.write(reply(said.status, said.headers, said.body))


@dataclass
class Job:
    """A job of `rows` rows at `base_url`; `request` and the other sections are laid over the plain ones."""

    root: Path
    base_url: str
    rows: int
    rows_per_part: int = 4
    request: Mapping[str, Any] = field(default_factory=dict)
    sections: Mapping[str, Any] = field(default_factory=dict)
    said: StringIO = field(default_factory=StringIO)

    def __post_init__(self) -> None:
        lines = (orjson.dumps({"text": f"{WORD}{row}"}) + b"\n" for row in range(self.rows))
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "rows.jsonl").write_bytes(b"".join(lines))
        job = {
            "name": "job",
            "input": {"path": "rows.jsonl"},
            "request": {"model": "m", "messages": [{"role": "user", "content": "{{ text }}"}], **self.request},
            "endpoint": {"base_url": self.base_url, "api_key_env": "REPLIES_KEY"},
            "limits": {"concurrency": 2},
            "retry": {"max_attempts": 1},
            "pricing": {"m": {"input": 2, "output": 8}},
            "output": {"rows_per_part": self.rows_per_part},
        }
        self.file.write_text(json.dumps(job | self.sections), encoding="utf-8")  # JSON is YAML

    @property
    def file(self) -> Path:
        return self.root / "job.yaml"

    @property
    def run_root(self) -> Path:
        return self.root / "runs" / "job"

    def run(self, output: Path | None = None) -> Ending:
        """The program itself, in this process."""
        options = RunOptions(environ={"REPLIES_KEY": "sk-replies"}, signals=False)
        return run_job(Asked(self.file, output=output), options, Say(stream=self.said))

    def parts(self) -> list[Path]:
        return sorted((self.run_root / "results").glob("part-*.parquet"))

    def table(self) -> Any:
        """All parts. Fails unless each row is there exactly once, in order, and no journal is left."""
        table = pa.concat_tables([pq.read_table(path, partitioning=None) for path in self.parts()])
        assert table["row_index"].to_pylist() == list(range(self.rows))
        assert list((self.run_root / "journal").iterdir()) == []
        assert status_of(self.run_root).finished
        return table


@dataclass(frozen=True)
class Done:
    """How a process ended."""

    code: int
    out: str
    err: str


def program(job: Job, *words: str, most_bytes: int | None = None) -> Done:
    """`runner run JOB` in a process of its own; most_bytes: no file of it may grow beyond."""
    out, err = (Path(mkdtemp(dir=job.root)) / name for name in ("out", "err"))
    env = nursery.environment(REPLIES_KEY="sk-replies")
    order = Order(("run", str(job.file), *words), Path.cwd(), env, out=out, err=err, most_bytes=most_bytes)
    code = nursery.start(order).wait(60)
    return Done(code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))
