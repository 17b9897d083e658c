"""What a call from Python asks for, as the command line would ask it.

Rule: everything becomes a job, overrides of it and options of the run, so that the judges are the same. Rows in memory
become a file before the run starts; a run that is refused leaves nothing of them.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.errors import InputError, JobError, RunnerError, UsageError
from runner.frames import Spooled, is_rows, spool
from runner.opening import RunOptions
from runner.prepare import Asked, load
from runner.store import RunDirectory

#: What JSON leaves in a text and YAML reads otherwise.
_UNLIKE_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")

OF_THE_JOB = ("input", "output", "limit", "concurrency", "max_usd", "simulate", "set")
OF_THE_RUN: Mapping[str, Callable[[Any], Any]] = {
    "fresh": bool,
    "allow_failed": str,
    "max_failures": str,
    "accept_changes": lambda given: given,
    "keep_answers": bool,
    "sample": int,
    "yes": bool,
    "environ": lambda given: given,
}
KNOWN = (*OF_THE_JOB, *OF_THE_RUN, "quiet")


@contextmanager
def asked_for(job: Any, overrides: Mapping[str, Any]) -> Iterator[tuple[Asked, RunOptions]]:
    """The job and the options of a call, with its rows in a file for as long as a run needs them.

    Raises UsageError for options that do not exist or do not go together, JobError, InputError.
    """
    given = {name: value for name, value in overrides.items() if value is not None and value is not False}
    _refuse_unknown(overrides)
    options = RunOptions(**{name: make(given[name]) for name, make in OF_THE_RUN.items() if name in given})
    asked = _asked(job, given)
    rows = given.get("input")
    if rows is None or not is_rows(rows):
        yield _settled(replace(asked, sets=asked.sets + _paths(rows))), options
        return
    root = load(replace(asked, sets=(*asked.sets, _set("input.path", "rows"), _set("input.format", "jsonl")))).run_root
    spooled = spool(rows, root.with_name(f"{root.name}.input"))
    sets = (_set("input.path", [str(spooled.path)]), _set("input.format", spooled.format))
    try:
        yield _settled(replace(asked, sets=asked.sets + sets)), options
    except (RunnerError, KeyboardInterrupt):
        if not _in_use(spooled, root):
            spooled.forget()
        raise


def _refuse_unknown(overrides: Mapping[str, Any]) -> None:
    for name in overrides:
        if name not in KNOWN:
            near = difflib.get_close_matches(name, KNOWN, 1)
            hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(KNOWN)}; of the job: set={{…}}"
            raise UsageError(f"there is no option `{name}`", hint=hint)


def _asked(job: Any, given: Mapping[str, Any]) -> Asked:
    sets = tuple(_set(path, value) for path, value in given.get("set", {}).items())
    sets += (_set("input.limit", given["limit"]),) if "limit" in given else ()
    sets += (_set("limits.concurrency", given["concurrency"]),) if "concurrency" in given else ()
    sets += (f"budget.max_usd={given['max_usd']}",) if "max_usd" in given else ()
    output = Path(given["output"]).absolute() if "output" in given else None
    simulate = bool(given.get("simulate"))
    if not isinstance(job, Mapping):
        _refuse_for_a_run(Path(job), given)
        return Asked(Path(job), sets, output, simulate)
    if not job.get("name") and output is None:
        raise JobError(mistakes=("job: name: a job that is in no file needs one; its run is runs/NAME",))
    return Asked(Path.cwd() / "job", sets, output, simulate, job)


def _refuse_for_a_run(path: Path, given: Mapping[str, Any]) -> None:
    """A run's directory has its job in it, and goes on as it is."""
    named = [name for name in OF_THE_JOB if name in given]
    if named and (path / "run.json").is_file():
        raise UsageError(
            f"{path} is a run and goes on with the job that it has: {', '.join(named)} cannot be given",
            hint="give the job instead",
        )


def _settled(asked: Asked) -> Asked:
    """A job that is in no file is found again by its run's directory."""
    return asked if asked.members is None or asked.output else replace(asked, output=load(asked).run_root)


def _paths(given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    paths = given if isinstance(given, list | tuple) else [given]
    if not all(isinstance(path, str | Path) for path in paths):
        kinds = " and ".join(sorted({type(path).__name__ for path in paths}))
        raise InputError(f"input: rows cannot be read from {kinds}", hint="a data frame, a list of dicts, or paths")
    return (_set("input.path", [str(Path(path).absolute()) for path in paths]),)


def _set(path: str, value: Any) -> str:
    """An override as `--set` takes it: its text is read as YAML, of which JSON is nearly a part."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise UsageError(f"set {path}: must be a plain value: {error}") from error
    return path + "=" + _UNLIKE_YAML.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _plain(value: Any) -> Any:
    """Paths and the numbers of numpy."""
    return value.item() if hasattr(value, "item") else str(value) if isinstance(value, Path) else _refuse(value)


def _refuse(value: Any) -> Any:
    raise TypeError(f"not {type(value).__name__}")


def _in_use(spooled: Spooled, root: Path) -> bool:
    """Whether the run reads these rows, or has started with them."""
    survey = RunDirectory(root).read("survey.json") if root.is_dir() else None
    return any(file["path"] == str(spooled.path) for file in (survey or {}).get("files", ()))
