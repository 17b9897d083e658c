"""A run whose job or input is not the one that it was started with.

Rule: first the plan (comparing.py), in words and dollars; then consent, where something answered would be asked again
or drop out; then one commit, after which every start goes on with the new job. Answers that stay where they are cost a
note (reopen.py), answers that move are laid out anew (relayout.py). Settings outside of requests need no plan.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from runner import files, notes
from runner.comparing import kept_jobs, make_plan
from runner.consent import confirm
from runner.drawn import sample_in
from runner.errors import ChangedError
from runner.forecast import Rest, rest_of, rest_of_plan, told_in
from runner.lock import is_held
from runner.opening import Begun, run_members
from runner.parts import Range
from runner.plan import NONE, Plan
from runner.prepare import Prepared, identity, input_identity, of_run, prepare
from runner.recovery import look, ranges_of, recover
from runner.relayout import Old, lay_out
from runner.reopen import reopen
from runner.store import RunDirectory, differences
from runner.survey import Survey


def is_changed(prepared: Prepared, known: Mapping[str, Any]) -> bool:
    now = (identity(prepared.loaded), input_identity(prepared.survey))
    return (known["identity"], known["input"]) != now


def files_changed(begun: Begun, known: Mapping[str, Any]) -> bool:
    """Whether answered rows carried local files that are others by now: takes a look at every one of them. `retry`
    says itself which rows it sends."""
    if begun.options.retry is not None or not begun.prepared.recipe.asks_disk:
        return False
    return make_plan(begun.prepared, read_old(begun.directory, known), known, keep=False).plan.changed > 0


def go_over(begun: Begun, known: Mapping[str, Any]) -> bool:
    """Make the run one of the job and input as they are now; whether its answers were laid out anew. Raises
    ChangedError without the consent that it takes; nothing has been sent or changed then."""
    old = read_old(begun.directory, known)
    made = make_plan(begun.prepared, old, known, keep=begun.options.keep_answers)
    begun.say.line(f"the {_what_changed(begun, known)} changed: {made.words()}")
    _ask(begun, made.plan)
    _refuse_mixed_answers(begun, old, made.plan)
    if begun.options.retry is None:  # which is asked about with what it sends besides
        rest, size = rest_of_plan(begun.prepared, made.plan.sources), begun.options.sample
        sent = sample_in(begun.directory, known["run"], rest, size).left(rest) if size else rest
        told = partial(told_in, old.prepared, old.directory, old.ranges, old.standing)
        confirm(begun, sent, told, old.standing)
    members = run_members(begun, known["run"], known)
    members["kept_jobs"] = kept_jobs(known, members["identity"], keep=begun.options.keep_answers)
    files.remove(begun.directory.root / "manifest.json")
    if made.plan.in_place and old.prepared.shape.part.equals(begun.prepared.shape.part):
        _reopen_in_place(begun, old, made.plan, members)
        return False
    lay_out(begun.prepared, old, made.plan.sources, members)
    return True


def _what_changed(begun: Begun, known: Mapping[str, Any]) -> str:
    names = differences(known["identity"], identity(begun.prepared.loaded))[:5]
    if known["input"] != input_identity(begun.prepared.survey):
        names.append("input")
    return ", ".join(names or ["content of local files"])


def _ask(begun: Begun, made: Plan) -> None:
    options = begun.options
    accepted = options.accept_changes is not None
    asked_again = made.changed > 0 and not (accepted or options.keep_answers)
    if asked_again or (made.removed > 0 and not accepted):
        again = f"{made.changed:,} answered rows would be asked again" if made.changed else ""
        gone = f"{made.removed:,} would drop out of the results" if made.removed else ""
        raise ChangedError(
            " and ".join(filter(None, (again, gone))),
            hint="nothing was sent. --accept-changes does so, --keep-answers keeps every ok answer and asks only the "
            "rest by the edited job, -o DIR gives the changed job a directory of its own",
        )
    most = options.accept_changes
    if most is not None and most is not True and made.changed > most:
        raise ChangedError(
            f"{made.changed:,} answered rows would be asked again, more than --accept-changes {most} allows",
            hint="nothing was sent. Give a larger number, or --accept-changes without one",
        )


def _refuse_mixed_answers(begun: Begun, old: Old, made: Plan) -> None:
    """Answers of two shapes cannot stand in one column."""
    was, now = old.prepared.shape.results, begun.prepared.shape.results
    if not was.equals(now) and any(source != NONE for source in made.sources):
        names = [name for name in now.names if name not in was.names or was.field(name) != now.field(name)]
        raise ChangedError(
            f"the changed job answers in other columns ({', '.join(names) or 'fewer'}); kept answers do not fit them",
            hint="give the changed job a directory of its own with -o DIR",
        )


@dataclass(frozen=True, slots=True)
class Preview:
    """A run that has begun, beside the job and input as they are now."""

    old: Old
    rest: Rest  #: what is to be sent
    changed: str | None  #: what `run` would say of a changed job before it asks


def preview(prepared: Prepared) -> Preview | None:
    """What `run` would go on with; None: there is no run. Touches nothing."""
    directory = RunDirectory(prepared.loaded.run_root)
    known = directory.read_run()
    if known is None:
        return None
    survey = Survey.from_json(directory.read("survey.json") or {})
    ranges = ranges_of(survey, known)
    standing = look(directory, ranges, live=is_held(directory.lock))
    changed = is_changed(prepared, known)
    if not (changed or prepared.recipe.asks_disk):
        return Preview(Old(directory, prepared, ranges, standing), rest_of(ranges, standing), None)
    old = Old(directory, prepare(of_run(directory), survey, past=True), ranges, standing)
    made = make_plan(prepared, old, known, keep=False)
    rest = rest_of_plan(prepared, made.plan.sources)
    return Preview(old, rest, made.words() if made.plan.changed or changed else None)


def read_old(directory: RunDirectory, known: Mapping[str, Any]) -> Old:
    """The run as it is, by the job and survey that it has. Takes it over: see recovery.recover."""
    survey = Survey.from_json(directory.read("survey.json") or {})
    ranges = ranges_of(survey, known)
    return Old(directory, prepare(of_run(directory), survey, past=True), ranges, recover(directory, ranges))


def _reopen_in_place(begun: Begun, old: Old, made: Plan, members: Mapping[str, Any]) -> None:
    """Answers stay where they are; ranges with rows to send, or with another input, are opened again."""
    change = uuid.uuid4().hex
    same_job = identity(begun.prepared.loaded) == identity(old.prepared.loaded)
    parts = ranges_of(begun.prepared.survey, members)
    still = same_job and not begun.prepared.recipe.asks_disk
    touched = [part for part in parts if not (still and _same_range(old, part))]
    found = [note for part in touched if (note := _note(old, made, part, change))]
    begun.directory.write("survey.next.json", begun.prepared.survey.to_json())
    reopen(begun.directory, members, found)
    files.rename(begun.directory.root / "survey.next.json", begun.directory.root / "survey.json")


def _same_range(old: Old, part: Range) -> bool:
    before = old.ranges[part.number] if part.number < len(old.ranges) else None
    return before is not None and (before.rows, before.input_hash) == (part.rows, part.input_hash)


def _note(old: Old, made: Plan, part: Range, change: str) -> notes.Reopened | None:
    sealed, opened = old.standing.sealed.get(part.number), old.standing.open.get(part.number)
    before = old.ranges[part.number] if part.number < len(old.ranges) else None
    epoch = sealed.epoch if sealed else opened.part.epoch if opened else None
    if epoch is None or before is None:
        return None
    wanted = range(part.first_row, part.first_row + before.rows)
    final = opened.done if opened else set(wanted)
    again = frozenset(row for row in wanted if made.sources[row] == NONE and row in final)
    if not again and _same_range(old, part):
        return None
    return notes.Reopened(part.number, epoch + 1, again, part.input_hash, change)
