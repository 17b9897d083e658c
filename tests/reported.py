"""Rows and runs to make reports of."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from runner.records import Attempt, Choice, Completion, Failure, Kind, Request, Settled, Status, Usage
from tests.hostile import HOSTILE
from tests.made_run import MadeRun, made_run

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["spam", "ham", "never"]},
        "urgent": {"type": "boolean"},
        "note": {"type": "string"},
    },
}
ANSWERS = {"type": "json_schema", "json_schema": {"name": "label", "schema": SCHEMA}}
REQUEST = {"model": "m-1", "messages": [{"role": "user", "content": "{{ text }}"}], "response_format": ANSWERS}


def instant(second: float) -> str:
    return datetime.fromtimestamp(1_772_402_400 + second, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def attempt(n: int, usd: str | None, at_s: float = 0, **more: Any) -> Attempt:
    given_ = {"epoch": 1, "n": n, "started_at": instant(at_s), "seconds": 0.5, "waited_s": 0.0, "http_status": 200}
    cost = None if usd is None else Decimal(usd)
    return Attempt(**(given_ | {"usage": Usage(10, 4, None, 2, 1, 12), "cost_usd": cost} | more))


def settled(index: int, outcome: Completion | Failure, *attempts: Attempt, done_s: float = 1) -> Settled:
    request = Request(index, b"{}", f"{index:032x}", "m-1", 1)
    paid = attempts[-1].cost_usd if attempts else None
    return Settled(request, outcome, attempts, "job", instant(0), instant(done_s), paid)


def answer(label: str | None = None, urgent: bool = False, status: Status = Status.OK) -> Completion:
    parsed = label and {"label": label, "urgent": urgent, "note": "x"}
    return Completion(status, (Choice(0, "x", "stop"),), model="m-1-2025", first_token_s=0.1, parsed=parsed)


def hostile_run(root: Path) -> MadeRun:
    """Every hostile string as id, answer, error, model, tag and name."""
    stored = [text.encode("utf-8", "replace").decode() for text in HOSTILE]  # Parquet holds no half characters
    plain = [text for text in stored if "{{" not in text]  # in a job these are templates
    schema = {"type": "object", "properties": {"label": {"type": "string", "enum": plain}}}
    (root / "run").mkdir()
    (root / "run/schema.json").write_text(json.dumps(schema))
    answers = {"type": "json_schema", "json_schema": {"name": "l", "schema": {"file": "schema.json"}}}
    made = made_run(
        root / "run",
        [{"text": "x", "id": text} for text in stored],
        input={"id_column": "id"},
        request=REQUEST | {"response_format": answers},
    )
    known = made.directory.read_run() or {}
    made.directory.write("run.json", known | {"name": "".join(HOSTILE[:12]), "tags": {text: text for text in HOSTILE}})
    rows = []
    for n, text in enumerate(stored):
        broken = Failure(Kind.SERVER, text[:500], 500)
        rows.append(settled(n, broken, attempt(1, "0.1", error_kind=text[:60], error=text, http_status=500)))
    for n in range(0, len(stored), 2):
        good = Completion(Status.OK, (Choice(0, "x"),), model=stored[n], parsed={"label": stored[n]})
        rows[n] = settled(n, good, attempt(1, "0.2", seconds=float(n + 1)))
    made.seal(0, rows)
    return made
