"""An endpoint of a few lines that says back what it is asked, and forgets nothing that has reached it.

Rule: a request counts from the instant its last byte is here, whatever happens to its answer, and its number comes back
as `x-request-id`, so that each attempt in a bill can be laid beside the arrival it stands for. Everything that tests
read is only ever appended to.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from serving import Heard, Served, reply

WORD = "row "  #: every prompt begins with it and the row's ordinal
PROMPT_TOKENS, COMPLETION_TOKENS = 100, 10


@dataclass(slots=True)
class Arrival:
    """A whole request. `life`: which process of the run sent it; `status`: what was answered, None for nothing."""

    number: int
    row: int
    life: int
    at_s: float
    status: int | None = None


@dataclass
class Echo(Served):
    """`with Echo() as echo:` serves on `echo.base_url`.

    latency_s: longest time before an answer, evenly drawn; failing: share of first arrivals of a row answered 500;
    ration: most answers that one life is given before `lift()`, so that none of them can finish the run.
    """

    latency_s: float = 0.0
    failing: float = 0.0
    ration: int | None = None
    seed: int = 0
    life: int = 0
    arrivals: list[Arrival] = field(default_factory=list)
    waits: dict[int, float] = field(default_factory=dict)  #: rows that are told 429, and for how many seconds
    spent_at_s: float | None = None  #: when this life's ration was used up

    def __enter__(self) -> Self:
        self._luck = random.Random(self.seed)
        self._open = asyncio.Event()
        self._open.set()
        self._lifted = asyncio.Event()
        self._given = 0
        return super().__enter__()

    def hold(self) -> None:
        """Answer nothing from now on."""
        self.now(self._open.clear)

    def release(self) -> None:
        """Answer what was held back, and go on answering."""
        self.now(self._open.set)

    def lift(self) -> None:
        """No ration any more."""
        self.now(self._lifted.set)

    def begin(self, life: int) -> None:
        """From now on arrivals are those of this process of the run; what earlier ones had sent is heard before."""
        self.hear()
        self.now(partial(self._begin, life))

    def _begin(self, life: int) -> None:
        self.life, self._given, self.spent_at_s = life, 0, None

    async def exchange(self, heard: Heard, writer: asyncio.StreamWriter) -> None:
        text = json.loads(heard.body)["messages"][-1]["content"]
        row = int(text.removeprefix(WORD).split(":")[0])
        arrival = Arrival(len(self.arrivals), row, self.life, time.monotonic())
        known = any(before.row == row for before in self.arrivals) if self.failing else True
        self.arrivals.append(arrival)
        latency_s = self._luck.uniform(0.2, 1.0) * self.latency_s
        status = 429 if row in self.waits else 500 if not known and self._luck.random() < self.failing else 200
        await asyncio.sleep(latency_s)
        await self._open.wait()
        await self._ration(arrival)
        writer.write(_reply(status, text, arrival.number, self.waits.get(row)))
        arrival.status = status
        await writer.drain()

    async def _ration(self, arrival: Arrival) -> None:
        if self.ration is None or self._lifted.is_set():
            return
        if arrival.life != self.life or self._given >= self.ration:
            self.spent_at_s = self.spent_at_s or time.monotonic()
            await self._lifted.wait()
        self._given += 1


def _reply(status: int, text: str, number: int, wait_s: float | None) -> bytes:
    said = _answer(text) if status == 200 else {"error": {"message": "not now", "type": "server_error"}}
    headers = {"content-type": "application/json", "x-request-id": str(number)}
    headers |= {"retry-after": f"{wait_s:g}"} if wait_s else {}
    return reply(status, headers, json.dumps(said).encode())


def _answer(text: str) -> dict[str, object]:
    message = {"role": "assistant", "content": f"echo of {text}"}
    usage = {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": COMPLETION_TOKENS,
        "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
    }
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "echo", "object": "chat.completion", "model": "echo-1", "choices": [choice], "usage": usage}
