"""How long a job takes against a plain aiohttp loop with as many requests in flight, ten rows a slot.

    python tests/benchmarks/makespan.py --port 8000 --in-flight 256 1024 \\
        --server "taskset -c 0 mockserver --port 8000 --latency-ms 1000 --sigma 0.4"

The loop is the least that a client can do: one coroutine a slot, no limits, nothing kept. The client is pinned to one
core. Both meet the same server with the same latencies, one after the other; ratios of one round are comparable.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from throughput import body_of, served, text_of, uvloop_run

ROWS_A_SLOT = 10


def plain_loop(url: str, in_flight: int) -> float:
    """Seconds from the first request to the last answer."""
    import aiohttp

    bodies = [json.dumps(body_of(i)).encode() for i in range(in_flight * ROWS_A_SLOT)]

    async def post_all() -> float:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            queue = iter(bodies)

            async def worker() -> None:
                for body in queue:
                    headers = {"content-type": "application/json"}
                    async with session.post(f"{url}/chat/completions", data=body, headers=headers) as reply:
                        await reply.json()

            started = time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(in_flight)))
            return time.perf_counter() - started

    return uvloop_run(post_all())


def our_run(url: str, in_flight: int, work: Path) -> float:
    """Seconds of the sending part: rows over the rows/s that the run reports at its end."""
    rows = in_flight * ROWS_A_SLOT
    lines = (json.dumps({"id": i, "text": text_of(i)}) + "\n" for i in range(rows))
    (work / "rows.jsonl").write_text("".join(lines))
    message = json.dumps({"role": "user", "content": "{{ text }}"})
    (work / "job.yaml").write_text(
        f"name: bench\ninput: {{path: rows.jsonl}}\n"
        f"request: {{model: gpt-4o-mini, messages: [{message}], max_tokens: 60}}\n"
        f"endpoint: {{base_url: {url}, api_key_env: BENCH_KEY}}\nlimits: {{concurrency: {in_flight}}}\n"
        "pricing: {gpt-4o-mini: {input: 0.15, output: 0.60}}\n"
    )
    shutil.rmtree(work / "run", ignore_errors=True)
    command = [sys.executable, "-m", "runner", "run", str(work / "job.yaml"), "-o", str(work / "run"), "-q"]
    subprocess.run(command, check=True, env=os.environ | {"BENCH_KEY": "not-a-key"})
    return rows / float(json.loads((work / "run" / "status.json").read_text())["rows_per_s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", help="command that starts the endpoint")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=int, default=1, help="the core that the client is pinned to")
    given = parser.parse_args()
    with served(given.server, given.port) as url, tempfile.TemporaryDirectory() as place:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {given.core})
        for in_flight in given.in_flight:
            ratios = []
            for _ in range(given.rounds):
                plain, ours = plain_loop(url, in_flight), our_run(url, in_flight, Path(place))
                ratios.append(ours / plain)
                print(f"{in_flight} in flight: plain loop {plain:.2f} s, runner {ours:.2f} s, ratio {ours / plain:.3f}")
            print(f"{in_flight} in flight: median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
