"""One run of the real program on real sockets and a real disk, to be killed, asked to stop, and audited.

Rule: the program is a process of its own (a fork of one that has imported it: nursery.py), judged by what it leaves on
disk and by what reached the endpoint; nothing of it is imported to steer it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import nursery
import pyarrow as pa
import pyarrow.parquet as pq
from echo import COMPLETION_TOKENS, PROMPT_TOKENS, WORD, Echo
from nursery import Child, Order
from serving import PATIENCE_S

INPUT_USD, OUTPUT_USD = 2, 8  # per million tokens
ANSWER_USD = Decimal(PROMPT_TOKENS * INPUT_USD + COMPLETION_TOKENS * OUTPUT_USD) / 1_000_000

JOB = """\
name: echo
input: {{path: rows.jsonl, id_column: name}}
request:
  model: echo-1
  messages:
    - {{role: user, content: "{{{{ text }}}}"}}
  max_completion_tokens: 500
endpoint: {{base_url: "{base_url}", api_key_env: ECHO_KEY}}
limits: {{concurrency: {concurrency}}}
retry: {{max_backoff_s: 0.05}}
pricing:
  echo-1: {{input: {input_usd}, output: {output_usd}}}
output: {{columns: [name], rows_per_part: {rows_per_part}}}
"""


@dataclass
class Life:
    """One process of a run."""

    process: Child
    talk: Path
    sent_before: int
    parts_before: int

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def said(self) -> str:
        """What it has said on stderr so far."""
        return self.talk.read_text(encoding="utf-8")

    def ask(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Its exit code, negative for a signal. Fails with its own words when it does not end."""
        try:
            return self.process.wait(timeout_s)
        except TimeoutError:
            raise AssertionError(f"still running after {timeout_s} s, having said:\n{self.said()}") from None


@dataclass
class House:
    """A job, its input and its endpoint under one directory."""

    root: Path
    echo: Echo
    rows: int
    concurrency: int = 8
    rows_per_part: int = 16
    pad_bytes: int = 0  #: makes reading the input take longer; not carried into the results
    seed: int = 0
    lives: list[Life] = field(default_factory=list)

    def __post_init__(self) -> None:
        luck = random.Random(self.seed)
        self.texts = [f"{WORD}{i}: {luck.getrandbits(64):x} ünïcode" for i in range(self.rows)]
        pad = {"pad": "x" * self.pad_bytes} if self.pad_bytes else {}
        lines = ({"name": f"n{i}", "text": text, **pad} for i, text in enumerate(self.texts))
        self.root.mkdir(exist_ok=True)
        with self.input.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        job = JOB.format(
            base_url=self.echo.base_url,
            concurrency=self.concurrency,
            rows_per_part=self.rows_per_part,
            input_usd=INPUT_USD,
            output_usd=OUTPUT_USD,
        )
        self.job.write_text(job, encoding="utf-8")

    @property
    def job(self) -> Path:
        return self.root / "job.yaml"

    @property
    def input(self) -> Path:
        return self.root / "rows.jsonl"

    def run(self, name: str = "echo") -> Path:
        return self.root / "runs" / name

    def parts(self) -> list[Path]:
        return sorted((self.run() / "results").glob("part-*.parquet"))

    def journals(self) -> list[Path]:
        return sorted((self.run() / "journal").glob("*.jsonl"))

    def start(self, *words: str, stdin: Path | str = os.devnull) -> Life:
        """`runner run` on the job, again and again: the next life of the run."""
        self.echo.begin(len(self.lives))
        talk = self.root / f"life-{len(self.lives)}.txt"
        talk.touch()
        argv = ("run", str(self.job), *words)
        child = nursery.start(Order(argv, self.root, environment(), stdin, err=talk))
        life = Life(child, talk, len(self.echo.arrivals), len(self.parts()))
        self.lives.append(life)
        return life

    def finish(self) -> Life:
        """The last life, to its end."""
        self.echo.lift()
        life = self.start()
        code = life.wait()
        assert code == 0, life.said()
        return life

    def close(self) -> None:
        for life in self.lives:
            life.kill()


def environment() -> dict[str, str]:
    """Ours, with the key, and without settings of the program."""
    return nursery.environment(ECHO_KEY="sk-echo")


