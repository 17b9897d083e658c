"""A body as its provider takes it.

Rule: changed after the hash, never before it. Strategy: what depends on constants of the job alone is decided once for
each model and kept as a plan; a row costs a look at its plan, and the rules that read what differs from row to row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from runner.dialect.models import NONE, model_of, provider_of
from runner.dialect.rules import MESSAGES, Body, Finding, Rule, Severity, binding, check
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
class Plan:
    """What is known of a model's bodies before there is one."""

    fixed: tuple[Finding, ...] = ()
    open: tuple[Rule, ...] = ()  #: read what differs from row to row

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
        findings = [*plan.fixed, *(found for rule in plan.open if (found := rule.judge(body)))]
        if not findings:
            return body
        if not self._terms.drop and (refused := _first_error(findings)):
            return input_failure(f"{refused.sentence}, or {DROP}")
        self._say(findings)
        return adapt(body, findings)

    def listen(self, tell: Callable[[str], None]) -> None:
        """Tell what is changed, each sentence once: those so far now, others when they come up."""
        model = self.bodies.constants.get("model")
        if model is not None:
            self._say(self._planned(model).fixed)
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
        provider = provider_of(name, self._terms.asked)
        if provider is None:
            return IDLE
        constants = self.bodies.constants
        rules = [rule for rule in binding(model_of(name, provider)) if rule.parameter in self.bodies.names]
        differing = self.bodies.differing
        fixed = (rule.judge(constants) for rule in rules if not rule.reads & differing)
        plan = Plan(tuple(filter(None, fixed)), tuple(rule for rule in rules if rule.reads & differing))
        return IDLE if plan.idle else plan

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


def adapt(body: Mapping[str, Any], findings: Iterable[Finding]) -> dict[str, Any]:
    """A copy of `body` without what its errors name, and with what its notices say. Order is kept."""
    renamed = {found.parameter: found.sent_as for found in findings if found.changes}
    roles = renamed.pop(MESSAGES, None)
    taken = set(renamed.values()) - renamed.keys()  # a null under the new name gives way
    kept = ((renamed.get(name, name), value) for name, value in body.items() if name not in taken)
    fitted = {name: value for name, value in kept if name is not None}
    if roles:
        fitted[MESSAGES] = [_as(roles, message) for message in body[MESSAGES]]
    return fitted


def _as(role: str, message: Any) -> Any:
    known = not isinstance(message, Mapping) or message.get("role") != "developer"
    return message if known else {**message, "role": role}


def _first_error(findings: Iterable[Finding]) -> Finding | None:
    return next((found for found in findings if found.severity is Severity.ERROR), None)
