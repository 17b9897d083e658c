"""What happens to the k-th request: its latency and at most one fault.

Rule: pure but for its own generator; every request draws the same number of times, so that the seed and the number of
a request decide its fate, and the rates are honest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from random import Random

from runner.simulator.options import SimulatorOptions

SLOWER = 10
SHORT_WAIT_MS = (20, 200)  #: the hint of a 429 by rate: real ones say "try again in 20ms" far more often than minutes


class Fault(StrEnum):
    """The value is the end of the option's name: `--rate-bad-json`."""

    RATE = "429"
    ERROR = "500"
    OVERLOADED = "503"
    RESET = "reset"
    CUT = "cut"
    SLOW = "slow"
    BAD_JSON = "bad_json"
    INVALID = "invalid"
    REFUSAL = "refusal"
    STALL = "stall"
    ERROR_INSIDE = "error_inside"


@dataclass(frozen=True, slots=True)
class Fate:
    fault: Fault | None
    latency_s: float
    wait_ms: int  #: the hint, if the fault is a 429


class Fates:
    def __init__(self, options: SimulatorOptions) -> None:
        self._rng = Random(options.seed)  # noqa: S311  (faults are to be repeatable, not secret)
        self._median_s = options.latency_ms / 1000
        self._sigma = options.sigma
        self._bounds = list(accumulate(getattr(options, f"rate_{fault.value}") for fault in Fault))

    def next(self) -> Fate:
        luck, spread, wait = self._rng.random(), self._rng.gauss(0, self._sigma), self._rng.randint(*SHORT_WAIT_MS)
        fault = next((fault for fault, bound in zip(Fault, self._bounds, strict=True) if luck < bound), None)
        latency_s = self._median_s * math.exp(spread)
        return Fate(fault, latency_s * SLOWER if fault is Fault.SLOW else latency_s, wait)
