"""What ran: the facts of a run that are no numbers of its rows.

Rule: what run.json says, in words; what it does not say is left out. A run that an earlier version wrote has less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from runner.pricing import SERVER, Price, words
from runner.pricing.price import RATES
from runner.report.gather import Facts
from runner.report.text import count_of, cut, moment

SOME = 5
MOST_PRICES = 12
LONG = 200
_SIMULATED = "the simulator on this machine"


def ran(found: Facts) -> list[tuple[str, str]]:
    """Names and facts, in the order in which they are read."""
    known, job = found.known, found.prepared.job
    asked = [key[0] for key in found.models.lines if key[0] is not None]
    answered = [f"{name} ({count_of(count, 'row')})" for name, count in found.seen.answered_by.most_common(SOME)]
    tags = known.get("tags") or job.tags
    pairs = [
        ("Job file", str(known.get("job_file", ""))),
        ("Tags", some([f"{name}: {value}" for name, value in tags.items()], 20)),
        ("Model", some(asked) or job.request.model),
        ("Answered by", some(answered)),
        ("Endpoint", _SIMULATED if known.get("simulated") else job.endpoint.base_url),
        ("Input", some([str(file.path) for file in found.prepared.survey.files])),
        ("Started", _instant(known.get("started_at"))),
        ("Rows last written", moment(found.written_at) if found.written_at else "never"),
        *(("Price", line) for line in _prices(found, asked)),
        ("Run", f"{known.get('run', '')} in {found.directory.root.resolve()}"),
    ]
    return [(name, cut(text, 5 * LONG)) for name, text in pairs if text]


def some(texts: Sequence[str], most: int = SOME) -> str:
    """The first few, each cut, and how many more there are."""
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return ", ".join(cut(text, LONG) for text in texts[:most]) + more


def versions(found: Facts) -> str:
    named: Mapping[str, str] = found.known.get("versions") or {}
    return ", ".join(f"{name} {version}" for name, version in named.items())


def _instant(text: str | None) -> str:
    return moment(datetime.fromisoformat(text)) if text else ""


def _prices(found: Facts, asked: Sequence[str]) -> list[str]:
    """Dollars per million tokens as run.json has them; several where a later process found others."""
    kept: Mapping[str, Sequence[Mapping[str, Any]]] = found.known.get("prices") or {}
    told = [(model, entry, len(kept[model]) > 1) for model in asked if model in kept for entry in kept[model]]
    lines = [f"{cut(model, LONG)}: {_price(model, entry)}{_since(entry, several)}" for model, entry, several in told]
    return [*lines[:MOST_PRICES], f"and {len(lines) - MOST_PRICES:,} more"] if len(lines) > MOST_PRICES else lines


def _since(entry: Mapping[str, Any], several: bool) -> str:
    return f", from {_instant(entry['since'])}" if several and "since" in entry else ""


def _price(model: str, entry: Mapping[str, Any]) -> str:
    """What one entry of run.json's prices says (see `Prices.to_json`)."""
    if entry["source"] in (None, SERVER):
        return "what the server says" if entry["source"] else "not known"
    rates = {name: Decimal(entry[name]) for name in RATES if name in entry}
    flat: dict[str, Any] = dict.fromkeys(("input", "cached_input", "cache_write", "output")) | rates
    about = {"matched": model} | {
        name: entry[name] for name in ("source", "matched", "as_of", "estimate") if name in entry
    }
    price = Price(model=model, **flat, **about)
    longer = [step["above_tokens"] for step in entry.get("long_prompts", ())]
    tiers = [f"{name} tier apart" for name in entry.get("tiers", ())]
    return ", ".join([words(price), *(f"more beyond {above:,} prompt tokens" for above in longer[:1]), *tiers])
