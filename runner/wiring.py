"""A prepared job plugged together: key, transport, rules and limits of one engine."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from runner.budget import Budget
from runner.credentials import Key, resolve_headers
from runner.engine import LocalEngine
from runner.halts import Terms
from runner.keep import Keeper
from runner.media import Media, folder_of
from runner.outputs import Expected
from runner.outputs.each import output_asked_by
from runner.ports import Settings, Wiring
from runner.prepare import Loaded, Prepared
from runner.records import Failure, Outcome, Reply, Request, Tally
from runner.retry import Policy
from runner.spec import JobSpec
from runner.transport import Endpoint, Transport, TransportLimits
from runner.wire.allowances import readings
from runner.wire.decode import decode


def key_of(loaded: Loaded, environ: Mapping[str, str]) -> Key | None:
    """The endpoint's key; None when the job names neither a variable nor a file. Raises JobError when it is missing."""
    given = loaded.job.endpoint
    if given.api_key_file:
        return Key.from_file(loaded.base / Path(given.api_key_file).expanduser())
    return Key.from_env(given.api_key_env, environ) if given.api_key_env else None


def endpoint_of(loaded: Loaded, environ: Mapping[str, str]) -> Endpoint:
    """The job's endpoint with its headers resolved. Raises JobError for a variable that is not set."""
    given = loaded.job.endpoint
    headers = resolve_headers(given.headers, environ)
    return Endpoint(given.base_url, headers.values, headers.hidden)


def transport_of(prepared: Prepared, endpoint: Endpoint, key: Key | None) -> Transport:
    times = prepared.job.timeouts
    return Transport(endpoint, key, TransportLimits(times.connect_s, times.attempt_s, times.stall_s))


def engine_of(prepared: Prepared, keeper: Keeper, transport: Transport, key: Key | None) -> LocalEngine:
    prices, folder = prepared.prices, folder_of(prepared.job, prepared.loaded.base)

    def rekey() -> bool:
        changed = key is not None and key.reload()
        if changed:
            transport.rekey()
        return changed

    wiring = Wiring(
        send=transport.send,
        judge=judge_of(prepared),
        charge=prices.charge,
        sent=keeper.sent,
        rekey=rekey,
        luck=random.random,
        fill=Media(folder).filled if folder else None,
        bound=prepared.recipe.bound,
        readings=lambda reply: readings(reply.headers, time.time()),
        clock=time.monotonic,  # the loop's own clock counts whole milliseconds under uvloop
    )
    return LocalEngine(wiring, replace(settings_of(prepared), budget=budget_of(prepared, keeper.books.total)))


def judge_of(prepared: Prepared) -> Callable[[Reply, Request], Outcome]:
    """Decode a reply, and hold its answer against what the job, or the row's own line, expects."""
    expected, keep_raw = prepared.expected, prepared.job.output.keep_raw
    of_lines = prepared.job.input.is_of_lines

    def judge(reply: Reply, request: Request) -> Outcome:
        outcome = decode(reply, choices=request.choices, now=time.time(), keep_raw=keep_raw)
        if isinstance(outcome, Failure):
            return outcome
        wanted = Expected(output_asked_by(request.body), None) if of_lines else expected
        return wanted.check(outcome, request.body)

    return judge


def budget_of(prepared: Prepared, totals: Tally) -> Budget | None:
    """What may be spent, with what the run has cost so far. totals: of every exchange that it ever made."""
    most = prepared.job.budget.max_usd
    return None if most is None else Budget(most, totals.cost_usd + totals.unknown_usd)


def settings_of(prepared: Prepared) -> Settings:
    """The job's limits as the engine takes them."""
    job = prepared.job
    asked, most = job.limits.concurrency, job.limits.max_concurrency
    return Settings(
        concurrency=most if asked == "auto" else min(asked, most),
        learns=asked == "auto",
        requests_per_minute=job.limits.requests_per_minute,
        tokens_per_minute=job.limits.tokens_per_minute,
        max_backoff_s=job.retry.max_backoff_s,
        drain_s=job.timeouts.drain_s,
        policy=_policy(job),
        terms=_terms(prepared),
    )


def _policy(job: JobSpec) -> Policy:
    given = job.retry
    return Policy(
        max_attempts=given.max_attempts,
        max_backoff_s=given.max_backoff_s,
        max_wait_s=given.max_wait_s,
        row_s=job.timeouts.row_s,
        on_invalid=given.on_invalid,
        on_truncation=given.on_truncation,
    )


def _terms(prepared: Prepared) -> Terms:
    job = prepared.job
    return Terms(
        max_wait_s=job.retry.max_wait_s,
        outage_s=job.timeouts.outage_s,
        auth_wait_s=job.timeouts.auth_wait_s,
        model_is_template=prepared.prompt.model_is_template,
        base_url=prepared.loaded.base_url,
        key_name=f"the key of {job.endpoint.api_key_file or job.endpoint.api_key_env or 'nobody'}",
    )
