"""What `check` and `render` tell before anything is sent.

Rule: calls nobody, makes nothing. Tokens are estimated from bytes (four to a token) over a sample of rows spread over
the whole input; the real figures are in the bill.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

import orjson

from runner.changing import preview
from runner.dialect import Finding, Severity
from runner.export.naming import shared_ids
from runner.halts import duration
from runner.prepare import Prepared
from runner.pricing import cost, words
from runner.recipe import Asked
from runner.records import Failure, Request, Row, Usage
from runner.say import dollars
from runner.wire.encode import output_cap
from runner.wiring import settings_of

SAMPLE_RANGES = 32
SAMPLE_ROWS = 16  #: of each sampled range
#: A guess for the time estimate: the median latency of a short answer from a hosted model.
GUESSED_LATENCY_S = 2.0
GUESSED_IN_FLIGHT = 32  #: where the job leaves it to us


@dataclass(slots=True)
class Estimate:
    """Sums over the sampled rows."""

    rows: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    uncapped: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)
    remarks: dict[str, None] = field(default_factory=dict)  #: lines about the provider, each once

    def remark(self, findings: Iterable[Finding]) -> None:
        """What is not refused: warnings, advice, and what is sent otherwise than it was written."""
        for found in findings:
            heading = Severity.NOTICE if found.changes else found.severity
            said = found.said_of_change if found.changes else found.sentence
            self.remarks[f"{heading:<10} {said}"] = None

    def add(self, request: Request, prepared: Prepared) -> None:
        cap = output_cap(orjson.loads(request.body))
        prompt = request.prompt_tokens
        self.rows += 1
        self.prompt_tokens += prompt
        self.output_tokens += (cap or 0) * request.choices
        self.uncapped += cap is None
        used = Usage(prompt_tokens=prompt, completion_tokens=(cap or 0) * request.choices)
        price = cost(used, prepared.prices.of(request.model))
        self.cost_usd += price or 0
        self.unpriced += price is None


def rendered(prepared: Prepared, rows: Iterator[Row]) -> Iterator[tuple[int, Request | Failure]]:
    return ((row.index, prepared.recipe.request(row)) for row in rows)


def estimate(prepared: Prepared) -> Estimate:
    """Render a spread of rows and add up."""
    total = Estimate()
    count = len(prepared.survey.ranges)
    step = max(1, count // SAMPLE_RANGES)
    for number in range(0, count, step):
        rows = prepared.reader.rows(number, prepared.recipe.columns)
        most = SAMPLE_ROWS if count > SAMPLE_RANGES // 2 else 64 * SAMPLE_ROWS
        for row in _first(rows, most):
            _look(row, prepared, total)
    return total


def _look(row: Row, prepared: Prepared, total: Estimate) -> None:
    asked = prepared.recipe.asked(row)
    made = asked if isinstance(asked, Failure) else prepared.recipe.fitted(asked)
    if isinstance(made, Failure):
        total.failures.append((row.index, made.message))
        return
    total.add(made, prepared)
    if isinstance(asked, Asked):
        total.remark(prepared.dialect.findings(asked.body))


def _first(rows: Iterator[Row], most: int) -> Iterator[Row]:
    for row, _ in zip(rows, range(most), strict=False):
        yield row


def report(prepared: Prepared) -> list[str]:
    """The lines that `check` prints."""
    job, survey = prepared.job, prepared.survey
    seen = estimate(prepared)
    files = f"{len(survey.files)} file{'s' if len(survey.files) != 1 else ''}"
    used = "every column" if prepared.prompt.whole_row else ", ".join(sorted(prepared.prompt.columns)) or "none"
    lines = [
        f"job        {job.name}: fine",
        f"input      {survey.rows:,} rows in {files}",
        *(f"           {name}: {kind}" for name, kind in zip(survey.schema.names, survey.schema.types, strict=True)),
        f"templates  use {used}",
        f"endpoint   {prepared.loaded.base_url}, model {job.request.model}",
        f"run        {prepared.loaded.run_root}",
    ]
    if survey.bad_lines.count:
        lines.append(f"bad lines  {survey.bad_lines.count} become failed rows; first: {survey.bad_lines.first[0]}")
    lines += [f"warning    rows share a custom_id: {'; '.join(shared)}"] if (shared := shared_ids(prepared)) else []
    if seen.failures:
        index, message = seen.failures[0]
        lines.append(f"warning    {len(seen.failures)} of the sampled rows cannot be sent; row {index}: {message}")
    lines += seen.remarks
    changed = preview(prepared)
    if changed:
        lines.append(f"changed    since the run began: {changed}")
    return lines + _cost_lines(prepared, seen)


def _cost_lines(prepared: Prepared, seen: Estimate) -> list[str]:
    rows = prepared.survey.rows
    if not seen.rows:
        return ["estimate   nothing to send"]
    scale = rows / seen.rows
    prompt, output = round(seen.prompt_tokens * scale), round(seen.output_tokens * scale)
    lines = [f"estimate   {rows:,} requests, about {prompt:,} prompt tokens, at most {output:,} output tokens"]
    if seen.uncapped:
        lines.append("warning    the output is not capped: give request.max_completion_tokens to bound the cost")
    lines.append(_dollar_line(prepared, seen, scale))
    settings = settings_of(prepared)
    in_flight = min(GUESSED_IN_FLIGHT, settings.concurrency) if settings.learns else settings.concurrency
    seconds = rows * GUESSED_LATENCY_S / in_flight
    if settings.requests_per_minute:
        seconds = max(seconds, rows / settings.requests_per_minute * 60)
    if settings.tokens_per_minute:
        seconds = max(seconds, (prompt + output) / settings.tokens_per_minute * 60)
    lines.append(f"time       about {duration(seconds)} at {in_flight} in flight, if an answer takes 2 s")
    return lines


def _dollar_line(prepared: Prepared, seen: Estimate, scale: float) -> str:
    if seen.unpriced:
        return "cost       unknown: no price is known for the model (give it under pricing)"
    price = prepared.prices.of(prepared.job.request.model)
    how = f"; {words(price)}" if price else ""
    return f"cost       at most about {dollars(float(seen.cost_usd) * scale)}{how}"
