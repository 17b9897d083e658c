"""A job file made ready to run: everything that can go wrong before the first request goes wrong here.

Rule: nothing is sent and nothing is written. `check`, `render` and `run` start with the same steps, so what `check`
accepts, `run` can start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from runner import misfits
from runner.columns import ResultSpec, part_schema, result_schema
from runner.dialect import Bodies, Dialect, Terms, plain_roles
from runner.errors import JobError, RunDirectoryError
from runner.interchange.requests import Lines
from runner.market import market_of
from runner.media import attach_of
from runner.outputs import Expected, Offer, Output, compile_offer, compile_output
from runner.parts import Shape
from runner.pricing import Market, Prices
from runner.recipe import Means, Recipe, recipe_of
from runner.sources import DIRECTORY, STDIN, Reader, Spooling, copies_stand, expand
from runner.spec import JobSpec, kept, parse
from runner.spec.body import PARAMETERS
from runner.store import RunDirectory
from runner.survey import Survey, SurveyOptions, stale, survey
from runner.template import Prompt, compile_prompt

#: What a simulated run hashes in place of an address: the simulator's port differs every time.
SIMULATOR_URL = "http://simulator/v1"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says beside the job file."""

    job: Path
    sets: tuple[str, ...] = ()
    output: Path | None = None
    simulate: bool = False
    members: Mapping[str, Any] | None = None  #: the job itself when it is in no file; `job` only says where it stands


@dataclass(frozen=True, slots=True)
class Loaded:
    """A job file that was understood, and where its run lives."""

    job: JobSpec
    asked: Asked

    @property
    def base(self) -> Path:
        """Relative paths of the job file are relative to this."""
        return self.asked.job.parent

    @property
    def run_root(self) -> Path:
        if self.asked.output:
            return self.asked.output
        name = f"{self.job.name}.simulated" if self.asked.simulate else self.job.name
        return (self.base / (self.job.output.directory or "runs") / name).resolve()

    @property
    def base_url(self) -> str:
        return SIMULATOR_URL if self.asked.simulate else self.job.endpoint.base_url


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job with its input surveyed, its templates compiled and its result columns fixed."""

    loaded: Loaded
    survey: Survey
    reader: Reader
    prompt: Prompt | Lines
    expected: Expected
    spec: ResultSpec
    shape: Shape
    recipe: Recipe
    prices: Prices
    dialect: Dialect

    @property
    def job(self) -> JobSpec:
        return self.loaded.job

    @property
    def output(self) -> Output | None:
        """What structured answers must look like; None: the answers are text."""
        return self.expected.output

    @property
    def input_columns(self) -> list[str]:
        """The input columns that the results carry."""
        return misfits.carried(self.job, self.survey)


def load(asked: Asked) -> Loaded:
    """Read and parse the job file; or take the job of a run, when its directory is given. Raises JobError with every
    mistake."""
    path = asked.job

    def read_file(name: str) -> str:
        return (path.parent / name).read_text(encoding="utf-8-sig")

    if asked.members is not None:
        return Loaded(parse(asked.members, path.name, read_file=read_file, overrides=asked.sets), asked)
    if (path / "run.json").is_file():
        return of_run(RunDirectory(path), asked.sets)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise JobError(f"{path}: {error.strerror}", hint="`runner run JOB` takes the path of a job file") from error
    except UnicodeDecodeError as error:
        raise JobError(f"{path}: not UTF-8 text (byte {error.start})") from error
    return Loaded(parse(text, str(path), read_file=read_file, overrides=asked.sets), asked)


def of_run(directory: RunDirectory, sets: tuple[str, ...] = ()) -> Loaded:
    """The job of a run as run.json keeps it, with overrides: neither job file nor prompt files are needed."""
    known = directory.read_run()
    if known is None:
        raise RunDirectoryError(
            f"{directory.root} is not the directory of a run: it has no run.json",
            hint="give the path that `runner run` named",
        )
    asked = Asked(Path(known["job_file"]), sets, output=directory.root, simulate=known["simulated"])
    if not sets:
        return Loaded(_kept_job(directory, known["job"]), asked)
    return Loaded(parse(known["job"], "run.json", read_file=_no_file, overrides=sets), asked)


def _kept_job(directory: RunDirectory, plain: Any) -> JobSpec:
    try:
        return kept(plain, str(directory.root / "run.json"))
    except JobError as error:
        raise RunDirectoryError(
            f"the run's job is damaged, or of another version of runner: {error}",
            hint="restore run.json, or go on with the version that started the run",
        ) from error


def _no_file(name: str) -> str:
    """run.json holds what the job's files said; a file that an override names is not beside it."""
    raise OSError(f"{name} cannot be read: the job of a run directory names no files")


def take_survey(
    loaded: Loaded,
    saved: Mapping[str, Any] | None,
    progress: Callable[[int, int], None],
    spooling: Spooling | None = None,
) -> Survey:
    """The survey of the job's input; the saved one while files, sizes, times, options and copies stand. A copy stands
    for a file that is gone.

    `spooling`: where what cannot be sought is copied to; None for those who make nothing."""
    given = loaded.job.input
    before = Survey.from_json(saved) if saved else None
    whole = before is not None and copies_stand(before.files, loaded.run_root)
    gone = only_copied(before) if before and whole else []
    found = expand(given.path, loaded.base, gone)
    rows_per_part = before.rows_per_part if before else loaded.job.output.rows_per_part
    options = SurveyOptions(
        "jsonl" if given.is_of_lines else given.format, given.limit, given.on_bad_line, rows_per_part
    )
    if before and whole and _stands(before, found, options) and set(stale(before)) <= set(gone):
        return before
    return survey(found, options, progress, spooling)