def until(condition: Callable[[], object], *, within_s: float = PATIENCE_S, every_s: float = 0.001) -> bool:
    """Wait for something to become true; whether it did."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(every_s)
    return False


@dataclass(frozen=True)
class Audit:
    """The finished run beside what the endpoint saw. Every list should be empty."""

    lost: list[int]
    doubled: list[int]
    out_of_order: bool
    strangers: list[int]  #: rows whose answer or input columns belong to another row
    unbilled: list[int]  #: rows with an arrival that no attempt stands for
    invented: list[int]  #: rows with an attempt that claims an arrival of another row, or one twice
    mispriced: list[int]  #: rows whose money is not the sum of their attempts
    unknown: int  #: attempts that were on the wire when a process died
    exchanges: int
    table: Any

    def complaints(self) -> list[str]:
        found = {name: value for name, value in vars(self).items() if name not in ("unknown", "exchanges", "table")}
        return [f"{name}: {value}" for name, value in found.items() if value]


def audit(house: House) -> Audit:
    """Read the parts of a finished run, and lay every row beside the arrivals of its request."""
    table = pa.concat_tables([pq.read_table(path, partitioning=None) for path in house.parts()])
    rows = table.to_pylist()
    indexes = [row["row_index"] for row in rows]
    seen = Counter(indexes)
    arrived: dict[int, list[int]] = {}
    for arrival in house.echo.arrivals:
        arrived.setdefault(arrival.row, []).append(arrival.number)
    attempts = [attempt for row in rows for attempt in row["attempts"]]
    return Audit(
        lost=[row for row in range(house.rows) if not seen[row]],
        doubled=[row for row, count in seen.items() if count > 1],
        out_of_order=indexes != sorted(indexes),
        strangers=[row["row_index"] for row in rows if not _own(row, house)],
        unbilled=[row["row_index"] for row in rows if not _billed(row, arrived.get(row["row_index"], []))],
        invented=[row["row_index"] for row in rows if not _honest(row, arrived.get(row["row_index"], []))],
        mispriced=[row["row_index"] for row in rows if not _priced(row)],
        unknown=sum(attempt["error_kind"] == "UNKNOWN" for attempt in attempts),
        exchanges=len(attempts),
        table=table,
    )


def _own(row: dict[str, Any], house: House) -> bool:
    text = house.texts[row["row_index"]]
    return (row["status"], row["content"], row["name"]) == ("ok", f"echo of {text}", f"n{row['row_index']}")


def _claims(row: dict[str, Any]) -> list[int]:
    return [int(attempt["request_id"]) for attempt in row["attempts"] if attempt["request_id"] is not None]


def _billed(row: dict[str, Any], arrived: list[int]) -> bool:
    """Every arrival has an attempt: one that names it, or one of which only the sending is known."""
    nameless = len(row["attempts"]) - len(_claims(row))
    return len(set(arrived) - set(_claims(row))) <= nameless


def _honest(row: dict[str, Any], arrived: list[int]) -> bool:
    claims, names = _claims(row), [(attempt["epoch"], attempt["n"]) for attempt in row["attempts"]]
    return len(set(claims)) == len(claims) and set(claims) <= set(arrived) and len(set(names)) == len(names)


def _priced(row: dict[str, Any]) -> bool:
    """The answer costs its tokens; what was on the wire at a death costs nobody knows what."""
    known = {"UNKNOWN": None, "SERVER": 0.0, "RATE": 0.0, None: float(ANSWER_USD)}
    if any(attempt["cost_usd"] != known[attempt["error_kind"]] for attempt in row["attempts"]):
        return False
    others = [attempt["cost_usd"] for attempt in row["attempts"][:-1]]
    wasted = None if None in others else sum(others)
    total = None if wasted is None else wasted + float(ANSWER_USD)
    return (row["cost_usd"], row["wasted_usd"], row["total_usd"]) == (float(ANSWER_USD), wasted, total)


def sent_again(echo: Echo) -> Counter[int]:
    """For each life that died: how many rows, unanswered or answered in vain, the next ones had to send again."""
    last: dict[int, Any] = {}
    again: Counter[int] = Counter()
    for arrival in echo.arrivals:
        before = last.get(arrival.row)
        if before and before.life < arrival.life and before.status in (None, 200):
            again[before.life] += 1
        last[arrival.row] = arrival
    return again


def manifest(house: House) -> dict[str, Any]:
    members: dict[str, Any] = json.loads((house.run() / "manifest.json").read_bytes())
    return members


def open_files(pid: int) -> Iterator[str]:
    """What a process has open (Linux)."""
    try:
        links = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return
    for link in links:
        try:
            yield str(link.readlink())
        except OSError:
            continue
