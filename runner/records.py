"""The values that flow through the program; everything else moves these.

    Row -> Request -> Reply -> Completion | Failure -> Settled -> (record line) -> part

Rule: frozen, no behaviour beyond arithmetic, no input or output. Units last in names. Money is `Decimal` dollars,
quantised to 1e-12 (see pricing.py); `None` always means unknown, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """Why an exchange, or a row, failed. What follows from each is the table `retry.RULES`."""

    RATE = "RATE"
    OVERLOADED = "OVERLOADED"
    NETWORK = "NETWORK"
    TIMEOUT = "TIMEOUT"
    SERVER = "SERVER"
    BAD_REPLY = "BAD_REPLY"
    OUTPUT = "OUTPUT"
    REQUEST = "REQUEST"
    POLICY = "POLICY"
    INPUT = "INPUT"
    AUTH = "AUTH"
    QUOTA = "QUOTA"
    CONFIG = "CONFIG"
    UNKNOWN = "UNKNOWN"


class Status(StrEnum):
    """What became of a row: the `status` column."""

    OK = "ok"
    TRUNCATED = "truncated"
    FILTERED = "filtered"
    REFUSED = "refused"
    FAILED = "failed"


class Billed(StrEnum):
    """Whether the provider charged for an exchange that gave no answer."""

    NO = "no"  #: it never reached the provider, or the provider does not charge for it
    MAYBE = "maybe"  #: the request was on the wire and no complete answer came back
    YES = "yes"  #: an answer came back, with or without usage


@dataclass(frozen=True, slots=True)
class Row:
    """One input record at its ordinal. `data` is None for a bad line that becomes a failed row; `error` says why."""

    index: int
    data: Mapping[str, Any] | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one exchange as the server reported them; absent is None. cached ⊂ prompt, reasoning ⊂ completion."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    total_tokens: int | None = None
    audio_tokens: int | None = None  #: ⊂ prompt
    output_audio_tokens: int | None = None  #: ⊂ completion
    reported_usd: Decimal | None = None  #: what the server says that the exchange cost


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One HTTP exchange for a row, as the `attempts` column keeps it. Identity: (row, epoch, n)."""

    epoch: int
    n: int  #: 1, 2, … over all exchanges of the row in this epoch
    started_at: str  #: ISO 8601 UTC with microseconds, ending in Z
    seconds: float | None
    waited_s: float  #: between being ready to send and being sent: gate, rate, slot, backoff
    http_status: int | None = None
    error_kind: str | None = None
    error: str | None = None
    request_id: str | None = None
    request_hash: str | None = None
    model_returned: str | None = None
    finish_reason: str | None = None
    usage: Usage = NO_USAGE
    cost_usd: Decimal | None = None
    answer: str | None = None  #: a paid answer that did not become the row's
    price_source: str | None = None  #: who says what it cost; no column of `attempts`
    reserved_usd: Decimal | None = None  #: its worst case; no column: journals have it in the `sent` line


@dataclass(frozen=True, slots=True)
class Request:
    """One rendered request. `body` is the JSON that is sent; `hash` covers base_url and body (wire/encode.py)."""

    index: int
    body: bytes
    hash: str
    model: str
    tokens: int  #: estimate of prompt plus output cap, for tokens_per_minute
    prompt_tokens: int = 0  #: of these, the prompt
    prompt_most: int | None = None  #: tokens of the prompt at most; None: unknown
    reserved_usd: Decimal | None = None  #: upper bound of what one exchange can cost; None: unknown
    choices: int = 1  #: n
    service_tier: str | None = None  #: the one asked for
    epoch: int = 1
    prior: tuple[Attempt, ...] = ()  #: exchanges of this row before this process, all epochs


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, headers (names in lower case) and decoded body of one exchange.

    `cut`: what ended the body of an event stream before its end; every other body came back whole.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float
    arrivals: tuple[tuple[int, float], ...] = ()  #: of an event stream: (bytes so far, seconds since it was sent)
    cut: Failure | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str | None
    name: str | None
    arguments: str | None


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer of `n`. `logprobs` is a list of {"token", "logprob", "top": [{"token", "logprob"}]}."""

    index: int
    content: str | None = None
    finish_reason: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[Mapping[str, Any], ...] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer that came back and was paid for. `choices[0]` is the row's own answer."""

    status: Status
    choices: tuple[Choice, ...]
    usage: Usage = NO_USAGE
    model: str | None = None
    response_id: str | None = None
    created: int | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    request_id: str | None = None
    first_token_s: float | None = None  #: of a streamed answer: seconds from sending to its first text or tool call
    parsed: Any = None  #: fitted to the Arrow type of the `parsed` column (outputs.fit)
    raw: str | None = None  #: the body, when output.keep_raw asks for it


@dataclass(frozen=True, slots=True)
class Failure:
    """An exchange, or a row, that gave no usable answer. A value, never raised."""

    kind: Kind
    message: str  #: one line, at most 500 characters, no control characters
    status: int | None = None
    billed: Billed = Billed.NO
    wait_s: float | None = None  #: the server's hint how long to wait
    request_id: str | None = None
    unreachable: bool = False  #: nothing was ever connected: refused, DNS, TLS, connect deadline
    html: bool = False  #: a web page came back where JSON was due
    answer: Completion | None = None  #: the paid answer behind an OUTPUT failure
    usage: Usage = NO_USAGE


Outcome = Completion | Failure


@dataclass(frozen=True, slots=True)
class Settled:
    """A row that is final: its outcome and every attempt ever made for it, the last one included."""

    request: Request
    outcome: Outcome
    attempts: tuple[Attempt, ...]
    price_source: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    cost_usd: Decimal | None = None  #: of the answer that settled it


@dataclass(slots=True)
class Tally:
    """Exact totals of a set of rows. Adding two gives the totals of both."""

    rows: dict[str, int] = field(default_factory=dict)  #: by status
    exchanges: int = 0
    unknown_exchanges: int = 0  #: exchanges whose cost is not known
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: Decimal = Decimal(0)  #: of all exchanges of known cost
    wasted_usd: Decimal = Decimal(0)  #: of these, the ones that are no row's answer
    unknown_usd: Decimal = Decimal(0)  #: what the exchanges of unknown cost may have cost at most; not in cost_usd
    bounded: int = 0  #: the exchanges of unknown cost that unknown_usd is of: nothing bounds the others

    @property
    def settled(self) -> int:
        return sum(self.rows.values())

    @property
    def not_ok(self) -> int:
        return self.settled - self.rows.get(Status.OK, 0)

    def add(self, other: Tally) -> None:
        for status, count in other.rows.items():
            self.rows[status] = self.rows.get(status, 0) + count
        self.exchanges += other.exchanges
        self.unknown_exchanges += other.unknown_exchanges
        self.prompt_tokens += other.prompt_tokens
        self.cached_tokens += other.cached_tokens
        self.completion_tokens += other.completion_tokens
        self.reasoning_tokens += other.reasoning_tokens
        self.cost_usd += other.cost_usd
        self.wasted_usd += other.wasted_usd
        self.unknown_usd += other.unknown_usd
        self.bounded += other.bounded
