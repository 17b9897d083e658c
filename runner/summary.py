"""The last lines of a run: what came out, what it cost, where it is, what to type next."""

from __future__ import annotations

from collections.abc import Callable

from runner.drawn import Sample
from runner.ending import Ending
from runner.halts import duration
from runner.sampling import Interval
from runner.say import dollars
from runner.standing import money, outcomes


def lines(ending: Ending) -> list[str]:
    """For people; the error that stopped the run is said after these."""
    totals, rows, sample = ending.totals, ending.rows, ending.sample
    how = "finished" if ending.finished else "sampled" if sample else "stopped"
    said = [f"{how}: {totals.settled:,} of {rows:,} rows final ({outcomes(totals)})"]
    said += [f"  {kind}, such as row {row}: {message}" for kind, (row, message) in sorted(ending.examples.items())]
    few, example = ending.fewer
    said += [f"  rows with fewer choices than asked for: {few:,}; {example}"] if few else []
    said.append(f"bill: {money(totals)}")
    said += sample_lines(sample) if sample else []
    said.append(f"results: {ending.root / 'results'}")
    if not ending.finished and sample:
        said.append(f"to go on with the other {sample.left:,} rows: {ending.command}")
    elif not ending.finished:
        said.append(f"to go on: {ending.command}")
    elif totals.not_ok:
        which = "row that is" if totals.not_ok == 1 else f"{totals.not_ok:,} rows that are"
        said.append(f"to send the {which} not ok again: runner retry {ending.root}")
    else:
        said.append(f"to read them: python -c \"import runner; print(runner.read_results('{ending.root}'))\"")
    return said


def sample_lines(sample: Sample) -> list[str]:
    """What a sample says about the whole job. Every interval is of 95 %."""
    few = "too few rows to tell; draw some more"
    usd = _between(sample.usd, dollars) if sample.usd else "no row's cost is known" if sample.unknown else few
    unknown = f"; {sample.unknown:,} of its rows are of unknown cost" if sample.usd and sample.unknown else ""
    seconds = _between(sample.seconds, duration) if sample.seconds else few
    found = " (auto finds its own number)" if sample.guessed else ""
    return [
        f"sample: {sample.rows:,} of {sample.population:,} rows, drawn at random",
        f"  the whole job costs {usd}{unknown}{_beyond_budget(sample)}",
        f"  the other {sample.left:,} rows take {seconds} at {sample.in_flight:,} in flight{found}",
        f"  not ok: {_share(sample.not_ok, sample.rows)}",
        *_lengths(sample),
    ]


def _beyond_budget(sample: Sample) -> str:
    most, usd = sample.max_usd, sample.usd
    if most is None or usd is None or usd.high <= most:
        return ""
    return f"; {'that is' if usd.middle > most else 'it may be'} more than the budget of {dollars(most)}"


def _lengths(sample: Sample) -> list[str]:
    tokens = sample.tokens
    if tokens is None:
        return ["  answers: their tokens are not known"]
    cap = "no cap" if tokens.cap is None else f"the cap is {tokens.cap:,}"
    said = f"  answers: {tokens.median:,} tokens in the middle, nine of ten up to {tokens.p90:,}, the longest"
    cut = sample.truncated
    if not cut.middle:
        return [f"{said} {tokens.longest:,}; {cap}, none was cut off"]
    return [f"{said} {tokens.longest:,}; {cap}", f"  cut off: {_share(cut, sample.rows)}; give them more room"]


def _between(found: Interval, words: Callable[[float], str]) -> str:
    if words(found.low) == words(found.high):
        return words(found.middle)
    return f"about {words(found.middle)} (95 %: {words(found.low)} to {words(found.high)})"


def _share(found: Interval, size: int) -> str:
    said = f"{round(found.middle * size):,} of {size:,}"
    if found.low == found.high:
        return said
    return f"{said} (95 %: {_percent(found.low)} to {_percent(found.high)} of all rows)"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
