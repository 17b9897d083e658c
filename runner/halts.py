"""What stops the whole job: pure judgement over the stream of failures.

Rule: a failure that says something about the key, the money, the model or the address is about the job, not the row.
The row goes back (its attempt is kept, it has no record) and the job stops with one sentence, or pauses and probes.
Strategy: `Watch` sees every exchange; `judge` returns what to do and the engine does it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from runner.budget import Budget
from runner.errors import LaterError, RunnerError, StoppedError
from runner.records import Billed, Failure, Kind, Outcome
from runner.retry import RULES, Halt

#: Rows that fail alike before the job is stopped: from its start, and later on.
FIRST_ALIKE = 20
LATER_ALIKE = 200
#: Before the first answer of this process nothing says that the address is right, so an outage is not waited out.
FIRST_CONTACT_S = 60.0
#: Probes of a refused key before anything has been answered: a typo should be told in seconds.
FIRST_PROBES_S = (0.5, 1.0, 2.0)
#: Afterwards gateways have met spurious 401s; the probes share out timeouts.auth_wait_s.
LATER_PROBES = (0.02, 0.18, 0.80)
WEB_PAGES = 3


@dataclass(frozen=True, slots=True)
class Terms:
    """The job's settings that decide, and the words for its sentences."""

    max_wait_s: float = 900.0
    outage_s: float = 21600.0
    auth_wait_s: float = 600.0
    model_is_template: bool = False
    base_url: str = ""
    key_name: str = "the API key"


@dataclass(frozen=True, slots=True)
class Pause:
    """Close the lane's gate for so long; None: as the pace decides."""

    wait_s: float | None


@dataclass(slots=True)
class Watch:
    """The job's memory of what has been going wrong. One per (endpoint, model), but for the key: see `answered`."""

    terms: Terms
    answered: bool = False
    last_success_s: float | None = None
    trouble_since_s: float | None = None
    probes: int = 0
    probed_at_s: float = float("-inf")
    web_pages: int = 0

    def success(self, now_s: float) -> None:
        self.answered = True
        self.last_success_s = now_s
        self.trouble_since_s = None
        self.probes = 0
        self.web_pages = 0

    def alive(self) -> None:
        """The endpoint answered, if only to refuse this row: no outage, no drought."""
        self.trouble_since_s = None

    def rekeyed(self, now_s: float) -> None:
        """The key was read again and is another: what left before says nothing about it."""
        self.probed_at_s = now_s

    def judge(self, failure: Failure, now_s: float, sent_at_s: float) -> RunnerError | Pause | None:
        """RunnerError: stop the job, the row goes back. Pause: close the gate. None: the row's own affair."""
        match RULES[failure.kind].halt:
            case Halt.MONEY:
                return _money(failure)
            case Halt.KEY:
                return self._key(failure, now_s, sent_at_s)
            case Halt.SETTING:
                return None if self.answered or self.terms.model_is_template else _setting(failure, self.terms)
            case Halt.LONG_WAIT:
                return self._long_wait(failure, now_s)
            case Halt.OUTAGE if failure.unreachable:
                return self._outage(failure, now_s)
            case Halt.WEB_PAGES if failure.html:
                return self._web_page(failure)
        return None

    def _trouble_for(self, now_s: float) -> float:
        if self.trouble_since_s is None:
            self.trouble_since_s = now_s
        return now_s - self.trouble_since_s

    def _long_wait(self, failure: Failure, now_s: float) -> RunnerError | Pause:
        longest = self.terms.max_wait_s
        if failure.wait_s is not None and failure.wait_s > longest:
            said = f"the endpoint asks to wait {duration(failure.wait_s)}, longer than retry.max_wait_s ({longest:g} s)"
            return LaterError(f"{said}: {failure.message}", hint="run the same command again after that time")
        if self._trouble_for(now_s) > longest:
            said = f"nothing was answered for {duration(longest)}; the endpoint keeps saying: {failure.message}"
            return LaterError(said, hint="run the same command again later, or lower limits.concurrency")
        return Pause(failure.wait_s)

    def broken(self, failure: Failure, now_s: float) -> RunnerError | Pause:
        """A probe of a lane most of whose requests failed has failed too."""
        longest = self.terms.max_wait_s if self.answered else min(FIRST_CONTACT_S, self.terms.max_wait_s)
        if self._trouble_for(now_s) <= longest:
            return Pause(None)
        said = f"more than half of the requests failed, and every probe for {duration(longest)}: {failure.message}"
        return LaterError(said, hint="run the same command again later; rows that were being probed are not lost")

    def _outage(self, failure: Failure, now_s: float) -> RunnerError | Pause:
        longest = self.terms.outage_s if self.answered else min(FIRST_CONTACT_S, self.terms.outage_s)
        if self._trouble_for(now_s) < longest:
            return Pause(None)
        said = f"{self.terms.base_url} could not be reached for {duration(longest)}: {failure.message}"
        hint = "check the network" if self.answered else "check endpoint.base_url and the network"
        return LaterError(said, hint=f"{hint}, then run the same command again")

    def _key(self, failure: Failure, now_s: float, sent_at_s: float) -> RunnerError | Pause:
        waits = [share * self.terms.auth_wait_s for share in LATER_PROBES] if self.answered else FIRST_PROBES_S
        if sent_at_s < self.probed_at_s:  # it left before the last refusal was known: no probe of its own
            return Pause(0.0)
        if self.probes >= len(waits):
            said = f"the endpoint refuses {self.terms.key_name} ({failure.status}): {failure.message}"
            return StoppedError(said, hint="mend the key, then run the same command again; no row is lost")
        self.probed_at_s = now_s
        self.probes += 1
        return Pause(waits[self.probes - 1])

    def _web_page(self, failure: Failure) -> RunnerError | None:
        self.web_pages += 1
        if self.web_pages < WEB_PAGES:
            return None
        said = f"{self.terms.base_url} answers with web pages, not with JSON: {failure.message}"
        return StoppedError(said, hint="check endpoint.base_url: it usually ends in /v1")


