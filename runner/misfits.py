"""What of a job does not fit its input, its provider or its budget, each as a sentence with file and line.

Rule: nothing is raised here; `prepare` collects all of them and tells them at once.
"""

from __future__ import annotations

from runner.columns import ResultSpec
from runner.columns import conflicts as clashing
from runner.dialect import DROP, Dialect
from runner.interchange.requests import Lines
from runner.pricing import Prices
from runner.spec import JobSpec
from runner.spec.body import faults
from runner.spec.positions import dotted
from runner.survey import Survey
from runner.template import Prompt
from runner.wire.attach import kinds
from runner.worstcase import lacking


def carried(job: JobSpec, taken: Survey) -> list[str]:
    columns = job.output.columns
    if columns == "none":
        return []
    return list(taken.columns) if columns == "all" else [name for name in columns if name in taken.columns]


def faulty(job: JobSpec, dialect: Dialect) -> list[str]:
    """Values out of their range that templates without a column have given."""
    constants, differing = dialect.bodies.constants, dialect.bodies.differing
    return [
        f"{job.where(f'request.{dotted(path)}')}: request.{dotted(path)}: {sentence}"
        for path, sentence in faults({**dict.fromkeys(differing, True), **constants}, constants)
    ]


def unsupported(job: JobSpec, dialect: Dialect) -> list[str]:
    found = sorted(dialect.errors(), key=lambda error: job.order(f"request.{error.parameter}"))
    return [f"{job.where(f'request.{error.parameter}')}: request.{error.sentence}, or {DROP}" for error in found]


def unbounded(job: JobSpec, dialect: Dialect, prices: Prices) -> list[str]:
    """A budget that cannot be kept, because what a request costs at most is not known."""
    if job.budget.max_usd is None or job.input.is_of_lines:
        return []
    constants = dialect.bodies.constants
    model = constants.get("model")
    price = prices.of(model) if isinstance(model, str) else None
    found = lacking(constants, dialect.bodies.names, price, kinds(job.request.messages))
    return [f"{job.where('budget.max_usd')}: budget.max_usd: cannot be kept: {sentence}" for sentence in found]


def missing(job: JobSpec, prompt: Prompt | Lines, taken: Survey) -> list[str]:
    """Columns that the job names and the input does not have. An input without rows has none, and needs none."""
    if not taken.columns:
        return []
    wanted = [("request", name) for name in sorted(prompt.required)]
    wanted += [("input.id_column", job.input.id_column)] if job.input.id_column else []
    if not isinstance(job.output.columns, str):
        wanted += [("output.columns", name) for name in job.output.columns]
    have = ", ".join(taken.columns[:20])
    return [
        f"{job.where(place)}: {place}: the input has no column `{name}`; it has {have}"
        for place, name in wanted
        if name not in taken.columns
    ]


def conflicts(job: JobSpec, taken: Survey, spec: ResultSpec) -> list[str]:
    names = [name for name in carried(job, taken) if name in taken.columns]
    return [
        f"{job.where('output.prefix')}: output.prefix: the input column `{name}` has the name of a result column; "
        "give output.prefix (such as `answer_`), or leave the column out of output.columns"
        for name in clashing(names, spec, job.output.prefix)
    ]


def clashes(job: JobSpec, prompt: Prompt | Lines, taken: Survey) -> list[str]:
    return [
        f"{job.where('vars')}: vars: `{name}` is a column of the input and means something else in the templates too; "
        f'rename the variable, or write row["{name}"] for the column'
        for name in prompt.clashes(taken.columns)
    ]
