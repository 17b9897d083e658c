"""What rows take before they are sent: tokens, dollars, time.

Rule: pure sums and what follows from them; at most and expected are two numbers, and what nobody can know is None.
Strategy: a row adds to the sums of its model; prices and answers are looked at once a model, at the end. A prompt is
reckoned at four bytes a token, and by what replies have reported as soon as there are some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from runner.records import Request, Status, Usage

#: (model, tokens of one exchange, service tier) -> dollars; None: no price is known.
Charge = Callable[[str, Usage, str | None], Decimal | None]

#: A guess while nothing has been measured: the median latency of a short answer from a hosted model.
GUESSED_LATENCY_S = 2.0
GUESSED_IN_FLIGHT = 32  #: where the job leaves it to us


@dataclass(frozen=True, slots=True)
class Answer:
    """What is kept of a final row, as far as it tells something about others."""

    row: int
    status: str
    model: str
    prompt_tokens: int | None  #: of the answer
    completion_tokens: int | None
    usd: Decimal | None  #: of every exchange of the row
    busy_s: float  #: all its exchanges
    exchanges: int

    @property
    def is_ok(self) -> bool:
        return self.status == Status.OK


@dataclass(slots=True)
class Told:
    """Sums over answers."""

    rows: int = 0
    prompt_tokens: int = 0
    reckoned_tokens: int = 0  #: of prompts that we have reckoned too: our number …
    reported_tokens: int = 0  #: … and the server's
    completion_tokens: int = 0
    busy_s: float = 0.0
    exchanges: int = 0
    priced: int = 0  #: of the rows: their cost is known
    usd: Decimal = Decimal(0)

    def add(self, answer: Answer, reckoned_tokens: int | None) -> None:
        """reckoned_tokens: our estimate of its prompt, if its prompt is known. Answers without their tokens tell
        nothing."""
        if answer.prompt_tokens is None or answer.completion_tokens is None:
            return
        self.rows += 1
        self.prompt_tokens += answer.prompt_tokens
        if reckoned_tokens is not None:
            self.reckoned_tokens += reckoned_tokens
            self.reported_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens
        self.busy_s += answer.busy_s
        self.exchanges += answer.exchanges
        self.priced += answer.usd is not None
        self.usd += answer.usd or 0

    def join(self, other: Told) -> None:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def ratio(self) -> float:
        """Tokens that were reported for one that we reckoned."""
        return self.reported_tokens / self.reckoned_tokens if self.reported_tokens and self.reckoned_tokens else 1.0


@dataclass(slots=True)
class Load:
    """Sums over the rows of one model in one service tier."""

    model: str
    tier: str | None = None
    rows: int = 0
    prompt_tokens: int = 0  #: reckoned by bytes, media by their tables
    output_tokens: int = 0  #: at most, of the rows that have a cap
    uncapped: int = 0
    tokens: int = 0  #: as tokens_per_minute reckons them
    at_most_usd: Decimal = Decimal(0)  #: of the rows that have a bound
    unbounded: int = 0

    def add(self, request: Request, cap: int | None) -> None:
        self.rows += 1
        self.prompt_tokens += request.prompt_tokens
        self.output_tokens += (cap or 0) * request.choices
        self.uncapped += cap is None
        self.tokens += request.tokens
        if request.reserved_usd is None:
            self.unbounded += 1
        else:
            self.at_most_usd += request.reserved_usd

    def expected_usd(self, told: Told, charge: Charge) -> Decimal | None:
        """By the price of its expected tokens, and by how answers have differed from theirs (cached prompts, rows that
        were asked twice, what the server itself says)."""
        modelled = self._charged(told, charge)
        if not told.priced:
            return modelled
        then = charge(self.model, _mean(told.prompt_tokens, told.completion_tokens, told.rows), self.tier)
        if not modelled or not then:
            return self.rows * told.usd / told.priced
        return modelled * told.usd / told.priced / then

    def _charged(self, told: Told, charge: Charge) -> Decimal | None:
        output = self.rows * told.completion_tokens / told.rows
        each = charge(self.model, _mean(self.prompt_tokens * told.ratio, output, self.rows), self.tier)
        return None if each is None else self.rows * each


def _mean(prompt_tokens: float, completion_tokens: float, rows: int) -> Usage:
    return Usage(prompt_tokens=round(prompt_tokens / rows), completion_tokens=round(completion_tokens / rows))


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the pace: the job's limits."""

    in_flight: int
    guessed: bool = False  #: the number in flight is left to be found, and a guess here
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


