"""What limits cost: calls a row, makespan against the ideal and refusals, over real sockets, for every kind of limit.

    python tests/benchmarks/storm.py [SCENARIO ...] [--rows 3000]

One process serves, another runs the job. A storm's limit is a tenth of what the pool could send (64 in flight, 0.1 s a
request, 64/s let through). The ideal is the time at which a client that knew the limit would have its last answer.
Tokens are counted as 30 a request. A limit that changes doubles after 10 s, is halved after 20 s, and is as before
after 35 s. The `auto` scenarios start with nothing known, against 400 at once at 1 s a request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

TOKENS = 30
STEP_S = 0.01


@dataclass(frozen=True)
class Scenario:
    """A server's limits: `per_s` units of `unit` tokens a request, or `most` at once, beyond which it queues or not."""

    per_s: float = 0.0
    burst: float = 6.4
    unit: int = 1
    hints: bool = True
    headers: bool = False
    changes: bool = False
    most: int = 0
    queues: bool = False
    latency_s: float = 0.1
    sigma: float = 0.0
    concurrency: int | str = 64

    def rate(self, second: float) -> float:
        factor = 2.0 if 10 <= second < 20 else 0.5 if 20 <= second < 35 else 1.0
        return self.per_s * (factor if self.changes else 1.0)

    def ideal_s(self, rows: int) -> float:
        """The last answer of a client that knew the limit."""
        if self.most:
            return rows / self.most * self.latency_s * math.exp(self.sigma**2 / 2)
        let, second = self.burst / self.unit, 0.0
        while let < rows:
            let += self.rate(second) / self.unit * STEP_S
            second += STEP_S
        return second + self.latency_s


SCENARIOS = {
    "requests": Scenario(64),
    "requests, no hints": Scenario(64, hints=False),
    "requests, told by headers": Scenario(64, burst=64, headers=True),
    "requests, auto": Scenario(64, concurrency="auto"),
    "tokens": Scenario(64 * TOKENS, 6.4 * TOKENS, TOKENS),
    "tokens, no hints": Scenario(64 * TOKENS, 6.4 * TOKENS, TOKENS, hints=False),
    "changing": Scenario(64, changes=True),
    "changing, no hints": Scenario(64, changes=True, hints=False),
    "auto, 400 and a queue": Scenario(most=400, queues=True, latency_s=1.0, concurrency="auto"),
    "auto, 400 and a queue, lognormal": Scenario(most=400, queues=True, latency_s=1.0, sigma=0.5, concurrency="auto"),
    "auto, 400 and refusals": Scenario(most=400, latency_s=1.0, concurrency="auto"),
    "auto, 400 and refusals, lognormal": Scenario(most=400, latency_s=1.0, sigma=0.5, concurrency="auto"),
}


@dataclass
class Endpoint:
    """The server: its bucket, its turn and what it has seen. Seconds are counted from the first request."""

    scenario: Scenario
    level: float = 0.0
    began: float | None = None
    read_at: float = 0.0
    ended_s: float = 0.0
    calls: int = 0
    refused: int = 0
    in_flight: Counter[int] = field(default_factory=Counter)  #: second -> most in flight
    answered: Counter[int] = field(default_factory=Counter)  #: second -> answers
    open: int = 0
    luck: random.Random = field(default_factory=lambda: random.Random(7))

    def __post_init__(self) -> None:
        self.level = self.scenario.burst
        self.turn = asyncio.Semaphore(self.scenario.most or 1_000_000)

    def now(self) -> float:
        self.began = self.began if self.began is not None else time.monotonic()
        return time.monotonic() - self.began

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        self.calls += 1
        self.open += 1
        second = int(self.now())
        self.in_flight[second] = max(self.in_flight[second], self.open)
        try:
            return await self._answer()
        finally:
            self.open -= 1

    async def _answer(self) -> web.Response:
        wait_s = self._lacks_s()
        if wait_s is not None:
            self.refused += 1
            said = {"retry-after": f"{wait_s:.3f}"} if self.scenario.hints and wait_s else {}
            error = {"message": "slow down", "type": "rate_limit_error", "code": "rate_limit_exceeded"}
            return web.json_response({"error": error}, status=429, headers=said)
        async with self.turn:
            wide = self.luck.lognormvariate(0, self.scenario.sigma) if self.scenario.sigma else 1.0
            await asyncio.sleep(self.scenario.latency_s * wide)
        self.ended_s = self.now()
        self.answered[int(self.ended_s)] += 1
        return web.Response(body=ANSWER, content_type="application/json", headers=self._headers())

    def _lacks_s(self) -> float | None:
        """None: it may pass. Otherwise seconds to wait, 0 where nobody knows."""
        if self.scenario.most:
            return 0.0 if self.turn.locked() and not self.scenario.queues else None
        now = self.now()
        rate = self.scenario.rate(now)
        self.level = min(self.scenario.burst, self.level + (now - self.read_at) * rate)
        self.read_at = now
        if self.level < self.scenario.unit:
            return (self.scenario.unit - self.level) / rate
        self.level -= self.scenario.unit
        return None

    def _headers(self) -> dict[str, str]:
        if not self.scenario.headers:
            return {}
        full_s = (self.scenario.burst - self.level) / self.scenario.per_s
        return {
            "x-ratelimit-limit-requests": f"{self.scenario.burst:.0f}",
            "x-ratelimit-remaining-requests": f"{self.level:.0f}",
            "x-ratelimit-reset-requests": f"{full_s:.3f}s",
        }


