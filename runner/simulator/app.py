"""The endpoint: requests in, answers, refusals and faults out.

    POST /v1/chat/completions    GET /v1/models    GET /stats

Rule: the answer's text depends on the request alone (answers.py), streamed or not; what happens to it on its number
(faults.py).
Strategy: `_decide` turns a request into a Starlette response; a fault of the wire is a response that breaks the wire.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import struct
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from runner.simulator import refusals
from runner.simulator.answers import WHOLE, Blemish, choices_of, max_tokens, prompt_tokens, usage_of
from runner.simulator.faults import Fate, Fates, Fault
from runner.simulator.ledger import Log, Stats
from runner.simulator.limits import Limits
from runner.simulator.options import SimulatorOptions
from runner.simulator.refusals import Refusal
from runner.simulator.streaming import event, events_of, half_of
from runner.simulator.wire import Cut, Reset, Stall, Stream, transport_of

CHAT, MODELS, STATS = "/v1/chat/completions", "/v1/models", "/stats"
FINGERPRINT = "simulator"
CACHE_BLOCK = 16  #: tokens; vLLM caches prompts in blocks of this size
CACHED_PREFIXES = 10_000
GONE = 499  #: nginx's status for a client that did not wait


REFUSALS = {Fault.ERROR: refusals.SERVER_ERROR, Fault.OVERLOADED: refusals.OVERLOADED}
BLEMISHES: dict[Fault | None, Blemish] = {Fault.INVALID: Blemish(invalid=True), Fault.REFUSAL: Blemish(refused=True)}
WIRE: dict[Fault | None, type[Response]] = {Fault.RESET: Reset, Fault.CUT: Cut, Fault.STALL: Stall}
FIRST_TOKEN = 0.5  #: the part of a stream's latency that goes before its first token
SLOW_STATUSES = frozenset({200, 500, 503})  #: the others are refused at the door, without work


class Simulator:
    def __init__(self, options: SimulatorOptions) -> None:
        self.options = options
        self.fates = Fates(options)
        self.limits = Limits(options.rpm, options.tpm)
        self.stats = Stats()
        self.log = Log(options.log)
        self.prefixes: set[bytes] = set()

    async def chat(self, request: Request) -> Response:
        body = await request.body()
        number = self.stats.arrive()
        response: Response | None = None
        try:
            response = await self._respond(request, body, number, self.fates.next())
        finally:
            if isinstance(response, Stream):
                response.at_end = self.stats.leave
            else:
                self.stats.leave()
        return response

    async def _respond(self, request: Request, body: bytes, number: int, fate: Fate) -> Response:
        event = {"id": f"req-simulated-{number}", "hash": hashlib.blake2b(body).hexdigest()}
        self.log.write(event="request", **event)
        started = time.monotonic()
        response = self._decide(request, body, number, fate)
        if response.status_code in SLOW_STATUSES:
            await asyncio.sleep(fate.latency_s * (FIRST_TOKEN if isinstance(response, Stream) else 1))
        response.headers["x-request-id"] = event["id"]
        response.headers["openai-processing-ms"] = str(round((time.monotonic() - started) * 1000))
        status = GONE if transport_of(request.scope).is_closing() else response.status_code
        broken = isinstance(response, Reset | Cut | Stall) or (isinstance(response, Stream) and response.breaks)
        self.stats.answered(fate.fault.value if fate.fault and broken else str(status))
        self.log.write(event="answer", **event, status=status, fault=fate.fault)
        return response

    async def models(self, request: Request) -> Response:
        if refusal := self._key_refusal(request):
            return _refuse(refusal)
        model = {"id": "simulated", "object": "model", "created": 0, "owned_by": FINGERPRINT}
        return _json({"object": "list", "data": [model]})

    async def report(self, _: Request) -> Response:
        return _json(asdict(self.stats))

    def _decide(self, request: Request, raw: bytes, number: int, fate: Fate) -> Response:
        if refusal := self._key_refusal(request):
            return _refuse(refusal)
        body = _parsed(raw)
        if refusal := refusals.refusal_of(body):
            return _refuse(refusal)
        if limited := self._limited(body, fate):
            return limited
        if fate.fault in REFUSALS:
            return _refuse(REFUSALS[fate.fault])
        return self._answer(body, raw, number, fate)

    def _key_refusal(self, request: Request) -> Refusal | None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if self.options.no_auth:
            return None
        if scheme.lower() != "bearer" or not key.strip():
            return refusals.NO_KEY
        return refusals.WRONG_KEY if self.options.reject_key else None

    def _limited(self, body: Mapping[str, Any], fate: Fate) -> Response | None:
        wanted = prompt_tokens(body) + (max_tokens(body) or 0) * (body.get("n") or 1)
        if denial := self.limits.take(wanted, body["model"], time.monotonic()):
            refusal, wait_ms = refusals.rate_limited(denial.message, denial.kind), math.ceil(denial.wait_s * 1000)
        elif fate.fault is Fault.RATE:
            message = f"Rate limit reached for {body['model']}. Please try again in {fate.wait_ms}ms."
            refusal, wait_ms = refusals.rate_limited(message, "requests"), fate.wait_ms
        else:
            return None
        hints = {"retry-after": str(math.ceil(wait_ms / 1000)), "retry-after-ms": str(wait_ms)} if wait_ms else {}
        return _refuse(refusal, self.limits.headers() | hints)

    def _answer(self, body: Mapping[str, Any], raw: bytes, number: int, fate: Fate) -> Response:
        asked = _unstreamed(body) if body.get("stream") else raw
        digest = hashlib.blake2b(asked, digest_size=8, salt=struct.pack("q", self.options.seed)).digest()
        try:
            choices = choices_of(body, int.from_bytes(digest), BLEMISHES.get(fate.fault, WHOLE))
        except ValueError as error:
            return _refuse(refusals.bad_schema(str(error)))
        usage = usage_of(body, choices, self._cached_tokens(body, digest))
        completion = {
            "id": f"chatcmpl-simulated-{number}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": f"simulated-{body['model']}",
            "choices": choices,
            "usage": usage,
            "service_tier": "default",
            "system_fingerprint": FINGERPRINT,
        }
        self.stats.prompt_tokens += usage["prompt_tokens"]
        self.stats.completion_tokens += usage["completion_tokens"]
        response = _streamed(body, completion, fate) if body.get("stream") else _whole(completion, fate)
        response.headers.update(self.limits.headers())
        return response

    def _cached_tokens(self, body: Mapping[str, Any], digest: bytes) -> int:
        """Half of the requests whose messages before the last one were seen already find them in a cache."""
        messages = body["messages"][:-1]
        prefix = hashlib.blake2b(orjson.dumps(messages)).digest()  # with pictures, the text may be megabytes
        known = prefix in self.prefixes
        if len(self.prefixes) < CACHED_PREFIXES:
            self.prefixes.add(prefix)
        if not (messages and known and digest[0] % 2):
            return 0
        return prompt_tokens({"messages": messages}) // CACHE_BLOCK * CACHE_BLOCK


def _whole(completion: Mapping[str, Any], fate: Fate) -> Response:
    content = orjson.dumps(refusals.SERVER_ERROR.body if fate.fault is Fault.ERROR_INSIDE else completion)
    broken = content[:-20] if fate.fault is Fault.BAD_JSON else content
    return WIRE.get(fate.fault, Response)(broken, media_type="application/json")


def _streamed(body: Mapping[str, Any], completion: Mapping[str, Any], fate: Fate) -> Response:
    events = events_of(completion, bool((body.get("stream_options") or {}).get("include_usage")))
    breaks = WIRE.get(fate.fault)
    if breaks is Reset:
        return Reset()
    if fate.fault is Fault.ERROR_INSIDE:
        events = [*half_of(events), event(refusals.SERVER_ERROR.body)]
    elif fate.fault is Fault.BAD_JSON:
        events[len(events) // 2] = events[len(events) // 2][:-20] + b"\n\n"
    elif breaks is not None:
        events = half_of(events)
    return Stream(events, fate.latency_s * (1 - FIRST_TOKEN), breaks)


def application(options: SimulatorOptions) -> Starlette:
    """The ASGI application. Raises UsageError when the log cannot be written."""
    simulator = Simulator(options)
    routes = [
        Route(CHAT, simulator.chat, methods=["POST"]),
        Route(MODELS, simulator.models, methods=["GET"]),
        Route(STATS, simulator.report, methods=["GET"]),
    ]
    return Starlette(routes=routes, exception_handlers={404: _lost, 405: _lost, ClientDisconnect: _left})


async def _lost(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        return _refuse(refusals.not_allowed(request.method))
    return _refuse(refusals.not_found(request.method, request.url.path))


async def _left(_: Request, error: Exception) -> Response:
    """A client that was killed while it sent its request: nobody reads this."""
    return Response(status_code=GONE)


def _parsed(raw: bytes) -> Any:
    """The JSON of a body; None, which is no request, for anything else."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def _unstreamed(body: Mapping[str, Any]) -> bytes:
    """The same question, to be answered whole: the answer is the same."""
    return orjson.dumps({name: value for name, value in body.items() if name not in ("stream", "stream_options")})


def _refuse(refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(refusal.body), refusal.status, headers, "application/json")


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
