"""When the next request may leave: pure arithmetic, `now` (monotonic seconds) and `luck` (0 to 1) come in as arguments.

Rule: a lane is one (endpoint, model); what throttles one lane never slows another. A lane holds a gate (closed by 429,
503, an outage, a refused key), a limit on requests in flight, a tempo (requests a second, once something was refused),
meters of what the provider says is left, a breaker, and the job's own token buckets. `Slots` is over all lanes: it
bounds what is on the wire and what has come back but is not durable yet.
"""

from runner.pace.breaker import Breaker
from runner.pace.bucket import Bucket
from runner.pace.gate import Gate, wait_of
from runner.pace.lane import Lane
from runner.pace.limit import FIRST_LIMIT, Learning, Limit
from runner.pace.mark import NOTHING_LEFT, Mark
from runner.pace.meter import Meter, Reading
from runner.pace.slots import Slots
from runner.pace.tempo import Tempo

__all__ = [
    "FIRST_LIMIT",
    "NOTHING_LEFT",
    "Breaker",
    "Bucket",
    "Gate",
    "Lane",
    "Learning",
    "Limit",
    "Mark",
    "Meter",
    "Reading",
    "Slots",
    "Tempo",
    "wait_of",
]
