"""The last lines of a run: what came out, what it cost, where it is, what to type next."""

from __future__ import annotations

from runner.ending import Ending
from runner.standing import money, outcomes


def lines(ending: Ending) -> list[str]:
    """For people; the error that stopped the run is said after these."""
    totals, rows = ending.totals, ending.rows
    how = "finished" if ending.finished else "stopped"
    said = [f"{how}: {totals.settled:,} of {rows:,} rows final ({outcomes(totals)})"]
    said += [f"  {kind}, such as row {row}: {message}" for kind, (row, message) in sorted(ending.examples.items())]
    few, example = ending.fewer
    said += [f"  rows with fewer choices than asked for: {few:,}; {example}"] if few else []
    said.append(f"bill: {money(totals)}")
    said.append(f"results: {ending.root / 'results'}")
    if not ending.finished:
        said.append(f"to go on: {ending.command}")
    elif totals.not_ok:
        which = "row that is" if totals.not_ok == 1 else f"{totals.not_ok:,} rows that are"
        said.append(f"to send the {which} not ok again: runner retry {ending.root}")
    else:
        said.append(f"to read them: python -c \"import runner; print(runner.read_results('{ending.root}'))\"")
    return said
