"""Which prices a run has used, and since when.

Rule: nothing is forgotten: a process that finds another price than the last one adds it, so that every row of the run
can be laid beside the price of its time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runner.pricing.price import SERVER

Entry = Mapping[str, Any]  #: of run.json: source, rates, as_of, and since when


def history(
    before: Mapping[str, Sequence[Entry]], now: Mapping[str, Sequence[Entry]], since: str
) -> dict[str, list[Entry]]:
    """`before` with what is new in `now` (see `Prices.to_json`), each from `since`, an instant as text."""
    merged = {model: list(entries) for model, entries in before.items()}
    for model, entries in now.items():
        told = merged.setdefault(model, [])
        told += [{"since": since, **entry} for entry in entries if entry != _last(told, entry)]
    return merged


def _last(told: Sequence[Entry], like: Entry) -> Entry | None:
    """The last entry that `like` would follow, without its date: costs that a server tells stand beside the prices."""
    served = like["source"] == SERVER
    same = [entry for entry in told if (entry["source"] == SERVER) is served]
    return {name: value for name, value in same[-1].items() if name != "since"} if same else None
