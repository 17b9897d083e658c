"""Where prices come from: fetched, named by a job, told by the server; and that every face shows the same dollars."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from endpoint import KEY, Endpoint, Place, Said, Seen, ok, refused, until

import runner
from runner.pricing import cost, price_of
from runner.records import Usage
from runner.spec.model import PricingSpec

USD = "USD / M Tokens"


def model(name: str, **pricing: Any) -> dict[str, Any]:
    return {"id": name, "provider": "p", "pricing": {"currency": USD, "per_second": None, **pricing}}


MODELS = [
    model("gpt-4.1-mini", input=0.32, output=1.28, per_request=None),
    model("painter", input=None, output=None, per_request="0.056"),
    model("yuan", currency="CNY / M Tokens", input=1, output=2),
    model("video", input=None, output=None, per_request=None),
]
LISTED = {"success": True, "page": 0, "page_size": 0, "total": 4, "data": MODELS}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint() as endpoint:
        place = Place(tmp_path, endpoint)
        place.rows(6)
        yield place


def fetch(place: Place, said: Said, *words: str) -> Any:
    place.endpoint.answer = lambda seen: said
    return place.call("prices", "--base-url", place.endpoint.url, *words, RUNNER_OUTPUT="elsewhere")


def test_the_catalogue_is_fetched_into_a_file_that_can_be_looked_at(place: Place) -> None:
    done = fetch(place, Said(200, LISTED), "--json")
    assert done.code == 0, done.err
    (seen,) = place.endpoint.seen
    assert seen.path == "/api/models"
    assert KEY not in str(seen.headers) and "authorization" not in seen.headers
    assert done.err.startswith(
        "2 models with prices, 1 of them per request, 1 without a price for tokens or requests, 1 in another currency"
    )
    file = json.loads((place.root / "prices.json").read_bytes())
    assert file["models"] == {"gpt-4.1-mini": {"input": 0.32, "output": 1.28}, "painter": {"per_request": 0.056}}
    assert done.json == {"file": "prices.json", "models": 2, "source": file["source"], "fetched_at": file["fetched_at"]}
    shown = place.call("prices", "prices.json", "openai/gpt-4.1-mini")
    assert shown.out.split("\n")[:2] == [
        "model         in    cached  out   per request",
        "gpt-4.1-mini  0.32  -       1.28  -",
    ]
    assert len(place.endpoint.seen) == 1
    unknown = place.call("prices", "prices.json", "gpt-4.1-min")
    assert (unknown.code, unknown.errors, unknown.hint) == (
        2,
        ["no price of gpt-4.1-min is in the file"],
        "near: gpt-4.1-mini",
    )


BROKEN: list[tuple[Said, int, str]] = [
    (Said(301, "", {"location": "https://elsewhere.example/"}), 2, "redirects (301), which is never followed"),
    (Said(200, "<!DOCTYPE html><html></html>", {"content-type": "text/html"}), 2, "a web page came back, not JSON"),
    (Said(200, '{"success":true,"data":['), 2, "it is not JSON, or not all of it"),
    (Said(200, {"object": "list", "data": "no"}), 2, "the answer is JSON without a list of models under `data`"),
    (Said(200, {"success": True, "data": []}), 2, "no model has a price in dollars"),
    (Said(404, "nothing"), 2, "answers 404"),
    (Said(503, "busy"), 75, "answers 503"),
    (Said(200, "[]", {"content-encoding": "gzip"}), 75, "the reply says it is gzip, and is not"),
    (Said(200, gzip.compress(bytes(40 << 20)), {"content-encoding": "gzip"}), 75, "larger than 32 MiB"),
    (Said(200, "[" * 200_000), 2, "it is not JSON, or not all of it"),
]


@pytest.mark.parametrize(("said", "code", "words"), BROKEN, ids=[words for _, _, words in BROKEN])
def test_what_is_no_catalogue_leaves_the_old_file_as_it_was(place: Place, said: Said, code: int, words: str) -> None:
    assert fetch(place, Said(200, LISTED)).code == 0
    before = (place.root / "prices.json").read_bytes()
    done = fetch(place, said)
    assert done.code == code, done.err
    assert words in done.errors[0]
    assert (place.root / "prices.json").read_bytes() == before
    assert [path.name for path in place.root.iterdir() if "prices" in path.name] == ["prices.json"]


def test_where_a_redirect_points_nobody_is_asked(place: Place) -> None:
    with Endpoint(answer=lambda seen: Said(200, LISTED)) as elsewhere:
        for status in (301, 302, 303, 307, 308):
            done = fetch(place, Said(status, "", {"location": f"{elsewhere.url}/api/models"}))
            assert done.code == 2 and f"redirects ({status})" in done.errors[0]
        assert elsewhere.seen == []
    assert not (place.root / "prices.json").exists()


def test_another_file_is_never_overwritten(place: Place) -> None:
    done = fetch(place, Said(200, LISTED), "-o", "rows.jsonl")
    assert (done.code, done.errors) == (2, ["rows.jsonl is no file of prices, and is not overwritten"])
    assert fetch(place, Said(200, LISTED), "-o", "nowhere/p.json").code == 2
    to_stdout = fetch(place, Said(200, LISTED), "-o", "-")
    assert json.loads(to_stdout.out)["format"] == "runner-prices/1"


def catalogue(place: Place, **models: dict[str, float]) -> None:
    head = {"format": "runner-prices/1", "source": "https://x/api/models", "fetched_at": "2026-11-20T10:00:00Z"}
    (place.root / "prices.json").write_text(json.dumps({**head, "models": models}), encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", "it is not JSON, or not all of it"),
        ('{"format": "runner-prices/1", "models": {"m": {"inptu": 1}}}', "models.m.inptu is unknown"),
    ],
)
def test_a_catalogue_that_cannot_be_used_is_refused_with_its_line(place: Place, text: str | None, words: str) -> None:
    if text is not None:
        (place.root / "prices.json").write_text(text)
    place.job(pricing={"catalogue": "prices.json"})
    for command in ("check", "run"):
        done = place.call(command, "job.yaml")
        assert done.code == 2
        assert done.errors[0].startswith("job.yaml:") and "pricing.catalogue: prices.json" in done.errors[0]
        assert words in done.errors[0]
        assert "runner prices" in done.hint
    assert place.sent == 0


# Told by the server, by a header, by the catalogue (once after a failure), a free one, by list and job, an unknown one.
MIXED = '{{ ["m-1", "m-1", "by-token", "by-request", "m-1", "gpt-4.1-mini", "by-job", "nobody"][id] }}'
LIST_PRICE = price_of("gpt-4.1-mini", PricingSpec())
LISTED_USD = cost(Usage(100, None, None, 10), LIST_PRICE)
COSTS = [
    *map(Decimal, ("0.0009885", "0.000028500001", "0.00015", "0.056", "0")),
    *(LISTED_USD, Decimal("0.0011"), None),
]
SOURCES = ["server", "server", "catalogue", "catalogue", "server", "list", "job", None]


def mixed(seen: Seen) -> Said:
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    row = int(seen.text.removeprefix("say row "))
    if row == 0:
        return ok(usage=usage | {"cost": 0.0009884999999999998})
    if row == 1:
        return Said(200, ok(usage=usage).body, {"x-litellm-response-cost": "2.8500001e-05"})
    return ok(usage=usage | ({"cost": 0} if row == 4 else {}))


def test_every_face_shows_the_same_dollars_whatever_their_source(place: Place) -> None:
    oops = [refused(500, "oops")]
    place.endpoint.answer = lambda seen: oops.pop() if oops and seen.text == "say row 2" else mixed(seen)
    catalogue(place, **{"by-token": {"input": 1, "output": 5}, "by-request": {"per_request": 0.056}})
    place.rows(8)
    job_price = {"by-job": {"input": 10, "output": 10}}
    place.job(request={"model": MIXED}, pricing={"m-1": None, "catalogue": "prices.json", **job_price})
    done = place.run("--json")
    assert done.code == 0, done.err
    rows = place.records()
    assert [row["price_source"] for row in rows] == SOURCES
    assert [None if row["cost_usd"] is None else Decimal(repr(row["cost_usd"])) for row in rows] == COSTS
    total = sum((cost for cost in COSTS if cost is not None), Decimal(0))
    log = (place.run_root / "run.log").read_text()
    # m-1 has no price but what the server tells, and is said so; once each
    for name in ("m-1", "nobody"):
        assert done.err.count(f"no price is known for {name}:") == 0  # --json is silent
        assert log.count(f"no price is known for {name}:") == 1

    told = done.json["totals"]
    assert (Decimal(told["cost_usd"]), told["unknown_exchanges"]) == (total, 1)
    status = json.loads(place.call("status", "runs/trial", "--json").out)["totals"]
    assert (Decimal(status["cost_usd"]), status["unknown_exchanges"]) == (total, 1)
    bill = json.loads(place.call("cost", "runs/trial", "--by", "price_source", "--json").out)
    assert (Decimal(bill["total"]["cost_usd"]), bill["total"]["unknown_exchanges"]) == (total, 1)
    by_source = {line["key"]["price_source"]: Decimal(line["cost_usd"]) for line in bill["lines"]}
    told_by = {"server": Decimal("0.001017000001"), "catalogue": Decimal("0.05615"), None: Decimal(0)}
    assert by_source == told_by | {"list": LISTED_USD, "job": Decimal("0.0011")}
    exported = [json.loads(line) for line in place.call("export", "runs/trial").out.split("\n") if line]
    as_csv = list(csv.DictReader(io.StringIO(place.call("export", "runs/trial", "-f", "csv").out)))
    for lines in (exported, as_csv):
        costs = [line["cost_usd"] for line in lines]
        assert [None if cost in (None, "") else Decimal(str(cost)) for cost in costs] == COSTS
        assert [line["price_source"] or None for line in lines] == SOURCES
    frame = runner.read_results(place.run_root)
    assert sum(Decimal(repr(cost)) for cost in frame["total_usd"].dropna()) == total


def test_a_list_price_is_said_to_be_an_estimate_where_the_endpoint_is_another_s(place: Place) -> None:
    place.job(request={"model": "gpt-4.1-mini"}, pricing={"m-1": None})
    for done in (place.call("check", "job.yaml"), place.run()):
        assert done.code == 0, done.err
        assert (done.out + done.err).count(
            "public list price of openai/gpt-4.1-mini, an estimate at this endpoint"
        ) == 1
    assert "an estimate" not in place.run().err  # nothing is left to be priced
    (entry,) = prices_of(place)["gpt-4.1-mini"]
    assert (entry["source"], entry["estimate"], entry["as_of"][:13]) == ("list", True, "genai-prices ")
    assert {row["price_source"] for row in place.records()} == {"list"}


def prices_of(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place.run_root / "run.json").read_bytes())["prices"]
    return found


def without_since(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in entry.items() if name != "since"} for entry in entries]


def test_run_json_keeps_every_price_that_the_run_has_used(place: Place) -> None:
    quota = refused(429, "You exceeded your current quota.", "insufficient_quota")
    place.endpoint.answer = lambda seen: ok() if len(place.endpoint.seen) % 3 else quota
    place.job(pricing={"m-1": {"input": 1, "output": 2}, "factor": 0.5}, limits={"concurrency": 1})
    assert place.run().code == 3
    first = prices_of(place)["m-1"]
    by_job = {"source": "job", "matched": "m-1", "as_of": None}
    assert without_since(first) == [{**by_job, "input": "0.5", "cached_input": "0.25", "output": "1"}]
    assert place.run().code == 3  # the same prices
    assert prices_of(place)["m-1"] == first
    catalogue(place, **{"m-1": {"input": 3, "output": 4}})
    place.job(pricing={"m-1": None, "catalogue": "prices.json"}, limits={"concurrency": 1})
    assert place.run().code == 0
    second = prices_of(place)["m-1"]
    assert second[0] == first[0]
    of_file = {"source": "catalogue", "matched": "m-1", "as_of": "2026-11-20T10:00:00Z"}
    assert without_since(second[1:]) == [{**of_file, "input": "3", "output": "4"}]
    assert second[0]["since"] < second[1]["since"]
    assert [row["price_source"] for row in place.records()] == ["job"] * 4 + ["catalogue"] * 2
    place.job(pricing={"m-1": {"input": 9, "output": 9}})
    assert place.run().code == 0  # nothing is left to send, so nothing is priced
    assert prices_of(place)["m-1"] == second


def test_the_tier_that_was_used_is_the_one_that_is_paid(place: Place) -> None:
    used = ["flex", "default", None, "priority", "flex", "auto"]

    def answer(seen: Seen) -> Said:
        said = ok()
        tier = used[int(seen.text.removeprefix("say row "))]
        return Said(200, said.body | ({"service_tier": tier} if tier else {}))

    place.endpoint.answer = answer
    place.job(request={"service_tier": "flex"}, pricing={"m-1": {"flex": 0.5, "priority": {"input": 4, "output": 16}}})
    assert place.run().code == 0
    plain = Decimal("0.00028")  # 100 x 2 + 10 x 8, in millionths
    costs = [Decimal(repr(row["cost_usd"])) for row in place.records()]
    assert costs == [plain / 2, plain, plain / 2, plain * 2, plain / 2, plain]
    assert place.endpoint.seen[0].body["service_tier"] == "flex"


def test_a_kept_answer_keeps_its_source_over_a_kill(place: Place) -> None:
    """The first answer is cut off; the process dies while the longer one is on its way, which then fails."""
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120, "cost": 0.25}
    place.rows(1)
    place.endpoint.answer = lambda seen: (
        ok(usage=usage, finish="length") if seen.number == 0 else Said(200, {}, {}, 30.0)
    )
    place.job(retry={"on_truncation": {"factor": 2, "max_tokens": 40}}, pricing={"m-1": None})
    life = place.start("run", "job.yaml")
    journal = place.run_root / "journal/00000.jsonl"
    assert until(lambda: place.sent == 2 and b'"line":"attempt"' in journal.read_bytes())
    life.kill()
    place.endpoint.answer = lambda seen: refused(400, "no more")
    assert place.run().code == 1
    (row,) = place.records()
    assert (row["status"], row["cost_usd"], row["price_source"]) == ("truncated", 0.25, "server")
