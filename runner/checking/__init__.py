"""What `check` tells before anything is sent.

Rule: calls nobody, makes nothing; every row that is left to send is rendered as it would be sent, one at a time, so
that what is told is of the whole input. Bytes are no tokens: what a prompt takes is an estimate, corrected by what
replies of the run have reported; the real figures are in the bill.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runner.changing import preview
from runner.checking.seen import Seen
from runner.checking.words import Checked
from runner.consent import left_of_budget
from runner.export.naming import shared_ids
from runner.forecast import Rest, demand_of, everything, limits_of, told_in
from runner.notify import unready
from runner.prepare import Prepared
from runner.progress import rows_bar
from runner.say import Say

__all__ = ["Checked", "examine"]


def examine(prepared: Prepared, say: Say, environ: Mapping[str, str]) -> Checked:
    """Look at every row that is left to send. Shows its progress on a terminal."""
    before = preview(prepared)
    rest: Rest = before.rest if before else everything(prepared)
    old = before.old if before else None
    told = told_in(old.prepared, old.directory, old.ranges, old.standing) if old else {}
    seen = Seen(prepared, told)
    progress, close = rows_bar(say, "rendering every row", sum(map(len, rest)))
    try:
        demand = demand_of(prepared, rest, told, seen.look, progress)
    finally:
        close()
    return Checked(
        prepared=prepared,
        demand=demand,
        limits=limits_of(prepared),
        shared=shared_ids(prepared),
        warnings=[*seen.warnings(), *_unready(prepared, environ)],
        alike=seen.alike(),
        begun=before is not None,
        budget_left=left_of_budget(prepared, old.standing if old else None),
        changed=before.changed if before else None,
    )


def _unready(prepared: Prepared, environ: Mapping[str, str]) -> Iterator[str]:
    """What is better known in the evening than when the run is to begin."""
    if sentence := unready(prepared.job.notify.webhook_env, environ):
        yield f"warning    {sentence}"
