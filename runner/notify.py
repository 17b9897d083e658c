"""Telling somebody how a run fares: a small JSON to the webhook that the job names.

Rule: told is what a status line would tell, never a key and nothing of any row, so no sentence of an error either: it
may quote the data. The webhook's address is a secret, since whoever has it may write there; it lives in a `Webhook`,
which hides it, and no library's words about it are repeated. Whether a message arrives changes nothing about the run:
it is tried once, and what goes wrong is one line.
"""

from __future__ import annotations

import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NoReturn

import anyio
import orjson

from runner.ending import Ending, command_again
from runner.errors import JobError, RunnerError
from runner.halts import duration
from runner.prepare import Loaded
from runner.progress import Snapshot
from runner.records import Failure, Kind, Reply, Tally
from runner.say import Say, dollars
from runner.stop import Stop
from runner.transport.single import Caps, is_private, once, web_address

FINISHED, STOPPED, STALLED = "finished", "stopped", "stalled"
PATIENCE_S = 10.0
#: After a signal: with timeouts.drain_s before it, within the 30 s that most systems give a process to end.
HURRY_S = 3.0
REPLY_BYTES = 64 * 1024


class Webhook:
    """An address that hides itself: `repr`, `vars` and pickle do not give it away."""

    __slots__ = ("__address", "name")

    def __init__(self, name: str, environ: Mapping[str, str]) -> None:
        """name: of the environment variable that holds it. Raises JobError when it holds no address to write to."""
        self.name = name
        what = f"notify.webhook_env: the environment variable {name}"
        given = (environ.get(name) or "").strip()
        if not given:
            raise JobError(f"{what} is not set", hint=f"export {name}=https://…, or set notify.webhook_env to null")
        address = web_address(given)
        if address is None:
            raise JobError(f"{what} holds no https:// address", hint="copy it anew from where the webhook was made")
        if not is_private(address):
            raise JobError(f"{what} holds an http:// address; only https:// keeps a webhook secret on its way")
        self.__address = address

    async def post(self, body: bytes, patience_s: float) -> str | None:
        """Send once; what went wrong in words, without the address. Raises nothing of a network's."""
        try:
            outcome = await once(self.__address, Caps(patience_s, REPLY_BYTES), body)
        except JobError:
            return "cannot be reached through the proxy that the environment names"
        return _complaint(outcome)

    def __repr__(self) -> str:
        return f"<Webhook ******** of {self.name}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a webhook is never pickled or copied")


def _complaint(outcome: Reply | Failure) -> str | None:
    if isinstance(outcome, Failure):
        late = outcome.kind is Kind.TIMEOUT
        return "did not answer in time" if late else "cannot be reached" if outcome.unreachable else "broke off"
    if 300 <= outcome.status < 400:
        return f"redirects ({outcome.status}), which is never followed"
    return None if 200 <= outcome.status < 300 else f"answered {outcome.status}"


@dataclass(slots=True)
class Stall:
    """Nothing has settled for `after_s` while rows wait: begins once, until something settles again."""

    after_s: float
    _settled: int = -1
    _since_s: float = 0.0
    _told: bool = False

    def begins(self, seen: Snapshot) -> bool:
        if seen.settled != self._settled:
            self._settled, self._since_s, self._told = seen.settled, seen.at_s, False
        if self._told or seen.settled >= seen.rows or seen.at_s - self._since_s < self.after_s:
            return False
        self._told = True
        return True


