"""Where the prices of a job come from besides itself: the catalogue file that it names, the list of its day.

Rule: the file is read once a process, when the job is made ready, and nothing is fetched.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

from runner.catalogue import Catalogue, read_catalogue
from runner.errors import JobError
from runner.pricing import Market
from runner.spec import JobSpec

_HINT = "`runner prices -o FILE` fetches the gateway's own prices into such a file"


def market_of(job: JobSpec, base: Path, on: date) -> Market:
    """base: what the job's paths are relative to. Raises JobError for a catalogue that cannot be used."""
    named = job.pricing.catalogue
    return Market(
        job.endpoint.base_url, None if named is None else _catalogue(job, base / Path(named).expanduser()), on
    )


def _catalogue(job: JobSpec, path: Path) -> Catalogue:
    place = f"{job.where('pricing.catalogue')}: pricing.catalogue: {path}"
    try:
        found = read_catalogue(path.read_bytes())
    except OSError as error:
        raise JobError(mistakes=(f"{place} cannot be read: {error.strerror}",), hint=_HINT) from None
    if isinstance(found, str):
        raise JobError(mistakes=(f"{place}: {found}",), hint=_HINT)
    return found