ANSWER = json.dumps(
    {
        "id": "c-1",
        "object": "chat.completion",
        "model": "m-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": TOKENS},
    }
).encode()


async def run(scenario: Scenario, rows: int, work: Path) -> tuple[Endpoint, int]:
    """The server after the job, and how many of its rows are not ok."""
    endpoint = Endpoint(scenario)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", endpoint.answer)
    server = web.AppRunner(app, access_log=None)
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0, backlog=2048)
    await site.start()
    port = server.addresses[0][1]
    (work / "rows.jsonl").write_text("".join(f'{{"t": "row {i}"}}\n' for i in range(rows)))
    (work / "job.yaml").write_text(
        "name: storm\ninput: {path: rows.jsonl}\n"
        'request: {model: m-1, messages: [{role: user, content: "{{ t }}"}], max_tokens: 10}\n'
        f'endpoint: {{base_url: "http://127.0.0.1:{port}/v1", api_key_env: null}}\n'
        f"limits: {{concurrency: {scenario.concurrency}}}\n"
    )
    command = (sys.executable, "-m", "runner", "run", str(work / "job.yaml"), "-o", str(work / "run"), "-q")
    process = await asyncio.create_subprocess_exec(*command)
    await process.wait()
    await server.cleanup()
    status = json.loads((work / "run" / "status.json").read_text())
    return endpoint, rows - status["settled"] + status["not_ok"]


def told(name: str, endpoint: Endpoint, rows: int, not_ok: int) -> str:
    scenario, ideal_s = endpoint.scenario, endpoint.scenario.ideal_s(rows)
    said = (
        f"{name}: {endpoint.calls:,} calls ({endpoint.calls / rows:.3f} a row), {endpoint.ended_s:.1f} s of "
        f"{ideal_s:.1f} ({endpoint.ended_s / ideal_s:.3f}), {endpoint.refused} refused, {not_ok} rows not ok"
    )
    if not scenario.most:
        return said
    capacity = rows / ideal_s
    reached = [second for second in sorted(endpoint.answered) if endpoint.answered[second] >= 0.9 * capacity]
    late = [most for second, most in sorted(endpoint.in_flight.items()) if second < endpoint.ended_s - 3]
    first = f"after {reached[0] + 1} s" if reached else "never"
    return f"{said}; 90 % of {capacity:.0f}/s {first}, {late[-1]} in flight at the end"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="*", default=list(SCENARIOS), help=", ".join(SCENARIOS))
    parser.add_argument(
        "--rows", type=int, default=3_000, help="of a storm; an `auto` scenario sends four times as many"
    )
    given = parser.parse_args()
    for name in given.scenario:
        rows = given.rows * (4 if SCENARIOS[name].most else 1)
        with tempfile.TemporaryDirectory() as place:
            endpoint, not_ok = asyncio.run(run(SCENARIOS[name], rows, Path(place)))
        print(told(name, endpoint, rows, not_ok), flush=True)


if __name__ == "__main__":
    main()
