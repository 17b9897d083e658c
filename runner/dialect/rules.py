"""What a request says that its provider does not take, and what deserves a word.

Rule: a rule sees a whole body and answers with a finding or None; it names the parameters that it reads, so that what
is the same for every row is judged once. Nothing here changes a body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from runner.dialect.models import EARLY_GPT_5, NEW_CAP, OLD_CAP, SAMPLING, Model, Provider, model_of
from runner.dialect.table import ALIKE, IGNORED, TABLE, Cell

Body = Mapping[str, Any]
MESSAGES = "messages"
EFFORT = "reasoning_effort"
OPTIONS = "stream_options"
FORMAT = "response_format"
#: Messages that come before the conversation.
GUIDES = ("system", "developer")


class Severity(StrEnum):
    """What a finding means for the request."""

    ERROR = "error"  #: not sent like this: refused, or left out where the job says drop
    NOTICE = "notice"  #: sent otherwise than it was written, meaning the same
    WARNING = "warning"  #: sent as written, and perhaps not what was meant
    ADVICE = "advice"  #: sent as written; there is a better way


@dataclass(frozen=True, slots=True)
class Finding:
    severity: Severity
    parameter: str
    message: str
    cure: str = ""
    sent_as: str | None = None  #: of a notice: the new name of the parameter or the role; None: left out
    adds: Mapping[str, Any] | None = None  #: of a notice: what is sent besides, in place of leaving out

    @property
    def sentence(self) -> str:
        return f"{self.parameter}: {self.message}" + (f"; {self.cure}" if self.cure else "")

    @property
    def changes(self) -> bool:
        """Whether the body that is sent differs by it."""
        return self.severity in (Severity.ERROR, Severity.NOTICE)

    @property
    def said_of_change(self) -> str:
        """What is said once of a body that was changed by it."""
        return self.sentence if self.severity is Severity.NOTICE else f"{self.parameter}: left out, {self.message}"


Judge = Callable[[Body], Finding | None]


@dataclass(frozen=True, slots=True)
class Rule:
    parameter: str
    judge: Judge
    also_reads: tuple[str, ...] = ()

    @property
    def reads(self) -> frozenset[str]:
        return frozenset((self.parameter, *self.also_reads))


def check(body: Body, provider: Provider | None) -> list[Finding]:
    """Everything that is to be said of a body, before any change; `provider` as `provider_of` gives it."""
    rules = [*BINDING_ALL, *GENERAL]
    if provider is not None:
        model = model_of(str(body.get("model", "")), provider)
        rules = [*BINDING_ALL, *binding(model), *advising(model), *GENERAL]
    return [finding for rule in rules if (finding := rule.judge(body))]


def binding(model: Model) -> Iterator[Rule]:
    """The rules whose findings are errors and notices."""
    refused = model.family.refused
    for name in (*TABLE, *ALIKE):
        if name not in refused:
            cell = TABLE[ALIKE.get(name, name)][model.provider]
            yield Rule(name, partial(_cell, name, cell, model.provider.label))
    for name in refused:
        yield Rule(name, partial(_refused, name, model), (EFFORT,))
    if model.provider is Provider.OPENAI and model.family.efforts is not None:
        yield Rule(EFFORT, partial(_effort, model))
    for name in (OLD_CAP, NEW_CAP):
        yield Rule(name, partial(_cap, name, model), (OLD_CAP, NEW_CAP))
    if not model.family.developer:
        yield Rule(MESSAGES, partial(_developer, model))


def advising(model: Model) -> Iterator[Rule]:
    """The rules whose findings are warnings and advice."""
    for name in IGNORED.get(model.provider, ()):
        yield Rule(name, partial(_ignored, name, model))
    if model.family is EARLY_GPT_5:
        yield Rule(EFFORT, _early_effort)
    if model.family.reasons:
        yield Rule(MESSAGES, _better_developer)
    if model.provider is Provider.OPENAI:
        yield Rule(FORMAT, _unnamed_json, (MESSAGES,))


def _cell(name: str, cell: Cell, provider: str, body: Body) -> Finding | None:
    value = body.get(name)
    objection = None if value is None else cell.objection(value)
    return Finding(Severity.ERROR, name, f"{provider} {objection}", cell.cure) if objection else None


def _refused(name: str, model: Model, body: Body) -> Finding | None:
    family = model.family
    if not _asked(body, name) or (name in SAMPLING and body.get(EFFORT) in family.sampled_at):
        return None
    cure = "leave it out"
    if name in SAMPLING and family.sampled_at:
        cure += f", or write {EFFORT}: none"
    return Finding(Severity.ERROR, name, f"not taken by {family.label}", cure)


def _effort(model: Model, body: Body) -> Finding | None:
    value, efforts = body.get(EFFORT), model.family.efforts
    if value is None or efforts is None or value in efforts:
        return None
    if not efforts:
        cure = "leave it out; the o-series and GPT-5.1 or later take it"
        return Finding(Severity.ERROR, EFFORT, f"not taken by {model.family.label}", cure)
    words = f"{', '.join(efforts[:-1])} or {efforts[-1]}"
    return Finding(Severity.ERROR, EFFORT, f"only {words} for {model.family.label}", "write one of these")


def _cap(name: str, model: Model, body: Body) -> Finding | None:
    """One cap is sent, under the name that the model takes."""
    other = OLD_CAP if name == NEW_CAP else NEW_CAP
    both = body.get(other) is not None
    wanted = model.family.cap or (NEW_CAP if both else name)
    if body.get(name) is None or name == wanted:
        return None
    if both:
        return Finding(Severity.NOTICE, name, f"left out for {model.family.label}, {other} says it", sent_as=None)
    return Finding(Severity.NOTICE, name, f"sent as {wanted} to {model.family.label}", sent_as=wanted)


def _developer(model: Model, body: Body) -> Finding | None:
    if "developer" not in _roles(body):
        return None
    return Finding(Severity.NOTICE, MESSAGES, f"developer is sent as system to {model.family.label}", sent_as="system")


def _uncounted(body: Body) -> Finding | None:
    """Without it the bill of a stream is unknown on OpenAI and most servers like it."""
    if body.get("stream") is not True or body.get(OPTIONS) is not None:
        return None
    said = "sent as {include_usage: true}, for a stream tells its tokens only when it is asked to"
    return Finding(Severity.NOTICE, OPTIONS, said, adds={OPTIONS: {"include_usage": True}})


def _ignored(name: str, model: Model, body: Body) -> Finding | None:
    if not _asked(body, name):
        return None
    return Finding(Severity.WARNING, name, f"{model.provider.label} reads over it", "leave it out")


def _early_effort(body: Body) -> Finding | None:
    if body.get(EFFORT) is None:
        return None
    return Finding(Severity.WARNING, EFFORT, "gpt-5 itself takes it, but gateways promise it from GPT-5.1 on only")


def _better_developer(body: Body) -> Finding | None:
    if "system" not in _roles(body):
        return None
    return Finding(Severity.ADVICE, MESSAGES, "OpenAI's models from o1 on know `developer` in place of `system`")


def _unnamed_json(body: Body) -> Finding | None:
    asked = body.get(FORMAT)
    asked = asked.get("type") if isinstance(asked, Mapping) else None
    if asked != "json_object" or "json" in str(body.get(MESSAGES)).lower():
        return None
    said = "OpenAI refuses json_object where no message has the word JSON in it"
    return Finding(Severity.WARNING, FORMAT, said, "write it into one, or ask for json_schema")


def _two_samplings(body: Body) -> Finding | None:
    if body.get("temperature") is None or body.get("top_p") is None:
        return None
    return Finding(Severity.WARNING, "top_p", "given together with temperature", "change one of them, not both")


def _late_guide(body: Body) -> Finding | None:
    roles = _roles(body)
    first = next((place for place, role in enumerate(roles) if role not in GUIDES), len(roles))
    late = next((role for role in roles[first:] if role in GUIDES), None)
    if late is None:
        return None
    return Finding(Severity.WARNING, MESSAGES, f"a {late} message is not first", "many models take it from there only")


#: For every model, also those that nothing is known of: what is changed, and what deserves a word.
BINDING_ALL = (Rule("stream", _uncounted, (OPTIONS,)),)
GENERAL = (Rule("top_p", _two_samplings, ("temperature",)), Rule(MESSAGES, _late_guide))


def _asked(body: Body, name: str) -> bool:
    """Null and false ask for nothing; 0 is a number."""
    value = body.get(name)
    return value is not None and value is not False


def _roles(body: Body) -> list[Any]:
    messages = body.get(MESSAGES)
    if not isinstance(messages, list | tuple):
        return []
    return [message.get("role") if isinstance(message, Mapping) else None for message in messages]
