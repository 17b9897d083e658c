"""An OpenAI-compatible endpoint that answers offline: for demos, rehearsals and tests.

    options.py   SimulatorOptions, and the same as command-line words
    answers.py   the answer that a request gets, from the request alone: prose.py, schema.py, merging.py, pattern.py
    refusals.py  what is wrong with a request        faults.py   what happens to the k-th request
    limits.py    requests and tokens per minute      ledger.py   counters and the request log
    app.py       the endpoint        streaming.py  an answer as an event stream
    wire.py      answers that take their time or break off                 server.py   the process
    child.py     the process as a child that ends with its parent

Rule: what is imported here is light, because `runner --help` shows its options; the server is imported when it runs.
"""

from __future__ import annotations

from collections.abc import Callable

from runner.simulator.child import Child
from runner.simulator.options import SimulatorOptions

__all__ = ["Child", "SimulatorOptions", "serve"]


def serve(options: SimulatorOptions, announce: Callable[[str], None]) -> None:
    """Serve until a signal comes; `announce` gets the base_url as soon as connections are accepted."""
    from runner.simulator import server

    server.serve(options, announce)