def _stands(before: Survey, found: Sequence[Path], options: SurveyOptions) -> bool:
    same = [file.path for file in before.files] == list(found)
    asked = (options.format, options.limit, options.on_bad_line)
    then = (before.options.format, before.options.limit, before.options.on_bad_line)
    return same and asked == then


def only_copied(survey: Survey) -> list[Path]:
    """The files of the input that are gone, while copies of them were made."""
    return [file.path for file in survey.files if file.spool and file.path != STDIN and not file.path.exists()]


def prepare(loaded: Loaded, taken: Survey, *, past: bool = False) -> Prepared:
    """Compile templates and schema, fix the columns. Raises TemplateError or JobError with what does not fit.

    past: of a run as it was; what a provider does not take is not held against what has been sent."""
    job = loaded.job
    prompt = _prompt_of(job)
    output = compile_output(_response_format(job, prompt))
    offer, unusable = _offer(job, prompt)
    spec = result_spec(job, output, loaded.base_url)
    mistakes = [
        *misfits.missing(job, prompt, taken),
        *misfits.conflicts(job, taken, spec),
        *misfits.clashes(job, prompt, taken),
    ]
    dialect = dialect_of(job, prompt)
    market = Market() if past else market_of(job, loaded.base, datetime.now(UTC).date())
    prices = Prices(job.pricing, market)
    mistakes += [] if past else [*misfits.faulty(job, dialect), *misfits.unsupported(job, dialect), *unusable]
    mistakes += [] if past else misfits.unbounded(job, dialect, prices)
    if mistakes:
        raise JobError(mistakes=tuple(mistakes))
    inputs = pa.schema([_bare(taken.schema.field(name)) for name in misfits.carried(job, taken)])
    results = result_schema(spec)
    shape = Shape(results, part_schema(inputs, results, job.output.prefix))
    reader = Reader(taken, loaded.run_root / DIRECTORY)
    recipe = _recipe(loaded, prompt, dialect, prices)
    if job.budget.max_usd is not None and not past:
        recipe = replace(recipe, needs_bound=True)
    return Prepared(loaded, taken, reader, prompt, Expected(output, offer), spec, shape, recipe, prices, dialect)


def past_recipe(loaded: Loaded) -> tuple[Prompt | Lines, Recipe]:
    """How an earlier job made its requests, whatever columns the input has by now."""
    prompt = _prompt_of(loaded.job)
    return prompt, _recipe(loaded, prompt, dialect_of(loaded.job, prompt), Prices(loaded.job.pricing))


def _prompt_of(job: JobSpec) -> Prompt | Lines:
    return Lines() if job.input.is_of_lines else compile_prompt(job.request, job.vars, job.where)


def _recipe(loaded: Loaded, prompt: Prompt | Lines, dialect: Dialect, prices: Prices) -> Recipe:
    means = Means(loaded.base_url, prices.of, dialect, *attach_of(loaded.job, loaded.base))
    return recipe_of(loaded.job.request.model, prompt, means)


def dialect_of(job: JobSpec, prompt: Prompt | Lines) -> Dialect:
    any_line = PARAMETERS if job.input.is_of_lines else ()  # may have any of them
    given = {"model", "messages", *job.request.params, *job.request.extra_body, *any_line}
    roles = plain_roles(job.request.messages)
    constants = {**prompt.constants, **({"messages": roles} if roles else {})}
    terms = Terms(job.endpoint.dialect, job.endpoint.on_unsupported == "drop")
    return Dialect(terms, Bodies(constants, frozenset(given)))


def _response_format(job: JobSpec, prompt: Prompt | Lines) -> Mapping[str, Any] | None:
    """The answers' format, templates over `vars` filled in: it types a column, so it cannot depend on the row. Where
    each line has its own, the column holds any JSON."""
    if isinstance(prompt, Lines):
        return {"type": "json_object"}
    name = "response_format"
    if name not in prompt.constants and name in {**job.request.params, **job.request.extra_body}:
        raise JobError(
            mistakes=(f"{job.where(f'request.{name}')}: request.{name}: depends on the row; one run has one schema",),
            hint="put the values that vary into the messages, or make a job of each schema",
        )
    found: Mapping[str, Any] | None = prompt.constants.get(name)
    return found


def _offer(job: JobSpec, prompt: Prompt | Lines) -> tuple[Offer | None, list[str]]:
    any_line = PARAMETERS if job.input.is_of_lines else ()  # may offer any tools
    given = {*job.request.params, *job.request.extra_body, *any_line}
    return compile_offer(prompt.constants, given - prompt.constants.keys(), job.where)


def _bare(field: Any) -> Any:
    """A field without our own notes to ourselves (see Survey.schema)."""
    return field.remove_metadata()


def result_spec(job: JobSpec, output: Output | None, endpoint: str) -> ResultSpec:
    params = {**job.request.params, **job.request.extra_body}
    of_lines = job.input.is_of_lines  # any of them may ask for several choices, or for logprobs
    return ResultSpec(
        parsed=output.arrow_type if output else None,
        choices=of_lines or params.get("n", 1) != 1,
        logprobs=of_lines or params.get("logprobs", False) is not False,
        raw=job.output.keep_raw,
        endpoint=endpoint,
    )


def identity(loaded: Loaded) -> dict[str, Any]:
    """What determines the answers and the columns of a run: the same, or another run."""
    job = loaded.job.dump()
    output = {key: job["output"][key] for key in ("columns", "prefix", "keep_raw")}
    return {"request": job["request"], "vars": job["vars"], "base_url": loaded.base_url, "output": output}


def input_identity(taken: Survey) -> dict[str, Any]:
    """Which rows, in which order: files by name, and the hash of every range."""
    return {
        "rows": taken.rows,
        "rows_per_part": taken.rows_per_part,
        "hashes": [part.hash for part in taken.ranges],
    }
