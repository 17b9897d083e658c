"""A body as its provider takes it.

Rule: changed after the hash, never before it. Strategy: what depends on constants of the job alone is decided once for
each model and kept as a plan; a row costs a look at its plan, and the rules that read what differs from row to row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.dialect.models import NONE, model_of, provider_of
from runner.dialect.rules import BINDING_ALL, MESSAGES, Body, Finding, Rule, Severity, binding, check
from runner.records import Failure
from runner.wire.encode import input_failure

#: Rows may name as many models as there are rows.
MOST_PLANS = 1024
DROP = "endpoint.on_unsupported: drop leaves it out"


@dataclass(frozen=True, slots=True)
class Terms:
    """`endpoint.dialect` and `endpoint.on_unsupported`."""

    asked: str = "auto"
    drop: bool = False


@dataclass(frozen=True, slots=True)
class Bodies:
    """What a job's bodies have in common. `constants`: the parameters that are the same for every row; `names`: all."""

    constants: Mapping[str, Any]
    names: frozenset[str]

    @property
    def differing(self) -> frozenset[str]:
        """The parameters that templates fill row by row."""
        return self.names - self.constants.keys()


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to a body. `names`: parameters under their new names, None for those left out."""

    names: Mapping[str, str | None]
    role: str | None  #: what developer is sent as
    added: Mapping[str, Any]

    def of(self, body: Body) -> dict[str, Any]:
        """A changed copy; order is kept."""
        names = self.names
        taken = set(names.values()).difference(names)  # a null under the new name gives way
        kept = ((names.get(name, name), value) for name, value in body.items() if name not in taken)
        changed = {name: value for name, value in kept if name is not None}
        if self.role:
            changed[MESSAGES] = [_as(self.role, message) for message in body[MESSAGES]]
        changed.update(self.added)
        return changed


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known of a model's bodies before there is one."""

    fixed: tuple[Finding, ...] = ()
    open: tuple[Rule, ...] = ()  #: read what differs from row to row
    settled: Change | Failure | None = None  #: what follows from `fixed` alone

    @property
    def idle(self) -> bool:
        return not self.fixed and not self.open


IDLE = Plan()
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class Dialect:
    """What one job's bodies become. Keeps a plan for each model, and what was changed, to be told once."""

    def __init__(self, terms: Terms, bodies: Bodies) -> None:
        self.bodies = bodies
        self._terms = terms
        self._plans: dict[str, Plan] = {}
        self._told: dict[str, None] = {}
        self._tell: Callable[[str], None] | None = None

    def fit(self, body: Body) -> Body | Failure:
        """The body to be sent: `body` itself where nothing changes. Failure(INPUT): the provider does not take it."""
        plan = self._plans.get(body["model"]) or self._planned(body["model"])
        if plan is IDLE:
            return body
        found = [each for rule in plan.open if (each := rule.judge(body))] if plan.open else None
        settled = self._settled([*plan.fixed, *found]) if found else plan.settled
        return settled.of(body) if isinstance(settled, Change) else settled or body

    def listen(self, tell: Callable[[str], None]) -> None:
        """Tell what is changed, each sentence once: those so far now, others when they come up."""
        model = self.bodies.constants.get("model")
        if model is not None:
            self._planned(model)
        self._tell = tell
        for sentence in self._told:
            tell(sentence)

    def errors(self) -> list[Finding]:
        """What no row of the job may be sent with; none where it is to be left out."""
        model = self.bodies.constants.get("model")
        if self._terms.drop or model is None:
            return []
        return [found for found in self._planned(model).fixed if found.severity is Severity.ERROR]

    def findings(self, body: Body) -> list[Finding]:
        """Everything that is to be said of one row's body, as it was before any change."""
        return [] if self._terms.asked == NONE else check(body, provider_of(body["model"], self._terms.asked))

    def _planned(self, name: str) -> Plan:
        if len(self._plans) >= MOST_PLANS:
            self._plans.clear()
        plan = self._plans[name] = self._plan(name)
        return plan

    def _plan(self, name: str) -> Plan:
        if self._terms.asked == NONE:
            return IDLE
        provider = provider_of(name, self._terms.asked)
        constants = self.bodies.constants
        own = binding(model_of(name, provider)) if provider else ()
        rules = [rule for rule in (*BINDING_ALL, *own) if rule.parameter in self.bodies.names]
        differing = self.bodies.differing
        fixed = (rule.judge(constants) for rule in rules if not rule.reads & differing)
        found = tuple(filter(None, fixed))
        plan = Plan(found, tuple(rule for rule in rules if rule.reads & differing), self._settled(found))
        return IDLE if plan.idle else plan

    def _settled(self, findings: Sequence[Finding]) -> Change | Failure | None:
        error = next((found for found in findings if found.severity is Severity.ERROR), None)
        if error and not self._terms.drop:
            return input_failure(f"{error.sentence}, or {DROP}")
        self._say(findings)
        return _change(findings) if findings else None

    def _say(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            if (sentence := finding.said_of_change) not in self._told:
                self._told[sentence] = None
                if self._tell:
                    self._tell(sentence)


def plain_roles(messages: Any) -> list[dict[str, str]] | None:
    """The messages with nothing but their roles; None: these differ from row to row."""
    if not isinstance(messages, list | tuple) or not all(isinstance(message, Mapping) for message in messages):
        return None
    roles = [message.get("role") for message in messages]
    return [{"role": role} for role in roles] if all(role in ROLES for role in roles) else None


def adapt(body: Body, findings: Iterable[Finding]) -> dict[str, Any]:
    """A copy of `body` without what its errors name, and with what its notices say."""
    return _change(findings).of(body)


def _change(findings: Iterable[Finding]) -> Change:
    findings = list(findings)
    names = {found.parameter: found.sent_as for found in findings if found.changes and not found.adds}
    role = names.pop(MESSAGES, None)
    added = {name: value for found in findings for name, value in (found.adds or {}).items()}
    return Change(names, role, added)


def _as(role: str, message: Any) -> Any:
    known = not isinstance(message, Mapping) or message.get("role") != "developer"
    return message if known else {**message, "role": role}
