"""The job: frozen models, one for each section of the file, with every default.

Rule: a job holds what the file says and nothing that depends on where or when it runs: paths stay as written, a secret
stays the name of its variable. `request` and `pricing` are open sections: their free keys are the wire's parameters
(judged by `body`) and the models' names.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr, StrictBool, StrictStr, model_validator

from runner.spec import batchfile
from runner.spec.positions import Places
from runner.spec.values import (
    AutoOrWhole,
    BaseUrl,
    Columns,
    Count,
    Dollars,
    Factor,
    Few,
    Filled,
    Growth,
    HeaderValue,
    Messages,
    Name,
    Paths,
    PathText,
    Rate,
    Room,
    Seconds,
    Section,
    Variable,
    Variables,
    keep_or,
    number_or,
)


class InputSpec(Section):
    path: Paths
    format: Literal["jsonl", "parquet", "csv", "openai_batch"] | None = None
    id_column: Filled | None = None
    limit: Count | None = None
    on_bad_line: Literal["stop", "fail_row"] = "stop"
    files_root: PathText = "."

    @model_validator(mode="before")
    @classmethod
    def _named_by_lines(cls, values: Any) -> Any:
        """The lines of a batch file have an id of their own."""
        lines = isinstance(values, dict) and values.get("format") == batchfile.FORMAT
        return {**values, "id_column": values.get("id_column") or batchfile.ID_COLUMN} if lines else values

    @property
    def is_of_lines(self) -> bool:
        """Whether each line is a whole request."""
        return self.format == batchfile.FORMAT


class RequestSpec(Section):
    """`params`: every other wire parameter that the file gives, as written, templates included."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model: StrictStr
    messages: Messages
    extra_body: dict[str, Any] = Field(default_factory=dict)

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class EndpointSpec(Section):
    base_url: BaseUrl = "https://api.cometapi.com/v1"
    api_key_env: Variable | None = "COMETAPI_KEY"
    api_key_file: PathText | None = None
    dialect: Literal["openai", "claude", "gemini", "auto", "none"] = "auto"
    on_unsupported: Literal["error", "drop"] = "error"
    headers: dict[str, HeaderValue] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _one_key(cls, values: Any) -> Any:
        """A key file stands instead of the default variable."""
        by_file = isinstance(values, dict) and values.get("api_key_file") is not None
        return {"api_key_env": None, **values} if by_file else values


class LimitsSpec(Section):
    concurrency: AutoOrWhole = "auto"
    max_concurrency: Count = 1024
    requests_per_minute: Rate | None = None
    tokens_per_minute: Rate | None = None


class OnTruncation(Section):
    """An answer that was cut off is asked for once more with `factor` times the room, at most `max_tokens`."""

    factor: Growth = 2
    max_tokens: Room


class OnInvalid(Section):
    """An answer that cannot be used is asked for again, `feedback`: with the answer and its error shown."""

    attempts: Few
    feedback: StrictBool = True


KEEP: Any = Field(default=None, json_schema_extra={"default": "keep"})


class RetrySpec(Section):
    """`on_truncation`, `on_invalid`: None is the file's `keep`."""

    max_attempts: Count = 6
    max_backoff_s: Seconds = 60
    max_wait_s: Seconds = 900
    on_truncation: Annotated[OnTruncation | None, *keep_or(OnTruncation)] = KEEP
    on_invalid: Annotated[OnInvalid | None, *keep_or(OnInvalid)] = KEEP


class TimeoutsSpec(Section):
    connect_s: Seconds = 10
    attempt_s: Seconds = 300
    stall_s: Seconds = 60
    row_s: Seconds = 3600
    outage_s: Seconds = 21600
    auth_wait_s: Seconds = 600
    drain_s: Seconds = 25


class BudgetSpec(Section):
    max_usd: Dollars | None = None
    confirm_above_usd: Dollars | None = None


class RatesSpec(Section):
    """USD per million tokens, and of a request; null is unknown, not free. What has no rate of its own among the tokens
    of the prompt costs `input`, among those of the answer `output`."""

    input: Dollars | None = None
    cached_input: Dollars | None = None
    cache_write: Dollars | None = None
    output: Dollars | None = None
    input_audio: Dollars | None = None
    output_audio: Dollars | None = None
    reasoning: Dollars | None = None
    per_request: Dollars | None = None


class TierSpec(RatesSpec):
    """Rates of its own, or those of the model, times `factor`; in the file a number alone is the factor."""

    factor: Factor = Decimal(1)


Tier = Annotated[TierSpec, *number_or(TierSpec, "factor")]


class PriceSpec(RatesSpec):
    batch: Tier | None = None
    flex: Tier | None = None
    priority: Tier | None = None


class PricingSpec(Section):
    """`catalogue`: a file of the gateway's own prices (`runner prices -o FILE`)."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, PriceSpec] = Field(init=False)

    factor: Factor = Decimal(1)
    catalogue: PathText | None = None

    @property
    def models(self) -> dict[str, PriceSpec]:
        return dict(self.__pydantic_extra__ or {})


class OutputSpec(Section):
    directory: PathText | None = None
    columns: Columns = "all"
    prefix: StrictStr = ""
    rows_per_part: AutoOrWhole = "auto"
    keep_raw: StrictBool = False


class NotifySpec(Section):
    webhook_env: Variable | None = None
    on: tuple[Literal["finished", "stopped", "stalled"], ...] = ("finished", "stopped", "stalled")
    stalled_after_s: Seconds = 600


class JobSpec(Section):
    """A job file that was understood whole. Equal to another when both say the same, wherever they stand."""

    name: Name
    tags: dict[str, StrictStr] = Field(default_factory=dict)
    vars: Variables = Field(default_factory=dict)
    input: InputSpec
    request: RequestSpec
    endpoint: EndpointSpec = EndpointSpec()
    limits: LimitsSpec = LimitsSpec()
    retry: RetrySpec = RetrySpec()
    timeouts: TimeoutsSpec = TimeoutsSpec()
    budget: BudgetSpec = BudgetSpec()
    pricing: PricingSpec = PricingSpec()
    output: OutputSpec = OutputSpec()
    notify: NotifySpec = NotifySpec()
    engine: Literal["local", "batch", "ray"] = "local"

    _places: Places = PrivateAttr(default_factory=Places)

    def model_post_init(self, context: Any) -> None:
        if isinstance(context, Places):
            self._places = context

    def where(self, path: str) -> str:
        """Where a dotted path was written, `jobs/x.yaml:17`, or its nearest known parent."""
        return self._places.where(path)

    def order(self, path: str) -> int:
        """Sorts what is said of the job's paths as they stand in the file."""
        return self._places.order(path)

    def dump(self) -> dict[str, Any]:
        """The job as parsed, as JSON values: what run.json keeps. Parsed again, it gives an equal job."""
        return self.model_dump(mode="json")


SECTIONS: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in JobSpec.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}

#: Sections inside a section.
INNER: dict[tuple[str | int, ...], type[Section]] = {
    ("retry", "on_truncation"): OnTruncation,
    ("retry", "on_invalid"): OnInvalid,
}


def keys_of(path: tuple[str | int, ...]) -> tuple[str, ...]:
    """The keys that may stand in the mapping at `path`."""
    if not path:
        return tuple(JobSpec.model_fields)
    inner = INNER.get(path)
    if inner:
        return tuple(inner.model_fields)
    section = SECTIONS[str(path[0])]
    if section is PricingSpec and len(path) > 1:
        section = PriceSpec if len(path) == 2 else TierSpec
    return tuple(section.model_fields)
