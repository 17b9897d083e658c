"""What follows from a failure, and from an answer that falls short: one table, and the decisions read off it.

Rule: a kind that is not in the table is a bug (a test asserts that every `Kind` has a row); the README's table is
printed from it. Nothing here sleeps or draws lots: `next_step` returns what to do, the engine does it.

A paid answer that was cut off, or that cannot be used, is asked for again where the job says so. That hangs on the
row's paid answers alone, which the journal keeps: a new process goes on counting where the last one died.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from runner.reask import Change, can_grow
from runner.records import Attempt, Completion, Failure, Kind, Outcome, Status
from runner.spec.model import OnInvalid, OnTruncation


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
    """One row of the table. `most`: exchanges that count, at most, whatever retry.max_attempts says; `by`: the setting
    that says whether it is asked again, which keeps a count of its own."""

    signals: str
    again: bool
    counts: bool
    slows_all: bool
    halt: Halt
    most: int | None = None
    by: str | None = None


RULES: Mapping[Kind, Rule] = {
    Kind.RATE: Rule("429 (not about money), slow_down", True, False, True, Halt.LONG_WAIT),
    Kind.OVERLOADED: Rule("503, 529, 498", True, False, True, Halt.LONG_WAIT),
    Kind.NETWORK: Rule("refused, DNS, TLS, reset, cut body", True, True, False, Halt.OUTAGE),
    Kind.TIMEOUT: Rule("attempt deadline, stall, 408", True, True, False, Halt.ALIKE),
    Kind.SERVER: Rule("500, 502, 504, 520–527", True, True, False, Halt.ALIKE, most=3),
    Kind.BAD_REPLY: Rule("200 that is no answer, HTML, broken JSON", True, True, False, Halt.WEB_PAGES),
    Kind.OUTPUT: Rule(
        "the answer breaks the schema, its tool call is unusable", False, False, False, Halt.ALIKE, by="on_invalid"
    ),
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
    """The job's `retry` and `timeouts` as far as one row is concerned. None: keep."""

    max_attempts: int = 6
    max_backoff_s: float = 60.0
    max_wait_s: float = 900.0
    row_s: float = 3600.0
    on_invalid: OnInvalid | None = None
    on_truncation: OnTruncation | None = None


@dataclass(frozen=True, slots=True)
class SoFar:
    """What a row has been through, this exchange included.

    counted: exchanges that counted; spent_s: seconds of its exchanges and backoffs, without time spent waiting at the
    gate, so that a night of 429s fails no row; answers: its paid answers that fell short; body: as it was first sent.
    """

    counted: int = 0
    spent_s: float = 0.0
    answers: Sequence[Attempt] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Again:
    """Send the row again: after the shared gate opens, or after a backoff of its own."""

    backs_off: bool  #: False: the gate alone decides when
    change: Change | None = None  #: of the body; None: as it was sent last
    at_least_s: float = 0.0  #: how long the server asks to wait, as far as max_wait_s obeys it


def counts(failure: Failure) -> bool:
    """Whether this exchange uses up one of the row's attempts. What never connected says nothing about the row."""
    return RULES[failure.kind].counts and not failure.unreachable


def is_paid(outcome: Outcome) -> bool:
    """Whether an exchange gave an answer, if one that cannot be used: such a one may be its row's."""
    return isinstance(outcome, Completion) or outcome.kind is Kind.OUTPUT


def falls_short(outcome: Outcome) -> bool:
    """Whether it gave an answer that the job may want to be asked for again: cut off, or not to be used."""
    return outcome.status is Status.TRUNCATED if isinstance(outcome, Completion) else outcome.kind is Kind.OUTPUT


def next_step(outcome: Outcome, so_far: SoFar, policy: Policy) -> Again | None:
    """None: the row is final."""
    in_time = so_far.spent_s < policy.row_s
    if isinstance(outcome, Completion) or outcome.kind is Kind.OUTPUT:
        change = change_after(so_far.answers, so_far.body, policy) if falls_short(outcome) and in_time else None
        return None if change is None else Again(backs_off=False, change=change)
    rule = RULES[outcome.kind]
    if not rule.again:
        return None
    if outcome.unreachable or not rule.counts:
        return Again(backs_off=False)
    most = min(policy.max_attempts, rule.most or policy.max_attempts)
    if so_far.counted >= most or not in_time:
        return None
    return Again(backs_off=True, at_least_s=min(outcome.wait_s or 0.0, policy.max_wait_s))


def change_after(answers: Sequence[Attempt], body: bytes, policy: Policy) -> Change | None:
    """How the body changes after the last of a row's answers that fell short; None: that answer stays.

    Once more with more room when it was cut off, whatever its text would be worth: half a JSON document breaks every
    schema. Then as often as on_invalid says, in the room that the row has by then.
    """
    unusable = [answer for answer in answers if answer.error_kind == Kind.OUTPUT]
    cut_off = len(answers) - len(unusable)
    if not answers:
        return None
    if answers[-1].error_kind == Kind.OUTPUT:
        goes_on = policy.on_invalid is not None and len(unusable) <= policy.on_invalid.attempts
    else:
        goes_on = policy.on_truncation is not None and cut_off == 1 and can_grow(body, policy.on_truncation)
    shows = policy.on_invalid is not None and policy.on_invalid.feedback
    growth = policy.on_truncation if cut_off else None
    return Change(growth, unusable[-1] if unusable and shows else None) if goes_on else None
