"""Rows a second and CPU a row, end to end and durable, beside a bare httpx loop that keeps nothing.

    python tests/benchmarks/throughput.py --server "taskset -c 0 mockserver --port 8000" --port 8000 [--rows 10000]

Give any cheap OpenAI-compatible server by --server (started and stopped here), or start one yourself and leave it out.
The client (this script and what it starts) is pinned to one core. Runs alternate, so the machine's other load falls on
both alike; ratios of one round are comparable, absolute figures are not. The median of the rounds is printed last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IN_FLIGHT = 64


def bare_loop(url: str, rows: int) -> tuple[float, float]:
    """(rows/s, CPU seconds a row) of 64 coroutines posting through httpx.AsyncClient over httpx-aiohttp."""
    import httpx
    from httpx_aiohttp import AiohttpTransport

    bodies = [json.dumps(body_of(i)).encode() for i in range(rows)]
    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)

    async def post_all() -> float:
        async with httpx.AsyncClient(transport=AiohttpTransport(limits=unlimited), timeout=60) as client:
            queue = iter(bodies)

            async def worker() -> None:
                headers = {"content-type": "application/json", "authorization": "Bearer none"}
                for body in queue:
                    (await client.post(f"{url}/chat/completions", content=body, headers=headers)).json()

            started = time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
            return time.perf_counter() - started

    before = cpu_s(resource.RUSAGE_SELF)
    seconds = uvloop_run(post_all())
    return rows / seconds, (cpu_s(resource.RUSAGE_SELF) - before) / rows


def uvloop_run(work: object) -> float:
    import uvloop

    return uvloop.run(work)  # type: ignore[arg-type]


def body_of(index: int) -> dict[str, object]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text_of(index)}], "max_tokens": 60}


def text_of(index: int) -> str:
    return f"ticket {index}: " + "my card payment failed again, please help me with the refund of yesterday " * 3


def our_run(url: str, rows: int, work: Path) -> tuple[float, float]:
    """(rows/s while sending, CPU seconds a row of the whole process, start-up and sealing included)."""
    run = work / "run"
    shutil.rmtree(run, ignore_errors=True)
    job = work / "job.yaml"
    message = json.dumps({"role": "user", "content": "{{ text }}"})
    job.write_text(
        f"name: bench\ninput: {{path: rows.jsonl}}\n"
        f"request: {{model: gpt-4o-mini, messages: [{message}], max_tokens: 60}}\n"
        f"endpoint: {{base_url: {url}, api_key_env: BENCH_KEY}}\nlimits: {{concurrency: {IN_FLIGHT}}}\n"
        "pricing: {gpt-4o-mini: {input: 0.15, output: 0.60}}\n"
    )
    before = cpu_s(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "runner", "run", str(job), "-o", str(run), "-q"]
    subprocess.run(command, check=True, env=os.environ | {"BENCH_KEY": "not-a-key"})
    used = cpu_s(resource.RUSAGE_CHILDREN) - before
    return json.loads((run / "status.json").read_text())["rows_per_s"], used / rows


def cpu_s(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def served(command: str | None, port: int) -> Iterator[str]:
    process = subprocess.Popen(shlex.split(command), stdout=subprocess.DEVNULL) if command else None
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        if process:
            process.terminate()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", help="command that starts the endpoint")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=1, help="the core that the client is pinned to")
    given = parser.parse_args()
    ratios = []
    with served(given.server, given.port) as url, tempfile.TemporaryDirectory() as place:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {given.core})
        work = Path(place)
        lines = (json.dumps({"id": i, "text": text_of(i)}) + "\n" for i in range(given.rows))
        (work / "rows.jsonl").write_text("".join(lines))
        for _ in range(given.rounds):
            bare, bare_cpu = bare_loop(url, given.rows)
            ours, our_cpu = our_run(url, given.rows, work)
            ratios.append(ours / bare)
            print(
                f"bare loop {bare:,.0f} rows/s ({bare_cpu * 1e6:.0f} us CPU a row)   "
                f"runner {ours:,.0f} rows/s ({our_cpu * 1e6:.0f} us CPU a row)   ratio {ours / bare:.2f}"
            )
    print(f"median ratio {statistics.median(ratios):.2f} (runner, durable, over the bare loop)")


if __name__ == "__main__":
    main()