@dataclass(slots=True)
class Bell:
    """What rings when the run finishes, stops or stalls. It is silent until the run has begun to send."""

    webhook: Webhook | None
    on: tuple[str, ...]
    stalled_after_s: float
    facts: Mapping[str, Any]  #: of the run: job, run, host
    command: str  #: that goes on
    say: Say
    armed: bool = False
    began_s: float = field(default_factory=time.monotonic)

    @contextmanager
    def tolled(self) -> Iterator[None]:
        """Around a whole run: what breaks out of it rings too."""
        try:
            yield
        except BaseException as error:
            told = {"exit_code": _exit_code(error), "next": self.command}
            self._ring(STOPPED, _reason(error), told, PATIENCE_S if isinstance(error, Exception) else HURRY_S)
            raise

    def ended(self, ending: Ending) -> None:
        """After everything is durable."""
        event = FINISHED if ending.finished else STOPPED
        told = {
            "exit_code": ending.exit_code,
            "next": None if ending.finished else self.command,
            **counted(ending.rows, ending.totals),
        }
        reason = "every row is final" if ending.finished else _reason(ending.error)
        if ending.sample:
            reason = f"A sample of {ending.sample.rows:,} rows is final"
        if ending.signal:
            reason = signal.Signals(ending.signal).name
        self._ring(event, reason, told, HURRY_S if ending.signal else PATIENCE_S)

    async def watch(self, look: Callable[[], Snapshot], totals: Callable[[], Tally], stop: Stop) -> None:
        """Beside a run that goes on: ring when it stalls."""
        stall = Stall(self.stalled_after_s)
        while self._rings_for(STALLED) and not stop.is_set:
            seen = look()
            if stall.begins(seen):
                reason = f"nothing has settled for {duration(self.stalled_after_s)}"
                told = {"exit_code": None, "next": None, **counted(seen.rows, totals())}
                await self._post(STALLED, reason, told, PATIENCE_S)
            await anyio.sleep(min(1.0, self.stalled_after_s / 4))

    def _rings_for(self, event: str) -> bool:
        return self.webhook is not None and self.armed and event in self.on

    def _ring(self, event: str, reason: str, told: Mapping[str, Any], patience_s: float) -> None:
        if self._rings_for(event):
            with suppress(KeyboardInterrupt):  # whoever is in a hurry leaves without it
                anyio.run(self._post, event, reason, told, patience_s)

    async def _post(self, event: str, reason: str, told: Mapping[str, Any], patience_s: float) -> None:
        assert self.webhook
        message = {"event": event, **self.facts, "reason": reason, "seconds": self._seconds(), **told}
        body = orjson.dumps({"text": summary(message), **message})
        if complaint := await self.webhook.post(body, patience_s):
            self.say.line(
                f"notify: the webhook of {self.webhook.name} {complaint}; nobody was told that the run {event}"
            )

    def _seconds(self) -> float:
        return round(time.monotonic() - self.began_s, 1)


def bell_of(loaded: Loaded, environ: Mapping[str, str], say: Say) -> Bell:
    """The bell of a job; a rehearsal has none. Raises JobError for a webhook that cannot be used."""
    given, asked = loaded.job.notify, loaded.asked
    named = None if asked.simulate else given.webhook_env
    facts = {"job": loaded.job.name, "run": str(loaded.run_root), "host": platform.node()}
    webhook = Webhook(named, environ) if named else None
    return Bell(webhook, given.on, given.stalled_after_s, facts, command_again(asked), say)


def unready(named: str | None, environ: Mapping[str, str]) -> str | None:
    """Why a start in this environment would be refused, in words. named: notify.webhook_env."""
    try:
        Webhook(named, environ) if named else None
    except JobError as error:
        return f"{error.message}; a start here would be refused"
    return None


def counted(rows: int, totals: Tally) -> dict[str, Any]:
    """Rows by status and dollars, exact, as decimal text."""
    return {
        "rows": {"all": rows, "settled": totals.settled, **totals.rows},
        "cost_usd": f"{totals.cost_usd.normalize():f}",
        "unknown_exchanges": totals.unknown_exchanges,
    }


def _exit_code(error: BaseException) -> int:
    """What the command line makes of it."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return error.exit_code if isinstance(error, RunnerError) else RunnerError.exit_code


def _reason(error: BaseException | None) -> str:
    """The sort of the error; its own sentence may hold what a server or a row said."""
    said = type(error).__doc__ if isinstance(error, RunnerError) else None
    return (said or "It broke off.").strip().split("\n")[0].rstrip(".")


def summary(message: Mapping[str, Any]) -> str:
    """One line for people: what chats show of it."""
    parts = [message["reason"]]
    if rows := message.get("rows"):
        by_status = ", ".join(
            f"{count:,} {status}" for status, count in rows.items() if status not in ("all", "settled")
        )
        parts.append(f"{rows['settled']:,} of {rows['all']:,} rows final ({by_status or 'none'})")
        parts.append(dollars(Decimal(message["cost_usd"])))
    parts.append(duration(message["seconds"]))
    return f"{message['job']} {message['event']} on {message['host']}: {', '.join(parts)}"
