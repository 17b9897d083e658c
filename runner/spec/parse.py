"""A job file's text, or a job's members -> JobSpec, or every mistake in it at once.

Rule: text comes in as an argument, files through the caller's `read_file`; nothing here knows a disk. Strategy: read
the tree, put the overrides in, put the files in, then let every judge speak before the first word is said. A judge
that refuses a value silences the later ones about what is inside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from pydantic import ValidationError

from runner.errors import JobError
from runner.spec import batchfile, body, complaints, endpoint, notbuilt
from runner.spec.files import ReadFile, resolve
from runner.spec.members import plant
from runner.spec.model import SECTIONS, JobSpec
from runner.spec.overrides import apply
from runner.spec.positions import Mistake, Node, Path, Place, Places
from runner.spec.read import NotYamlError, read

Verdict = Iterable[tuple[Path, str]]


def parse(text: str | Mapping[str, Any], name: str, *, read_file: ReadFile, overrides: Sequence[str] = ()) -> JobSpec:
    """The job that `text` describes; `name` is the file's, as people know it, and gives the job's default name.
    A mapping is the same job as Python's own values; its mistakes stand at `name`, without lines.

    `read_file` gets the path of a `{file: …}` as written and may raise OSError or UnicodeDecodeError. `overrides` are
    `dotted.path=value`. Raises JobError with all mistakes, one line each, in the order of the file.
    """
    tree, mistakes = _tree(text, name) if isinstance(text, str) else plant(text, Place(0, name))
    tree, refused = apply(tree, overrides)
    tree, unread = resolve(tree, read_file)
    plain = _filled(tree.plain(), name)
    job, verdict = _judged(plain, Places(tree))
    mistakes += refused + unread
    mistakes += _located(tree, verdict, {mistake.path for mistake in unread})
    if job is None or mistakes:
        raise _error(mistakes)
    return job


def kept(plain: Any, name: str) -> JobSpec:
    """The job that `JobSpec.dump` made `plain` of, as a file `name` keeps it. Raises JobError for what this version
    does not take."""
    try:
        return JobSpec.model_validate(plain)
    except ValidationError as error:
        place = Place(0, name)
        raise _error([Mistake(place, path, sentence) for path, sentence in complaints.mistakes(error)]) from None


def _error(mistakes: list[Mistake]) -> JobError:
    ordered = sorted(mistakes, key=lambda mistake: mistake.place.order)
    return JobError(mistakes=tuple(dict.fromkeys(map(str, ordered))))


def _tree(text: str, name: str) -> tuple[Node, list[Mistake]]:
    try:
        tree, mistakes = read(text, lambda line: Place.line(name, line))
    except NotYamlError as error:
        raise _error([error.mistake]) from None
    if tree.value is None:
        raise _error([Mistake(tree.place, (), "the file is empty; a job needs input and request"), *mistakes])
    if not isinstance(tree.value, dict):
        raise _error([Mistake(tree.place, (), "a job file must be a mapping (input: …, request: …)"), *mistakes])
    return tree, mistakes


def _filled(plain: dict[str, Any], name: str) -> dict[str, Any]:
    """With the default name, and with every section there: one whose keys are all commented out is null in YAML."""
    sections: dict[str, Any] = {section: {} for section in SECTIONS if plain.get(section) is None}
    stem = {"name": PurePath(name).stem} if plain.get("name") is None else {}
    if batchfile.is_of_lines(plain) and not plain.get("request"):
        sections["request"] = batchfile.REQUEST
    return {**plain, **sections, **stem}


def _judged(plain: dict[str, Any], places: Places) -> tuple[JobSpec | None, list[tuple[Path, str]]]:
    verdict = [
        *endpoint.mistakes(plain["endpoint"]),
        *notbuilt.mistakes(plain),
        *batchfile.mistakes(plain),
        *body.mistakes(plain["request"]),
    ]
    try:
        return JobSpec.model_validate(plain, context=places), verdict
    except ValidationError as error:
        return None, [*verdict, *complaints.mistakes(error)]


def _located(tree: Node, verdict: Verdict, silenced: set[Path]) -> Iterator[Mistake]:
    for path, sentence in verdict:
        place, known = tree.nearest(path)
        if not any(known[:length] in silenced for length in range(1, len(known) + 1)):
            silenced.add(known)
            yield Mistake(place, known, sentence)
