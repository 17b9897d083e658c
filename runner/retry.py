"""What follows from a failure: one table, and the two decisions that are read off it.

Rule: a kind that is not in the table is a bug (a test asserts that every `Kind` has a row); the README's table is
printed from it. Nothing here sleeps or draws lots: `next_step` returns what to do, the engine does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from runner.records import Failure, Kind


class Halt(Enum):
    """Which question a kind puts to the whole job (answered in halts.py)."""

    NEVER = auto()
    LONG_WAIT = auto()  #: a hint, or a drought, beyond retry.max_wait_s: exit 75
    OUTAGE = auto()  #: nothing can be reached: pause and probe, exit 75 after timeouts.outage_s
    WEB_PAGES = auto()  #: HTML three times where JSON was due: exit 3
    ALIKE = auto()  #: the first 20 rows alike, or 200 alike in a row: exit 3
    KEY = auto()  #: confirm by probes, then exit 3; rows go back
    MONEY = auto()  #: exit 3 at once; rows go back
    SETTING = auto()  #: exit 3 unless the model has answered before or comes from the row


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table. `most`: exchanges that count, at most, whatever retry.max_attempts says."""

    signals: str
    again: bool
    counts: bool
    slows_all: bool
    halt: Halt
    most: int | None = None


RULES: Mapping[Kind, Rule] = {
    Kind.RATE: Rule("429 (not about money), slow_down", True, False, True, Halt.LONG_WAIT),
    Kind.OVERLOADED: Rule("503, 529, 498", True, False, True, Halt.LONG_WAIT),
    Kind.NETWORK: Rule("refused, DNS, TLS, reset, cut body", True, True, False, Halt.OUTAGE),
    Kind.TIMEOUT: Rule("attempt deadline, stall, 408", True, True, False, Halt.ALIKE),
    Kind.SERVER: Rule("500, 502, 504, 520–527", True, True, False, Halt.ALIKE, most=3),
    Kind.BAD_REPLY: Rule("200 that is no answer, HTML, broken JSON", True, True, False, Halt.WEB_PAGES),
    Kind.OUTPUT: Rule("the answer breaks the schema", False, True, False, Halt.ALIKE),
    Kind.REQUEST: Rule("400, 413, 422, context length", False, True, False, Halt.ALIKE),
    Kind.POLICY: Rule("content policy, moderation", False, True, False, Halt.NEVER),
    Kind.INPUT: Rule("missing column, unencodable text, over a cap", False, False, False, Halt.ALIKE),
    Kind.AUTH: Rule("401, 403 for the key", True, False, True, Halt.KEY),
    Kind.QUOTA: Rule("insufficient_quota, 402, spend limits", False, False, False, Halt.MONEY),
    Kind.CONFIG: Rule("404, 3xx, model_not_found", False, False, False, Halt.SETTING),
    Kind.UNKNOWN: Rule("in flight when the process died", True, False, False, Halt.NEVER),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """The job's `retry` and `timeouts` as far as one row is concerned."""

    max_attempts: int = 6
    max_backoff_s: float = 60.0
    row_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Again:
    """Send the row again: after the shared gate opens, or after a backoff of its own."""

    backs_off: bool  #: False: the gate alone decides when
    failure: Failure


def counts(failure: Failure) -> bool:
    """Whether this exchange uses up one of the row's attempts. What never connected says nothing about the row."""
    return RULES[failure.kind].counts and not failure.unreachable


def next_step(failure: Failure, counted: int, spent_s: float, policy: Policy) -> Again | None:
    """None: the row is final.

    counted: exchanges of the row that counted, this one included; spent_s: seconds of its exchanges and backoffs so
    far, without time spent waiting at the gate, so that a night of 429s fails no row.
    """
    rule = RULES[failure.kind]
    if not rule.again:
        return None
    if failure.unreachable or not rule.counts:
        return Again(backs_off=False, failure=failure)
    if counted >= min(policy.max_attempts, rule.most or policy.max_attempts) or spent_s >= policy.row_s:
        return None
    return Again(backs_off=True, failure=failure)
