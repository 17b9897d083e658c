"""`runner prices`: a gateway's public catalogue into a file, and that file for people.

Rule: no key is sent. Nothing is written before all of the answer is here and is what it should be; a file that is no
file of prices is never overwritten. As everywhere on the command line, heavy imports live inside the functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click import option

from runner.errors import InputError, LaterError, RunnerError, UsageError
from runner.say import Say, plain

if TYPE_CHECKING:
    from runner.catalogue import Catalogue, Listing, Offer
    from runner.records import Reply

COMET = "https://api.cometapi.com"
LIST_PATH = "/api/models"
WRONG_PLACE = "is this the address of such a gateway? give it with --base-url"
COLUMNS = ("input", "cached_input", "output", "per_request")


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@option("-o", "--output", metavar="FILE", default="prices.json", show_default=True, help="Where to; - is stdout.")
@option("--base-url", metavar="URL", default=COMET, show_default=True, help="The gateway.")
@option("--json", "as_json", is_flag=True, help="FILE's models as JSON; of a fetch, one line about it.")
def prices(file: Path | None, models: tuple[str, ...], output: str, base_url: str, as_json: bool) -> None:
    """Fetch the gateway's own prices into a file that jobs can name (pricing.catalogue). With FILE: show what it says,
    of all models or of some."""
    if file is not None:
        _show(file, models, as_json=as_json)
        return
    url = list_url(base_url)
    made, words = catalogue_of(url)
    if output == "-":
        click.echo(made.to_file(), nl=False)
    else:
        save(made, Path(output))
    Say().line(f"{words}{'' if output == '-' else f' -> {output}'}")
    if as_json and output != "-":
        told = {"file": output, "models": len(made.models), "source": made.source, "fetched_at": made.fetched_at}
        click.echo(json.dumps(told, ensure_ascii=False))


def list_url(base_url: str) -> str:
    """Where the catalogue is, for the gateway itself or for its endpoint (…/v1)."""
    root = base_url.strip().rstrip("/").removesuffix("/v1").rstrip("/")
    return root if root.endswith(LIST_PATH) else root + LIST_PATH


def catalogue_of(url: str) -> tuple[Catalogue, str]:
    """Fetch and judge: the catalogue, and what it holds in words. Raises UsageError for what is no catalogue,
    LaterError for what may be one later."""
    from runner.catalogue import Catalogue, read_listing
    from runner.ports import iso_now

    reply = _fetched(url)
    listing = read_listing(reply.body)
    if isinstance(listing, str):
        raise UsageError(f"{url}: {listing}", hint=WRONG_PLACE)
    if not listing.models:
        raise UsageError(f"{url}: no model has a price in dollars", hint="nothing was written")
    return Catalogue(listing.models, url, f"{iso_now()[:19]}Z"), _summary(listing, url)


def _fetched(url: str) -> Reply:
    import anyio

    from runner.records import Failure
    from runner.transport.single import Caps, once, web_address

    address = web_address(url)
    if address is None or address.userinfo:
        raise UsageError("--base-url is no http(s) address, or holds a password", hint=f"such as {COMET}")
    reply = anyio.run(once, address, Caps())
    if isinstance(reply, Failure):
        raise LaterError(f"{url}: {reply.message}", hint="nothing was written; the same command works later")
    if refusal := _refusal(reply, url):
        raise refusal
    return reply


def _refusal(reply: Reply, url: str) -> RunnerError | None:
    """What a status other than 200 means."""
    if reply.status == 200:
        return None
    if 300 <= reply.status < 400:
        return UsageError(f"{url} redirects ({reply.status}), which is never followed", hint=WRONG_PLACE)
    if reply.status == 429 or reply.status >= 500:
        return LaterError(f"{url} answers {reply.status}", hint="nothing was written; the same command works later")
    return UsageError(f"{url} answers {reply.status}", hint=WRONG_PLACE)


def _summary(listing: Listing, url: str) -> str:
    by_request = sum(offer.per_request is not None for offer in listing.models.values())
    rest = (
        (by_request, "of them per request"),
        (listing.unpriced, "without a price for tokens or requests"),
        (listing.foreign, "in another currency or unit"),
        (listing.withheld, "not in the answer"),
    )
    said = [f"{count:,} {words}" for count, words in rest if count]
    return f"{', '.join([f'{len(listing.models):,} models with prices', *said])}: {url}"


def save(made: Catalogue, path: Path) -> None:
    """Raises UsageError where another file stands."""
    from runner import files
    from runner.catalogue import read_catalogue

    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path.parent} is no directory", hint="name another place with -o")
    before = files.read_file(path) if path.is_file() else None
    if path.exists() and (before is None or isinstance(read_catalogue(before), str)):
        raise UsageError(f"{path} is no file of prices, and is not overwritten", hint="name another with -o")
    files.write_file(path, made.to_file())


def _show(file: Path, models: Sequence[str], *, as_json: bool) -> None:
    from runner.catalogue import Catalogue, read_catalogue

    try:
        found = read_catalogue(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}", hint="`runner prices` fetches one") from error
    if isinstance(found, str):
        raise InputError(f"{file}: {found}")
    chosen = {name: found.models[name] for name in (_entry(model, found) for model in models)} or found.models
    if as_json:
        click.echo(Catalogue(chosen, found.source, found.fetched_at).to_file(), nl=False)
        return
    for line in table(chosen, found):
        click.echo(plain(line))


def _entry(model: str, found: Catalogue) -> str:
    """The name under which a job's model is in the file."""
    from runner.pricing.price import candidate_names

    for name in candidate_names(model):
        if name in found.models:
            return name
    near = get_close_matches(model, list(found.models), n=3)
    raise UsageError(f"no price of {model} is in the file", hint=f"near: {', '.join(near)}" if near else "")


def table(models: Mapping[str, Offer], found: Catalogue) -> list[str]:
    """Dollars per million tokens, a line a model."""
    rows = [[name, *(_rate(getattr(offer, rate)) for rate in COLUMNS)] for name, offer in sorted(models.items())]
    rows = [["model", "in", "cached", "out", "per request"], *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines, f"USD per million tokens, of {found.source or 'unknown source'}, {found.fetched_at or 'undated'}"]


def _rate(rate: Decimal | None) -> str:
    return "-" if rate is None else f"{rate.normalize():f}"
