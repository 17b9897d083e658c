"""What `check` has found, for people and for scripts.

Rule: both say the same. Dollars for scripts are decimal text, as everywhere; what nobody can know is null.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from runner.demand import GUESSED_LATENCY_S, Demand, Limits
from runner.halts import duration
from runner.prepare import Prepared
from runner.pricing import words
from runner.say import dollars

HEADING = 11


@dataclass(frozen=True, slots=True)
class Checked:
    """A job that is fine, and what it takes."""

    prepared: Prepared
    demand: Demand
    limits: Limits
    shared: Sequence[str]  #: names of batch lines that stand twice
    warnings: Sequence[str]  #: lines with their headings
    alike: int  #: rows that ask what another one asks already
    begun: bool
    changed: str | None  #: the plan of a changed job
    budget_left: Decimal | None = None  #: dollars; None: the job has no budget

    def lines(self) -> list[str]:
        """For people."""
        return [*self._job(), *self._remarks(), *self._estimate()]

    def _job(self) -> Iterator[str]:
        prepared = self.prepared
        job, survey, prompt = prepared.job, prepared.survey, prepared.prompt
        used = "every column" if prompt.whole_row else ", ".join(sorted(prompt.columns)) or "none"
        yield f"job        {job.name}: fine"
        yield f"input      {survey.rows:,} rows in {len(survey.files)} file{'s' * (len(survey.files) != 1)}"
        for name, kind in zip(survey.schema.names, survey.schema.types, strict=True):
            yield f"           {name}: {kind}"
        yield f"templates  use {used}"
        yield f"endpoint   {prepared.loaded.base_url}, model {job.request.model}"
        yield f"run        {prepared.loaded.run_root}"

    def _remarks(self) -> Iterator[str]:
        bad = self.prepared.survey.bad_lines
        if bad.count:
            yield f"bad lines  {bad.count} become failed rows; first: {bad.first[0]}"
        if self.shared:
            yield f"warning    rows share a custom_id: {'; '.join(self.shared)}"
        if self.demand.example:
            (row, message), count = self.demand.example, self.demand.unsendable
            fail = "row cannot be sent and fails" if count == 1 else "rows cannot be sent and fail"
            yield f"warning    {count:,} {fail}; row {row}: {message}"
        if any(load.uncapped for load in self.demand.loads.values()):
            yield "warning    the output is not capped: give request.max_completion_tokens to bound the cost"
        yield from self.warnings
        if self.alike:
            yield f"advice     {self.alike:,} rows ask what another row asks too; each of them is sent"
        if self.changed:
            yield f"changed    since the run began: {self.changed}"

    def _estimate(self) -> Iterator[str]:
        demand = self.demand
        if not demand.rows:
            yield "estimate   nothing to send"
            return
        begun = f"; {self.final:,} rows are final" if self.begun else ""
        yield f"estimate   {demand.rows:,} requests, about {demand.prompt_tokens:,} prompt tokens{begun}"
        yield f"output     {self._output()}"
        yield f"cost       {self._cost()}"
        if self.budget_left is not None:
            yield f"budget     {dollars(self.budget_left)} left{self._room(self.budget_left)}"
        latency_s = demand.latency_s
        guess = f"if an answer takes {GUESSED_LATENCY_S:g} s (a guess)" if latency_s is None else ""
        guess = guess or f"where an exchange has taken {latency_s:.2g} s"
        found = ", which auto finds itself" if self.limits.guessed else ""
        seconds = duration(demand.seconds(self.limits))
        yield f"time       about {seconds} at {self.limits.in_flight:,} in flight{found}, {guess}"

    def _output(self) -> str:
        most, expected = self.demand.output_tokens, self.demand.expected_output_tokens
        said = "no cap" if most is None else f"at most {most:,} tokens"
        return said if expected is None else f"{said}, about {expected:,} expected by the answers so far"

    def _cost(self) -> str:
        demand = self.demand
        most, full, expected = demand.at_most_usd, demand.full_usd, demand.expected_usd
        said = [f"at most {dollars(most)} for one answer a row"] if most is not None else []
        said += [f"about {dollars(full)} if every answer is as long as it may be"] if full is not None else []
        said += [f"about {dollars(expected)} expected by the answers so far"] if expected is not None else []
        return "; ".join([", ".join(said) or f"unknown: {self._why_unknown()}", *self._price()])

    def _room(self, left: Decimal) -> str:
        demand = self.demand
        most, likely = demand.at_most_usd, demand.full_usd if demand.expected_usd is None else demand.expected_usd
        if most is not None and most <= left:
            return ", which is enough for one answer a row"
        if likely is not None and likely > left:
            return ", which is not enough by estimate: when no row has room any more, the run stops with exit code 3"
        return ", which may be enough"

    def _why_unknown(self) -> str:
        unpriced = sorted({load.model for load in self.demand.loads.values() if load.unbounded == load.rows})
        priced = [model for model in unpriced if self._is_priced(model)]
        if priced:
            return "the output has no cap"
        return f"no price is known for {', '.join(unpriced[:3]) or 'some rows'} (give it under pricing)"

    def _is_priced(self, model: str) -> bool:
        price = self.prepared.prices.of(model)
        return price is not None and price.is_known

    def _price(self) -> list[str]:
        """Of the one model that there is."""
        models = {load.model for load in self.demand.loads.values()}
        price = self.prepared.prices.of(min(models)) if len(models) == 1 else None
        return [words(price, min(self.demand.loads)[1])] if price is not None and price.is_known else []

    @property
    def final(self) -> int:
        return self.prepared.survey.rows - self.demand.rows - self.demand.unsendable

    def to_json(self) -> dict[str, Any]:
        """For scripts: one object."""
        prepared, demand = self.prepared, self.demand
        survey, seconds = prepared.survey, demand.seconds(self.limits) if demand.rows else 0.0
        return {
            "exit_code": 0,
            "job": prepared.job.name,
            "run": str(prepared.loaded.run_root),
            "rows": survey.rows,
            "final": self.final,
            "requests": demand.rows,
            "unsendable": demand.unsendable,
            "alike": self.alike,
            "prompt_tokens": demand.prompt_tokens,
            "output_tokens": {"at_most": demand.output_tokens, "expected": demand.expected_output_tokens},
            "usd": {
                "at_most": _text(demand.at_most_usd),
                "full": _text(demand.full_usd),
                "expected": _text(demand.expected_usd),
            },
            "budget_left_usd": _text(self.budget_left),
            "seconds": round(seconds, 1),
            "in_flight": self.limits.in_flight,
            "latency_s": demand.latency_s,
            "models": sorted({load.model for load in demand.loads.values()}),
            "columns": {name: str(survey.schema.field(name).type) for name in survey.columns},
            "remarks": [{"kind": line[:HEADING].strip(), "text": line[HEADING:]} for line in self._remarks()],
        }


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else format(amount.quantize(Decimal("1e-6")), "f")