@dataclass(slots=True)
class Demand:
    """Sums over rows that are to be sent, by model, and over answers that there are."""

    charge: Charge
    told: Mapping[str, Told] = field(default_factory=dict)
    loads: dict[tuple[str, str | None], Load] = field(default_factory=dict)
    unsendable: int = 0
    example: tuple[int, str] | None = None  #: the first row that cannot be sent, and why
    everywhere: Told = field(init=False, default_factory=Told)  #: what the answers of all models have told
    lengths: Told = field(init=False, default_factory=Told)  #: the same without the money

    def __post_init__(self) -> None:
        for told in self.told.values():
            self.everywhere.join(told)
        self.lengths = replace(self.everywhere, priced=0, usd=Decimal(0))

    def add(self, request: Request, cap: int | None, tier: str | None = None) -> None:
        load = self.loads.get((request.model, tier))
        if load is None:
            load = self.loads[request.model, tier] = Load(request.model, tier)
        load.add(request, cap)

    def refuse(self, row: int, message: str) -> None:
        self.unsendable += 1
        self.example = self.example or (row, message)

    @property
    def rows(self) -> int:
        return sum(load.rows for load in self.loads.values())

    def told_of(self, model: str) -> Told:
        """Of a model without an answer the others tell the lengths, but not the money."""
        own = self.told.get(model)
        return own if own and own.rows else self.lengths

    @property
    def prompt_tokens(self) -> int:
        return round(sum(load.prompt_tokens * self.told_of(load.model).ratio for load in self.loads.values()))

    @property
    def output_tokens(self) -> int | None:
        """At most; None: some rows have no cap."""
        uncapped = any(load.uncapped for load in self.loads.values())
        return None if uncapped else sum(load.output_tokens for load in self.loads.values())

    @property
    def expected_output_tokens(self) -> int | None:
        """By the mean of the answers so far; None: there are none."""
        if not self.everywhere.rows:
            return None
        return round(sum(self._expected_output(load) for load in self.loads.values()))

    def _expected_output(self, load: Load) -> float:
        told = self.told_of(load.model)
        return load.rows * told.completion_tokens / told.rows

    @property
    def at_most_usd(self) -> Decimal | None:
        """For one answer a row, at the dearest; None: a price or a cap is not known."""
        loads = self.loads.values()
        return None if any(load.unbounded for load in loads) else sum((load.at_most_usd for load in loads), Decimal(0))

    @property
    def expected_usd(self) -> Decimal | None:
        """By the answers so far; None: there are none, or no price is known."""
        if not self.everywhere.rows:
            return None
        return _all(load.expected_usd(self.told_of(load.model), self.charge) for load in self.loads.values())

    @property
    def full_usd(self) -> Decimal | None:
        """The same for prompts of the tokens that they likely have; None: a price or a cap is not known."""
        return _all(self._full(load) for load in self.loads.values())

    def _full(self, load: Load) -> Decimal | None:
        prompt = load.prompt_tokens * self.told_of(load.model).ratio
        each = self.charge(load.model, _mean(prompt, load.output_tokens, load.rows), load.tier)
        return None if each is None or load.uncapped else load.rows * each

    @property
    def latency_s(self) -> float | None:
        """Of an exchange, by the answers so far."""
        told = self.everywhere
        return told.busy_s / told.exchanges if told.exchanges else None

    def seconds(self, limits: Limits) -> float:
        """How long sending takes: each model has limits of its own, the number in flight is of all."""
        told = self.everywhere
        busy_s = told.busy_s / told.rows if told.rows and told.busy_s else GUESSED_LATENCY_S
        waits = [self.rows * busy_s / limits.in_flight]
        for load in self.loads.values():
            if limits.requests_per_minute:
                waits.append(60 * load.rows / limits.requests_per_minute)
            if limits.tokens_per_minute:
                waits.append(60 * self._tokens(load) / limits.tokens_per_minute)
        return max(waits)

    def _tokens(self, load: Load) -> float:
        told = self.told_of(load.model)
        return load.prompt_tokens * told.ratio + self._expected_output(load) if told.rows else load.tokens


def _all(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """Their sum; None when one of them is unknown."""
    total = Decimal(0)
    for amount in amounts:
        if amount is None:
            return None
        total += amount
    return total