def _money(failure: Failure) -> RunnerError:
    said = f"the account's quota is used up ({failure.status}): {failure.message}"
    return StoppedError(said, hint="top up the account or raise its limit, then run the same command again")


def _setting(failure: Failure, terms: Terms) -> RunnerError:
    said = f"{terms.base_url} does not know the model or the path ({failure.status}): {failure.message}"
    return StoppedError(said, hint="check request.model and endpoint.base_url in the job file, then run it again")


def used_up(budget: Budget, worst_usd: Decimal | None) -> RunnerError:
    """Nothing is in flight and there is no room for another row. worst_usd: of the cheapest that waits."""
    most_usd = budget.at_most(worst_usd)
    spent = (
        f"{_usd(budget.spent_usd)} of {_usd(budget.max_usd)} are spent (requests of unknown cost at their worst case)"
    )
    if most_usd is None:
        return StoppedError(
            f"the budget has no room for another row, what it costs at most is not known: {spent}",
            hint="give the price that is billed (pricing) and an output cap; the same command goes on, no row is lost",
        )
    dearer = f", {budget.times.normalize():f} times what is possible, as others have" if budget.times > 1 else ""
    enough = f"--max-usd {(budget.spent_usd + most_usd).normalize():f}"
    return StoppedError(
        f"the budget has no room for another row, that may cost {_usd(most_usd)}{dearer}: {spent}",
        hint=f"raise it: the same command with {enough} or more goes on (`runner check` tells what the rest may cost); "
        "no row is lost",
    )


def _usd(amount: Decimal) -> str:
    """Exact, where a rounded figure might be one that does not do."""
    return f"${amount.normalize():f}"


def duration(seconds: float) -> str:
    """3.2 s, 14 min, 2 h 05 min: a length of time for people."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


@dataclass(slots=True)
class Streak:
    """Rows in a row that failed alike."""

    first_alike: int = FIRST_ALIKE
    later_alike: int = LATER_ALIKE
    sign: tuple[object, ...] | None = None
    length: int = 0
    unbroken: bool = True  #: since the start of this process
    examples: list[int] = field(default_factory=list)

    def see(self, row: int, outcome: Outcome) -> RunnerError | None:
        """Take one final row in; the error that stops the job when it is one too many."""
        sign = likeness(outcome)
        if sign != self.sign or sign is None:
            self.unbroken = self.unbroken and self.sign is None and sign is not None
            self.sign, self.length, self.examples = sign, 0, []
        if sign is None or not isinstance(outcome, Failure):
            return None
        self.length += 1
        self.examples = [*self.examples, row][:3]
        most = self.first_alike if self.unbroken else self.later_alike
        return _alike(outcome, self.length, self.unbroken, self.examples) if self.length >= most else None


def likeness(outcome: Outcome) -> tuple[object, ...] | None:
    """What two failures must share to count as alike; None for an answer and for kinds that never stop a job."""
    if not isinstance(outcome, Failure) or RULES[outcome.kind].halt is Halt.NEVER:
        return None
    return outcome.kind, outcome.status, re.sub(r"\d+", "#", outcome.message)[:80]


def holds(outcome: Outcome) -> bool:
    """Whether a failed row's record waits until its streak is over: failing it again costs nothing, so if the streak
    turns out to be the job's fault the row goes back instead of staying failed. Asked for the first rows of a process
    only (Streak.unbroken): a kill may send every held row again."""
    return likeness(outcome) is not None and isinstance(outcome, Failure) and outcome.billed is Billed.NO


def _alike(failure: Failure, length: int, first: bool, rows: Sequence[int]) -> RunnerError:
    which = f"the first {length} rows" if first else f"{length} rows in a row"
    cure = "mend the job file or the input" if failure.kind in (Kind.REQUEST, Kind.INPUT, Kind.OUTPUT) else "see why"
    said = f"{which} failed alike ({failure.kind}): {failure.message}"
    return StoppedError(said, hint=f"{cure} (rows {', '.join(map(str, rows))}, …), then run again")
